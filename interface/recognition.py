"""TextRecognition: training and testing of recognisers as a short story over the parts that `TextBase` builds."""

import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object

from dataset.augment import augment, batch_generator
from dataset.charset import read_charset
from dataset.loading import Batch
from interface.base import StopRequested
from interface.checkpoint import write_atomically, write_text
from interface.export_weights import export_weights
from interface.facts import selection
from interface.logger import Progress, finite
from interface.provenance import command, environment
from interface.reading import Examiner, PairSet, WordSet, headline, open_word_sets, reading_score, table
from interface.resume import BEST
from interface.systems.recognizers import RecognizerSystem, Words
from interface.training import Training
from model import model_spec

log = logging.getLogger(__name__)


class TextRecognition(Training):
    """The verbs of the program for recognisers: train from `Training`, test here."""

    results: dict[str, dict[str, Any]] | None = None
    """Of the last report."""

    @property
    def recognizer(self) -> RecognizerSystem:
        """The system by its own type."""
        assert isinstance(self.system, RecognizerSystem), "the registry names a recipe for recognisers"
        return self.system

    def before_building(self) -> None:
        """Refuse test sets that cannot be opened now, not after hours of training."""
        if "TEST.test_data_dir" in self.settings.given:
            self.test_sets(self.config.TEST.test_data_dir)

    def after_building(self) -> None:
        """Say how many labels cannot be learned: they are left out of the loss.

        Raises:
            ValueError: that is all of them.
        """
        reasons: dict[str, list[str]] = {}
        labels = list(self.loader.pairs.labels())
        for label in labels:
            reason = self.recognizer.unusable(label)
            if reason:
                reasons.setdefault(reason, []).append(label)
        count = sum(map(len, reasons.values()))
        if count == len(labels):
            raise ValueError(
                f"none of the {count} training labels has a character of --charset {self.config.MODEL.charset}, or all "
                f"are too long; the first is {labels[0]!r}"
            )
        of = f" of {len(labels)} looked at" if self.loader.pairs.endless else ""
        for reason, found in reasons.items():
            log.warning("%d words%s are left out of the loss, %s, such as %r", len(found), of, reason, found[0])

    def prepare(self, batch: Batch, number: int) -> Words:
        """Each word in HR or in LR, by chance, and changed at random: a function of seed, step and process."""
        train = self.config.TRAIN
        generator = batch_generator(train.seed, self.step, self.rank, number)
        small = torch.rand(len(batch), generator=generator) < train.lr_share
        groups: list[torch.Tensor] = []
        labels: list[str] = []
        for images, chosen in ((batch.images_hr, ~small), (batch.images_lr, small)):
            positions = chosen.nonzero().flatten()
            if len(positions):
                there = positions.to(images.device, non_blocking=True)
                pictures = images[there].to(self.device, non_blocking=True)
                groups.append(augment(pictures, train.augment, generator))
                labels += [batch.labels[position] for position in positions.tolist()]
        return Words(tuple(groups), labels)

    def judge(self) -> tuple[dict[str, float], Sequence[float]]:
        """Read the validation sets."""
        results = self.examine([PairSet(split) for split in self.splits], until_signal=self.world_size == 1)
        return headline(results), reading_score(results)

    def selection_rule(self) -> str:
        """What scores of validations depend on; only scores of one rule can be compared."""
        sets = " ".join(f"{split.name}:{split.fingerprint[:12]}" for split in self.splits)
        return f"validation words {read_charset(self.config.MODEL.charset)} {sets}"

    def examine(self, sets: Sequence[WordSet], *, until_signal: bool = False) -> dict[str, dict[str, Any]]:
        """Results of each set by its name, read in the precision of the run.

        Raises:
            StopRequested: `until_signal` is given and a signal came.
        """
        examiner = Examiner(
            charset=self.recognizer.charset,
            device=self.device,
            bootstrap_samples=self.config.TEST.bootstrap_samples,
            gather=gather_object if self.world_size > 1 else list,
            spell=self.recognizer.reduce,
        )

        def read(images: torch.Tensor) -> list[str]:
            if until_signal and self.stop_requested():
                raise StopRequested
            with self.accelerator.autocast():
                return self.recognizer.read(images)

        was_training = self.system.training
        self.system.eval()
        results = {}
        try:
            with torch.inference_mode():
                for words in sets:
                    with Progress(len(words), unit="word", text=words.name, show=self.rank == 0) as bar:
                        results[words.name] = examiner.run(read, words, bar.advance)
        finally:
            self.system.train(was_training)
        return results

    def test(self) -> int:
        """Read the test sets with the weights of `--resume`."""
        sets = self.test_sets(self.config.TEST.test_data_dir)
        self.build_trained_system()
        self.report(
            sets, weights=self.resume.path if self.resume else None, step=self.resume.step if self.resume else None
        )
        return 0

    def test_sets(self, paths: list[str]) -> list[WordSet]:
        """Open TextZoom and STR sets."""
        return open_word_sets(paths, self.spec, self.config.arch)

    def report(self, sets: list[WordSet], *, weights: Path | None, step: int | None) -> None:
        """Read test sets, show the table, write `report.md` and `report.json`, which holds all readings."""
        log.info("weights=%s step=%s", weights, step)
        self.results = results = self.examine(sets)
        if self.rank:
            return
        spec, where = model_spec(self.config.arch), str(weights) if weights else None
        charset, symbols = self.recognizer.charset, self.recognizer.symbols
        chosen = selection(self.config, None if self.folder else self.resume, weights)
        description = {
            "format": 1,
            "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "command": command(),
            "environment": environment(self.device),
            "system": {
                "arch": spec.name,
                "paper": spec.paper,
                "weights": where,
                "step": step,
            },
            "selection": chosen,
            "protocol": {
                "compared as": f"the {len(charset)} {'kinds of ' if symbols == 'strokes' else ''}{symbols} {charset}",
                "mixed_precision": self.config.TRAIN.mixed_precision,
                "bootstrap_samples": self.config.TEST.bootstrap_samples,
            },
            "sets": results,
        }
        folder, text = self.output_folder("report"), table(results, symbols)
        content = json.dumps(finite(description), ensure_ascii=False, indent=1)
        write_atomically(folder / "report.json", lambda path: write_text(path, content))
        page = f"# {spec.name}, {weights}, step {step}\n\n{text}\n\n{chosen['note']}\n\n`{command()}`\n"
        write_atomically(folder / "report.md", lambda path: write_text(path, page))
        sys.stdout.write(f"{text}\n\nreport: {folder / 'report.md'}\n")
        sys.stdout.flush()
        self.run_log.event("test", step or 0, {**headline(results), "report": str(folder / "report.json")})

    def test_best(self) -> None:
        """After training: the report, and the best weights in a small file for others to use."""
        super().test_best()
        assert self.folder is not None, "claim_folder comes first"
        if self.rank == 0 and (self.folder / BEST).is_file():
            target = self.folder / f"{self.config.arch}.safetensors"
            for earlier in (target, target.with_suffix(".json")):  # of an earlier end of this run
                earlier.unlink(missing_ok=True)
            export_weights(self.folder / BEST, target, tested=headline(self.results) if self.results else {})
            log.info("weights for other programs and runs: %s", target)
