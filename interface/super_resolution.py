"""TextSR: train, test and demo, as short stories over the parts that `TextBase` builds. No method, no layer is named."""

import contextlib
import logging
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dataset.loading import Batch, PairLoader, collate
from interface.base import BEST, LAST, TextBase
from interface.config import Settings
from interface.demo import super_resolve_folder
from interface.evaluation import HR, LR, Split, averages, selection_score, stage_rows
from interface.logger import Progress, pairs
from interface.provenance import command, environment
from interface.report import screen_table, write_report
from interface.state import StopSignals
from interface.visualize import grid, safe_name, save_png, strip, to_uint8
from model.bicubic import enlarge

log = logging.getLogger(__name__)

Results = dict[str, dict[str, Any]]


class TextSR(TextBase):
    """The verbs of the program."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.splits: dict[str, Split] = {}

    def run(self) -> int:
        """Do what the command line asks for; returns the exit code."""
        verbs = {"train": self.train, "test": self.test, "demo": self.demo}
        try:
            return verbs[self.settings.verb]()
        finally:
            self.run_log.close()
            self.accelerator.end_training()

    # Training.

    def train(self) -> int:
        """Train to the last step, or to a signal; then test `best.pth` if the test sets are there."""
        self.build_training()
        with StopSignals() as signals, self._bar() as bar:
            for batches in self.steps_left():
                self.train_step(batches)
                self.after_step(bar)
                if self.stop_requested(signals):
                    self.save(LAST)
                    log.warning("%s at step %d: saved; continue with --resume %s", *self._stop_facts(signals))
                    return 128 + (signals.received or signal.SIGTERM)
        if self.step != self.validated:
            self.validate()
        self.save(LAST)
        log.info("trained %d steps; run folder %s", self.step, self.folder)
        self.test_best()
        return 0

    def build_training(self) -> None:
        """All parts that training needs, restored from `--resume`; refuses what cannot work before any work is done."""
        train = self.config.TRAIN
        self.loader, splits = self.build_training_data()
        self.splits = {split.name: split for split in splits}
        self.evaluator = self.build_evaluator()
        self.build_system(training=True)
        self.build_optimizers()
        seed = train.seed + self.rank  # weights are equal everywhere, dropout is not
        torch.manual_seed(seed)
        self.restore()
        folder = self.claim_folder()
        self.steps_per_epoch = self.loader.batches.batches_per_epoch // train.accumulate
        if not self.steps_per_epoch:
            raise ValueError(f"--accumulate {train.accumulate} is more than the {len(self.loader)} batches of an epoch")
        self.total_steps = train.steps or train.epochs * self.steps_per_epoch
        self.validated = -1
        self.sums: dict[str, Tensor] = {}
        self.since = (time.perf_counter(), self.step)
        log.info(
            "%s: %d trained parameters, %d pairs, validation on %s, %d steps of %d x %d, device %s, run folder %s",
            self.config.arch,
            sum(p.numel() for phase in self.system.phases for p in self.system.params(phase)),
            len(self.loader.pairs),
            ", ".join(f"{split.name} ({len(split.loader.pairs)})" for split in splits),
            self.total_steps,
            train.batch_size * self.world_size,
            train.accumulate,
            self.device,
            folder,
        )
        if train.VAL.select_on == "test":
            log.warning("select_on is test: best.pth is chosen on the test sets, as the published programs do")
        self.run_log.event("start" if not self.step else "resume", self.step, {"command": command()})
        if not self.step:
            self.save(LAST)  # from the first moment on there is something to continue from

    def steps_left(self) -> Iterator[list[Batch]]:
        """The batches of each step that is still to be taken; keeps the position in the data."""
        accumulate = self.config.TRAIN.accumulate
        while self.step < self.total_steps:
            start = self.position
            self.loader.batches.seek(self.epoch, start)
            batches: list[Batch] = []
            for batch in self.loader:
                batches.append(batch)
                if len(batches) == accumulate:
                    self.position = start + self.loader.drawn
                    yield batches
                    if self.step >= self.total_steps:
                        return
                    batches = []
            if self.loader.drawn and self.position == start == 0:
                raise ValueError(f"no step could be taken in epoch {self.epoch}: {len(self.loader.skipped)} samples unreadable")
            self.epoch, self.position = self.epoch + 1, 0

    def train_step(self, batches: list[Batch]) -> None:
        """One step of every optimizer; the gradient is the mean over the batches."""
        rate = self.learning_rate(self.total_steps, len(self.loader.pairs), self.steps_per_epoch)
        for phase, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = rate
            for number, batch in enumerate(batches, start=1):
                last = number == len(batches)
                with contextlib.nullcontext() if last else self.accelerator.no_sync(self.engine):
                    losses = self.engine(batch.to(self.device), phase)
                    total = torch.stack(list(losses.values())).sum()
                    self._refuse_non_finite(total, losses, batch, phase)
                    self.accelerator.backward(total / len(batches))
                self._add({f"{phase}/{name}": value.detach() / len(batches) for name, value in losses.items()})
            self.accelerator.unscale_gradients(optimizer)
            self._add({f"{phase}/grad_norm": self._clip(phase)})
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.rate = rate

    def _refuse_non_finite(self, total: Tensor, losses: dict[str, Tensor], batch: Batch, phase: str) -> None:
        if torch.isfinite(total):
            return
        terms = {name: value.item() for name, value in losses.items()}
        names = [self.loader.pairs.name_of(index) for index in batch.indices.tolist()]
        last = self.folder / LAST if self.folder is not None else LAST
        raise FloatingPointError(
            f"step {self.step}, phase {phase}: the loss is {total.item()}; terms: {pairs(terms)}. The last checkpoint "
            f"is unharmed: {last}. Samples of this batch (numbers as in the LMDB keys): {'; '.join(names)}"
        )

    def _clip(self, phase: str) -> Tensor:
        limit = self.config.TRAIN.clip_grad or float("inf")
        norms = [torch.nn.utils.clip_grad_norm_(group, limit) for group in self.system.clip_groups(phase)]
        return torch.linalg.vector_norm(torch.stack(norms))

    def _add(self, values: dict[str, Tensor]) -> None:
        """Sums stay on the device, so that logging waits for it only once per line."""
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def after_step(self, bar: Progress) -> None:
        """Log, validate and save when it is time."""
        train = self.config.TRAIN
        bar.advance()
        if self.step % train.displayInterval == 0 or self.step == self.total_steps:
            self.log_progress(bar)
        interval = train.VAL.valInterval or self.steps_per_epoch
        if self.step % interval == 0:
            self.validate()
        if self.step % train.saveInterval == 0:
            self.save(LAST)

    def log_progress(self, bar: Progress) -> None:
        """Means since the last line, to the log, `metrics.jsonl` and TensorBoard."""
        now, steps = time.perf_counter(), self.step - self.since[1]
        means = {name: (value / steps).item() for name, value in self.sums.items()}
        terms = {name: value for name, value in means.items() if not name.endswith("/grad_norm")}
        total, speed = sum(terms.values()), steps / max(1e-9, now - self.since[0])
        images = speed * self.config.TRAIN.batch_size * self.config.TRAIN.accumulate * self.world_size
        raw = {name: value / self.system.weights[name.split("/")[-1]] for name, value in terms.items()}
        log.info("step %d/%d loss=%.4g %s lr=%.3g images/s=%.3g", self.step, self.total_steps, total, pairs(means), self.rate, images)
        values = {"loss": total, "lr": self.rate, "images_per_second": images, **means}
        self.run_log.event("train", self.step, {"epoch": self.epoch, **values, "unweighted": raw})
        self.run_log.scalars(self.step, {f"train/{name}": value for name, value in values.items()})
        self.run_log.scalars(self.step, {f"unweighted/{name}": value for name, value in raw.items()})
        bar.note(loss=f"{total:.4g}", lr=f"{self.rate:.2g}")
        self.sums, self.since = {}, (now, self.step)

    def stop_requested(self, signals: StopSignals) -> bool:
        """Whether any process got a signal; all of them agree on the step."""
        if self.world_size == 1:
            return bool(signals.received)
        flag = torch.tensor([float(bool(signals.received))], device=self.device)
        return bool(self.accelerator.reduce(flag, "sum").item())

    def _stop_facts(self, signals: StopSignals) -> tuple[str, int, Path | None]:
        name = signal.Signals(signals.received).name if signals.received else "signal to another process"
        return name, self.step, self.folder

    def _bar(self) -> Progress:
        return Progress(self.total_steps, unit="step", start=self.step, text=self.config.arch, show=self.rank == 0)

    # Evaluation.

    def evaluate(self, splits: dict[str, Split]) -> Results:
        """Results of each data set, in order."""
        results = {}
        for name, split in splits.items():
            with Progress(len(split.loader.pairs), unit="image", text=name, show=self.rank == 0) as bar:
                results[name] = self.evaluator.run(self.system, split, lambda count: bar.advance(count * self.world_size))
        return results

    def validate(self) -> None:
        """Evaluate on the validation sets and keep the best weights in `best.pth`."""
        started = time.perf_counter()
        row = stage_rows(self.system.stages)[-1]
        results = self.evaluate(self.splits)
        published = self.config.TRAIN.VAL.select_on == "test"
        score = self.shared(list(selection_score(results, row, published=published)))
        improved = self.best is None or score > self.best["score"]
        numbers = {
            f"{name}/{reader}/{picture}": 100 * entry["value"]
            for name, result in results.items()
            for reader, by_row in result["accuracy"].items()
            for picture, entry in by_row.items()
        }
        numbers |= {
            f"{name}/{measure}/{picture}": entry["value"]
            for name, result in results.items()
            for measure in ("psnr", "ssim")
            for picture, entry in result[measure].items()
        }
        log.info("validation at step %d: %s%s", self.step, pairs(numbers), " (best so far)" if improved else "")
        self.run_log.event("validation", self.step, {"epoch": self.epoch, **numbers, "best": improved})
        self.run_log.scalars(self.step, {f"validation/{name}": value for name, value in numbers.items()})
        self._show_pictures()
        if improved:
            self.best = {"score": score, "step": self.step}
            self.save(BEST)
        self.validated = self.step
        self.since = (self.since[0] + time.perf_counter() - started, self.since[1])  # speed is that of training

    def _show_pictures(self) -> None:
        count = self.config.TRAIN.VAL.n_vis
        if self.rank or not count:
            return
        split = next(iter(self.splits.values()))
        shown = self.pictures(split, list(range(min(count, len(split.loader.pairs)))))
        if shown:
            self.run_log.picture(f"validation/{split.name}", self.step, grid([strip(list(p.values())) for p in shown]))

    def test_best(self) -> None:
        """After training: the report of `best.pth` on the test sets, unless none was named and none is there."""
        paths = self.config.TEST.test_data_dir
        named = {"TEST.test_data_dir", "TRAIN.VAL.val_data_dir"} & self.settings.given
        absent = [path for path in paths if not Path(path).exists()]
        if absent and not named:
            log.info("no test sets at %s; to test: --go_test --resume %s --test_data_dir ...", absent[0], self.folder)
            return
        step = self.load_best()
        self.report(self.build_splits(paths), weights=self.folder / BEST if self.folder else None, step=step)

    def test(self) -> int:
        """Evaluate the weights of `--resume` on the test sets."""
        splits = self.build_splits(self.config.TEST.test_data_dir)
        self.build_trained_system()
        self.evaluator = self.build_evaluator()
        state = self.resume.state if self.resume else None
        self.report(splits, weights=self.resume.path if self.resume else None, step=state["step"] if state else None)
        return 0

    def build_trained_system(self) -> None:
        """The system with the weights of `--resume`.

        Raises:
            ValueError: there are none, although the network has some.
        """
        self.build_system(training=False)
        if self.resume is None and next(self.system.parameters(), None) is not None:
            raise ValueError(
                f"--arch {self.config.arch} would be evaluated with random weights; name trained ones with --resume"
            )
        self.system.eval()

    def report(self, splits: list[Split], *, weights: Path | None, step: int | None) -> None:
        """Evaluate, show the table, write the report and, with `--vis`, the pictures."""
        self.splits = {split.name: split for split in splits}
        results = self.evaluate(self.splits)
        if self.rank:
            return
        report = self.describe(results, weights, step)
        folder = self._report_folder()
        by_name = self.splits

        def pictures(name: str, positions: list[int]) -> list[dict[str, np.ndarray]]:
            indices = [results[name]["per_image"]["index"][position] for position in positions]
            return self.pictures(by_name[name], indices)

        written = write_report(folder, report, pictures, self.config.TEST.cases)
        sys.stdout.write(screen_table(report) + "\n")
        sys.stdout.flush()
        self.run_log.event("test", step or 0, {"average": report["average"], "report": str(written["json"])})
        if self.config.TRAIN.VAL.vis:
            self.write_pictures(folder / "vis", results)
        log.info("report: %s", written["html"])

    def describe(self, results: Results, weights: Path | None, step: int | None) -> dict[str, Any]:
        """The report as one dict; see `interface.report`."""
        test, val = self.config.TEST, self.config.TRAIN.VAL
        trained = self.resume.state["config"]["TRAIN"]["VAL"] if self.resume and self.resume.state else val
        on_test = trained["select_on"] == "test" or bool(
            {Path(p).resolve() for p in trained["val_data_dir"]} & {Path(p).resolve() for p in test.test_data_dir}
        )
        note = "best.pth was chosen on the test sets, as the published programs do: the result is optimistic."
        if not on_test:
            note = "Weights were chosen on validation data that is not part of these test sets."
        if self.resume is not None and self.resume.state is None:
            note = "Published weights: how they were chosen is not recorded in the file."
        if weights is None:
            note = "No trained weights: there was nothing to choose."
        return {
            "format": 1,
            "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "command": command(),
            "environment": environment(self.device),
            "system": {
                "arch": self.config.arch,
                "stages": self.system.stages,
                "weights": str(weights) if weights else None,
                "step": step,
            },
            "selection": {"on": "test" if on_test and weights else "validation", "note": note},
            "protocol": {
                "compared as": "lower-case letters and digits",
                "psnr_batch_size": test.psnr_batch_size,
                "bootstrap_samples": test.bootstrap_samples,
                "mixed_precision": self.config.TRAIN.mixed_precision,
            },
            "readers": {
                reader.name: {"fingerprint": reader.fingerprint, "description": reader.description}
                for reader in self.evaluator.readers
            },
            "rows": [LR, "bicubic", *stage_rows(self.system.stages), HR],
            "splits": results,
            "average": averages(results),
        }

    def _report_folder(self) -> Path:
        base = self.folder or (self.resume.folder if self.resume else Path(self.config.TRAIN.ckpt_dir) / self.config.arch)
        return free_folder(Path(self.config.TEST.report_dir or base / f"report-{time.strftime('%Y%m%d-%H%M%S')}"))

    def pictures(self, split: Split, indices: list[int]) -> list[dict[str, np.ndarray]]:
        """LR, bicubic, every stage and HR of some samples, (H, W, 3) uint8 each."""
        if not indices:
            return []
        batch = collate(split.loader.pairs.__getitems__(indices)).to(self.device)
        if not len(batch):
            return []
        was_training = self.system.training
        self.system.eval()
        with torch.inference_mode(), self.accelerator.autocast():
            stages = self.system.cascade(batch.images_lr)
        self.system.train(was_training)
        scale = self.config.TRAIN.down_sample_scale
        rows = {LR: batch.images_lr, "bicubic": enlarge(batch.images_lr, scale)}
        rows |= dict(zip(stage_rows(len(stages)), stages, strict=True)) | {HR: batch.images_hr}
        arrays = {name: to_uint8(images) for name, images in rows.items()}
        return [{name: array[number] for name, array in arrays.items()} for number in range(len(batch))]

    def write_pictures(self, folder: Path, results: Results) -> None:
        """`--vis`: every picture by itself, and LR, SR and HR one above the other with what was read in the name."""
        for name, result in results.items():
            target = folder / name
            target.mkdir(parents=True, exist_ok=True)
            images = result["per_image"]
            reader = next(iter(images["readings"].values()), {})
            last = stage_rows(self.system.stages)[-1]
            for start in range(0, len(images["index"]), 64):
                indices = images["index"][start : start + 64]
                for offset, shown in enumerate(self.pictures(self.splits[name], indices)):
                    position = start + offset
                    label = images["label"][position]
                    texts = [reader[row][position] for row in (LR, last, HR)] if reader else []
                    stem = safe_name(position, label)
                    save_png(target / f"{safe_name(position, '_'.join([*texts, label.lower()]))}.png", strip([shown[LR], shown[last], shown[HR]]))
                    for row, kind in ((LR, "lr"), (last, "sr"), (HR, "hr")):
                        save_png(target / f"{stem}_{kind}.png", shown[row])

    # Demo.

    def demo(self) -> int:
        """Super-resolve the pictures of `--demo_dir`."""
        self.build_trained_system()
        self.evaluator = self.build_evaluator()
        base = self.resume.folder if self.resume else Path(self.config.TRAIN.ckpt_dir) / self.config.arch
        target = free_folder(Path(self.config.TEST.report_dir or base / f"demo-{time.strftime('%Y%m%d-%H%M%S')}"))
        if self.rank == 0:
            super_resolve_folder(self, Path(self.config.TEST.demo_dir), target)
        return 0


def free_folder(folder: Path) -> Path:
    """`folder`, or the first of `folder-2`, `folder-3`, ... that is not there or empty; created."""
    number, candidate = 1, folder
    while candidate.exists() and any(candidate.iterdir()):
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    candidate.mkdir(parents=True, exist_ok=True)
    return candidate


__all__ = ["PairLoader", "TextSR", "free_folder"]
