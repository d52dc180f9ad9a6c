"""The STR protocol: how well words are read in photos, and in these photos reduced to small sizes and enlarged again.

The sizes are those of TextSR, https://arxiv.org/abs/1909.07113, whose README has the results of the sweep. Its code was
never published; where nothing is known about it, this holds:

- A photo is reduced with Pillow's bicubic filter and rounded to 8 bits; the aspect ratio is not kept. Photos that are
  smaller than a size are enlarged to it, and counted.
- A network that takes pictures of all these sizes gets the reduced picture as it is ("direct"); others get it resized
  to the LR size they were built for, again bicubic in 8 bits ("resized").
- The baseline is the reduced picture, bicubically enlarged in one step to the size that the system's picture has.
- Recognisers resize what they get as they always do. The photo itself they get in the size of their own protocol.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dataset.loading import OrderedBatches, Skipped
from dataset.str_sets import Preparation, Size, StrSet, WordPhoto, read_batches
from interface.evaluation import BICUBIC, LR, Evaluator, Record, cascade, summarise_readings
from interface.metrics import summary
from interface.readers import Answer, Reader
from interface.systems.base import System

log = logging.getLogger(__name__)

PHOTO, SR = "photo", "sr"
SIZES: tuple[Size, ...] = ((128, 32), (64, 16), (32, 8), (24, 6), (20, 5))
PUBLISHED_SCALE = 4  # of TextSR's generator: 32x8 becomes 128x32
AUTO, DIRECT, RESIZED = "auto", "direct", "resized"

# (width, height) in which a recogniser's own papers give it photos; None: their own size, whose aspect ratio it keeps.
PHOTO_SIZES: dict[str, Size | None] = {
    "CRNN": (100, 32),  # https://arxiv.org/abs/1507.05717
    "MORAN": (100, 32),  # https://arxiv.org/abs/1901.03003
    "ASTER": (256, 64),  # https://doi.org/10.1109/TPAMI.2018.2848939
    "PPOCR": None,
}
USUAL_PHOTO_SIZE: Size = (128, 32)
OWN = "its own"


def size_name(size: Size) -> str:
    """`32x8`: width x height in pixels."""
    return f"{size[0]}x{size[1]}"


def row_name(kind: str, size: Size) -> str:
    """Name of a row of the report: `lr_32x8`, `bicubic_32x8`, `sr_32x8`."""
    return f"{kind}_{size_name(size)}"


def as_images(planes: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """N (C, H, W) uint8 planes -> (N, C, H, W) float32 in [0, 1], channels together in memory."""
    images = torch.from_numpy(np.stack(planes)).to(torch.float32) / 255
    return images.to(device, memory_format=torch.channels_last)


def gains(after: Sequence[str], before: Sequence[str], target: Sequence[str]) -> list[float]:
    """1 where only the reading after is right, -1 where only that before is, else 0."""
    read = zip(after, before, target, strict=True)
    return [float(one == wanted) - float(other == wanted) for one, other, wanted in read]


def takes(system: System, size: Size, *, channels: int, scale: int, device: torch.device) -> bool:
    """Whether a system super-resolves pictures of this size to `scale` times of it."""
    width, height = size
    try:
        with torch.inference_mode():
            result = system.super_resolve(torch.zeros(2, channels, height, width, device=device))
    except torch.OutOfMemoryError:
        raise
    except (ValueError, RuntimeError, IndexError, AssertionError) as error:
        log.info("the network does not take pictures of %s: %s", size_name(size), error)
        return False
    return tuple(result.shape[-2:]) == (scale * height, scale * width)


@dataclass
class StrProtocol:
    """Evaluates a system, or bicubic enlargement alone, on STR sets.

    Attributes:
        evaluator: its readers, cache of readings, device, precision and bootstrap.
        system: in evaluation mode; None: bicubic alone.
        scale: the magnification.
        size_lr: (width, height) that the system was built for.
        sizes: what photos are reduced to.
        network_input: "direct", "resized" or "auto": direct if the system takes all the sizes.
        mask: the system takes the text mask as a fourth plane.
        batch_size: pictures at a time; results do not depend on it.
        threads: that decode; 0: none beside this one.
        rank, world_size: which share of the pictures this process reads.
    """

    evaluator: Evaluator
    system: System | None
    scale: int
    size_lr: Size
    sizes: tuple[Size, ...] = SIZES
    network_input: str = AUTO
    mask: bool = False
    batch_size: int = 48
    threads: int = 0
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.network_input == AUTO:
            self.network_input = DIRECT if all(map(self._takes, self.sizes)) else RESIZED
        elif self.network_input == DIRECT:
            refused = [size_name(size) for size in self.sizes if not self._takes(size)]
            if refused:
                raise ValueError(
                    f"the network does not take pictures of {', '.join(refused)} pixels; use --input resized, which "
                    f"brings them to {size_name(self.size_lr)} first"
                )
        self.photo_sizes = {
            reader.name: PHOTO_SIZES.get(reader.name, USUAL_PHOTO_SIZE) for reader in self.evaluator.readers
        }
        self.wanted = Preparation(
            photo_sizes=tuple(dict.fromkeys(self.photo_sizes.values())),
            sizes=self.sizes,
            input_size=self.size_lr if self.network_input == RESIZED else None,
            mask=self.mask and self.system is not None,
        )

    def _takes(self, size: Size) -> bool:
        channels = 4 if self.mask else 3
        return self.system is None or takes(
            self.system, size, channels=channels, scale=self.scale, device=self.evaluator.device
        )

    def output_size(self, size: Size) -> Size:
        """(width, height) of the enlarged picture."""
        width, height = self.wanted.input_size or size
        return self.scale * width, self.scale * height

    @property
    def kinds(self) -> list[str]:
        """What is read at each size."""
        return [LR, BICUBIC] if self.system is None else [LR, BICUBIC, SR]

    @property
    def rows(self) -> list[str]:
        """All rows of the report, in order."""
        return [PHOTO, *(row_name(kind, size) for size in self.sizes for kind in self.kinds)]

    def description(self) -> dict[str, Any]:
        """How pictures are made, for the report."""
        return {
            "sizes": [size_name(size) for size in self.sizes],
            "scale": self.scale,
            "network input": self.network_input if self.system is not None else None,
            "enlarged to": {size_name(size): size_name(self.output_size(size)) for size in self.sizes},
            "photo size": {name: size_name(size) if size else OWN for name, size in self.photo_sizes.items()},
            "compared as": "lower-case letters and digits",
            "bootstrap_samples": self.evaluator.bootstrap_samples,
        }

    def run(self, data: StrSet, progress: Callable[[int], None] | None = None) -> dict[str, Any]:
        """Evaluate on one set.

        Args:
            data: the set.
            progress: called with the number of pictures after each batch.

        Returns:
            The entry of this set in the report: numbers with intervals, and all readings.

        Raises:
            ValueError: none of its pictures can be read.
        """
        fingerprint = f"{data.fingerprint()}-str"
        cache, places = self.evaluator.cache, self._kept_rows()
        kept = {
            (reader.name, row): cache.load(reader, fingerprint, places[reader.name, row]) or {}
            for reader in self.evaluator.readers
            for row in self.rows
            if (reader.name, row) in places
        }
        batches = OrderedBatches(len(data), self.batch_size, self.rank, self.world_size)
        records: list[Record] = []
        skipped: list[str] = []
        for samples in read_batches(data, self.wanted, batches, threads=self.threads):
            photos = [sample for sample in samples if isinstance(sample, WordPhoto)]
            skipped += [sample.reason for sample in samples if isinstance(sample, Skipped)]
            if photos:
                records += self._records(photos, kept)
            if progress is not None:
                progress(len(samples))
        for reason in skipped:
            log.warning("skipped: %s", reason)
        gather = self.evaluator.gather
        records = sorted(gather(records), key=lambda record: record["index"])
        if not records:
            raise ValueError(f"{data.path}: no picture of it can be read; there is nothing to evaluate")
        for reader in self.evaluator.readers:
            for row in self.rows:
                known = kept.get((reader.name, row))
                read = {record["index"]: record["readings"][reader.name, row] for record in records}
                if self.rank == 0 and known is not None and not read.keys() <= known.keys():
                    cache.store(reader, fingerprint, places[reader.name, row], {**known, **read})
        return {
            "path": str(data.path),
            "fingerprint": fingerprint,
            "images": len(records),
            "skipped": sum(gather([len(skipped)])),
            "stored": data.stored,
            "count": asdict(count) if (count := data.count()) else None,
            **self.summarise(records),
        }

    def _kept_rows(self) -> dict[tuple[str, str], str]:
        """Under which name readings are kept that no training changes, by reader and row."""
        names = {}
        for reader in self.evaluator.readers:
            photo = self.photo_sizes[reader.name]
            names[reader.name, PHOTO] = f"{PHOTO}_{size_name(photo) if photo else 'own'}"
            for size in self.sizes:
                names[reader.name, row_name(LR, size)] = row_name(LR, size)
                output = size_name(self.output_size(size))
                names[reader.name, row_name(BICUBIC, size)] = f"{row_name(BICUBIC, size)}_to_{output}"
        return names

    def _records(self, photos: list[WordPhoto], kept: dict[tuple[str, str], dict[int, Answer]]) -> list[Record]:
        indices = [photo.index for photo in photos]
        readings = {
            key: [known[index] for index in indices]
            for key, known in kept.items()
            if all(index in known for index in indices)
        }
        with torch.inference_mode():
            for reader in self.evaluator.readers:
                if (reader.name, PHOTO) not in readings:
                    readings[reader.name, PHOTO] = self._read_photos(reader, photos)
            for size in self.sizes:
                for kind in self.kinds:
                    row = row_name(kind, size)
                    waiting = [reader for reader in self.evaluator.readers if (reader.name, row) not in readings]
                    if waiting:
                        picture = self._picture(kind, size, photos)  # made once for all readers
                        readings |= {(reader.name, row): reader.read(picture) for reader in waiting}
        return [
            {
                "index": photo.index,
                "label": photo.label,
                "size": photo.size,
                "readings": {key: answers[position] for key, answers in readings.items()},
            }
            for position, photo in enumerate(photos)
        ]

    def _picture(self, kind: str, size: Size, photos: list[WordPhoto]) -> Tensor:
        """What is read at one size: (N, >=3, H, W) in [0, 1], enlarged ones not clamped."""
        device = self.evaluator.device
        if kind == SR:
            assert self.system is not None, "without a system there is no such row"
            inputs = as_images([photo.inputs[size] for photo in photos], device)
            with self.evaluator.autocast():
                result = cascade(self.system, inputs, self.evaluator.replays)[-1]
            return result.float()
        reduced = as_images([photo.reduced[size] for photo in photos], device)
        if kind == LR:
            return reduced
        width, height = self.output_size(size)
        # With antialias PyTorch takes Pillow's kernel, as `model.bicubic.enlarge` does.
        return F.interpolate(reduced, (height, width), mode="bicubic", align_corners=False, antialias=True)

    def _read_photos(self, reader: Reader, photos: list[WordPhoto]) -> list[Answer]:
        size, device = self.photo_sizes[reader.name], self.evaluator.device
        if size is None:
            return [reader.read(as_images([photo.photos[size]], device))[0] for photo in photos]
        return reader.read(as_images([photo.photos[size] for photo in photos], device))

    def summarise(self, records: list[Record]) -> dict[str, Any]:
        """Numbers with intervals, and the lists of values per image that they come from."""
        samples = self.evaluator.bootstrap_samples
        read = summarise_readings(records, [reader.name for reader in self.evaluator.readers], self.rows, samples)
        target = read.per_image["target"]
        difference: dict[str, dict[str, Any]] = {}
        for reader, texts in read.per_image["readings"].items() if self.system is not None else ():
            difference[reader] = {
                size_name(size): summary(
                    gains(texts[row_name(SR, size)], texts[row_name(BICUBIC, size)], target), samples
                )
                for size in self.sizes
            }
        sizes = [record["size"] for record in records]
        return {
            "smaller": {
                size_name((width, height)): sum(own[0] < width or own[1] < height for own in sizes)
                for width, height in self.sizes
            },
            "accuracy": read.accuracy,
            "character_accuracy": read.character_accuracy,
            "difference": difference,
            # Nothing is compared with HR here; other parts of the program find the measures empty.
            **{measure: {} for measure in ("psnr", "ssim", "psnr_batch", "ssim_batch")},
            "per_image": {
                "index": [record["index"] for record in records],
                "size": [size_name(size) for size in sizes],
                **read.per_image,
                "psnr": {},
                "ssim": {},
            },
        }
