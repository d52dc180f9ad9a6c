"""HAN: groups of residual blocks with channel attention, weighed against each other and across channels and pixels.

Paper: Single Image Super-Resolution via a Holistic Attention Network, https://arxiv.org/abs/2008.08767
Source: https://github.com/mjq11302010044/TATT, whose key names are kept.
"""

from typing import Any

import torch
from torch import Tensor, nn

from model.blocks.pictures import MeanShift, check_depth, check_planes, doublings, planes
from model.registry import register_model

REDUCTION = 16  # of the channels within a channel attention


class ChannelAttention(nn.Module):
    """(N, F, H, W) -> (N, F, H, W): every channel times a share of its own."""

    def __init__(self, features: int) -> None:
        super().__init__()
        width = max(1, features // REDUCTION)
        self.conv_du = nn.Sequential(
            nn.Conv2d(features, width, 1), nn.ReLU(), nn.Conv2d(width, features, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels."""
        return x * self.conv_du(x.mean(dim=(2, 3), keepdim=True))


class AttentionBlock(nn.Module):
    """(N, F, H, W) -> (N, F, H, W): two convolutions, channel attention, and a skip (RCAB)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(features, features, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(features, features, 3, padding=1),
            ChannelAttention(features),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Refine `x`."""
        return x + self.body(x)


class ResidualGroup(nn.Module):
    """(N, F, H, W) -> (N, F, H, W): attention blocks, a convolution, and a skip."""

    def __init__(self, features: int, blocks: int) -> None:
        super().__init__()
        end = nn.Conv2d(features, features, 3, padding=1)
        self.body = nn.Sequential(*[AttentionBlock(features) for _ in range(blocks)], end)

    def forward(self, x: Tensor) -> Tensor:
        """Refine `x`."""
        return x + self.body(x)


class LayerAttention(nn.Module):
    """L maps (N, L, F, H, W) -> (N, L*F, H, W): each with a share of those it resembles least (LAM).

    At the start the share is 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, maps: Tensor) -> Tensor:
        """Weigh the layers."""
        with torch.autocast(maps.device.type, enabled=False):  # sums over all pixels and channels
            flat = maps.flatten(2).float()
            likeness = flat @ flat.transpose(1, 2)
            share = (likeness.amax(dim=2, keepdim=True) - likeness).softmax(dim=2)
            mixed = (share @ flat).view_as(maps)
        return (self.gamma * mixed + maps).flatten(1, 2)


class ChannelSpatialAttention(nn.Module):
    """(N, F, H, W) -> (N, F, H, W): a convolution over channels and pixels says what counts more (CSAM).

    At the start nothing does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))
        self.conv = nn.Conv3d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh channels and pixels."""
        weight = self.conv(x.unsqueeze(1)).sigmoid().squeeze(1)
        return x * (self.gamma * weight) + x


class HAN(nn.Module):
    """(N, C, H, W) in [0, 1] -> (N, C, s*H, s*W), not clamped.

    Args:
        scale_factor: s, a power of two.
        mask: C is 4, with the text mask, else 3.
        srb_nums: residual groups.
        hidden_units: half the number of features.
        group_blocks: attention blocks of a group.

    Raises:
        ValueError: an argument has no meaning.
    """

    def __init__(
        self,
        *,
        scale_factor: int = 2,
        mask: bool = False,
        srb_nums: int = 10,
        hidden_units: int = 64,
        group_blocks: int = 20,
    ) -> None:
        super().__init__()
        check_depth(srb_nums, hidden_units)
        if group_blocks < 1:
            raise ValueError(f"group_blocks {group_blocks} must be at least 1; the paper has 20")
        self.in_channels = planes(mask)
        features = 2 * hidden_units
        self.sub_mean = MeanShift(self.in_channels, sign=-1)
        self.add_mean = MeanShift(self.in_channels, sign=1)
        self.head = nn.Sequential(nn.Conv2d(self.in_channels, features, 3, padding=1))
        groups = [ResidualGroup(features, group_blocks) for _ in range(srb_nums)]
        self.body = nn.Sequential(*groups, nn.Conv2d(features, features, 3, padding=1))
        self.csa = ChannelSpatialAttention()
        self.la = LayerAttention()
        self.last_conv = nn.Conv2d(features * (srb_nums + 1), features, 3, padding=1)
        self.last = nn.Conv2d(2 * features, features, 3, padding=1)
        ups: list[nn.Module] = []
        for _ in range(doublings(scale_factor)):
            ups += [nn.Conv2d(features, 4 * features, 3, padding=1), nn.PixelShuffle(2)]
        self.tail = nn.Sequential(nn.Sequential(*ups), nn.Conv2d(features, self.in_channels, 3, padding=1))

    def forward(self, images_lr: Tensor) -> Tensor:
        """Super-resolve.

        Raises:
            ValueError: the images have another number of planes.
        """
        check_planes(images_lr, self.in_channels)
        shallow = x = self.head(self.sub_mean(images_lr))
        maps: list[Tensor] = []
        for layer in self.body:
            x = layer(x)
            maps.insert(0, x)  # the last layer comes first
        layers = self.last_conv(self.la(torch.stack(maps, dim=1)))
        deep = self.last(torch.cat([self.csa(x), layers], dim=1))
        return self.add_mean(self.tail(shallow + deep))


@register_model(
    system="plain",
    paper="https://arxiv.org/abs/2008.08767",
    source="https://github.com/mjq11302010044/TATT",
    signature=r"^csa\.gamma$",
)
def han(**kwargs: Any) -> HAN:
    """HAN with the given options."""
    return HAN(**kwargs)
