"""Benchmarks of scene-text recognition (STR): word photos with labels, as they are and reduced to small sizes.

An STR set is an LMDB with the keys `num-samples`, `image-%09d` and `label-%09d` (1-based); HR pictures of a TextZoom
LMDB (`image_hr-%09d`) are read likewise. How many test pictures a benchmark has, and what its variants leave out:
https://arxiv.org/abs/1904.01906, section 2.2.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from dataset.loading import Skipped
from dataset.textzoom import LR_PREFIX, CorruptSampleError, DataError, TextZoomLMDB, TextZoomWriter, key_of
from dataset.transforms import decode_image, resize_planes

Size = tuple[int, int]  # (width, height) in pixels

STR_PREFIX = "image"


@dataclass(frozen=True)
class Benchmark:
    """A test set of the field.

    Attributes:
        name: as in tables.
        pattern: of folder names, in lower case and without separators.
        published: {number of pictures: which ones they are} of the variants that papers report.
        others: the same of what may be taken for the test set and is not.
    """

    name: str
    pattern: str
    published: Mapping[int, str]
    others: Mapping[int, str] = field(default_factory=dict)


TRAINING = "the training part"
WHOLE = "the whole test set, with words that papers leave out"
SHORTER = "words of fewer than three characters"
BENCHMARKS = (
    Benchmark(
        "IIIT5K",
        "iiit5k(words)?",
        {3000: "the test part"},
        {2000: TRAINING, 5000: "the training and the test part together"},
    ),
    Benchmark("SVTP", "svt(p|perspective)", {645: "all of it"}),
    Benchmark("SVT", "svt|streetviewtext", {647: "the test part"}, {257: TRAINING}),
    Benchmark(
        "IC03",
        "(ic|icdar)(20)?03",
        {
            867: f"without {SHORTER} or with other than letters and digits",
            860: "the 867 without seven boxes that some lists lack",
        },
        {1110: WHOLE, 1156: TRAINING},
    ),
    Benchmark(
        "IC13",
        "(ic|icdar)(20)?13",
        {1015: "without words of other than letters and digits", 857: f"the 1015 without {SHORTER}"},
        {1095: WHOLE, 848: TRAINING},
    ),
    Benchmark(
        "IC15",
        "(ic|icdar)(20)?15",
        {
            2077: "the whole test set",
            1811: "without words of other than letters and digits, and without the most rotated and bent ones",
        },
        {4468: TRAINING},
    ),
    Benchmark("CUTE80", "cute(80)?", {288: "all of it"}),
)


@dataclass(frozen=True)
class Count:
    """How many pictures a set has, against the published numbers.

    Attributes:
        benchmark: its name in tables.
        fits: whether the literature has a variant of this size.
        text: a sentence: which variant it is, or what a difference means.
    """

    benchmark: str
    fits: bool
    text: str


def _match(name: str) -> tuple[Benchmark, int] | None:
    """The benchmark of a name, and the number behind it or 0."""
    squeezed = re.sub(r"[^a-z0-9]|test|lmdb", "", name.lower())
    for benchmark in BENCHMARKS:
        found = re.fullmatch(rf"(?:{benchmark.pattern})(?P<count>\d*)", squeezed)
        if found:
            return benchmark, int(found["count"] or 0)
    return None


def find_benchmark(name: str) -> tuple[Benchmark, int | None] | None:
    """The benchmark that a folder is named after, and the variant that the name states, if it does.

    `IC13_857` is (IC13, 857), `iiit5k-test` is (IIIT5K, None), `ic13_train` is None.
    """
    found = _match(name)
    return found and (found[0], found[1] if found[1] in found[0].published else None)


def expected(name: str) -> tuple[Benchmark, int | None]:
    """`find_benchmark` of a name that a user gave.

    Raises:
        DataError: there is no such benchmark, or no such variant of it.
    """
    found = _match(name)
    if found is None or (found[1] and found[1] not in found[0].published):
        known = "; ".join(f"{one.name} ({', '.join(map(str, one.published))})" for one in BENCHMARKS)
        raise DataError(f"{name!r} is no benchmark of known size; name one of these, e.g. IC13 or IC13_857: {known}")
    return found[0], found[1] or None


def check_count(found: tuple[Benchmark, int | None], count: int) -> Count:
    """Compare a number of pictures with what papers report.

    Args:
        found: benchmark and variant, as `find_benchmark` gave them.
        count: pictures of the set at hand.
    """
    benchmark, stated = found
    if count in benchmark.published and stated in (None, count):
        return Count(benchmark.name, True, f"{benchmark.name} with {count} pictures: {benchmark.published[count]}")
    wanted = {stated: benchmark.published[stated]} if stated else benchmark.published
    variants = " or ".join(f"{number} ({what})" for number, what in wanted.items())
    if count in benchmark.published:
        meaning = f"that is {benchmark.published[count]}; its scores compare with published ones of {count} pictures"
    elif count in benchmark.others:
        meaning = f"that is {benchmark.others[count]}; its scores do not compare with published ones"
    else:
        meaning = (
            "pictures are missing or doubled, or the list is of another part (scripts/lmdb_tool.py check tells more); "
            "its scores do not compare with published ones"
        )
    return Count(benchmark.name, False, f"{benchmark.name} has {variants} pictures, here are {count}: {meaning}")


def find_sets(paths: Iterable[str | Path]) -> list[Path]:
    """The LMDBs at `paths`: each is one, or a folder of some, which then all count.

    Raises:
        DataError: no path was given.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        inside = [] if (path / "data.mdb").is_file() else sorted(file.parent for file in path.glob("*/data.mdb"))
        found += inside or [path]
    if not found:
        raise DataError("no data set was named; give one or more STR LMDBs, or a folder of them")
    return found


def is_str_set(path: Path) -> bool:
    """Whether the LMDB at `path` holds photos of words, `image-%09d`, without LR pictures of them.

    Raises:
        DataError: it cannot be opened, or is of another format.
    """
    source = TextZoomLMDB(path, synthetic=True)  # it is never asked for an LR
    paired = any(source.get(key_of(LR_PREFIX, index)) is not None for index in {0, len(source) - 1})
    return source.hr_prefix == STR_PREFIX and not paired


@dataclass(frozen=True)
class Preparation:
    """In which forms a photo is wanted.

    Attributes:
        photo_sizes: the photo itself, resized to each of these; None is its own size.
        sizes: what it is reduced to.
        input_size: each reduced picture is brought to this size for the network; None: it takes it as it is.
        mask: the network takes the text mask as a fourth plane.
    """

    photo_sizes: tuple[Size | None, ...]
    sizes: tuple[Size, ...]
    input_size: Size | None = None
    mask: bool = False


@dataclass(frozen=True)
class WordPhoto:
    """One sample in the forms of a `Preparation`: uint8 planes (3, H, W), with mask (4, H, W).

    Attributes:
        index: its number in the set, from 0.
        label: as stored.
        size: of the photo as stored.
        photos: the photo itself, by photo size.
        reduced: RGB, by size.
        inputs: what the network takes, by size.
    """

    index: int
    label: str
    size: Size
    photos: dict[Size | None, np.ndarray]
    reduced: dict[Size, np.ndarray]
    inputs: dict[Size, np.ndarray]


class StrSet:
    """Random access to the word photos of one LMDB.

    Args:
        path: the LMDB folder.
        name: as in tables; empty: that of the folder.
        limit: use only the first so many; 0 is all.

    Raises:
        DataError: missing, empty, truncated, or of another format.
    """

    def __init__(self, path: str | Path, name: str = "", *, limit: int = 0) -> None:
        self.path = Path(path)
        self.name = name or self.path.absolute().name
        try:
            self.source = TextZoomLMDB(path, synthetic=True)  # it is never asked for an LR
        except DataError as error:
            raise DataError(f"{error}. An STR set (image-..., label-...): scripts/build_str_lmdb.py") from error
        self.stored = len(self.source)
        self.size = min(limit, self.stored) if limit else self.stored

    def __len__(self) -> int:
        return self.size

    def count(self) -> Count | None:
        """Compare the number of stored pictures with that of the benchmark its folder is named after, if it is."""
        found = find_benchmark(self.path.absolute().name)
        return check_count(found, self.stored) if found else None

    def fingerprint(self) -> str:
        """sha256 of the content of the whole set."""
        return self.source.fingerprint()

    def read(self, index: int, wanted: Preparation) -> WordPhoto | Skipped:
        """Read, decode and resize one photo; Pillow's bicubic filter, the aspect ratio is not kept."""
        place = f"{self.path} sample {index + 1:09d}"
        try:
            raw = self.source.raw(index)
        except CorruptSampleError as error:
            return Skipped(index, f"{place}: {error}")
        try:
            image = decode_image(raw.hr)
        except (OSError, ValueError) as error:
            return Skipped(index, f"{place}: its picture ({len(raw.hr)} bytes) cannot be decoded: {error}")
        photos = {size: resize_planes(image, size or image.size, False) for size in wanted.photo_sizes}
        reduced, inputs = {}, {}
        for size in wanted.sizes:
            small = image.resize(size, Image.Resampling.BICUBIC)  # 8 bits: a picture as a camera would have stored it
            reduced[size] = resize_planes(small, size, False)
            as_it_is = wanted.input_size in (None, size) and not wanted.mask
            inputs[size] = reduced[size] if as_it_is else resize_planes(small, wanted.input_size or size, wanted.mask)
        return WordPhoto(index, raw.label, image.size, photos, reduced, inputs)


def read_batches(
    data: StrSet, wanted: Preparation, batches: Iterable[Sequence[int]], *, threads: int = 0
) -> Iterator[list[WordPhoto | Skipped]]:
    """The samples of each batch, in order; with threads, the next batch is read while the caller works on this one."""
    if not threads:
        for batch in batches:
            yield [data.read(index, wanted) for index in batch]
        return
    with ThreadPoolExecutor(threads) as pool:  # Pillow decodes and resizes without the interpreter lock
        waiting: list[list[Future[WordPhoto | Skipped]]] = []
        for batch in batches:
            waiting.append([pool.submit(data.read, index, wanted) for index in batch])
            if len(waiting) > 1:
                yield [future.result() for future in waiting.pop(0)]
        for futures in waiting:
            yield [future.result() for future in futures]


class StrWriter(TextZoomWriter):
    """Writes an STR set; used like `TextZoomWriter`, with `add_photo` in the place of `add`."""

    def add_photo(self, *, image: bytes, label: str) -> None:
        """Append one sample: the encoded image file as it is, and its label."""
        self._pending.append((key_of(STR_PREFIX, self.size), image))
        self._pending.append((key_of("label", self.size), label.encode("utf-8")))
        self.size += 1
        if self.size % self.COMMIT_EVERY == 0:
            self._commit()
