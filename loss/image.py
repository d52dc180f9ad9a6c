"""Pixel losses of TSRN and its successors: squared error and the gradient profile.

Paper: Scene Text Image Super-Resolution in the Wild, ECCV 2020, https://arxiv.org/abs/2005.03341 (equation 3)
Source: https://github.com/WenjiaWang0312/TextZoom, https://github.com/mjq11302010044/TPGSR
Differences: one function gives the scalar (TSRN, TPGSR) and the per-sample form (TATT, RTSRN); the published
per-sample form cannot run without its gradient term, here its weight may be 0.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

RGB = 3


def check_same_shape(sr: Tensor, hr: Tensor) -> None:
    """Refuse two image batches that would only fit by broadcasting.

    Raises:
        ValueError: the shapes differ.
    """
    if sr.shape != hr.shape:
        raise ValueError(
            f"images of shape {tuple(sr.shape)} and {tuple(hr.shape)} cannot be compared: a loss needs equal shapes; "
            "check the number of planes (mask) and the scale of the network"
        )


def smallest(errors: Tensor, share: float) -> Tensor:
    """(N,) errors -> (N,) 1 where the error is among the smallest `share` of them, and else 0; at least one is 1.

    Without a gradient. What is left of a share in whole images is cut off, which is inferred.
    """
    count = max(1, int(share * len(errors)))
    return torch.zeros_like(errors).scatter(0, errors.detach().topk(count, largest=False).indices, 1.0)


def squared_error(sr: Tensor, hr: Tensor) -> Tensor:
    """Mean squared error of each image over all its planes, the text mask included.

    Args:
        sr: (N, C, H, W), any range.
        hr: (N, C, H, W), [0, 1].

    Returns:
        (N,) float32.

    Raises:
        ValueError: the shapes differ.
    """
    check_same_shape(sr, hr)
    return (sr.float() - hr.float()).square().flatten(1).mean(1)


def absolute_error(sr: Tensor, hr: Tensor) -> Tensor:
    """Mean absolute error of each image over all its planes; arguments and errors as for `squared_error`.

    Returns:
        (N,) float32.
    """
    check_same_shape(sr, hr)
    return (sr.float() - hr.float()).abs().flatten(1).mean(1)


def charbonnier(sr: Tensor, hr: Tensor) -> Tensor:
    """Mean of sqrt(difference^2 + 1e-6) of each image over all its planes; arguments and errors as for `squared_error`.

    LapSRN, https://arxiv.org/abs/1704.03915. Its published form is the sum over a whole batch, which is this times the
    number of values: Adam takes the same steps either way.

    Returns:
        (N,) float32, at least 1e-3.
    """
    check_same_shape(sr, hr)
    return ((sr.float() - hr.float()).square() + 1e-6).sqrt().flatten(1).mean(1)


PIXEL_ERRORS = {"mse": squared_error, "l1": absolute_error, "charbonnier": charbonnier}


def gradient_magnitude(images: Tensor) -> Tensor:
    """Length of the central-difference gradient at every pixel; outside the image everything is 0.

    Args:
        images: (N, C, H, W).

    Returns:
        (N, C, H, W) float32, at least 1e-3: the 1e-6 below the root keeps its derivative finite on flat areas.
    """
    padded = F.pad(images.float(), (1, 1, 1, 1))
    across = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) * 0.5
    down = (padded[..., :-2, 1:-1] - padded[..., 2:, 1:-1]) * 0.5
    return (across.square() + down.square() + 1e-6).sqrt()


def gradient_profile(sr: Tensor, hr: Tensor) -> Tensor:
    """Mean absolute difference of the gradient magnitudes, RGB only (the gradient of a binary mask says nothing).

    Args:
        sr: (N, >=3, H, W), any range.
        hr: (N, >=3, H, W), [0, 1].

    Returns:
        (N,) float32.

    Raises:
        ValueError: the shapes differ.
    """
    check_same_shape(sr, hr)
    difference = gradient_magnitude(sr[:, :RGB]) - gradient_magnitude(hr[:, :RGB])
    return difference.abs().flatten(1).mean(1)
