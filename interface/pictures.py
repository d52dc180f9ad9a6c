"""Pictures of chosen samples: LR, bicubic, every stage, HR; for reports, TensorBoard and `--vis`."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataset.loading import WordPairs, collate
from interface.evaluation import BICUBIC, HR, LR, stage_rows
from interface.systems import System
from interface.visualize import safe_name, save_png, strip, to_uint8
from model.bicubic import enlarge

CHUNK = 64  # pictures at a time

Pictures = dict[str, np.ndarray]


class Artist:
    """Draws what a system makes of samples.

    Args:
        system: its weights of the moment are used.
        device: where it runs.
        autocast: context manager factory with the precision of the run.
    """

    def __init__(self, system: System, device: torch.device, autocast: Any) -> None:
        self.system, self.device, self.autocast = system, device, autocast

    def draw(self, pairs: WordPairs, indices: list[int]) -> list[Pictures]:
        """{"lr", "bicubic", "sr_1", ..., "hr": (H, W, 3) uint8} for each sample that can be read."""
        batch = collate(pairs.__getitems__(indices)).to(self.device) if indices else None
        if batch is None or not len(batch):
            return []
        was_training = self.system.training
        self.system.eval()
        with torch.inference_mode(), self.autocast():
            stages = self.system.cascade(batch.images_lr)
        self.system.train(was_training)
        rows = {LR: batch.images_lr, BICUBIC: enlarge(batch.images_lr, pairs.scale)}
        rows |= dict(zip(stage_rows(len(stages)), stages, strict=True)) | {HR: batch.images_hr}
        arrays = {name: to_uint8(images) for name, images in rows.items()}
        return [{name: array[number] for name, array in arrays.items()} for number in range(len(batch))]

    def write(self, folder: Path, pairs: WordPairs, images: dict[str, Any]) -> None:
        """`--vis`: LR, SR and HR of every sample, and the three one above the other with what was read as its name.

        Args:
            folder: created.
            pairs: the data set.
            images: `per_image` of its results.
        """
        folder.mkdir(parents=True, exist_ok=True)
        readings: dict[str, list[str]] = next(iter(images["readings"].values()), {})
        last = stage_rows(self.system.stages)[-1]
        for start in range(0, len(images["index"]), CHUNK):
            shown = self.draw(pairs, images["index"][start : start + CHUNK])
            for position, picture in enumerate(shown, start):
                label = images["label"][position]
                read = [readings[row][position] for row in (LR, last, HR)] if readings else []
                name = safe_name(position, "_".join([*read, label.lower()]))
                save_png(folder / f"{name}.png", strip([picture[LR], picture[last], picture[HR]]))
                for row, kind in ((LR, "lr"), (last, "sr"), (HR, "hr")):
                    save_png(folder / f"{safe_name(position, label)}_{kind}.png", picture[row])
