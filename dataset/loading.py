"""Word pairs -> batches: resized once and kept as uint8, drawn by `EpochBatches`, corrupt samples left out.

They come from TextZoom LMDBs, or are rendered when they are asked for, others in each epoch (`dataset.rendered`).

`build_loader` is the only place where a DataLoader is made.
"""

import hashlib
import logging
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dataset.charset import canonical, filter_text
from dataset.rendered import RenderedWords
from dataset.rendering.glyphs import forget_font_files
from dataset.sampler import EpochBatches
from dataset.textzoom import CorruptSampleError, DataError, TextZoomLMDB
from dataset.transforms import resize_planes

log = logging.getLogger(__name__)

DEVICE_SHARE = 0.25  # of the free memory of a device, the most that pictures take there
LOOKED_AT = 10_000  # rendered words whose labels are looked at before they are trained on


@dataclass(frozen=True)
class Sample:
    """One pair, resized: uint8 planes (C, H, W), the filtered label, its number in the data set."""

    hr: np.ndarray
    lr: np.ndarray
    label: str
    index: int


@dataclass(frozen=True)
class Skipped:
    """A sample that could not be read, and why."""

    index: int
    reason: str


@dataclass(frozen=True)
class Batch:
    """N pairs.

    Attributes:
        images_hr: (N, C, H, W) float32 in [0, 1], all multiples of 1/255; C is 3 (RGB) or 4 (RGB and text mask).
        images_lr: (N, C, H/scale, W/scale), likewise.
        labels: N strings, filtered by the vocabulary of the run, in their own case.
        indices: (N,) int64 sample numbers in the data set.
        skipped: samples of this batch that could not be read; they are not among the N.
    """

    images_hr: Tensor
    images_lr: Tensor
    labels: list[str]
    indices: Tensor
    skipped: tuple[Skipped, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "Batch":
        """A copy with its pictures on another device, channels together in memory, as convolutions like them."""

        def moved(images: Tensor) -> Tensor:
            return images.to(device, non_blocking=True, memory_format=torch.channels_last)

        return replace(self, images_hr=moved(self.images_hr), images_lr=moved(self.images_lr))

    def pin_memory(self) -> "Batch":
        """A copy with its pictures in page-locked memory; the DataLoader calls it."""
        return replace(self, images_hr=self.images_hr.pin_memory(), images_lr=self.images_lr.pin_memory())


def collate(samples: Sequence[Sample | Skipped]) -> Batch:
    """Stack resized pairs into a `Batch`; what could not be read is only listed."""
    good = [sample for sample in samples if isinstance(sample, Sample)]
    skipped = tuple(sample for sample in samples if isinstance(sample, Skipped))
    if not good:
        empty = torch.empty(0, 0, 0, 0)  # four axes, as `Batch.to` asks for
        return Batch(empty, empty, [], torch.empty(0, dtype=torch.long), skipped)

    def stack(planes: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(planes)).to(torch.float32) / 255

    return Batch(
        images_hr=stack([sample.hr for sample in good]),
        images_lr=stack([sample.lr for sample in good]),
        labels=[sample.label for sample in good],
        indices=torch.tensor([sample.index for sample in good], dtype=torch.long),
        skipped=skipped,
    )


class PairSource(Protocol):
    """Where pairs come from: `TextZoomLMDB` or `RenderedWords`."""

    @property
    def path(self) -> Any:
        """Where it lies, or what it is."""

    def __len__(self) -> int: ...

    def pair(self, index: int) -> tuple[Image.Image, Image.Image, str]:
        """HR, LR and label of a sample."""

    def label(self, index: int) -> str:
        """The label alone, which costs little."""

    def name(self, index: int) -> str:
        """What a sample is called in messages."""

    def fingerprint(self) -> str:
        """Of the content."""


class WordPairs(Dataset):
    """Several sources one after the other (or a selection of their samples), each pair resized to the run's sizes.

    Args:
        sources: opened LMDBs, or rendered words that are the same in each epoch.
        stream: rendered words that are others in each epoch, as many as its size; they come last. Sample numbers that
            are greater by a multiple of the length mean those of later epochs. Then nothing is kept in memory.
        width, height: HR size in pixels; LR is that divided by `scale`.
        scale: the magnification.
        mask: append the text mask as a fourth plane.
        voc_type: vocabulary that labels are filtered by; empty leaves them as they are stored.
        cache: keep the resized uint8 planes in memory after the first read (20 kB a pair with mask), so that later
            epochs decode nothing. Then `threads` decode; without it, and where words are rendered, worker processes of
            the DataLoader do, each of which keeps what it has made.
        threads: decoding threads of a cached data set.
        selection: sample numbers to keep, in their order; None keeps all.
        corrupt: "skip" leaves unreadable samples out; "published" puts the sample after next of the same LMDB in their
            place, which then counts twice.
    """

    def __init__(
        self,
        sources: Sequence[PairSource],
        *,
        stream: RenderedWords | None = None,
        width: int = 128,
        height: int = 32,
        scale: int = 2,
        mask: bool = True,
        voc_type: str = "all",
        cache: bool = True,
        threads: int = 1,
        selection: Sequence[int] | None = None,
        corrupt: str = "skip",
    ) -> None:
        self.sources, self.stream, self.corrupt = list(sources), stream, corrupt
        self.offsets = np.cumsum([0, *(len(source) for source in self.sources)])
        self.width, self.height, self.scale, self.mask, self.voc_type = width, height, scale, mask, voc_type
        self.cache, self.threads = cache and stream is None, 1 if self.renders else max(1, threads)
        self.selection = np.arange(self.offsets[-1]) if selection is None else np.asarray(selection, dtype=np.int64)
        self._samples: list[Sample | Skipped | None] = [None] * len(self.selection) if self.cache else []
        # One array for all pictures of a kind: kept one by one, between the batches made of them, they leave holes in
        # memory five times their size. What is never written takes no room.
        kept = (len(self._samples), 4 if mask else 3)
        self._hr = np.empty((*kept, height, width), np.uint8)
        self._lr = np.empty((*kept, height // scale, width // scale), np.uint8)

    def __len__(self) -> int:
        return len(self.selection) + self.endless

    @property
    def endless(self) -> int:
        """How many of its samples are others in each epoch."""
        return len(self.stream) if self.stream is not None else 0

    def size(self) -> str:
        """How many samples it has, in words."""
        anew = f", {self.endless} of them rendered anew in each epoch" if self.endless else ""
        return f"{len(self)} pairs{anew}"

    @property
    def renders(self) -> bool:
        """Whether some of its samples are rendered."""
        return any(isinstance(source, RenderedWords) for source in (*self.sources, self.stream))

    def name_of(self, index: int) -> str:
        """Where a sample lies, for messages."""
        source, local = self._locate(index)
        return source.name(local)

    def _locate(self, index: int) -> tuple[PairSource, int]:
        if self.stream is not None and index >= len(self.selection):
            epoch, position = divmod(index, len(self))
            return self.stream, epoch * self.endless + position - len(self.selection)
        position = int(self.selection[index])
        number = int(np.searchsorted(self.offsets, position, side="right")) - 1
        return self.sources[number], position - int(self.offsets[number])

    def read(self, index: int) -> Sample | Skipped:
        """Read, decode and resize one pair.

        Raises:
            DataError: `corrupt` is "published", and there is no sample after next.
        """
        source, local = self._locate(index)
        while True:
            try:
                image_hr, image_lr, label = source.pair(local)
                break
            except CorruptSampleError as error:
                if self.corrupt == "skip":
                    return Skipped(index, f"{self.name_of(index)}: {error}")
                local += 2
                if local >= len(source):
                    raise DataError(
                        f"{self.name_of(index)}: {error}, and no sample after next can take its place as published; "
                        "set TRAIN.corrupt to skip"
                    ) from error
        size_lr = (self.width // self.scale, self.height // self.scale)
        return Sample(
            hr=resize_planes(image_hr, (self.width, self.height), self.mask),
            lr=resize_planes(image_lr, size_lr, self.mask),
            label=self._filtered(label),
            index=index,
        )

    def __getitem__(self, index: int) -> Sample | Skipped:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample | Skipped]:
        """Several samples at once; the DataLoader asks for a whole batch."""
        if not self.cache:
            return [self.read(index) for index in indices]
        missing = [index for index in dict.fromkeys(indices) if self._samples[index] is None]
        if len(missing) > 1 and self.threads > 1:
            with ThreadPoolExecutor(self.threads) as pool:  # Pillow decodes and resizes without the interpreter lock
                fresh = list(pool.map(self.read, missing))
        else:
            fresh = [self.read(index) for index in missing]
        for index, sample in zip(missing, fresh, strict=True):
            self._samples[index] = self._kept(index, sample)
        return [kept for index in indices if (kept := self._samples[index]) is not None]

    def _kept(self, index: int, sample: Sample | Skipped) -> Sample | Skipped:
        if isinstance(sample, Skipped):
            return sample
        self._hr[index], self._lr[index] = sample.hr, sample.lr
        return replace(sample, hr=self._hr[index], lr=self._lr[index])

    @property
    def complete(self) -> bool:
        """Whether all samples have been read and are kept."""
        return self.cache and all(sample is not None for sample in self._samples)

    def planes(self) -> tuple[np.ndarray, np.ndarray]:
        """The kept pictures, uint8 (samples, C, H, W): HR and LR."""
        return self._hr, self._lr

    def longest_label(self) -> int:
        """Letters and digits of the longest filtered label."""
        return max(len(canonical(label)) for label in self.labels())

    def labels(self) -> Iterator[str]:
        """The filtered labels of all samples in their order, without touching a picture; empty where one is damaged.

        There is no end of rendered words, so those of the first epoch stand for all, and at most `LOOKED_AT`.
        """
        for index in range(len(self.selection) + min(self.endless, LOOKED_AT)):
            source, local = self._locate(index)
            yield self._filtered(source.label(local))

    def _filtered(self, label: str) -> str:
        return filter_text(label, self.voc_type) if self.voc_type else label

    def fingerprint(self) -> str:
        """sha256 of the content of all sources and the selection; readings of its pictures can be cached by it."""
        digest = hashlib.sha256()
        for source in (*self.sources, *([self.stream] if self.stream is not None else [])):
            digest.update(source.fingerprint().encode())
        if len(self.selection) != self.offsets[-1]:
            digest.update(self.selection.tobytes())
        return digest.hexdigest()


def start_worker(number: int) -> None:
    """Make a loader process ready for its work, and for its end."""
    # Ctrl-C and the like go to the whole group, but the training process wants to finish its step, and then ends this
    # one by SIGTERM, to which a process made by fork has the answer of the training process.
    os.setpgrp()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def start_rendering_worker(number: int) -> None:
    """The same for one that renders."""
    start_worker(number)
    if cv2.getNumThreads() > 1:  # not a fork, see `PairLoader`: there it would wait for threads that it does not have
        cv2.setNumThreads(1)
    forget_font_files()  # a fork shares its place in open files with all others


class PairLoader:
    """Iterates over batches of one process and keeps account of the samples that could not be read.

    Attributes:
        batches: which samples make which batch; `batches.seek(epoch, start)` chooses where the next iteration begins.
        skipped: {sample number: reason} of all unreadable samples met so far, in this process.
        drawn: batches taken in the current iteration, those without a readable sample included.

    Args:
        pairs: the samples.
        batches: as above.
        workers: loader processes where there are some.
        pin_memory: batches lie in page-locked memory.
        device: a device to which all pictures are moved once they have been read, if they fit into a part of its
            memory; batches are then made there. None: the host makes them.
    """

    def __init__(
        self,
        pairs: WordPairs,
        batches: Any,
        *,
        workers: int,
        pin_memory: bool = False,
        device: torch.device | None = None,
    ) -> None:
        self.pairs, self.batches, self._device = pairs, batches, device
        self._resident: tuple[Tensor, Tensor] | None = None
        self.skipped: dict[int, str] = {}
        self.drawn = 0
        processes = 0 if pairs.cache and not pairs.renders else workers
        self._renders_elsewhere = pairs.renders and processes > 0
        self._loader = DataLoader(
            pairs,
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=processes,
            pin_memory=pin_memory,
            persistent_workers=processes > 0,
            worker_init_fn=start_rendering_worker if self._renders_elsewhere else start_worker,
            # Each iteration draws a seed; from the global generator a resumed run would draw once too often.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        return len(self.batches)

    def close(self) -> None:
        """End the loader processes in good order; left alone they live until the interpreter ends, and hold that up."""
        iterator: Any = self._loader._iterator
        if iterator is not None:
            iterator._shutdown_workers()
            self._loader._iterator = None

    def __iter__(self) -> Iterator[Batch]:
        self.drawn = 0
        if self._renders_elsewhere:
            # Loader processes are about to be forked; OpenCV's threads must be gone by then, as none of them would
            # come along. They are not missed here, and there the processes share the cores already.
            cv2.setNumThreads(1)
        for batch in self._loader if not self._moved() else map(self._gathered, self.batches):
            self.drawn += 1
            for bad in batch.skipped:
                if bad.index not in self.skipped:
                    self.skipped[bad.index] = bad.reason
                    log.warning("skipped (%d so far): %s", len(self.skipped), bad.reason)
            if len(batch):
                yield batch
            elif batch.skipped:
                log.warning("a batch of %d unreadable samples is left out", len(batch.skipped))
                if getattr(self.batches, "drop_last", False) and self.batches.world_size > 1:
                    # The other processes would wait for this one's gradients for ever.
                    raise DataError(
                        f"all {len(batch.skipped)} samples of a batch are unreadable: {batch.skipped[0].reason}"
                    )

    def _moved(self) -> bool:
        """Whether the pictures are on the device, where they are brought when all have been read."""
        if self._device is None or not self.pairs.complete:
            return False
        if self._resident is None:
            planes = self.pairs.planes()
            if sum(plane.nbytes for plane in planes) > DEVICE_SHARE * free_memory(self._device):
                self._device = None
                return False
            high, low = (torch.from_numpy(plane).to(self._device) for plane in planes)
            self._resident = (high, low)
        return True

    def _gathered(self, numbers: list[int]) -> Batch:
        """As `collate` makes it, on the device."""
        assert self._resident is not None
        samples = self.pairs.__getitems__(numbers)
        good = [sample for sample in samples if isinstance(sample, Sample)]
        rows = torch.tensor([sample.index for sample in good], dtype=torch.long)  # in the order of all that are kept
        there = rows.to(self._resident[0].device, non_blocking=True)
        # On a GPU a division by a plain number is a product with its reciprocal, which the host rounds in another way.
        levels = torch.full((), 255.0, device=there.device)
        high, low = (planes[there].to(torch.float32) / levels for planes in self._resident)
        skipped = tuple(sample for sample in samples if isinstance(sample, Skipped))
        return Batch(high, low, [sample.label for sample in good], rows, skipped)


def free_memory(device: torch.device) -> float:
    """Bytes of a device that nobody uses; no limit for one that is not a GPU."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else float("inf")


@dataclass(frozen=True)
class OrderedBatches:
    """Every `world_size`-th sample from `rank` on, in file order, in batches; nothing is left out or repeated."""

    size: int
    batch_size: int
    rank: int = 0
    world_size: int = 1

    def __len__(self) -> int:
        share = len(range(self.rank, self.size, self.world_size))
        return (share + self.batch_size - 1) // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        share = list(range(self.rank, self.size, self.world_size))
        for start in range(0, len(share), self.batch_size):
            yield share[start : start + self.batch_size]


@dataclass(frozen=True)
class LoaderSpec:
    """How pictures are read and batches are made; the same for all data sets of a run."""

    width: int = 128
    height: int = 32
    scale: int = 2
    mask: bool = True
    voc_type: str = "all"
    synthetic: bool = False
    cache: bool = True
    corrupt: str = "skip"
    workers: int = 0
    batch_size: int = 48
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    pin_memory: bool = False
    device: torch.device | None = None

    def pairs(
        self,
        paths: Iterable[str | Path],
        selection: Sequence[int] | None = None,
        stream: RenderedWords | None = None,
    ) -> WordPairs:
        """Open the LMDBs at `paths` as one data set, with rendered words that are others in each epoch.

        Raises:
            DataError: one of them cannot be used, or there is nothing.
        """
        sources = [TextZoomLMDB(path, synthetic=self.synthetic) for path in paths]
        if not sources and stream is None:
            raise DataError("no data set was named; give one or more LMDB folders")
        return self.of_sources(sources, selection, stream)

    def of_sources(
        self,
        sources: Sequence[PairSource],
        selection: Sequence[int] | None = None,
        stream: RenderedWords | None = None,
    ) -> WordPairs:
        """One data set of several sources."""
        return WordPairs(
            sources,
            stream=stream,
            width=self.width,
            height=self.height,
            scale=self.scale,
            mask=self.mask,
            voc_type=self.voc_type,
            cache=self.cache,
            threads=self.workers,
            selection=selection,
            corrupt=self.corrupt,
        )


def build_loader(pairs: WordPairs, spec: LoaderSpec, *, train: bool) -> PairLoader:
    """A shuffled training loader (one epoch an iteration), or a loader that visits every sample once in file order.

    Raises:
        DataError: there are fewer training samples than one step of all processes takes.
    """
    shares: dict[str, Any] = {"batch_size": spec.batch_size, "rank": spec.rank, "world_size": spec.world_size}
    batches: EpochBatches | OrderedBatches
    if train:
        batches = EpochBatches(size=len(pairs), endless=pairs.endless, seed=spec.seed, **shares)
        if batches.batches_per_epoch == 0:
            raise DataError(
                f"{len(pairs)} training samples are fewer than one step takes: batch_size {spec.batch_size} x "
                f"{spec.world_size} process(es); lower --batch_size"
            )
    else:
        batches = OrderedBatches(size=len(pairs), **shares)
    return PairLoader(pairs, batches, workers=spec.workers, pin_memory=spec.pin_memory, device=spec.device)


def split_held_out(pairs: WordPairs, fraction: float) -> tuple[list[int], list[int]]:
    """Divide a training set: (kept, held out) sample numbers.

    Pairs made of the same HR photo stay on one side, and the choice depends on the photos alone, not on seed or order.

    Raises:
        DataError: the set is too small to hold out anything.
    """
    digests = []
    for index in range(len(pairs)):
        source, local = pairs._locate(index)
        assert isinstance(source, TextZoomLMDB), "rendered words have a held-out stream of their own"
        try:
            digests.append(hashlib.blake2b(source.raw(local).hr, digest_size=8).digest())
        except CorruptSampleError:
            digests.append(b"\xff" * 8)
    groups: dict[bytes, list[int]] = {}
    for index, digest in enumerate(digests):
        groups.setdefault(digest, []).append(index)
    wanted = max(1, round(fraction * len(pairs)))
    held: list[int] = []
    for digest in sorted(groups):
        if len(held) >= wanted:
            break
        held.extend(groups[digest])
    kept = sorted(set(range(len(pairs))) - set(held))
    if not kept:
        raise DataError(
            f"{len(pairs)} training samples (of {len(groups)} photos) are too few to hold out {fraction:.0%} for "
            "validation; name a validation set with --val_data_dir"
        )
    return kept, sorted(held)


def split_names(paths: Sequence[str | Path]) -> list[str]:
    """Names of data sets for reports: the last part of the path, with as many parents as keep the names apart."""
    if len({Path(path).resolve() for path in paths}) != len(paths):
        raise DataError(f"the same data set is named twice: {', '.join(map(str, paths))}")
    # Not resolved: a link called `easy` is that split, whatever its target is called.
    parts = [Path(path).absolute().parts for path in paths]
    depth = 1
    while len({names[-depth:] for names in parts}) != len(parts):
        depth += 1
    return ["/".join(names[-depth:]) for names in parts]
