"""What frozen networks make of a training sample never changes, so it is computed once: kept in memory or on disk.

On a CPU a value is computed from its sample alone, in a batch of one. It then does not depend on which batch asked
first, and a resumed run, which asks in another order, gets the same bits. A GPU, which would be idle most of that time
and does not promise the same bits anyway, computes a batch at once.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from interface.checkpoint import content_digest

log = logging.getLogger(__name__)

# Makes older files unknown: to be raised when the way from a data set to a target changes (resizing, `preprocess`).
FORMAT = 1
_DTYPES = {"float32": torch.float32, "float16": torch.float16}
PAGE = 4096  # bytes; values begin at a page of their file
Compute = Callable[[slice], Tensor]


class Targets:
    """Computes every batch anew; what a system has until a `TargetCache` takes its place.

    Attributes:
        longest: characters of the longest label of the data; 0 if only the labels of the batch matter.
        longest_strokes: strokes of the label with most of them, in the same way.
    """

    longest = 0
    longest_strokes = 0

    def get(self, name: str, network: nn.Module, indices: Tensor, compute: Compute) -> Tensor:
        """What `network` makes of the samples of a batch.

        Args:
            name: of the kind of value.
            network: what computes it; frozen.
            indices: (N,) int64 sample numbers in the data set, on the CPU.
            compute: rows of the batch as a slice -> their values (n, ...). `slice(None)` asks for all of them for this
                batch alone; any other slice for values to be kept.

        Returns:
            (N, ...) without gradient.
        """
        with torch.no_grad():
            return compute(slice(None))

    def sync(self) -> None:
        """Bring what is new to disk; nothing to do here."""


class TargetCache(Targets):
    """Keeps values by sample number.

    Args:
        samples: size of the data set.
        longest: characters of its longest label.
        longest_strokes: strokes of the label with most of them.
        key: says what else values depend on: data, arithmetic. Asked for only where there are files.
        folder: keep them in files there, for later runs as well; None: in memory.
        dtype: of what is kept, "float32" or "float16".
        limit: most bytes to keep; kinds that do not fit are computed every time, and the log says so.
        at_once: whether all samples of a batch are computed together; by default on GPUs.
    """

    def __init__(
        self,
        samples: int,
        *,
        longest: int,
        longest_strokes: int = 0,
        key: Callable[[], str],
        folder: Path | None,
        dtype: str = "float32",
        limit: float,
        at_once: bool | None = None,
    ) -> None:
        self.at_once = at_once
        self.samples, self.longest, self.key, self.folder = samples, longest, key, folder
        self.longest_strokes = longest_strokes
        self.dtype, self.free = np.dtype(dtype), limit
        self._shelves: dict[str, _Shelf | None] = {}

    def get(self, name: str, network: nn.Module, indices: Tensor, compute: Compute) -> Tensor:
        """As promised by `Targets`; only what is not known yet is computed."""
        with torch.no_grad():
            if name not in self._shelves:
                self._shelves[name] = self._open(name, network, compute(slice(0, 1)))
            shelf = self._shelves[name]
            if shelf is None:
                return compute(slice(None))
            numbers = indices.numpy()
            new = np.flatnonzero(~shelf.known[numbers]).tolist()
            if new and (shelf.device.type == "cuda" if self.at_once is None else self.at_once):
                values = compute(slice(0, None))
                if len(new) == len(numbers):
                    return shelf.put(numbers, values)
                rows = torch.tensor(new).to(values.device, non_blocking=True)
                shelf.put(numbers[new], values.index_select(0, rows))
                return shelf.take(numbers)
            for row in new:
                shelf.put(numbers[row : row + 1], compute(slice(row, row + 1)))
            return shelf.take(numbers)

    def sync(self) -> None:
        """Bring what is new to disk."""
        for shelf in self._shelves.values():
            if shelf is not None:
                shelf.sync()

    def _open(self, name: str, network: nn.Module, example: Tensor) -> "_Shelf | None":
        shape = (self.samples, *example.shape[1:])
        size = int(np.prod(shape)) * self.dtype.itemsize
        text = f"{name} of {self.samples} samples, {size / 2**20:.3g} MiB in {self.dtype}"
        if size > self.free:
            log.warning(
                "%s: more than the %.3g MiB left of TRAIN.target_cache_gb or of memory, so it is computed in every "
                "step; use TRAIN.target_cache_dtype float16 or --target_cache disk, or allow more",
                text,
                self.free / 2**20,
            )
            return None
        self.free -= size
        if self.folder is None:
            log.info("kept in memory once computed: %s", text)
            return _Shelf(np.empty(shape, self.dtype), np.zeros(self.samples, bool), example.device)
        weights = content_digest(network.state_dict())
        parts = [FORMAT, name, self.key(), weights, example.device.type, shape, str(self.dtype), torch.__version__]
        digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        shelf = _map_file(self.folder / f"{name}-{digest[:32]}.bin", shape, self.dtype, example.device)
        log.info("kept on disk once computed (%d known): %s", int(shelf.known.sum()), text)
        return shelf


class _Shelf:
    """Values of one kind.

    What a GPU computes is on its way to the host for a while, and nobody waits for it before it is asked for.

    Args:
        values: (samples, ...), memory or a mapped file.
        known: (samples,) bool, which of them are valid.
        device: where they are needed.
        known_file: the same on disk, None without a file.
    """

    def __init__(
        self, values: np.ndarray, known: np.ndarray, device: torch.device, known_file: np.memmap | None = None
    ) -> None:
        self.values, self.known, self.device, self.known_file = values, known, device, known_file
        self._coming: list[tuple[np.ndarray, Tensor, torch.cuda.Event | None]] = []

    def put(self, numbers: np.ndarray, values: Tensor) -> Tensor:
        """Keep the values of samples; returns them as they will be taken, float32."""
        values = values.to(_DTYPES[self.values.dtype.name])
        on_host, arrived = values, None
        if values.device.type == "cuda":
            on_host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            on_host.copy_(values, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        self._coming.append((numbers, on_host, arrived))
        self.known[numbers] = True
        self._receive(left=0 if arrived is None else 1)  # those of the step before have come long since
        return values.to(torch.float32)

    def take(self, numbers: np.ndarray) -> Tensor:
        """(N, ...) float32 values of samples that are known."""
        self._receive()
        values = torch.from_numpy(self.values[numbers])
        if self.device.type == "cuda":
            values = values.pin_memory()  # what lies in other memory is waited for, though non_blocking
        return values.to(self.device, non_blocking=True).to(torch.float32)

    def _receive(self, left: int = 0) -> None:
        """Store what has been computed, but for the last so many batches."""
        while len(self._coming) > left:
            numbers, values, arrived = self._coming.pop(0)
            if arrived is not None:
                arrived.synchronize()
            self.values[numbers] = values.cpu().numpy()

    def sync(self) -> None:
        """Values first: a crash in between leaves values that nobody believes yet."""
        self._receive()
        if self.known_file is not None:
            assert isinstance(self.values, np.memmap)
            self.values.flush()
            self.known |= np.asarray(self.known_file)  # another process may have added some
            self.known_file[:] = self.known
            self.known_file.flush()


def _map_file(path: Path, shape: tuple[int, ...], dtype: np.dtype, device: torch.device) -> _Shelf:
    """Map a file: one byte a sample says whether it is known, then come the values. It is made if it is not there.

    Raises:
        OSError: there is no room for it.
    """
    start = -(-shape[0] // PAGE) * PAGE
    size = start + int(np.prod(shape)) * dtype.itemsize
    path.parent.mkdir(parents=True, exist_ok=True)
    damaged = path.is_file() and path.stat().st_size != size
    if damaged:  # NumPy would fill it up with zeros
        log.warning("%s is damaged, so it is made anew", path)
    if damaged or not path.is_file():
        _reserve(path, size, replace=damaged)
    flags = np.memmap(path, dtype=bool, mode="r+", shape=shape[:1])
    values = np.memmap(path, dtype=dtype, mode="r+", offset=start, shape=shape)
    return _Shelf(values, np.array(flags), device, flags)


def _reserve(path: Path, size: int, *, replace: bool) -> None:
    """A file of zeros that has its blocks: writing to a mapped file on a full disk would kill the process.

    What another process has just put there stays, unless `replace`; if both do, one of them fills a file that has no
    name any more, which costs its work and nothing else.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.truncate(size)
            if hasattr(os, "posix_fallocate"):  # macOS has none
                os.posix_fallocate(file.fileno(), 0, size)
        if replace or not _linked(path, temporary):
            temporary.replace(path)
    except OSError as error:
        free = shutil.disk_usage(path.parent).free
        raise OSError(
            f"{path} of {size / 2**20:.0f} MiB cannot be made ({error.strerror}; {free / 2**20:.0f} MiB are free): "
            "make room, choose another place with TEST.cache_dir, or use --target_cache memory or none"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _linked(path: Path, file: Path) -> bool:
    """Whether `path` is now, or was already, a file; False if this file system has no hard links."""
    try:
        path.hardlink_to(file)
    except FileExistsError:
        return True
    except OSError:
        return False
    return True


# Where Linux says how much memory a container or a job may take (cgroup versions 2 and 1).
MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def memory_share(processes: int) -> float:
    """Bytes that one of several processes of this machine may keep: half of the memory in all."""
    total = float("inf")
    with contextlib.suppress(AttributeError, ValueError, OSError):  # not a Unix
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in MEMORY_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # not there, or "max"
            total = min(total, int(file.read_text()))
    return total / 2 / processes
