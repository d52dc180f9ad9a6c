"""TextSR: training, testing and trying as a short story over the parts that `TextBase` builds; no method is named."""

import logging
import os
from collections.abc import Sequence

from interface.data import named_splits, target_cache
from interface.evaluating import Evaluating, headline_numbers
from interface.evaluation import Split, selection_score, stage_rows
from interface.training import Training
from interface.visualize import grid, strip

log = logging.getLogger(__name__)


class TextSR(Evaluating, Training):
    """The verbs of the program for super-resolution: train from `Training`, test and demo from `Evaluating`."""

    def before_building(self) -> None:
        """The recognisers of `--test_model`.

        Raises:
            ValueError: the file of `--onnx` was named, which cannot be trained.
        """
        if self.config.TEST.onnx:
            raise ValueError(f"--onnx {self.config.TEST.onnx} is for --demo alone, and cannot be trained; leave it out")
        self.evaluator = self.build_evaluator()

    def after_building(self) -> None:
        """Where the system keeps what its frozen networks make of the training pictures."""
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        self.system.targets = target_cache(self.config, self.loader.pairs, self.spec, processes=processes)
        if self.config.TRAIN.VAL.select_on == "test":
            log.warning("select_on is test: best.pth is chosen on the test sets, as the published programs do")

    def judge(self) -> tuple[dict[str, float], Sequence[float]]:
        """Super-resolve and read the validation sets."""
        results = self.evaluate(self.splits, until_signal=self.world_size == 1)
        self.evaluator.replays.forget()  # training steps want the memory
        row, published = stage_rows(self.system.stages)[-1], self.config.TRAIN.VAL.select_on == "test"
        return headline_numbers(results), selection_score(results, row, published=published)

    def show_validation(self) -> None:
        """LR, SR and HR pictures of the first validation set."""
        count = min(self.config.TRAIN.VAL.n_vis, len(self.splits[0].loader.pairs))
        if count and self.rank == 0:
            shown = self.artist().draw(self.splits[0].loader.pairs, list(range(count)))
            sheet = grid([strip(list(pictures.values())) for pictures in shown])
            self.run_log.picture(f"validation/{self.splits[0].name}", self.step, sheet)

    def selection_rule(self) -> str:
        """What scores of validations depend on; only scores of one rule can be compared."""
        reader = self.config.TEST.test_model[0] if self.config.TEST.test_model else "PSNR"
        sets = " ".join(f"{split.name}:{split.fingerprint[:12]}" for split in self.splits)
        return f"{self.config.TRAIN.VAL.select_on} {reader} {sets}"

    def test_sets(self, paths: list[str]) -> list[Split]:
        """Open the test sets."""
        return named_splits(paths, self.spec)
