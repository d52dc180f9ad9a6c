"""C3-STISR: scene-text super-resolution with triple clues, as its paper describes the network.

Paper: IJCAI 2022, https://arxiv.org/abs/2204.14044. The published repository of that name builds RTSRN's class instead
(`model/rtsrn.py`), so the block is in no public code: here it is that of TSRN with the hint beside its residual, as in
TPGSR (https://arxiv.org/abs/2106.15368). Without `triple_clues` this is TPGSR's network, key by key. The paper has
three clues (`visual_clue`), the published code two.
"""

from typing import Any

from model.blocks.clue_guided import ClueGuidedNetwork
from model.blocks.residual import RecurrentResidualBlock
from model.registry import register_model


class C3STISR(ClueGuidedNetwork):
    """LR images (N, C, 16, 64) in [0, 1] and text clues -> SR images (N, C, 32, 128) in (-1, 1)."""

    residual_block = RecurrentResidualBlock
    pixel_adapter = False


# Without triple_clues nothing tells it from TPGSR, so then its keys have that name.
@register_model(
    system="clues",
    paper="https://arxiv.org/abs/2204.14044",
    scores={"CRNN": 53.7, "MORAN": 59.5, "ASTER": 64.1},
    signature=(r"^block2\.conv1\.", r"^gated\.compress\."),
)
def c3stisr(**kwargs: Any) -> C3STISR:
    """C3-STISR with the given options."""
    return C3STISR(**kwargs)
