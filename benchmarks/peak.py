"""What the machine can do at best: matrix products and convolutions of several sizes, in float32 and bfloat16.

It is measured in the run that it is compared with, by the same libraries: what they do not reach, no network does. On a
machine that other work shares it is too low.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

SECONDS = 0.2  # for each size; it is run once more than it takes, at least
MATRICES = {"cpu": (512, 1024, 2048), "cuda": (2048, 4096, 8192)}  # rows and columns of both factors
MAPS = {  # pictures, channels, height, width of 3x3 convolutions
    "cpu": ((8, 128, 16, 64), (8, 256, 16, 64)),
    "cuda": ((256, 128, 32, 128), (256, 256, 16, 64), (256, 512, 8, 32)),
}
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def best_rate(work: Callable[[], object], operations: float, device: torch.device) -> float:
    """Billions of operations a second, in the fastest of several runs."""

    def run() -> float:
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    run()
    fastest, left = run(), SECONDS
    while left > 0:
        taken = run()
        fastest, left = min(fastest, taken), left - taken
    return operations / fastest / 1e9


def of_matrices(size: int, dtype: torch.dtype, device: torch.device) -> float:
    """GFLOP/s of a product of two square matrices."""
    one, other = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return best_rate(lambda: one @ other, 2.0 * size**3, device)


def of_convolution(shape: tuple[int, int, int, int], dtype: torch.dtype, device: torch.device) -> float:
    """GFLOP/s of a 3x3 convolution with as many channels after it as before, channels last."""
    count, channels, height, width = shape
    images = torch.randn(shape, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
    kernels = torch.randn(channels, channels, 3, 3, device=device).to(dtype)
    kernels = kernels.contiguous(memory_format=torch.channels_last)
    operations = 2.0 * count * height * width * channels * channels * 9
    return best_rate(lambda: F.conv2d(images, kernels, padding=1), operations, device)


@torch.inference_mode()
def measure(device: torch.device) -> dict[str, dict[str, Any]]:
    """{precision: {"matmul 512": GFLOP/s, ..., "best": the greatest of them}}."""
    kind = "cuda" if device.type == "cuda" else "cpu"
    found: dict[str, dict[str, Any]] = {}
    for precision, dtype in PRECISIONS.items():
        rates = {f"matmul {size}": of_matrices(size, dtype, device) for size in MATRICES[kind]}
        for shape in MAPS[kind]:
            rates[f"convolution {'x'.join(map(str, shape))}"] = of_convolution(shape, dtype, device)
        found[precision] = {**rates, "best": max(rates.values())}
    return found


def line(peaks: dict[str, dict[str, Any]]) -> str:
    """One line for people."""
    best = ", ".join(f"{precision} {rates['best']:.0f} GFLOP/s" for precision, rates in peaks.items())
    return f"Peak of this machine, measured in the same run: {best}"
