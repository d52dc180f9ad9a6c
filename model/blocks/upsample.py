"""Up-sampling by pixel shuffle (sub-pixel convolution, https://arxiv.org/abs/1609.05158)."""

import torch.nn.functional as F
from torch import Tensor, nn

from model.blocks.activation import Mish
from model.blocks.attention import PixelAdapter


class UpsampleBlock(nn.Module):
    """(N, C, H, W) -> (N, C, s*H, s*W): convolution, shuffle, mish or PReLU, and with `pam` a pixel adapter."""

    def __init__(self, channels: int, *, scale: int = 2, pam: bool = False, prelu: bool = False) -> None:
        super().__init__()
        self.scale = scale
        self.conv = nn.Conv2d(channels, channels * scale**2, 3, padding=1)
        self.prelu = nn.PReLU() if prelu else Mish()
        self.pam = PixelAdapter(channels) if pam else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge `x`."""
        return self.pam(self.prelu(F.pixel_shuffle(self.conv(x), self.scale)))
