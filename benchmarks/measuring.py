"""What all measurements share: waiting for the device, and the circumstances that belong to every number."""

import argparse
import platform
import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from interface.provenance import code_version

T = TypeVar("T")


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


def circumstances(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments, the machine and the version of the program."""
    return {
        "arguments": {name: value for name, value in vars(args).items() if name != "out"},
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "code": code_version(),
    }
