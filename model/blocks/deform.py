"""Fusion by a deformable convolution whose offsets come from a small U-net.

Source: the spatio-temporal deformable fusion of STDF, https://doi.org/10.1609/aaai.v34i07.6697, as the published
RTSRN checkpoints hold it (`vis_rec_fuser`).
"""

import torch
from torch import Tensor, nn

from model.blocks.convolution import DeformConv2d


class DeformFuser(nn.Module):
    """(N, in_channels, H, W) -> (N, out_channels, H, W) with H, W multiples of 2 ** levels."""

    def __init__(self, in_channels: int = 16, out_channels: int = 32, *, width: int = 32, levels: int = 4) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.levels = levels
        self.in_conv = nn.Sequential(_conv(in_channels, width), nn.ReLU())
        for level in range(1, levels):
            down = nn.Sequential(_conv(width, width, stride=2), nn.ReLU(), _conv(width, width), nn.ReLU())
            up = nn.Sequential(_conv(2 * width, width), nn.ReLU(), _double(width), nn.ReLU())
            self.add_module(f"dn_conv{level}", down)
            self.add_module(f"up_conv{level}", up)
        self.tr_conv = nn.Sequential(
            _conv(width, width, stride=2), nn.ReLU(), _conv(width, width), nn.ReLU(), _double(width), nn.ReLU()
        )
        self.out_conv = nn.Sequential(_conv(width, width), nn.ReLU())
        self.offset_mask = _conv(width, in_channels * 27)
        self.deform_conv = DeformConv2d(in_channels, out_channels, groups=in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Fuse the channels of `x`."""
        features = [self.in_conv(x)]
        for level in range(1, self.levels):
            features.append(self.get_submodule(f"dn_conv{level}")(features[-1]))
        merged = self.tr_conv(features[-1])
        for level in reversed(range(1, self.levels)):
            merged = self.get_submodule(f"up_conv{level}")(torch.cat([merged, features[level]], dim=1))
        offsets, modulation = self.offset_mask(self.out_conv(merged)).split(
            [self.in_channels * 18, self.in_channels * 9], dim=1
        )
        return self.deform_conv(x, offsets, modulation.sigmoid()).relu()


def _conv(in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1)


def _double(width: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(width, width, 4, stride=2, padding=1)
