"""What networks that are guided by a text prior alone share: how it is checked, and that it may be missing.

Paper: TPGSR, https://arxiv.org/abs/2106.15368. A text prior is class probabilities (N, 37, 1, 26) of what a recogniser
reads. Difference: a missing prior works for any batch size.
"""

from torch import Tensor

NUM_CLASSES, NUM_COLUMNS = 37, 26  # blank, digits, lower-case letters; what CRNN gives for an image of width 100


def checked_prior(images: Tensor, prior: Tensor | None) -> Tensor:
    """The prior (N, 37, 1, 26) of these LR images (N, C, H, W); None is no text (zeros).

    Raises:
        ValueError: it has another shape.
    """
    expected = (len(images), NUM_CLASSES, 1, NUM_COLUMNS)
    if prior is None:
        return images.new_zeros(expected)
    if prior.shape != expected:
        raise ValueError(
            f"text prior of shape {tuple(prior.shape)}: expected {expected}, probabilities of {NUM_CLASSES} classes in "
            f"{NUM_COLUMNS} columns for each LR image"
        )
    return prior
