"""Recurrence along the rows or columns of a feature map, as in the sequential residual block of TSRN."""

import importlib
import logging
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from model.blocks import kernels

log = logging.getLogger(__name__)


class GruBlock(nn.Module):
    """(N, in_channels, H, W) -> (N, out_channels, H, W): 1x1 convolution, then a bidirectional GRU along W or H.

    With `pointwise=False` there is no convolution, and the numbers of channels are the same (LEMMA, SGENet).
    Paper: https://arxiv.org/abs/2005.03341 (where the figure calls it BLSTM).
    """

    def __init__(self, in_channels: int, out_channels: int, *, pointwise: bool = True) -> None:
        super().__init__()
        assert pointwise or in_channels == out_channels
        self.conv1 = nn.Conv2d(in_channels, out_channels, 1) if pointwise else nn.Identity()
        self.gru = nn.GRU(out_channels, out_channels // 2, bidirectional=True, batch_first=True)

    def forward(self, x: Tensor, *, columns: bool = False) -> Tensor:
        """Read every row of `x` in both directions, or every column."""
        if not torch.is_autocast_enabled("cpu") and kernels.usable(x):
            pointwise = self.conv1 if isinstance(self.conv1, nn.Conv2d) else None
            return kernels.read(self.gru, x, pointwise, columns=columns)
        x = self.conv1(x)
        if torch.is_autocast_enabled("cpu") and kernels.usable(wide := x.float()):
            return kernels.read(self.gru, wide, None, columns=columns).to(x.dtype)
        pixels = x.permute(0, 2, 3, 1)
        if (fused := fused_gru(self.gru, pixels, columns=columns)) is not None:
            return fused(self.gru, pixels, columns=columns).permute(0, 3, 1, 2)
        cells = pixels.transpose(1, 2) if columns else pixels
        read = self._read(cells.flatten(0, 1)).unflatten(0, cells.shape[:2])
        return read.permute(0, 3, 2, 1) if columns else read.permute(0, 3, 1, 2)

    def _read(self, sequences: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        if sequences.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            # The matrices are small: on a CPU each step costs more in bfloat16 than in float32, up to four times.
            with torch.autocast("cpu", enabled=False):
                return self.gru(sequences.float())[0].to(sequences.dtype)
        return self.gru(sequences)[0]


def fused_gru(gru: nn.GRU, pixels: Tensor, *, columns: bool) -> Callable[..., Tensor] | None:
    """`bidirectional_gru` of `gru_triton.py` where it can read these pixels (N, H, W, C), else None.

    That is on NVIDIA GPUs of compute capability 8.0 or higher, with Triton, which comes with PyTorch for Linux, and
    a C compiler, which Triton needs.
    """
    if pixels.device.type != "cuda" or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return None
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else pixels.dtype
    if gru.hidden_size not in (16, 32, 64) or dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return None
    length = pixels.shape[1 if columns else 2]
    return _translated(pixels.device, gru.hidden_size, dtype, length, backward=torch.is_grad_enabled())


@cache
def _translated(
    device: torch.device, units: int, dtype: torch.dtype, length: int, *, backward: bool
) -> Callable[..., Tensor] | None:
    if torch.version.hip or torch.cuda.get_device_capability(device) < (8, 0):
        return None
    try:
        gru_triton = importlib.import_module("model.blocks.gru_triton")
    except ImportError:
        return None
    try:
        gru_triton.rehearse(device, units, dtype, length, backward=backward)
    except Exception as error:  # of a compiler, a linker, a driver: what they raise is not documented
        log.warning("GRUs are read by cuDNN, which is slower, since Triton does not work here: %s", error)
        return None
    return gru_triton.bidirectional_gru
