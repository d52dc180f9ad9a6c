"""Metrics per image, and what is made of them: means, bootstrap intervals, the literature's batch-wise numbers.

Everything here is computed from one value per image in file order, so results do not depend on batch size, order,
workers or the number of processes.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dataset.charset import canonical
from interface.bootstrap import bootstrap_interval
from loss.similarity import mse_rgb, psnr_from_mse, ssim


def image_metrics(images: Tensor, images_hr: Tensor) -> dict[str, Tensor]:
    """Compare (N, >=3, H, W) pictures with their HR; RGB only.

    Returns:
        (N,) float32 each: "psnr" (dB) and "ssim" of the picture clamped to [0, 1], as it would be saved; "mse_raw" and
        "ssim_raw" of it as it is, which the literature's numbers are made of.
    """
    images, images_hr = images.float(), images_hr.float()
    clamped = images.clamp(0, 1)
    return {
        "psnr": psnr(clamped, images_hr),
        "ssim": ssim(clamped, images_hr),
        "mse_raw": mse_rgb(images, images_hr),
        "ssim_raw": ssim(images, images_hr),
    }


def psnr(images: Tensor, images_hr: Tensor) -> Tensor:
    """(N, >=3, H, W) in [0, 1] -> (N,) dB, RGB only; infinite for equal pictures."""
    return psnr_from_mse(mse_rgb(images, images_hr))


def is_correct(reading: str, label: str) -> bool:
    """The published rule: reading equals label once both are reduced to lower-case letters and digits.

    Two texts that are then empty are equal.
    """
    return canonical(reading) == canonical(label)


def batch_groups(count: int, size: int) -> list[slice]:
    """Consecutive groups of `size` images, the last one shorter: the batches of the published PSNR and SSIM."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def batch_psnr(mse: Sequence[float], size: int) -> float:
    """The literature's PSNR in dB: of the mean squared error of each batch, then the plain mean of the batches.

    It depends on the batch size and on the order; here the order is that of the files.
    """
    values = np.asarray(mse, dtype=np.float64)
    errors = [values[group].mean() for group in batch_groups(len(values), size)]
    return float(np.mean([math.inf if error == 0 else -10 * math.log10(error) for error in errors]))


def batch_ssim(values: Sequence[float], size: int) -> float:
    """The literature's SSIM: mean over each batch, then the plain mean of the batches."""
    array = np.asarray(values, dtype=np.float64)
    return float(np.mean([array[group].mean() for group in batch_groups(len(array), size)]))


def summary(values: Sequence[float], samples: int) -> dict[str, float]:
    """Mean and 95 % bootstrap interval of one number per image."""
    low, high = bootstrap_interval(values, samples)
    return {"value": float(np.mean(np.asarray(values, dtype=np.float64))), "low": low, "high": high}


def to_list(values: Tensor) -> list[float]:
    """float64 copies of a tensor's elements."""
    return values.detach().to("cpu", torch.float64).tolist()
