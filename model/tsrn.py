"""TSRN: sequential residual blocks, convolutions followed by a recurrence along columns and rows.

Paper: Scene Text Image Super-Resolution in the Wild, ECCV 2020, https://arxiv.org/abs/2005.03341
Source: https://github.com/WenjiaWang0312/TextZoom; module names follow it, so its checkpoints load. Difference: under
PyTorch 1.3 and later the published rectifier counts pixels in another way than it was written for; both are options.
Scene Text Telescope and Text Gestalt train the same network with a rectifier that looks at 16x64 pixels.
"""

from typing import Any

from torch import nn

from model.blocks.residual import RecurrentResidualBlock
from model.blocks.skeleton import Skeleton
from model.registry import register_model


class TSRN(Skeleton):
    """LR images (N, C, 16, 64) in [0, 1] -> SR images (N, C, 32, 128) in (-1, 1).

    Args:
        stn_height: 32 as in TextZoom, whose rectifier looks at the enlarged image, or 16 as in its successors; the keys
            are the same.
        **options: those of `Skeleton`.

    Raises:
        ValueError: an argument has no meaning.
    """

    def __init__(self, *, stn_height: int = 32, **options: Any) -> None:
        super().__init__(stn_height=stn_height, **options)

    def make_block(self, features: int, number: int) -> nn.Module:
        """The block of the paper (SRB)."""
        return RecurrentResidualBlock(features)


@register_model(
    system="plain",
    paper="https://arxiv.org/abs/2005.03341",
    source="https://github.com/WenjiaWang0312/TextZoom",
    scores={"CRNN": 41.4, "MORAN": 55.4, "ASTER": 58.3},
    # Its successors hold the same keys and some more; where the block is changed, those of the block.
    signature=(
        r"^block2\.gru1\.conv1\.",
        r"^block2\.conv2\.",
        r"!^(infoGen|guidanceGen|position_prior)\.",
        r"!^block2\.(feature_enhancer|affine|wave_mlp|concat)",
    ),
)
def tsrn(**kwargs: Any) -> TSRN:
    """TSRN with the given options."""
    return TSRN(**kwargs)
