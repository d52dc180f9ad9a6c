"""Turning pictures of words by small angles, for networks that must not mind a line that is not level.

Paper: TATT, https://arxiv.org/abs/2203.09388, whose published training turns LR and HR by the same angle.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

SPREAD = 0.2  # how far the aspect that a turn goes by may be from that of the picture


def turned(images: Tensor, arcs: Tensor, offsets: Tensor) -> Tensor:
    """Turn each picture, with some shear and stretch, in one interpolation; what comes in from outside is 0.

    Args:
        images: (N, C, H, W).
        arcs: (N,) angles in radians.
        offsets: (N,) in [0, 1]: at 0.5 the picture is only turned, at other values sheared as well.

    Returns:
        (N, C, H, W) of the type of `images`; gradients flow through.
    """
    arcs, offsets = arcs.to(images, non_blocking=True), offsets.to(images, non_blocking=True)
    aspect = images.shape[2] / images.shape[3] + SPREAD * (2 * offsets - 1)
    cosine, sine, zero = arcs.cos(), arcs.sin(), torch.zeros_like(arcs)
    rows = [torch.stack([cosine, sine * aspect, zero], dim=1), torch.stack([-sine / aspect, cosine, zero], dim=1)]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)
