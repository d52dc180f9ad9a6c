"""What most networks share, the checks of their pictures and sizes, and the mean colour that classic ones take away."""

import torch
from torch import Tensor, nn

MEAN_COLOUR = (0.4488, 0.4371, 0.4040)
"""Of the photos of DIV2K in [0, 1], as EDSR takes it, https://arxiv.org/abs/1707.02921."""


def planes(mask: bool) -> int:
    """Channels of a picture, with or without the text mask."""
    return 4 if mask else 3


def check_planes(images: Tensor, expected: int) -> None:
    """Refuse pictures that a network cannot use.

    Raises:
        ValueError: they are not (N, expected, H, W).
    """
    if images.ndim != 4 or images.shape[1] != expected:
        raise ValueError(
            f"LR images of shape {tuple(images.shape)}: expected (N, {expected}, H, W); "
            "the option mask=True stands for a fourth channel, the text mask"
        )


def doublings(scale_factor: int) -> int:
    """How often an enlargement by `scale_factor` doubles the sides.

    Raises:
        ValueError: it is no power of two above 1.
    """
    if scale_factor < 2 or scale_factor & (scale_factor - 1):
        raise ValueError(f"scale_factor {scale_factor} must be a power of two above 1, such as 2")
    return scale_factor.bit_length() - 1


def check_depth(srb_nums: int, hidden_units: int) -> None:
    """Refuse a network without blocks or features.

    Raises:
        ValueError: naming the option.
    """
    if srb_nums < 1:
        raise ValueError(f"srb_nums {srb_nums} must be at least 1")
    if hidden_units < 1:
        raise ValueError(f"hidden_units {hidden_units} must be at least 1")


class MeanShift(nn.Conv2d):
    """(N, C, H, W) -> (N, C, H, W): `sign` times the mean colour is added; the text mask stays as it is.

    A 1x1 convolution, as published checkpoints hold it, that is not trained. The published EDSR draws its weights anew
    with those of all convolutions, so that a fresh network mixes the colours instead; its checkpoints bring theirs.
    """

    def __init__(self, channels: int, *, sign: int) -> None:
        super().__init__(channels, channels, 1)
        mean = torch.tensor([*MEAN_COLOUR, 0.0][:channels], dtype=torch.float32)
        assert self.bias is not None
        with torch.no_grad():
            self.weight.copy_(torch.eye(channels)[:, :, None, None])
            self.bias.copy_(sign * mean)
        self.requires_grad_(False)
