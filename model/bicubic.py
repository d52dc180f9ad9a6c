"""Bicubic interpolation, the baseline every table starts with: a network without parameters."""

import torch.nn.functional as F
from torch import Tensor, nn

from model.registry import register_model


class Bicubic(nn.Module):
    """(N, C, H, W) -> (N, C, s*H, s*W), every channel alike; overshoots are not clamped."""

    def __init__(self, *, scale_factor: int = 2) -> None:
        super().__init__()
        if scale_factor < 1:
            raise ValueError(f"scale_factor {scale_factor} must be at least 1")
        self.scale_factor = scale_factor

    def forward(self, images_lr: Tensor) -> Tensor:
        """Enlarge `images_lr` (N, C, H, W)."""
        return F.interpolate(
            images_lr, scale_factor=self.scale_factor, mode="bicubic", align_corners=False, antialias=False
        )


@register_model(system="plain")
def bicubic(**kwargs: int) -> Bicubic:
    """Bicubic enlargement."""
    return Bicubic(**kwargs)
