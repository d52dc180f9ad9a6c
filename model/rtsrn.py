"""RTSRN: reconstruction of scene text from clues, with wave-MLP blocks and a pixel adapter.

The published C3-STISR, https://arxiv.org/abs/2204.14044, builds this network too: its last log has the same number of
parameters. Module names follow the published code, so its checkpoints load. Differences: those of
`model/blocks/clue_guided.py`, and parts that the published forward never calls are left out unless `published_unused`.
"""

from typing import Any

import torch
from torch import Tensor, nn

from model.blocks.clue import ClueAttention, GatedFusion, TextInterpreter
from model.blocks.clue_guided import CLUE_CHANNELS, NUM_CLASSES, NUM_COLUMNS, VISUAL_CHANNELS, ClueGuidedNetwork
from model.blocks.deform import DeformFuser
from model.blocks.gru import GruBlock
from model.blocks.published import PublishedForm
from model.blocks.wave import WaveBlock
from model.language.bcn import BCN
from model.registry import register_model


class RecurrentBlock(nn.Module):
    """(N, F, H, W) and a hint (N, c, H, W) -> (N, F, H, W): wave-MLP, then a GRU along H and one along W (MSRB)."""

    def __init__(self, features: int, hint_channels: int) -> None:
        super().__init__()
        self.gru1 = GruBlock(features + hint_channels, features)
        self.gru2 = GruBlock(features, features)
        self.wave_mlp = WaveBlock(features)

    def forward(self, x: Tensor, hint: Tensor) -> Tensor:
        """Refine `x` with `hint`."""
        hinted = torch.cat([self.wave_mlp(x), hint], dim=1)
        columns = self.gru1(hinted, columns=True)
        return self.gru2(x + columns)


class RTSRN(ClueGuidedNetwork, PublishedForm):
    """LR images (N, C, 16, 64) in [0, 1] and text clues -> SR images (N, C, 32, 128) in (-1, 1).

    Args:
        published_unused: hold every parameter of the published network, the unused ones included. With a visual clue
            that is one module, and no published checkpoint has these shapes.
        **options: those of `ClueGuidedNetwork`.

    Raises:
        ValueError: an argument has no meaning.
    """

    residual_block = RecurrentBlock
    pixel_adapter = True

    def __init__(self, *, published_unused: bool = False, **options: Any) -> None:
        super().__init__(**options)
        if published_unused and self.triple_clues:
            self._add_unused_modules()

    def _add_unused_modules(self) -> None:
        if self.visual_clue:  # which leaves one part without use
            self.correction_model = BCN(num_classes=NUM_CLASSES, length=NUM_COLUMNS)
            return
        self.dsta_vis = ClueAttention(CLUE_CHANNELS)
        self.gated = GatedFusion(CLUE_CHANNELS, unused_gate=True)
        self.infoGen_visual = TextInterpreter(NUM_CLASSES, VISUAL_CHANNELS)
        self.correction_model = BCN(num_classes=NUM_CLASSES, length=NUM_COLUMNS)
        self.vis_rec_fuser = DeformFuser()


@register_model(
    system="clues",
    paper="https://arxiv.org/abs/2204.14044",
    scores={"CRNN": 53.3, "MORAN": 60.2, "ASTER": 62.8},
    signature=r"^block2\.wave_mlp\.",
)
def rtsrn(**kwargs: Any) -> RTSRN:
    """RTSRN with the given options."""
    return RTSRN(**kwargs)
