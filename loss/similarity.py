"""How alike two images are: SSIM, squared error on RGB and the decibels made of it.

Differentiable, so `1 - ssim` can be trained; the metrics of an evaluation are the same functions.

Paper: Image Quality Assessment: From Error Visibility to Structural Similarity, TIP 2004,
https://doi.org/10.1109/TIP.2003.819861
Source: the numbers are those of https://github.com/WenjiaWang0312/TextZoom: zero padding,
no clamp of the super-resolved image. Differences: one value per image; the window is applied along both axes in turn.
"""

from functools import lru_cache

import torch
from torch import Tensor

from loss.image import RGB, check_same_shape

WINDOW = 11
SIGMA = 1.5
C1 = 0.01**2  # stabilisers for data in [0, 1]
C2 = 0.03**2


def gaussian_window(size: int = WINDOW, sigma: float = SIGMA) -> Tensor:
    """(size,) float32 samples of a centred Gaussian that sum to 1."""
    position = torch.arange(size, dtype=torch.float64) - size // 2
    weight = torch.exp(-position.square() / (2 * sigma**2))
    return (weight / weight.sum()).float()


def _smoothed(moments: Tensor) -> Tensor:
    """(..., H, W) -> the same, averaged under the window at every pixel, with zeros outside.

    Products with banded matrices: convolutions of single planes are ten times slower on a CPU.
    """
    height, width = moments.shape[-2:]
    return _window_matrix(height, moments.device) @ (moments @ _window_matrix(width, moments.device))


@lru_cache(maxsize=32)
def _window_matrix(size: int, device: torch.device) -> Tensor:
    """(size, size) float32, symmetric: each row holds the window around its place."""
    with torch.inference_mode(False):  # what is made there could not be trained with
        far = WINDOW // 2
        distance = torch.arange(size)[:, None] - torch.arange(size)
        weights = gaussian_window()[(distance + far).clamp(0, WINDOW - 1)]
        return torch.where(distance.abs() <= far, weights, 0.0).to(device)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity per image, symmetric in its arguments.

    Args:
        a: (N, >=3, H, W), nominally [0, 1], not clamped; planes after the third are dropped.
        b: like `a`.

    Returns:
        (N,) float32, at most 1 (equal images). float32 also inside autocast: the variances are differences of nearly
        equal numbers.

    Raises:
        ValueError: the shapes differ.
    """
    check_same_shape(a, b)
    with torch.autocast(a.device.type, enabled=False):
        a, b = a[:, :RGB].float(), b[:, :RGB].float()
        moments = torch.stack([a, b, a * a + b * b, a * b])
        mean_a, mean_b, squares, product = _smoothed(moments)
        lengths, shared = mean_a.square() + mean_b.square(), mean_a * mean_b
        luminance = (2 * shared + C1) / (lengths + C1)
        return (luminance * (2 * (product - shared) + C2) / (squares - lengths + C2)).flatten(1).mean(1)


def structure_similarity(turned_back: Tensor, sr: Tensor, hr: Tensor) -> Tensor:
    """How much the structure of three pictures agrees, each with both others; symmetric in its arguments.

    TATT's text structure consistency, https://arxiv.org/abs/2203.09388: SSIM for three pictures.

    Args:
        turned_back: (N, C, H, W) made of another view of the word, nominally [0, 1]; all planes count.
        sr: like it.
        hr: like it.

    Returns:
        (N,) float32, at most 1 (equal images).

    Raises:
        ValueError: the shapes differ.
    """
    check_same_shape(turned_back, hr)
    check_same_shape(sr, hr)
    with torch.autocast(sr.device.type, enabled=False):
        a, b, c = turned_back.float(), sr.float(), hr.float()
        moments = torch.stack([a, b, c, a * a + b * b + c * c, a * b + b * c + c * a])
        mean_a, mean_b, mean_c, squares, products = _smoothed(moments)
        lengths = mean_a.square() + mean_b.square() + mean_c.square()
        shared = mean_a * mean_b + mean_b * mean_c + mean_c * mean_a
        luminance = (shared + C1) / (lengths + C1)
        return (luminance * (products - shared + C2) / (squares - lengths + C2)).flatten(1).mean(1)


def mse_rgb(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared error per image on RGB; the mean of it over a batch is what the batch PSNR is made of.

    Args:
        a: (N, >=3, H, W), nominally [0, 1]; planes after the third are dropped.
        b: like `a`.

    Returns:
        (N,) float32.

    Raises:
        ValueError: the shapes differ.
    """
    check_same_shape(a, b)
    return (a[:, :RGB].float() - b[:, :RGB].float()).square().flatten(1).mean(1)


def psnr_from_mse(mse: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of squared errors of images in [0, 1]; +inf where the error is 0.

    The published 20 log10(255 / sqrt(mean of squares of 255-fold differences)) is the same number.
    """
    return -10 * torch.log10(mse)
