"""VDSR: twenty convolutions learn what the enlarged picture lacks.

Paper: Accurate Image Super-Resolution Using Very Deep Convolutional Networks, https://arxiv.org/abs/1511.04587
Source: https://github.com/WenjiaWang0312/TextZoom, whose key names are kept. As there the picture is enlarged by
repeating pixels, where the paper has bicubic. The repositories of TPGSR and TATT have another network under this name:
six layers, each with a skip around it (`skips`).
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from model.blocks.pictures import check_depth, check_planes, planes
from model.registry import register_model


class ConvReLU(nn.Module):
    """(N, F, H, W) -> (N, F, H, W); with `skip` the input is added to the result."""

    def __init__(self, features: int, *, skip: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(features, features, 3, padding=1, bias=False)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        y = self.conv(x).relu()
        return y + x if self.skip else y


class VDSR(nn.Module):
    """(N, C, H, W) in [0, 1] -> (N, C, s*H, s*W), not clamped.

    Args:
        scale_factor: s.
        mask: C is 4, with the text mask, else 3.
        srb_nums: hidden layers.
        hidden_units: half the number of features.
        skips: around each hidden layer, as in the repositories of TPGSR and TATT, which have 6 layers.

    Raises:
        ValueError: an argument has no meaning.
    """

    def __init__(
        self,
        *,
        scale_factor: int = 2,
        mask: bool = False,
        srb_nums: int = 18,
        hidden_units: int = 32,
        skips: bool = False,
    ) -> None:
        super().__init__()
        check_depth(srb_nums, hidden_units)
        if scale_factor < 1:
            raise ValueError(f"scale_factor {scale_factor}: a picture can be enlarged 1, 2, 3, ... times")
        self.scale_factor, self.in_channels = scale_factor, planes(mask)
        features = 2 * hidden_units
        self.residual_layer = nn.Sequential(*[ConvReLU(features, skip=skips) for _ in range(srb_nums)])
        self.input = nn.Conv2d(self.in_channels, features, 3, padding=1, bias=False)
        self.output = nn.Conv2d(features, self.in_channels, 3, padding=1, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # without, a signal fades out on its way through twenty layers
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images_lr: Tensor) -> Tensor:
        """Super-resolve.

        Raises:
            ValueError: the images have another number of planes.
        """
        enlarged = F.interpolate(images_lr, scale_factor=self.scale_factor, mode="nearest")
        return enlarged + self.details(enlarged)

    def details(self, enlarged: Tensor) -> Tensor:
        """(N, C, H, W) enlarged pictures -> what they lack, of the same shape.

        Raises:
            ValueError: the images have another number of planes.
        """
        check_planes(enlarged, self.in_channels)
        return self.output(self.residual_layer(self.input(enlarged).relu()))


@register_model(
    system="plain",
    paper="https://arxiv.org/abs/1511.04587",
    source="https://github.com/WenjiaWang0312/TextZoom",
    signature=r"^residual_layer\.0\.conv\.",
)
def vdsr(**kwargs: Any) -> VDSR:
    """VDSR with the given options."""
    return VDSR(**kwargs)
