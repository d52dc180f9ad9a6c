"""Bootstrap: how far a mean over images would move if other images of the same kind had been taken.

Percentile intervals, https://doi.org/10.1201/9780429246593 (Efron and Tibshirani). Everything is a function of the
values, the number of samples and the seed.
"""

import math
from collections.abc import Sequence

import numpy as np

FEW = 3  # levels, such as right and wrong; drawing how often each comes is then enough
BLOCK = 2_000_000  # draws at a time, so that memory stays bounded


def redrawn_means(values: Sequence[float] | np.ndarray, samples: int, rng: np.random.Generator) -> np.ndarray:
    """Means of `samples` sets of N values that are drawn from N values with replacement.

    Args:
        values: (N,), one number per image; may be infinite.
        samples: number of sets.
        rng: where the draws come from.

    Returns:
        (samples,) float64.
    """
    array = np.asarray(values, dtype=np.float64)
    levels, counts = np.unique(array, return_counts=True)
    if len(levels) <= FEW and np.isfinite(levels).all():
        return rng.multinomial(len(array), counts / len(array), samples) @ levels / len(array)
    means = np.empty(samples)
    block = max(1, BLOCK // max(1, len(array)))
    for start in range(0, samples, block):
        count = min(block, samples - start)
        means[start : start + count] = array[rng.integers(0, len(array), (count, len(array)))].mean(axis=1)
    return means


def central_interval(means: np.ndarray) -> tuple[float, float]:
    """The ends of the middle 95 %.

    They are ranks, not interpolated percentiles, which are undefined between infinite values.
    """
    ordered, last = np.sort(means), len(means) - 1
    return float(ordered[math.floor(0.025 * last)]), float(ordered[math.ceil(0.975 * last)])


def bootstrap_interval(values: Sequence[float] | np.ndarray, samples: int, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean; infinite values make it infinite."""
    return central_interval(redrawn_means(values, samples, np.random.default_rng(seed)))
