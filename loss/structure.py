"""Local contour awareness (LCA): histograms of oriented gradients of the two images must agree.

Source: RTSRN (the published code computes the term without gradient, so it moves nothing but the printed loss).
Differences: gradients flow through the magnitudes unless `published=True`, any number of planes.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from loss.image import check_same_shape

BINS = 4
CELL = 2
# Response of the Sobel filter to a step of one grey level. Below it the direction of an edge is noise.
NOISE = 4 / 255


def _sobel(images: Tensor) -> tuple[Tensor, Tensor]:
    """(N, C, H, W) -> differences left-right and up-down of the same shape, mirrored at the border.

    Across a mirrored border the difference is 0 but for rounding, whose sign chooses between two directions. Two
    depth-wise convolutions round as the published code does; differences of slices, or one convolution for both, don't.
    """
    planes = images.shape[1]
    kernel = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
    kernel = kernel.to(images.device, non_blocking=True)
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    across = F.conv2d(padded, kernel.expand(planes, 1, 3, 3), groups=planes)
    down = F.conv2d(padded, kernel.T.expand(planes, 1, 3, 3), groups=planes)
    return across, down


def hog(images: Tensor) -> Tensor:
    """Histogram of gradient directions in each cell of 2 x 2 pixels, of length 1 (or 0 where the cell is flat).

    The derivative is exact for clear edges. For cells whose edges are below one grey level it is damped: the true one
    grows without limit as the cell gets flat, and is undefined in a flat one.

    Args:
        images: (N, C, H, W), nominally [0, 1], H and W at least 2; an odd last row or column is not used.

    Returns:
        (N, C, 4, H // 2, W // 2) float32 in [0, 1].
    """
    with torch.autocast(images.device.type, enabled=False):
        across, down = _sobel(images.float())
        squared = across.square() + down.square()
        # The root of 0 has no derivative: there, a constant goes through the root and is replaced by 0 again.
        edge = squared > 0
        magnitude = torch.where(edge, torch.where(edge, squared, 1.0).sqrt(), 0.0)
        phase = torch.atan2(across.detach(), down.detach()) / math.pi * BINS
        bins = phase.floor().long().remainder(BINS)
        count, planes, height, width = images.shape
        empty = magnitude.new_zeros(count, planes, BINS, height, width)
        votes = empty.scatter(2, bins.unsqueeze(2), magnitude.unsqueeze(2))
        cells = F.avg_pool2d(votes.flatten(0, 1), CELL, divisor_override=1).unflatten(0, (count, planes))
        exact = F.normalize(cells.detach(), dim=2, eps=1e-12)
        damped = cells / (cells.square().sum(2, keepdim=True) + NOISE**2).sqrt()
        return exact + (damped - damped.detach())


def local_contour_loss(sr: Tensor, hr: Tensor, *, published: bool = False) -> Tensor:
    """Mean absolute difference of the two `hog`; RTSRN adds it with weight 0.1.

    Args:
        sr: (N, C, H, W), any range.
        hr: (N, C, H, W), [0, 1].
        published: the same value without gradient.

    Returns:
        () float32.

    Raises:
        ValueError: the shapes differ.
    """
    check_same_shape(sr, hr)
    with torch.no_grad():
        target = hog(hr)
    with torch.set_grad_enabled(torch.is_grad_enabled() and not published):
        return (hog(sr) - target).abs().mean()
