"""Pixel adapter: attention of each pixel to its 3x3 neighbourhood, after up-sampling.

Paper: RTSRN's pixel adapter module on a stand-alone graph attention. Key names (`gama` included) are those of published
checkpoints. Difference: the neighbourhood is read as nine shifted views of one padded map instead of being unfolded; on
CPUs a few images at a time, see `local_attention.py`.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.blocks.activation import Mish
from model.blocks.local_attention import attend


class LocalAttention(nn.Module):
    """(N, C, H, W) -> (N, C, H, W): one-head attention of each pixel to the 3x3 pixels around it.

    Outside the map keys and values are zero, and those positions take their share of the softmax.
    """

    def __init__(self, channels: int, *, dropout: float = 0.4) -> None:
        super().__init__()
        self.trans = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Average the values of the neighbours by their similarity to the pixel."""
        keep = None
        if self.training and self.dropout.p:
            work = torch.promote_types(x.dtype, torch.float32)
            keep = self.dropout(torch.ones(len(x), 9, *x.shape[2:], dtype=work, device=x.device))
        if x.device.type == "cpu" and not torch.compiler.is_compiling():
            return attend(x, self.trans.weight, keep)
        return self._attend_at_once(x, keep)

    def _attend_at_once(self, x: Tensor, keep: Tensor | None) -> Tensor:
        query, key, value = self.trans(x).chunk(3, dim=1)
        query = query / math.sqrt(query.shape[1])
        logits = torch.stack([(query * shifted).sum(dim=1) for shifted in neighbours(key)], dim=1)
        weights = logits.softmax(dim=1)  # (N, 9, H, W)
        weights = (weights if keep is None else weights * keep).to(value.dtype)
        mixed = torch.zeros_like(value)
        for weight, shifted in zip(weights.split(1, dim=1), neighbours(value), strict=True):
            mixed = torch.addcmul(mixed, weight, shifted)
        return mixed


def neighbours(x: Tensor) -> list[Tensor]:
    """(N, C, H, W) -> nine views (N, C, H, W): the 3x3 neighbours row by row, zero outside."""
    height, width = x.shape[-2:]
    padded = F.pad(x, (1, 1, 1, 1))
    return [padded[..., row : row + height, column : column + width] for row in range(3) for column in range(3)]


class PixelAdapter(nn.Module):
    """(N, C, H, W) -> (N, C, H, W): a learned blend of the input and its local attention; the identity at the start."""

    def __init__(self, channels: int, *, dropout: float = 0.4) -> None:
        super().__init__()
        self.gama = nn.Parameter(torch.zeros(1))
        self.output = nn.Sequential(LocalAttention(channels, dropout=dropout), nn.BatchNorm2d(channels), Mish())

    def forward(self, x: Tensor) -> Tensor:
        """Blend `x` with its attention."""
        share = self.gama[0].to(x.dtype)  # one number: vectors take twice as long
        return torch.lerp(x, self.output(x).to(x.dtype), share)
