"""Bicubic enlargement: the baseline without parameters.

The kernel is that of Pillow (a = -0.5), which prepares all pictures of this program. The published programs enlarge
with PyTorch's (a = -0.75) and aligned corners, which stretches the picture by half a pixel at each border; scores of
it are lower. `published=True` gives theirs.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from model.registry import register_model


def enlarge(images: Tensor, scale: int = 2, *, published: bool = False) -> Tensor:
    """(N, C, H, W) -> (N, C, s*H, s*W); may leave the range of its input by a little."""
    if published:
        return F.interpolate(images, scale_factor=scale, mode="bicubic", align_corners=True)
    # With antialias PyTorch takes Pillow's kernel; enlarging needs no low-pass filter, so nothing else changes.
    return F.interpolate(images, scale_factor=scale, mode="bicubic", align_corners=False, antialias=True)


class Bicubic(nn.Module):
    """(N, C, H, W) -> (N, C, s*H, s*W).

    Args:
        scale_factor: s.
        published: align corners, as the published programs do.

    Raises:
        ValueError: a scale below 1.
    """

    def __init__(self, *, scale_factor: int = 2, published: bool = False) -> None:
        super().__init__()
        if scale_factor < 1:
            raise ValueError(f"scale_factor {scale_factor}: a picture can be enlarged 1, 2, 3, ... times")
        self.scale_factor, self.published = scale_factor, published

    def forward(self, images_lr: Tensor) -> Tensor:
        """Enlarge."""
        return enlarge(images_lr, self.scale_factor, published=self.published)


@register_model(
    system="plain",
    paper="https://doi.org/10.1109/TASSP.1981.1163711",
    scores={"CRNN": 26.8, "MORAN": 44.1, "ASTER": 48.2},
)
def bicubic(**kwargs: Any) -> Bicubic:
    """Bicubic enlargement, nothing to train."""
    return Bicubic(**kwargs)
