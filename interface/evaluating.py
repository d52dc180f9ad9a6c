"""Evaluating: what testing and validation share, and the verbs test and demo."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from interface.base import StopRequested, TextBase
from interface.data import named_splits
from interface.demo import load_pictures, super_resolve_folder
from interface.evaluation import Split
from interface.facts import describe
from interface.logger import Progress
from interface.onnx_runtime import open_onnx
from interface.pictures import Artist, Pictures
from interface.report import screen_table, write_report
from interface.str_testing import StrOptions, are_str_sets, run_benchmarks

log = logging.getLogger(__name__)

Results = dict[str, dict[str, Any]]


class Evaluating(TextBase):
    """The parts of a run that read pictures and count."""

    def evaluate(self, splits: list[Split], *, until_signal: bool = False) -> Results:
        """Results of each data set by its name, in order.

        Raises:
            StopRequested: `until_signal` is given and a signal came.
        """

        def advance(bar: Progress) -> Callable[[int], None]:
            def count(images: int) -> None:
                bar.advance(images)
                if until_signal and self.stop_requested():
                    raise StopRequested

            return count

        results = {}
        for split in splits:
            with Progress(len(split.loader.pairs), unit="image", text=split.name, show=self.rank == 0) as bar:
                results[split.name] = self.evaluator.run(self.system, split, advance(bar))
        return results

    def artist(self) -> Artist:
        """Draws what the system makes of samples."""
        return Artist(self.system, self.device, self.accelerator.autocast)

    def test(self) -> int:
        """Evaluate the weights of `--resume` on the test sets: TextZoom's, or photos of the recognition benchmarks.

        Raises:
            ValueError: something cannot be tested; the message says what would have to be otherwise.
        """
        if self.config.TEST.onnx:
            raise ValueError(f"--onnx {self.config.TEST.onnx}: a test wants every stage; name the run with --resume")
        if not self.config.TRAIN.syn and are_str_sets(self.config.TEST.test_data_dir):
            run_benchmarks(self, StrOptions())
            return 0
        splits = named_splits(self.config.TEST.test_data_dir, self.spec)
        self.build_trained_system()
        self.evaluator = self.build_evaluator()
        self.report(
            splits, weights=self.resume.path if self.resume else None, step=self.resume.step if self.resume else None
        )
        return 0

    def report(self, splits: list[Split], *, weights: Path | None, step: int | None) -> None:
        """Evaluate, show the table, write the report and, with `--vis`, the pictures."""
        if weights is not None:
            log.info("weights=%s step=%s", weights, step)
        log.info("testing on %s", ", ".join(f"{split.name} ({len(split.loader.pairs)} pictures)" for split in splits))
        results = self.evaluate(splits)
        if self.rank:
            return
        report = describe(
            self.config,
            results=results,
            readers=self.evaluator.readers,
            stages=self.system.stages,
            device=self.device,
            weights=weights,
            step=step,
            resume=None if self.folder else self.resume,  # a training run chose its weights itself
        )
        data = {split.name: split.loader.pairs for split in splits}
        artist = self.artist()

        def pictures(name: str, positions: list[int]) -> list[Pictures]:
            indices = results[name]["per_image"]["index"]
            return artist.draw(data[name], [indices[position] for position in positions])

        folder = self.output_folder("report")
        written = write_report(folder, report, pictures, self.config.TEST.cases)
        sys.stdout.write(screen_table(report) + "\n")
        sys.stdout.flush()
        self.run_log.event("test", step or 0, {"average": report["average"], "report": str(written["json"])})
        if self.config.TRAIN.VAL.vis:
            for name, result in results.items():
                artist.write(folder / "vis" / name, data[name], result["per_image"])

    def demo(self) -> int:
        """Super-resolve the pictures of `--demo_dir`."""
        path = None
        if self.config.TEST.onnx:
            path = open_onnx(self.config, self.spec, self.device, self.accelerator.mixed_precision)
        else:
            self.build_trained_system()
        self.evaluator = self.build_evaluator()
        if self.rank == 0:
            pictures = load_pictures(Path(self.config.TEST.demo_dir), self.spec)
            target = self.output_folder("demo")
            super_resolve_folder(pictures, target, path or self.system, self.evaluator, self.spec.scale)
        return 0


def headline_numbers(results: Results) -> dict[str, float]:
    """`set/reader/row` in %, `set/psnr/row` in dB and `set/ssim/row`, for logs."""
    numbers: dict[str, float] = {}
    for name, result in results.items():
        for reader, by_row in result["accuracy"].items():
            numbers |= {f"{name}/{reader}/{row}": 100 * entry["value"] for row, entry in by_row.items()}
        for measure in ("psnr", "ssim"):
            numbers |= {f"{name}/{measure}/{row}": entry["value"] for row, entry in result[measure].items()}
    return numbers
