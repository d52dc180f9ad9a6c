"""What networks that are guided by a text prior alone share: how it is checked, and that it may be missing.

Paper: TPGSR, https://arxiv.org/abs/2106.15368. A text prior is class probabilities (N, 37, 1, 26) of what a recogniser
reads. Difference: a missing prior works for any batch size.
"""

from torch import Tensor, nn

from model.blocks.residual import RecurrentResidualBlock
from model.blocks.skeleton import Skeleton

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


class PriorGuidedSkeleton(Skeleton):
    """LR images (N, C, 16, 64) in [0, 1] and a text prior (N, 37, 1, 26) -> SR images (N, C, 32, 128) in (-1, 1).

    The sizes are those of the default arguments. A subclass says how a prior becomes a hint for each pixel; its
    residual blocks are TSRN's, with that hint beside their residual.

    Args:
        **options: those of `Skeleton`.
    """

    hint_channels: int | None = None
    """Channels of the hint; None: as many as there are features."""

    def make_block(self, features: int, number: int) -> nn.Module:
        """A block that takes a hint."""
        return RecurrentResidualBlock(features, features if self.hint_channels is None else self.hint_channels)

    def hint(self, shallow: Tensor, prior: Tensor) -> Tensor:
        """First features (N, F, H, W) and a prior (N, 37, 1, 26) -> what each pixel is told, (N, c, H, W)."""
        raise NotImplementedError

    def forward(self, images_lr: Tensor, prior: Tensor | None = None) -> Tensor:
        """Super-resolve.

        Args:
            images_lr: (N, C, H, W) in [0, 1].
            prior: (N, 37, 1, 26) class probabilities of the recognised text; None is no text (zeros).

        Returns:
            (N, C, s*H, s*W) in (-1, 1).

        Raises:
            ValueError: a tensor has a shape this network cannot use.
        """
        shallow = self.shallow(images_lr)
        return self.reconstruct(shallow, self.hint(shallow, checked_prior(images_lr, prior)))
