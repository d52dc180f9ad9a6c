"""SRCNN: three convolutions on the enlarged picture.

Paper: Image Super-Resolution Using Deep Convolutional Networks, https://arxiv.org/abs/1501.00092
Source: https://github.com/WenjiaWang0312/TextZoom, whose key names are kept. As there the picture is enlarged by
repeating pixels, where the paper has bicubic. Its rectifier is left out: it fails on the 16x64 pixels it is given.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from model.blocks.pictures import check_planes, planes
from model.registry import register_model


class SRCNN(nn.Module):
    """(N, C, H, W) in [0, 1] -> (N, C, s*H, s*W), not clamped.

    Args:
        scale_factor: s.
        mask: C is 4, with the text mask, else 3.

    Raises:
        ValueError: a scale below 1.
    """

    def __init__(self, *, scale_factor: int = 2, mask: bool = False) -> None:
        super().__init__()
        if scale_factor < 1:
            raise ValueError(f"scale_factor {scale_factor}: a picture can be enlarged 1, 2, 3, ... times")
        self.scale_factor, self.in_channels = scale_factor, planes(mask)
        self.conv1 = nn.Conv2d(self.in_channels, 64, 9, padding=4)
        self.conv2 = nn.Conv2d(64, 32, 1)
        self.conv3 = nn.Conv2d(32, self.in_channels, 5, padding=2)

    def forward(self, images_lr: Tensor) -> Tensor:
        """Super-resolve.

        Raises:
            ValueError: the images have another number of planes.
        """
        check_planes(images_lr, self.in_channels)
        x = F.interpolate(images_lr, scale_factor=self.scale_factor, mode="nearest")
        return self.conv3(self.conv2(self.conv1(x).relu()).relu())


@register_model(
    system="plain",
    paper="https://arxiv.org/abs/1501.00092",
    source="https://github.com/WenjiaWang0312/TextZoom",
    scores={"CRNN": 29.2, "MORAN": 45.6, "ASTER": 50.0},
    signature=(r"^conv3\.weight$", r"!^(?!conv[123]\.(weight|bias)$)"),  # three convolutions and nothing else
)
def srcnn(**kwargs: Any) -> SRCNN:
    """SRCNN with the given options."""
    return SRCNN(**kwargs)
