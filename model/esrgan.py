"""The generator of ESRGAN: residual in residual dense blocks (RRDB), trained here without a discriminator.

Paper: ESRGAN, https://arxiv.org/abs/1809.00219
Source: https://github.com/WenjiaWang0312/TextZoom, which trains this network with the absolute error alone; its key
names, those of the authors' own repository, are kept.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.blocks.pictures import check_depth, check_planes, doublings, planes
from model.registry import register_model

GROWTH = 32
RESIDUAL_SCALE = 0.2
SLOPE = 0.2  # of LeakyReLU


class DenseBlock(nn.Module):
    """(N, F, H, W) -> (N, F, H, W): five convolutions, each of which sees the results of all before it."""

    def __init__(self, features: int) -> None:
        super().__init__()
        for number in range(1, 6):
            out_channels = features if number == 5 else GROWTH
            conv = nn.Conv2d(features + (number - 1) * GROWTH, out_channels, 3, padding=1)
            nn.init.kaiming_normal_(conv.weight)
            with torch.no_grad():  # deep residual networks start the better the smaller (section 3.1 of the paper)
                conv.weight.mul_(0.1)
            self.add_module(f"conv{number}", conv)

    def forward(self, x: Tensor) -> Tensor:
        """Refine `x`."""
        seen = x
        for number in range(1, 5):
            seen = torch.cat([seen, F.leaky_relu(self.get_submodule(f"conv{number}")(seen), SLOPE)], dim=1)
        return x + RESIDUAL_SCALE * self.get_submodule("conv5")(seen)


class RRDB(nn.Module):
    """(N, F, H, W) -> (N, F, H, W): three dense blocks and a skip."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.RDB1 = DenseBlock(features)
        self.RDB2 = DenseBlock(features)
        self.RDB3 = DenseBlock(features)

    def forward(self, x: Tensor) -> Tensor:
        """Refine `x`."""
        return x + RESIDUAL_SCALE * self.RDB3(self.RDB2(self.RDB1(x)))


class RRDBNet(nn.Module):
    """(N, C, H, W) in [0, 1] -> (N, C, s*H, s*W), not clamped.

    Args:
        scale_factor: s, a power of two.
        mask: C is 4, with the text mask, else 3.
        srb_nums: residual in residual dense blocks.
        hidden_units: half the number of features.

    Raises:
        ValueError: an argument has no meaning.
    """

    def __init__(
        self, *, scale_factor: int = 2, mask: bool = False, srb_nums: int = 23, hidden_units: int = 32
    ) -> None:
        super().__init__()
        check_depth(srb_nums, hidden_units)
        self.in_channels = planes(mask)
        features = 2 * hidden_units
        self.conv_first = nn.Conv2d(self.in_channels, features, 3, padding=1)
        self.RRDB_trunk = nn.Sequential(*[RRDB(features) for _ in range(srb_nums)])
        self.trunk_conv = nn.Conv2d(features, features, 3, padding=1)
        self.ups = tuple(f"upconv{number}" for number in range(1, doublings(scale_factor) + 1))
        for name in self.ups:
            self.add_module(name, nn.Conv2d(features, features, 3, padding=1))
        self.HRconv = nn.Conv2d(features, features, 3, padding=1)
        self.conv_last = nn.Conv2d(features, self.in_channels, 3, padding=1)

    def forward(self, images_lr: Tensor) -> Tensor:
        """Super-resolve.

        Raises:
            ValueError: the images have another number of planes.
        """
        check_planes(images_lr, self.in_channels)
        x = self.conv_first(images_lr)
        x = x + self.trunk_conv(self.RRDB_trunk(x))
        for name in self.ups:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = F.leaky_relu(self.get_submodule(name)(x), SLOPE)
        return self.conv_last(F.leaky_relu(self.HRconv(x), SLOPE))


@register_model(
    system="plain",
    paper="https://arxiv.org/abs/1809.00219",
    source="https://github.com/WenjiaWang0312/TextZoom",
    signature=(r"^RRDB_trunk\.0\.RDB1\.", r"!^infoGen\."),
)
def esrgan(**kwargs: Any) -> RRDBNet:
    """The generator of ESRGAN with the given options."""
    return RRDBNet(**kwargs)
