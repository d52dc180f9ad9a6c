"""TextZoom-format LMDBs: reading, writing, fingerprints.

Keys (bytes, 1-based, nine digits): `num-samples`, `label-%09d`, `image_hr-%09d`, `image_lr-%09d`; HR-only sets have
`image_hr-%09d` or `image-%09d` and get their LR by `--syn`.
"""

import hashlib
import itertools
import os
import shutil
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import lmdb
from PIL import Image

from dataset.transforms import decode_image, synthetic_lr

NUM_SAMPLES = b"num-samples"
HR_PREFIXES = ("image_hr", "image_HR", "image")  # the published LMDB builder writes upper case in one place
LR_PREFIX = "image_lr"


class DataError(ValueError):
    """A data set that cannot be used: the message says what was found and what was expected."""


class CorruptSampleError(DataError):
    """One sample that cannot be read; the rest of the data set can."""


@dataclass(frozen=True)
class RawSample:
    """One sample as stored: encoded image files and the unfiltered label; `lr` is None in HR-only sets."""

    hr: bytes
    lr: bytes | None
    label: str


def key_of(prefix: str, index: int) -> bytes:
    """LMDB key of sample `index` (0-based; keys count from 1)."""
    return f"{prefix}-{index + 1:09d}".encode()


def _describe(folder: Path) -> str:
    """What lies at `folder`, for error messages."""
    if not folder.exists():
        near = folder.parent
        while not near.exists():
            near = near.parent
        names = sorted(child.name for child in near.iterdir() if child.name[0] != ".")[:8] if near.is_dir() else []
        return f"nothing there; {near} holds {', '.join(names) or 'nothing'}"
    if folder.is_file():
        return f"a file of {folder.stat().st_size} bytes"
    names = sorted(child.name for child in folder.iterdir())
    nested = [name for name in names if (folder / name / "data.mdb").is_file()]
    if nested:
        return f"a folder of LMDBs; name one or more of them: {', '.join(str(folder / name) for name in nested[:8])}"
    return f"a folder with {', '.join(names[:8]) or 'nothing'}{', ...' if len(names) > 8 else ''}"


def _open(folder: Path) -> lmdb.Environment:
    """Open an LMDB for reading; refuse what is missing, of another format, or shorter than its own page table."""
    expected = (
        "expected a TextZoom LMDB: a folder with data.mdb (key num-samples, image_hr-..., image_lr-..., label-...)"
    )
    data = folder / "data.mdb"
    if not data.is_file():
        raise DataError(
            f"{folder}: {_describe(folder)}; {expected}. To build one from your pictures: python scripts/lmdb_tool.py "
            "build --help; to render one: python scripts/make_synthetic.py"
        )
    try:
        env = lmdb.open(str(folder), readonly=True, lock=False, readahead=False, meminit=False, max_readers=1)
    except lmdb.Error as error:
        raise DataError(
            f"{folder}: data.mdb ({data.stat().st_size} bytes) cannot be opened as an LMDB ({error}); {expected}"
        ) from error
    # Reading a page behind the end of the file would kill the process (SIGBUS), so this is checked before any read.
    needed = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    if data.stat().st_size < needed:
        env.close()
        raise DataError(
            f"{folder}: data.mdb is truncated: {data.stat().st_size} bytes found, {needed} expected by its own header; "
            "copy it again"
        )
    return env


class _Handle:
    """An open environment; closed when its last reader is gone."""

    def __init__(self, folder: Path) -> None:
        self.env = _open(folder)
        self.owner = os.getpid()

    def __del__(self) -> None:
        if hasattr(self, "env"):
            self.env.close()


# LMDB refuses to open a file twice in one process, so readers of one folder share a handle.
_HANDLES: "weakref.WeakValueDictionary[Path, _Handle]" = weakref.WeakValueDictionary()
_OPENING = threading.Lock()


def _shared_handle(folder: Path) -> _Handle:
    folder = folder.resolve()
    with _OPENING:
        handle = _HANDLES.get(folder)
        if handle is not None and handle.owner != os.getpid():
            # Inherited through a fork. Without a lock file closing it only unmaps this process's view of the data.
            handle.env.close()
            handle = None
        if handle is None:
            handle = _Handle(folder)
            _HANDLES[folder] = handle
        return handle


class LmdbFolder:
    """The keys and values of any LMDB; opened lazily, once in each process that reads it.

    Raises:
        DataError: on the first access, if it is missing, truncated or no LMDB.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._handle: _Handle | None = None

    def __getstate__(self) -> dict[str, Any]:
        """A worker started by spawn opens the LMDB anew."""
        return {**self.__dict__, "_handle": None}

    @property
    def _env(self) -> lmdb.Environment:
        handle = self._handle
        if handle is None or handle.owner != os.getpid():
            handle = self._handle = _shared_handle(self.path)
        return handle.env

    def get(self, key: bytes) -> bytes | None:
        """The value stored under `key`, or None.

        Raises:
            CorruptSampleError: the pages that lead to it are damaged.
        """
        try:
            with self._env.begin() as transaction:
                return transaction.get(key)
        except lmdb.Error as error:
            raise CorruptSampleError(f"{key.decode()} cannot be looked up: {error}") from error

    def keys(self) -> Iterator[str]:
        """All keys, in their order.

        Raises:
            DataError: the pages that hold them are damaged.
        """
        try:
            with self._env.begin() as transaction:
                for key in transaction.cursor().iternext(keys=True, values=False):
                    yield bytes(key).decode(errors="replace")
        except lmdb.Error as error:
            raise DataError(f"{self.path}: its keys cannot be listed: {error}; copy it again") from error


class TextZoomLMDB(LmdbFolder):
    """Random access to the samples of one LMDB.

    Args:
        path: the LMDB folder.
        synthetic: make LR from HR (`synthetic_lr`); any stored LR is not used.

    Raises:
        DataError: missing, empty, truncated, or of another format.
    """

    def __init__(self, path: str | Path, *, synthetic: bool = False) -> None:
        super().__init__(path)
        self.synthetic = synthetic
        try:
            self.size = self._read_size()
            self.hr_prefix = self._find_hr_prefix()
            self._check_ends()
        except CorruptSampleError as error:
            raise DataError(f"{self.path}: {error}; data.mdb is damaged, copy it again") from error

    def __len__(self) -> int:
        return self.size

    def _read_size(self) -> int:
        stored = self.get(NUM_SAMPLES)
        if stored is None:
            found = ", ".join(itertools.islice(self.keys(), 5))
            raise DataError(f"{self.path}: no key num-samples (keys found: {found or 'none'}); not a TextZoom LMDB")
        try:
            size = int(stored)
        except ValueError:
            raise DataError(f"{self.path}: num-samples is {stored[:40]!r}, a decimal number was expected") from None
        if size < 1:
            raise DataError(
                f"{self.path}: the data set is empty (num-samples = {size}); at least one sample was expected"
            )
        return size

    def _find_hr_prefix(self) -> str:
        for index in (0, self.size - 1):
            for prefix in HR_PREFIXES:
                if self.get(key_of(prefix, index)) is not None:
                    return prefix
        raise DataError(
            f"{self.path}: num-samples says {self.size}, but neither image_hr-{1:09d} nor image-{1:09d} exists; "
            "expected TextZoom's keys"
        )

    def _check_ends(self) -> None:
        missing = [
            key.decode()
            for key in (key_of("label", self.size - 1), key_of(self.hr_prefix, self.size - 1))
            if self.get(key) is None
        ]
        if missing:
            raise DataError(
                f"{self.path}: num-samples says {self.size}, but the last sample lacks {', '.join(missing)}; "
                f"the data set is truncated. See what is there: python scripts/lmdb_tool.py check {self.path}"
            )
        if not self.synthetic and all(self.get(key_of(LR_PREFIX, index)) is None for index in {0, self.size - 1}):
            raise DataError(
                f"{self.path}: holds {self.hr_prefix}-... but no {LR_PREFIX}-... (HR-only); "
                "add --syn to make LR from HR, or give a paired data set"
            )

    def raw(self, index: int) -> RawSample:
        """Sample `index` (0-based) as stored.

        Raises:
            IndexError: no such sample.
            CorruptSampleError: a key is missing or the label is not UTF-8.
        """
        if not 0 <= index < self.size:
            raise IndexError(f"{self.path}: sample {index} of {self.size}")
        hr = self.get(key_of(self.hr_prefix, index))
        lr = None if self.synthetic else self.get(key_of(LR_PREFIX, index))
        label = self.get(key_of("label", index))
        if hr is None or label is None or (lr is None and not self.synthetic):
            names = {self.hr_prefix: hr, LR_PREFIX: lr if not self.synthetic else b"", "label": label}
            lost = ", ".join(key_of(name, index).decode() for name, value in names.items() if value is None)
            raise CorruptSampleError(f"{lost} is missing")
        try:
            return RawSample(hr, lr, label.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise CorruptSampleError(f"{key_of('label', index).decode()} is not UTF-8: {error}") from error

    def label(self, index: int) -> str:
        """The label of sample `index` (0-based) as stored, without touching its pictures; empty if it is damaged."""
        try:
            return (self.get(key_of("label", index)) or b"").decode("utf-8", errors="ignore")
        except CorruptSampleError:
            return ""

    def images(self, raw: RawSample) -> tuple[Image.Image, Image.Image]:
        """(HR, LR) of a sample as RGB pictures of their stored sizes.

        Raises:
            CorruptSampleError: one of them cannot be decoded.
        """
        pictures: list[Image.Image] = []
        for name, data in (("HR", raw.hr), ("LR", raw.lr)):
            if data is None:
                pictures.append(synthetic_lr(pictures[0]))
                continue
            try:
                pictures.append(decode_image(data))
            except (OSError, ValueError) as error:
                raise CorruptSampleError(
                    f"its {name} picture ({len(data)} bytes) cannot be decoded: {error}"
                ) from error
        return pictures[0], pictures[1]

    def pair(self, index: int) -> tuple[Image.Image, Image.Image, str]:
        """HR, LR and label of sample `index` (0-based), as `raw` and `images` give them.

        Raises:
            IndexError: no such sample.
            CorruptSampleError: it cannot be read.
        """
        raw = self.raw(index)
        return *self.images(raw), raw.label

    def name(self, index: int) -> str:
        """What a sample is called in messages: folder and 1-based number, as in its keys."""
        return f"{self.path} sample {index + 1:09d}"

    def fingerprint(self) -> str:
        """sha256 over all labels and image files, in order: two sets with the same content have the same one.

        What is missing or cannot be looked up counts as empty.
        """
        digest = hashlib.sha256()
        for index in range(self.size):
            for prefix in ("label", self.hr_prefix, LR_PREFIX):
                try:
                    data = self.get(key_of(prefix, index)) or b""
                except CorruptSampleError:
                    data = b""
                digest.update(len(data).to_bytes(8, "little"))
                digest.update(data)
        return digest.hexdigest()


class TextZoomWriter:
    """Writes an LMDB in TextZoom's format; a context manager.

    The data set is built in `<path>.partial` and moved to `path` when it is complete, so a cut run leaves no
    half-written data set behind; an exception inside the `with` block removes what was written.

    Args:
        path: folder to create; it must not exist, or be empty.

    Raises:
        FileExistsError: there is something at `path`.
    """

    COMMIT_EVERY = 1000  # samples
    FIRST_MAP_SIZE = 1 << 26  # bytes; doubled whenever it is full

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise FileExistsError(f"{self.path} exists; nothing is overwritten: choose another folder or remove it")
        self.partial = self.path.with_name(self.path.name + ".partial")
        self.size = 0
        self._pending: list[tuple[bytes, bytes]] = []

    def __enter__(self) -> "TextZoomWriter":
        if self.partial.is_dir() and {child.name for child in self.partial.iterdir()} <= {"data.mdb", "lock.mdb"}:
            shutil.rmtree(self.partial)  # of a run that was killed
        self.partial.mkdir(parents=True)
        self._env = lmdb.open(str(self.partial), map_size=self.FIRST_MAP_SIZE, sync=False)
        return self

    def add(self, *, hr: bytes, lr: bytes | None, label: str) -> None:
        """Append one sample: encoded image files as they are, and its label."""
        self._pending.append((key_of("image_hr", self.size), hr))
        if lr is not None:
            self._pending.append((key_of(LR_PREFIX, self.size), lr))
        self._pending.append((key_of("label", self.size), label.encode("utf-8")))
        self.size += 1
        if self.size % self.COMMIT_EVERY == 0:
            self._commit()

    def _commit(self) -> None:
        while True:
            try:
                with self._env.begin(write=True) as transaction:
                    for key, value in self._pending:
                        transaction.put(key, value)
                break
            except lmdb.MapFullError:
                self._env.set_mapsize(2 * self._env.info()["map_size"])
        self._pending.clear()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        complete = False
        try:
            if error is None:
                self._finish()
                complete = True
        finally:
            self._env.close()
            if not complete:
                shutil.rmtree(self.partial, ignore_errors=True)
        if complete:
            if self.path.is_dir():
                self.path.rmdir()  # empty, or __init__ would have refused it
            (self.partial / "lock.mdb").unlink(missing_ok=True)
            self.partial.replace(self.path)

    def _finish(self) -> None:
        if self.size == 0:
            raise DataError(f"{self.path}: no sample was added; an empty data set is not written")
        self._pending.append((NUM_SAMPLES, str(self.size).encode()))
        self._commit()
        self._env.sync(True)
