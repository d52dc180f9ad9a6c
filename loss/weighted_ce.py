"""Cross entropy that cares most about the characters which look like the true one.

Paper: Scene Text Telescope: Text-Focused Scene Image Super-Resolution, CVPR 2021,
https://openaccess.thecvf.com/content/CVPR2021/html/Chen_Scene_Text_Telescope_Text-Focused_Scene_Image_Super-Resolution_CVPR_2021_paper.html
Source: https://github.com/FudanVI/FudanOCR (scene-text-telescope).
Differences: a form that cannot overflow; the columns of the confusion matrix are sorted like its rows, which the
published code forgets (`column_order="published"` reproduces it).
"""

import string
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

ALPHABET = "-" + string.digits + string.ascii_lowercase  # "-" starts and ends a text
CLASSES = len(ALPHABET)
IGNORED = -100  # target of a padded position

_DIGITS, _LETTERS = len(string.digits), len(string.ascii_lowercase)
_CONFUSION_SIZE = _DIGITS + 2 * _LETTERS


def confusion_weights(
    dissimilarity: np.ndarray | None = None, *, column_order: Literal["corrected", "published"] = "corrected"
) -> Tensor:
    """How much a character counts among the alternatives to the true one: the more alike they look, the more.

    Args:
        dissimilarity: (62, 62) float, not negative, in the order digits, upper case, lower case, as in the published
            `confuse.pkl`; None gives the same weight to all characters, a plain cross entropy.
        column_order: "corrected" sorts the columns like the rows (digits, lower, upper), so that the weight of the
            true character is 1. "published" leaves them, which gives each letter the weight
            1 / dissimilarity(lower, upper) on the diagonal (33 for "m", 0.5 for "n").

    Returns:
        (37, 37) float32, row: true class, column: alternative, both `ALPHABET`; positive.

    Raises:
        ValueError: the matrix is not of that kind, or an unknown column order.
    """
    if column_order not in ("corrected", "published"):
        raise ValueError(f"unknown column order {column_order!r}; known: 'corrected', 'published'")
    if dissimilarity is None:
        return torch.ones(CLASSES, CLASSES)
    matrix = np.asarray(dissimilarity, dtype=np.float64)
    if matrix.shape != (_CONFUSION_SIZE, _CONFUSION_SIZE) or not np.isfinite(matrix).all() or matrix.min() < 0:
        raise ValueError(
            f"confusion matrix of shape {matrix.shape}: it must be {_CONFUSION_SIZE} x {_CONFUSION_SIZE} "
            "(digits, upper, lower), finite and not negative; without a file leave it out"
        )
    lower_first = np.r_[0:_DIGITS, _DIGITS + _LETTERS : _CONFUSION_SIZE, _DIGITS : _DIGITS + _LETTERS]
    matrix = matrix[lower_first]
    if column_order == "corrected":
        matrix = matrix[:, lower_first]
    matrix = np.pad(matrix, ((1, 0), (1, 0)), constant_values=1.0)  # the end symbol is like nothing and all
    similarity = np.where(matrix > 0, 1 / np.where(matrix > 0, matrix, 1), 1.0)
    # A letter is as easily taken for another as its more similar case; its own diagonal is left alone.
    letters = slice(1 + _DIGITS, CLASSES)
    table = similarity[:CLASSES, :CLASSES].copy()
    table[:, letters] = np.maximum(table[:, letters], similarity[:CLASSES, CLASSES:])
    np.fill_diagonal(table, similarity.diagonal()[:CLASSES])
    return torch.from_numpy(table.astype(np.float32))


def weighted_cross_entropy(logits: Tensor, targets: Tensor, log_weights: Tensor) -> Tensor:
    """Mean of -log(W[g, g] exp z_g / sum_j W[g, j] exp z_j) over all positions with a target g.

    It is the cross entropy of z + log W[g], which is how it is computed: the exponentials of the published code
    overflow for logits above 88.

    Args:
        logits: (..., K).
        targets: (...) int64 true classes, `IGNORED` where there is none.
        log_weights: (K, K) logarithm of the weights, row: true class.

    Returns:
        () float32.
    """
    adjusted = logits.float() + log_weights[targets.clamp_min(0)]
    return F.cross_entropy(adjusted.flatten(0, -2), targets.flatten(), ignore_index=IGNORED)
