"""What all measurements share: waiting for the device, clocks, memory, and the circumstances of every number."""

import argparse
import contextlib
import ctypes
import platform
import statistics
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from benchmarks import peak
from interface.provenance import code_version

T = TypeVar("T")

STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # of Linux
PRECISIONS = {"no": "float32", "bf16": "bfloat16"}


def finish(device: torch.device) -> None:
    """Wait until a GPU has done everything it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(work: Callable[[], T], device: torch.device) -> tuple[T, float]:
    """What `work` returns, and the seconds that passed."""
    finish(device)
    started = time.perf_counter()
    result = work()
    finish(device)
    return result, time.perf_counter() - started


def in_turn(ways: Mapping[str, Callable[[], object]], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of every way; in turn, so that whatever else the machine does meets all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            seconds[name].append(timed(way, device)[1])
    return seconds


class Clock:
    """What parts of a work take; a part within another one is no part of that, unless that is taken whole.

    Args:
        device: which has to be waited for.
        now: what is read when a part begins and ends; seconds, or a counter of anything else.
    """

    def __init__(self, device: torch.device, now: Callable[[], float] = time.perf_counter) -> None:
        self.device, self.now = device, now
        self.spent: defaultdict[str, float] = defaultdict(float)
        self.inner: list[float] = []  # what parts took within those that have begun
        self.running = True  # False: nothing is measured, and nobody waits for the device
        self.whole = False  # within a part that has no parts

    @contextlib.contextmanager
    def __call__(self, part: str, *, whole: bool = False) -> Iterator[None]:
        """Add what passes inside to a part; `whole`: parts within it are not looked at."""
        if not self.running or self.whole:
            yield
            return
        finish(self.device)
        started, self.whole = self.now(), whole
        self.inner.append(0.0)
        try:
            yield
        finally:
            finish(self.device)
            passed, self.whole = self.now() - started, False
            self.spent[part] += passed - self.inner.pop()
            if self.inner:
                self.inner[-1] += passed

    def wrap(self, function: Callable[..., Any], part: str, *, whole: bool = False) -> Callable[..., Any]:
        """`function`, measured."""

        def measured(*args: Any, **kwargs: Any) -> Any:
            with self(part, whole=whole):
                return function(*args, **kwargs)

        return measured

    def take(self) -> dict[str, float]:
        """What was measured since the last time."""
        taken, self.spent = dict(self.spent), defaultdict(float)
        return taken


def _status(name: str) -> int:
    """Bytes that Linux gives under a name for this process."""
    line = next(line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def resident() -> int | None:
    """Bytes of memory that this process holds; None where the system does not say."""
    return _status("VmRSS") if STATUS.is_file() else None


def _return_freed_memory() -> None:
    """Let the allocator give back what it keeps for later, or the next peak would hide in it."""
    with contextlib.suppress(AttributeError, OSError):  # another C library than GNU's
        ctypes.CDLL(None).malloc_trim(0)


def peak_memory(work: Callable[[], T], device: torch.device) -> tuple[T, int | None]:
    """What `work` returns, and the most bytes it held at a time beside those that were there before.

    None where the system does not say (other than CUDA and Linux). Seconds of such a run count for nothing: memory has
    just been given back, and has to be asked for again.
    """
    if device.type == "cuda":
        finish(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = work()
        finish(device)
        return result, torch.cuda.max_memory_allocated(device) - before
    _return_freed_memory()
    try:
        FORGET.write_text("5", encoding="ascii")  # the peak becomes what is held now
        held = _status("VmRSS")
    except OSError:
        return work(), None
    result = work()
    return result, max(0, _status("VmHWM") - held)


def host_waits(work: Callable[[], object], device: torch.device) -> int | None:
    """How often the program waits for a GPU within `work`, by PyTorch's own count; None where there is none."""
    if device.type != "cuda":
        return None
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return sum("synchronizing CUDA operation" in str(warning.message) for warning in said)


def recurrent_seconds(module: nn.Module, work: Callable[[], object], device: torch.device) -> float:
    """Seconds that recurrent layers take forward within `work`."""
    clock = Clock(device)
    layers = [part for part in module.modules() if isinstance(part, nn.RNNBase)]
    for layer in layers:
        layer.forward = clock.wrap(layer.forward, "recurrent")  # type: ignore[method-assign]
    try:
        work()
    finally:
        for layer in layers:
            del layer.forward
    return clock.spent["recurrent"]


def state_bytes(module: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> int:
    """Bytes of parameters and buffers, and of what an optimizer keeps."""
    tensors = [*module.parameters(), *module.buffers()]
    if optimizer is not None:
        tensors += [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def efficiency(flop: float, seconds: float, peaks: Mapping[str, Any], precision: str) -> float | None:
    """Share of the machine's peak that needed operations take in this time; None where nothing is known of it."""
    best = peaks.get(precision, {}).get("best")
    return flop / seconds / (best * 1e9) if best and flop else None


def circumstances(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments, the machine and its peak, and the version of the program."""
    device = torch.device(args.device)
    name = f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    return {
        "arguments": {name: value for name, value in vars(args).items() if name != "out"},
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}{name}",
        "code": code_version(),
        "peak": peak.measure(device),
    }


def number(value: float) -> str:
    """Three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def spread(values: Sequence[float], factor: float = 1.0) -> str:
    """Median [smallest - greatest], three digits each."""
    low, middle, high = (number(factor * value) for value in (min(values), statistics.median(values), max(values)))
    return f"{middle} [{low} - {high}]"


def mebibytes(size: int | None) -> str:
    """Of bytes; empty if they are not known."""
    return "" if size is None else f"{size / 2**20:,.0f}"


def percent(share: float | None) -> str:
    """Two digits; empty if it is not known."""
    return "" if share is None else f"{100 * share:.2g} %"


def rows(head: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; a column without any entry is left out."""
    kept = [column for column in range(len(head)) if not cells or any(line[column] for line in cells)]
    lines = [head, ["---"] * len(head), *cells]
    return [f"| {' | '.join(line[column] for column in kept)} |" for line in lines]
