"""TPGSR: TSRN, guided by what a recogniser reads.

Paper: Text Prior Guided Scene Text Image Super-resolution, TIP 2023, https://arxiv.org/abs/2106.15368
Source: https://github.com/mjq11302010044/TPGSR (TSRN_TL); module names follow it, so its checkpoints load. Differences:
any number of blocks gets the hint (published: five); a missing prior works for any batch size. Classic networks with
the same guidance: `model/tpgsr_classics.py`.
"""

from typing import Any

from torch import Tensor

from model.blocks.clue import TextInterpreter, interpret
from model.blocks.prior import NUM_CLASSES, PriorGuidedSkeleton
from model.registry import register_model

PRIOR_CHANNELS = 32


class TPGSR(PriorGuidedSkeleton):
    """LR images (N, C, 16, 64) in [0, 1] and a text prior (N, 37, 1, 26) -> SR images (N, C, 32, 128) in (-1, 1).

    Args:
        flat_prior: the prior is one row of features, which all rows of the image share; False as in TATT's repository,
            whose checkpoints of this network have the same keys and compute something else.
        **options: those of `Skeleton`.

    Raises:
        ValueError: an argument has no meaning.
    """

    hint_channels = PRIOR_CHANNELS

    def __init__(self, *, flat_prior: bool = True, **options: Any) -> None:
        self.flat_prior = flat_prior  # read while the base class builds the parts
        super().__init__(**options)
        self.options |= {"flat_prior": flat_prior}

    def add_hint_modules(self) -> None:
        """What makes a map of the prior."""
        self.infoGen = TextInterpreter(NUM_CLASSES, PRIOR_CHANNELS, flat=self.flat_prior)

    def hint(self, shallow: Tensor, prior: Tensor) -> Tensor:
        """A map of the text, (N, 32, H, W)."""
        return interpret(self.infoGen, prior, (shallow.shape[2], shallow.shape[3]))


@register_model(
    system="prior_guided",
    paper="https://arxiv.org/abs/2106.15368",
    source="https://github.com/mjq11302010044/TPGSR",
    scores={"CRNN": 49.8, "MORAN": 57.8, "ASTER": 60.9},
    signature=(
        r"^infoGen\.tconv1\.",
        r"^block2\.gru1\.conv1\.",
        r"^block2\.conv2\.",
        r"!^(gated|lm|infoGen_ling|sft_layer)\.",
    ),
    published={"stn_align_corners": False},
)
def tpgsr(**kwargs: Any) -> TPGSR:
    """TPGSR with the trunk of TSRN and the given options."""
    return TPGSR(**kwargs)
