"""Evaluate a system on data sets: read every picture, compare it with its HR, count.

One record per image is collected from all processes and put into file order; every number of the report is computed
from these records (`interface.metrics`).
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from dataset.charset import canonical
from dataset.loading import Batch, PairLoader
from interface.alignment import distance
from interface.metrics import batch_psnr, batch_ssim, image_metrics, is_correct, summary, to_list
from interface.readers import CONFIDENCE_DIGITS, Answer, Reader, ReadingCache
from interface.replays import Replays
from interface.systems.base import System
from model.bicubic import enlarge

LR, BICUBIC, HR = "lr", "bicubic", "hr"
IMAGE_METRICS = ("psnr", "ssim", "mse_raw", "ssim_raw")

Record = dict[str, Any]


def stage_rows(stages: int) -> list[str]:
    """Names of the super-resolved pictures: `sr_1` ... `sr_n`, the last is the result."""
    return [f"sr_{stage + 1}" for stage in range(stages)]


def cascade(system: System, images_lr: Tensor, replays: Replays) -> list[Tensor]:
    """`system.cascade`, with results that do not depend on how many pictures are in the batch.

    For a single picture, the libraries have other kernels, whose results differ in the last digits; so it gets company.
    """
    if len(images_lr) > 1:
        return replays(system, images_lr)
    pair = torch.cat([images_lr, images_lr]).contiguous(memory_format=torch.channels_last)
    return [pictures[:1] for pictures in replays(system, pair)]


@dataclass(frozen=True)
class Split:
    """A data set to evaluate on.

    Attributes:
        name: as in reports.
        path: where it lies, for reports.
        loader: this process's share of it, in file order.
        fingerprint: of its content and of how its pictures are prepared.
    """

    name: str
    path: str
    loader: PairLoader
    fingerprint: str


class EnlargedBatch:
    """The enlarged pictures of a batch, which are the same in every evaluation.

    Args:
        batch: of the data set.
        measured: {index: values of `IMAGE_METRICS`} that are known already; it takes up those of this batch.
    """

    def __init__(self, batch: Batch, measured: dict[int, tuple[float, ...]]) -> None:
        self._batch, self._measured = batch, measured

    @cached_property
    def picture(self) -> Tensor:
        """(N, C, H, W) in [0, 1]."""
        low, high = self._batch.images_lr, self._batch.images_hr
        return enlarge(low, high.shape[-1] // low.shape[-1])

    def metrics(self) -> dict[str, list[float]]:
        """Each measure of `IMAGE_METRICS`, of all pictures."""
        indices = self._batch.indices.tolist()
        if not all(index in self._measured for index in indices):
            found = image_metrics(self.picture, self._batch.images_hr)
            values = zip(*(to_list(found[name]) for name in IMAGE_METRICS), strict=True)
            self._measured.update(zip(indices, values, strict=True))
        columns = zip(*(self._measured[index] for index in indices), strict=True)
        return {name: list(column) for name, column in zip(IMAGE_METRICS, columns, strict=True)}


@dataclass
class Evaluator:
    """Evaluates systems; keeps what it read from pictures that do not change.

    Attributes:
        readers: recognisers, the first one is that of model selection.
        device: where networks run.
        cache: kept readings of LR, bicubic and HR pictures.
        bootstrap_samples: for the intervals.
        psnr_batch_size: images per batch of the published PSNR and SSIM.
        gather: collects a list of records from all processes.
        autocast: context manager factory with the precision of the run.
        replays: how systems are called on a GPU.
    """

    readers: list[Reader]
    device: torch.device
    cache: ReadingCache = field(default_factory=lambda: ReadingCache(None))
    bootstrap_samples: int = 1000
    psnr_batch_size: int = 48
    gather: Callable[[list[Any]], list[Any]] = list
    autocast: Callable[[], Any] = nullcontext
    replays: Replays = field(default_factory=Replays)
    _measured: dict[str, dict[int, tuple[float, ...]]] = field(default_factory=dict)  # of bicubic, by fingerprint

    def run(self, system: System, split: Split, progress: Any = None) -> dict[str, Any]:
        """Evaluate on one data set.

        Args:
            system: its `cascade` is used, in evaluation mode.
            split: the data set.
            progress: called with the number of images after each batch.

        Returns:
            The entry of this data set in the report (see `interface.report`).
        """
        was_training = system.training
        system.eval()
        kept = {
            (reader.name, row): self.cache.load(reader, split.fingerprint, row)
            for reader in self.readers
            for row in (LR, BICUBIC, HR)
        }
        try:
            with torch.inference_mode():
                records = list(self._records(system, split, kept, progress))
        finally:  # a signal may end it
            system.train(was_training)
        skipped = self.gather([len(split.loader.skipped)])
        records = sorted(self.gather(records), key=lambda record: record["index"])
        self._keep_readings(split, records, kept)
        result = self.summarise(records, [LR, BICUBIC, *stage_rows(system.stages), HR])
        return {
            "path": split.path,
            "fingerprint": split.fingerprint,
            "images": len(records),
            "skipped": sum(skipped),
            **result,
        }

    def _records(self, system: System, split: Split, kept: dict[Any, Any], progress: Any) -> Iterator[Record]:
        for batch in split.loader:
            batch = batch.to(self.device)  # noqa: PLW2901
            with self.autocast():
                stages = cascade(system, batch.images_lr, self.replays)
            restored = {name: picture.float() for name, picture in zip(stage_rows(len(stages)), stages, strict=True)}
            indices = batch.indices.tolist()
            metrics = {
                row: {name: to_list(values) for name, values in image_metrics(picture, batch.images_hr).items()}
                for row, picture in restored.items()
            }
            bicubic = EnlargedBatch(batch, self._measured.setdefault(split.fingerprint, {}))
            metrics[BICUBIC] = bicubic.metrics()
            known = {LR: batch.images_lr, HR: batch.images_hr, **restored}
            readings = self._read([LR, BICUBIC, HR, *restored], known, bicubic, indices, kept)
            for position, (index, label) in enumerate(zip(indices, batch.labels, strict=True)):
                yield {
                    "index": index,
                    "label": label,
                    "readings": {key: answers[position] for key, answers in readings.items()},
                    "metrics": {
                        row: {name: values[position] for name, values in named.items()}
                        for row, named in metrics.items()
                    },
                }
            if progress is not None:
                progress(len(batch))

    def _read(
        self,
        rows: list[str],
        pictures: dict[str, Tensor],
        bicubic: EnlargedBatch,
        indices: list[int],
        kept: dict[Any, dict[int, Answer] | None],
    ) -> dict[tuple[str, str], list[Answer]]:
        readings = {}
        for reader in self.readers:
            for row in rows:
                known = kept.get((reader.name, row))
                if known is not None and all(index in known for index in indices):
                    readings[reader.name, row] = [known[index] for index in indices]
                else:
                    picture = bicubic.picture if row == BICUBIC else pictures[row]
                    readings[reader.name, row] = reader.read(picture)
        return readings

    def _keep_readings(self, split: Split, records: list[Record], kept: dict[Any, Any]) -> None:
        for reader in self.readers:
            for row in (LR, BICUBIC, HR):
                known = kept[reader.name, row] or {}
                answers = {record["index"]: record["readings"][reader.name, row] for record in records}
                if not answers.keys() <= known.keys():
                    self.cache.store(reader, split.fingerprint, row, {**known, **answers})

    def summarise(self, records: list[Record], rows: list[str]) -> dict[str, Any]:
        """Numbers with intervals, and the lists of values per image that they come from.

        Raises:
            ValueError: there is no record, so nothing can be said.
        """
        if not records:
            raise ValueError("no image of the data set could be read; there is nothing to evaluate")
        samples = self.bootstrap_samples
        measured = [row for row in rows if row not in (LR, HR)]
        values = {
            name: {row: [record["metrics"][row][name] for record in records] for row in measured}
            for name in IMAGE_METRICS
        }
        read = summarise_readings(records, [reader.name for reader in self.readers], rows, samples)
        size = self.psnr_batch_size
        return {
            "accuracy": read.accuracy,
            "character_accuracy": read.character_accuracy,
            "psnr": {row: summary(values["psnr"][row], samples) for row in measured},
            "ssim": {row: summary(values["ssim"][row], samples) for row in measured},
            "psnr_batch": {row: batch_psnr(values["mse_raw"][row], size) for row in measured},
            "ssim_batch": {row: batch_ssim(values["ssim_raw"][row], size) for row in measured},
            "per_image": {
                "index": [record["index"] for record in records],
                **read.per_image,
                "psnr": values["psnr"],
                "ssim": values["ssim"],
            },
        }


@dataclass(frozen=True)
class ReadingSummary:
    """What readings come to: shares with intervals by reader and row, and the lists per image."""

    accuracy: dict[str, dict[str, Any]]
    character_accuracy: dict[str, dict[str, Any]]
    per_image: dict[str, Any]


def summarise_readings(records: list[Record], readers: list[str], rows: list[str], samples: int) -> ReadingSummary:
    """Word and character accuracy of the answers in `records`.

    The character accuracy of a word is 1 - the edit distance of reading and label over the length of the longer one,
    both as lower-case letters and digits; it is averaged over words (1 - NED, https://arxiv.org/abs/1904.01906).
    """
    labels = [record["label"] for record in records]
    targets = [canonical(label) for label in labels]
    result = ReadingSummary({}, {}, {"label": labels, "target": targets})
    lists: dict[str, dict[str, dict[str, list[Any]]]] = {"readings": {}, "confidences": {}, "character_accuracy": {}}
    for reader in readers:
        columns = {row: [record["readings"][reader, row] for record in records] for row in rows}
        texts = {row: [text for text, _ in column] for row, column in columns.items()}
        hits = {
            row: [float(is_correct(text, label)) for text, label in zip(texts[row], labels, strict=True)]
            for row in rows
        }
        close = {
            row: [1 - distance(target, text) for text, target in zip(texts[row], targets, strict=True)] for row in rows
        }
        result.accuracy[reader] = {
            row: {**summary(values, samples), "correct": int(sum(values))} for row, values in hits.items()
        }
        result.character_accuracy[reader] = {row: summary(values, samples) for row, values in close.items()}
        lists["readings"][reader] = texts
        lists["confidences"][reader] = {row: [sure for _, sure in column] for row, column in columns.items()}
        lists["character_accuracy"][reader] = {
            row: [round(value, CONFIDENCE_DIGITS) for value in values] for row, values in close.items()
        }
    result.per_image.update(lists)
    return result


def averages(splits: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Both averages over data sets: "plain" counts every set the same, "weighted" every image.

    The literature mixes the two in one table, so both are given.
    """
    result: dict[str, Any] = {}
    entries = list(splits.values())
    for kind in ("plain", "weighted"):
        shares = [1.0 if kind == "plain" else float(entry["images"]) for entry in entries]

        def mean(pick: Any, shares: list[float] = shares) -> float:
            total = sum(share * pick(entry) for share, entry in zip(shares, entries, strict=True))
            return total / sum(shares)

        first = entries[0]
        result[kind] = {
            measure: {
                reader: {row: mean(lambda e, m=measure, r=reader, w=row: e[m][r][w]["value"]) for row in rows}
                for reader, rows in first[measure].items()
            }
            for measure in ("accuracy", "character_accuracy")
        }
        for name in ("psnr", "ssim"):
            result[kind][name] = {row: mean(lambda e, n=name, w=row: e[n][w]["value"]) for row in first[name]}
        for name in ("psnr_batch", "ssim_batch"):
            result[kind][name] = {row: mean(lambda e, n=name, w=row: e[n][w]) for row in first[name]}
    return result


def selection_score(splits: dict[str, dict[str, Any]], row: str, *, published: bool) -> tuple[float, ...]:
    """What `best.pth` is chosen by: mean accuracy of the first reader over the data sets, then PSNR.

    Args:
        splits: results of `Evaluator.run` by data set.
        row: the final picture, `sr_<stages>`.
        published: the published rule: the sum of the rounded accuracies alone.
    """
    entries = list(splits.values())
    readers = list(entries[0]["accuracy"])
    accuracy = [round(entry["accuracy"][readers[0]][row]["value"], 4) for entry in entries] if readers else []
    if published and accuracy:
        return (sum(accuracy),)
    psnr = sum(entry["psnr"][row]["value"] for entry in entries) / len(entries)
    return (sum(accuracy) / len(entries), psnr) if accuracy else (psnr,)
