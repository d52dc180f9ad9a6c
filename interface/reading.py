"""How well a recogniser reads: sets of words as it is given them, one record per word, and what is counted of them.

A text counts as read if it equals the label once both are reduced to the recogniser's charset; with the 36 of digits
and lower-case letters that is the published rule, see `dataset.charset.canonical`. The character accuracy of a word is
1 - the edit distance over the length of the longer text, averaged over words (https://arxiv.org/abs/1904.01906).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dataset.charset import LOWER, canonical, reduce_text
from dataset.loading import LoaderSpec, OrderedBatches, Skipped, split_names
from dataset.str_sets import Preparation, StrSet, WordPhoto, find_sets, read_batches
from dataset.textzoom import LR_PREFIX, TextZoomLMDB, key_of
from interface.alignment import distance
from interface.data import named_splits
from interface.evaluation import HR, LR, Split
from interface.metrics import summary
from interface.str_protocol import PHOTO, PHOTO_SIZES, USUAL_PHOTO_SIZE, as_images

ROWS = {HR: "HR", LR: "LR", PHOTO: "photo"}


@dataclass(frozen=True)
class WordBatch:
    """Words in all forms in which they are read.

    Attributes:
        indices: N sample numbers in the set.
        labels: N texts as stored.
        pictures: (N, 3, H, W) in [0, 1] by row of the report.
    """

    indices: list[int]
    labels: list[str]
    pictures: Mapping[str, Tensor]


class PairSet:
    """A TextZoom set: each word is read in HR and in LR."""

    def __init__(self, split: Split) -> None:
        self.name, self.path, self.fingerprint = split.name, split.path, split.fingerprint
        self._loader = split.loader

    def __len__(self) -> int:
        return len(self._loader.pairs)

    def batches(self, device: torch.device) -> Iterator[WordBatch]:
        """This process's share, in file order."""
        for batch in self._loader:
            moved = batch.to(device)
            yield WordBatch(batch.indices.tolist(), batch.labels, {HR: moved.images_hr, LR: moved.images_lr})

    def skipped(self) -> int:
        """Words that could not be read by the last iteration of this process."""
        return len(self._loader.skipped)


class PhotoSet:
    """An STR set: each word is read in a photo."""

    def __init__(self, path: Path, name: str, spec: LoaderSpec, arch: str) -> None:
        self.data, self.name, self.path = StrSet(path, name), name, str(path)
        self.fingerprint = f"{self.data.fingerprint()}-str"
        self._spec = spec
        self._size = PHOTO_SIZES.get(arch.upper()) or USUAL_PHOTO_SIZE
        self._skipped: list[str] = []

    def __len__(self) -> int:
        return len(self.data)

    def batches(self, device: torch.device) -> Iterator[WordBatch]:
        """This process's share, in file order."""
        spec, wanted = self._spec, Preparation(photo_sizes=(self._size,), sizes=())
        order = OrderedBatches(len(self.data), spec.batch_size, spec.rank, spec.world_size)
        self._skipped = []
        for samples in read_batches(self.data, wanted, order, threads=spec.workers):
            self._skipped += [sample.reason for sample in samples if isinstance(sample, Skipped)]
            photos = [sample for sample in samples if isinstance(sample, WordPhoto)]
            if photos:
                images = as_images([photo.photos[self._size] for photo in photos], device)
                yield WordBatch([photo.index for photo in photos], [photo.label for photo in photos], {PHOTO: images})

    def skipped(self) -> int:
        """Words that could not be read by the last iteration of this process."""
        return len(self._skipped)


WordSet = PairSet | PhotoSet


def has_lr(path: Path) -> bool:
    """Whether the LMDB at `path` holds LR pictures, so that it is a TextZoom set and no STR set."""
    source = TextZoomLMDB(path, synthetic=True)
    return any(source.get(key_of(LR_PREFIX, index)) is not None for index in {0, len(source) - 1})


def open_word_sets(paths: list[str], spec: LoaderSpec, arch: str) -> list[WordSet]:
    """TextZoom and STR LMDBs, or folders of them, named after their folders.

    Raises:
        DataError: one of them cannot be used.
    """
    found = find_sets(paths)
    names = split_names(found)
    pairs = [str(path) for path in found if spec.synthetic or has_lr(path)]
    splits = {split.path: split for split in named_splits(pairs, spec)}
    sets: list[WordSet] = []
    for path, name in zip(found, names, strict=True):
        split = splits.get(str(path))
        if split is None:
            sets.append(PhotoSet(path, name, spec, arch))
        else:
            sets.append(PairSet(Split(name, split.path, split.loader, split.fingerprint)))
    return sets


@dataclass(frozen=True)
class Examiner:
    """Counts what is read.

    Attributes:
        charset: what the recogniser can read.
        device: where it runs.
        spell: a label as the recogniser would read it; None: what is left of it in the charset.
        bootstrap_samples: for the 95 % intervals.
        gather: collects a list of records from all processes.
    """

    charset: str
    device: torch.device
    bootstrap_samples: int = 1000
    gather: Callable[[list[Any]], list[Any]] = list
    spell: Callable[[str], str] | None = None

    def run(
        self, read: Callable[[Tensor], list[str]], words: WordSet, progress: Callable[[int], None] | None = None
    ) -> dict[str, Any]:
        """Read one set.

        Args:
            read: (N, 3, H, W) pictures -> N texts.
            words: the set.
            progress: called with the number of words after each batch.

        Returns:
            The entry of this set in the report.

        Raises:
            ValueError: none of its pictures can be read.
        """
        records: list[dict[str, Any]] = []
        for batch in words.batches(self.device):
            texts = {row: read(images) for row, images in batch.pictures.items()}
            for position, (index, label) in enumerate(zip(batch.indices, batch.labels, strict=True)):
                readings = {row: found[position] for row, found in texts.items()}
                records.append({"index": index, "label": label, "readings": readings})
            if progress is not None:
                progress(len(batch.labels))
        records = sorted(self.gather(records), key=lambda record: record["index"])
        if not records:
            raise ValueError(f"{words.path}: no picture of it can be read; there is nothing to evaluate")
        return {
            "path": words.path,
            "fingerprint": words.fingerprint,
            "images": len(records),
            "skipped": sum(self.gather([words.skipped()])),
            **self.summarise(records),
        }

    def summarise(self, records: list[dict[str, Any]]) -> dict[str, Any]:
        """Numbers with intervals by row, and all readings."""
        rows = list(records[0]["readings"])
        labels = [
            reduce_text(record["label"], self.charset) if self.spell is None else self.spell(record["label"])
            for record in records
        ]
        texts = {row: [reduce_text(record["readings"][row], self.charset) for record in records] for row in rows}
        result: dict[str, Any] = {"words": {}, "characters": {}}
        for row, read in texts.items():
            hits = [float(text == label) for text, label in zip(read, labels, strict=True)]
            result["words"][row] = {**summary(hits, self.bootstrap_samples), "correct": int(sum(hits))}
            close = [1 - distance(label, text) for text, label in zip(read, labels, strict=True)]
            result["characters"][row] = summary(close, self.bootstrap_samples)
        if set(self.charset) > set(LOWER):  # capitals or punctuation count: the usual rule beside it
            result["alphanumeric"] = {
                row: summary(
                    [float(canonical(t) == canonical(n)) for t, n in zip(read, labels, strict=True)],
                    self.bootstrap_samples,
                )
                for row, read in texts.items()
            }
        per_image = {"index": [record["index"] for record in records], "label": [r["label"] for r in records]}
        return {**result, "per_image": {**per_image, "readings": texts}}


def headline(results: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """`set/words/row` and `set/characters/row` in %, for logs."""
    numbers = {}
    for name, result in results.items():
        for row, entry in result["words"].items():
            numbers[f"{name}/words/{row}"] = 100 * entry["value"]
        for row, entry in result["characters"].items():
            numbers[f"{name}/characters/{row}"] = 100 * entry["value"]
    return numbers


def reading_score(results: Mapping[str, Mapping[str, Any]]) -> tuple[float, float]:
    """What `best.pth` is chosen by: mean word accuracy over sets and rows, then mean character accuracy."""
    words = [entry["value"] for result in results.values() for entry in result["words"].values()]
    characters = [entry["value"] for result in results.values() for entry in result["characters"].values()]
    return round(sum(words) / len(words), 6), sum(characters) / len(characters)


def table(results: Mapping[str, Mapping[str, Any]], symbols: str = "characters") -> str:
    """Markdown: word accuracy with its interval, and character accuracy, of each set and row.

    Args:
        results: by set.
        symbols: what words are spelled with.
    """
    lines = [f"| set | pictures | words | read right, % | 95 % interval | {symbols}, % |", "|---|---|--:|--:|---|--:|"]
    for name, result in results.items():
        for row, entry in result["words"].items():
            value, low, high = (100 * entry[key] for key in ("value", "low", "high"))
            right = 100 * result["characters"][row]["value"]
            lines.append(
                f"| {name} | {ROWS[row]} | {result['images']} | {value:.2f} | {low:.2f} to {high:.2f} | {right:.2f} |"
            )
    return "\n".join(lines)
