"""Residual blocks that are modulated by what a recogniser saw and read, and the skeleton around them.

Papers: LEMMA, IJCAI 2023, https://arxiv.org/abs/2307.09749; SGENet, ICASSP 2024, https://arxiv.org/abs/2403.13330.
Module names are those of the published programs, which share these parts.
"""

from typing import Any

import torch
from torch import Tensor, nn

from model.blocks.activation import mish
from model.blocks.alignment import HEADS
from model.blocks.gru import GruBlock
from model.blocks.published import PublishedForm
from model.blocks.skeleton import Skeleton

SIZE_LR = (16, 64)


class ModulatedSkeleton(Skeleton, PublishedForm):
    """LR images (N, C, 16, 64) in [0, 1] -> SR images (N, C, 32, 128) in (-1, 1).

    A subclass adds the recogniser, `position_prior`, and what makes a hint of it, `guidanceGen`.

    Args:
        **options: those of `Skeleton`.

    Raises:
        ValueError: an argument has no meaning.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if self.size_lr != SIZE_LR:
            raise ValueError(f"SR images made from LR images of {self.size_lr}: this network takes {SIZE_LR} (H, W)")
        features = 2 * self.options["hidden_units"]
        if features % HEADS:
            raise ValueError(f"hidden_units {features // 2} must be even: {HEADS} attention heads share twice as many")

    def make_block(self, features: int, number: int) -> nn.Module:
        """A block that is modulated."""
        return ModulatedBlock(features)

    def forward(self, images_lr: Tensor) -> Tensor:
        """(N, C, 16, 64) in [0, 1] -> (N, C, 32, 128) in (-1, 1).

        Raises:
            ValueError: the images have another shape.
        """
        images: Tensor = self.guided(images_lr).images
        return images

    def guided(self, images_lr: Tensor) -> Any:
        """(N, C, 16, 64) in [0, 1] -> a tuple whose `images` are (N, C, 32, 128) in (-1, 1), and what was read."""
        raise NotImplementedError

    def check_images(self, images_lr: Tensor) -> None:
        """Also the size, which the modulation fixes.

        Raises:
            ValueError: another shape.
        """
        super().check_images(images_lr)
        if images_lr.shape[2:] != SIZE_LR:
            height, width = images_lr.shape[2:]
            raise ValueError(f"LR images of {height}x{width}: this network takes 16x64 alone; resize them")

    def straight(self, images_lr: Tensor) -> Tensor:
        """(N, C, 16, 64), checked, and rectified where that is due.

        Raises:
            ValueError: the images have another shape.
        """
        self.check_images(images_lr)
        return self.rectify(images_lr) if self.rectifies and self.training else images_lr


class ModulatedBlock(nn.Module):
    """(N, F, 16, 64) and a hint of the same shape -> the same shape: convolutions, modulation, a GRU along H and W."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(features)
        self.gru1 = GruBlock(features, features, pointwise=False)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(features)
        self.gru2 = GruBlock(features, features, pointwise=False)
        self.affine = Modulation(features)
        self.BN = nn.BatchNorm2d(features)

    def forward(self, x: Tensor, hint: Tensor) -> Tensor:
        """Refine `x` as `hint` says."""
        residual = self.bn2(self.conv2(mish(self.bn1(self.conv1(x)))))
        columns = self.gru1(self.affine(residual, hint), columns=True)
        return self.gru2(self.BN(x + columns))


class Modulation(nn.Module):
    """(N, F, 16, 64) and a hint of the same shape -> the same shape: factors per channel and an offset per pixel."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.BN = nn.BatchNorm2d(features)
        self.conv1x1_1, self.conv1x1_2, self.conv1x1_3 = (_mixer(2 * features, features) for _ in range(3))
        self.channel_attn = nn.Sequential(
            nn.Conv2d(features, features, SIZE_LR, groups=features),
            nn.Conv2d(features, features, 1),
            nn.ReLU(),
            nn.Conv2d(features, features, 1),
            nn.ReLU(),
            nn.Conv2d(features, features, 1),
            nn.Sigmoid(),
        )
        self.aggregation = _mixer(features, features)
        self.BN2 = nn.BatchNorm2d(features)

    def forward(self, x: Tensor, hint: Tensor) -> Tensor:
        """Modulate `x`."""
        both = torch.cat([x, self.BN(hint)], dim=1)
        factors = self.channel_attn(self.conv1x1_1(both))
        scaled = self.aggregation(factors * self.conv1x1_2(both))
        return self.BN2(self.conv1x1_3(both) + scaled)


def _mixer(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 1), nn.BatchNorm2d(channels), nn.PReLU(), nn.Conv2d(channels, channels, 1)
    )
