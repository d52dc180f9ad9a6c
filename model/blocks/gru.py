"""Recurrence along the rows or columns of a feature map, as in the sequential residual block of TSRN."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from model.blocks import kernels
from model.blocks.triton_here import kernel_type, translated


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
    """`bidirectional_gru` of `gru_triton.py` where it can read these pixels (N, H, W, C), else None."""
    dtype = kernel_type(pixels)
    if dtype is None or gru.hidden_size not in (16, 32, 64):
        return None
    case = gru.hidden_size, dtype, pixels.shape[1 if columns else 2]
    without = "GRUs are read by cuDNN"
    gru_triton = translated("gru_triton", without, pixels.device, *case, backward=torch.is_grad_enabled())
    return gru_triton.bidirectional_gru if gru_triton else None
