"""EDSR: wide residual blocks without normalisation.

Paper: Enhanced Deep Residual Networks for Single Image Super-Resolution, https://arxiv.org/abs/1707.02921
Source: https://github.com/WenjiaWang0312/TextZoom, whose key names are kept. Difference: a fresh network takes the mean
colour away, which the published one does not (see `MeanShift`).
"""

from typing import Any

from torch import Tensor, nn

from model.blocks.pictures import MeanShift, check_depth, check_planes, planes
from model.registry import register_model

RESIDUAL_SCALE = 0.1


class ResidualBlock(nn.Module):
    """(N, F, H, W) -> (N, F, H, W): two convolutions, of which a tenth is added."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Refine `x`."""
        return x + RESIDUAL_SCALE * self.conv2(self.conv1(x).relu())


class EDSR(nn.Module):
    """(N, C, H, W) in [0, 1] -> (N, C, s*H, s*W), not clamped.

    Args:
        scale_factor: s.
        mask: C is 4, with the text mask, else 3.
        srb_nums: residual blocks.
        hidden_units: half the number of features.

    Raises:
        ValueError: an argument has no meaning.
    """

    def __init__(
        self, *, scale_factor: int = 2, mask: bool = False, srb_nums: int = 32, hidden_units: int = 128
    ) -> None:
        super().__init__()
        check_depth(srb_nums, hidden_units)
        if scale_factor < 1:
            raise ValueError(f"scale_factor {scale_factor}: a picture can be enlarged 1, 2, 3, ... times")
        self.scale_factor, self.in_channels = scale_factor, planes(mask)
        features = 2 * hidden_units
        self.sub_mean = MeanShift(self.in_channels, sign=-1)
        self.conv_input = nn.Conv2d(self.in_channels, features, 3, padding=1, bias=False)
        self.residual = nn.Sequential(*[ResidualBlock(features) for _ in range(srb_nums)])
        self.conv_mid = nn.Conv2d(features, features, 3, padding=1, bias=False)
        more = nn.Conv2d(features, features * scale_factor**2, 3, padding=1, bias=False)
        self.upscale = nn.Sequential(more, nn.PixelShuffle(scale_factor))
        self.conv_output = nn.Conv2d(features, self.in_channels, 3, padding=1, bias=False)
        self.add_mean = MeanShift(self.in_channels, sign=1)

    def forward(self, images_lr: Tensor) -> Tensor:
        """Super-resolve.

        Raises:
            ValueError: the images have another number of planes.
        """
        check_planes(images_lr, self.in_channels)
        shallow = self.conv_input(self.sub_mean(images_lr))
        deep = shallow + self.conv_mid(self.residual(shallow))
        return self.add_mean(self.conv_output(self.upscale(deep)))


@register_model(
    system="plain",
    paper="https://arxiv.org/abs/1707.02921",
    source="https://github.com/WenjiaWang0312/TextZoom",
    signature=(r"^conv_mid\.", r"!^infoGen\."),
)
def edsr(**kwargs: Any) -> EDSR:
    """EDSR with the given options."""
    return EDSR(**kwargs)
