"""RDN: blocks of densely connected layers, all of whose results are fused.

Paper: Residual Dense Network for Image Super-Resolution, https://arxiv.org/abs/1802.08797
Source: https://github.com/WenjiaWang0312/TextZoom, whose key names and sizes are kept: three blocks of six layers,
fewer than in the paper.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.blocks.pictures import check_depth, check_planes, planes
from model.registry import register_model

GROWTH, LAYERS = 32, 6


class DenseLayer(nn.Module):
    """(N, c, H, W) -> (N, c + 32, H, W): the input and what a convolution makes of it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, GROWTH, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Add features."""
        return torch.cat([x, self.conv(x).relu()], dim=1)


class ResidualDenseBlock(nn.Module):
    """(N, F, H, W) -> (N, F, H, W): dense layers, fused by a 1x1 convolution, and a skip (RDB)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.dense_layers = nn.Sequential(*[DenseLayer(features + number * GROWTH) for number in range(LAYERS)])
        self.conv_1x1 = nn.Conv2d(features + LAYERS * GROWTH, features, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Refine `x`."""
        return x + self.conv_1x1(self.dense_layers(x))


class RDN(nn.Module):
    """(N, C, H, W) in [0, 1] -> (N, C, s*H, s*W), not clamped.

    Args:
        scale_factor: s.
        mask: C is 4, with the text mask, else 3.
        srb_nums: residual dense blocks.
        hidden_units: half the number of features.

    Raises:
        ValueError: an argument has no meaning.
    """

    def __init__(self, *, scale_factor: int = 2, mask: bool = False, srb_nums: int = 3, hidden_units: int = 32) -> None:
        super().__init__()
        check_depth(srb_nums, hidden_units)
        if scale_factor < 1:
            raise ValueError(f"scale_factor {scale_factor}: a picture can be enlarged 1, 2, 3, ... times")
        self.scale_factor, self.in_channels = scale_factor, planes(mask)
        features = 2 * hidden_units
        self.conv1 = nn.Conv2d(self.in_channels, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)
        self.blocks = tuple(f"RDB{number}" for number in range(1, srb_nums + 1))
        for name in self.blocks:
            self.add_module(name, self.make_block(features))
        self.GFF_1x1 = nn.Conv2d(srb_nums * features, features, 1)
        self.GFF_3x3 = nn.Conv2d(features, features, 3, padding=1)
        self.conv_up = nn.Conv2d(features, features * scale_factor**2, 3, padding=1)
        self.conv3 = nn.Conv2d(features, self.in_channels, 3, padding=1)

    def make_block(self, features: int) -> nn.Module:
        """A block: maps (N, F, H, W), and hints if the network has some -> (N, F, H, W)."""
        return ResidualDenseBlock(features)

    def forward(self, images_lr: Tensor) -> Tensor:
        """Super-resolve.

        Raises:
            ValueError: the images have another number of planes.
        """
        check_planes(images_lr, self.in_channels)
        return self.enlarge(images_lr)

    def enlarge(self, images_lr: Tensor, *hints: Tensor) -> Tensor:
        """(N, C, H, W), and what the blocks are told -> (N, C, s*H, s*W)."""
        shallow = self.conv1(images_lr)
        x, seen = self.conv2(shallow), []
        for block in self.blocks:
            x = self.get_submodule(block)(x, *hints)
            seen.append(x)
        fused = self.GFF_3x3(self.GFF_1x1(torch.cat(seen, dim=1)))
        return self.conv3(F.pixel_shuffle(self.conv_up(shallow + fused), self.scale_factor))


@register_model(
    system="plain",
    paper="https://arxiv.org/abs/1802.08797",
    source="https://github.com/WenjiaWang0312/TextZoom",
    signature=(r"^GFF_1x1\.", r"!^infoGen\."),
)
def rdn(**kwargs: Any) -> RDN:
    """RDN with the given options."""
    return RDN(**kwargs)
