"""Alignment of what a recogniser read with the pixels of an image, for networks whose recogniser also says where.

Papers: LEMMA, IJCAI 2023, https://arxiv.org/abs/2307.09749; SGENet, ICASSP 2024, https://arxiv.org/abs/2403.13330.
Module names are those of the published programs, which share these parts.
"""

from torch import Tensor, nn

from model.blocks.post_norm import Stack
from model.blocks.transformer import sinusoids

NUM_CLASSES = 37
HEADS = 4
DROPOUT = 0.1


class Alignment(nn.Module):
    """Characters and where they are -> what each pixel of (N, F, H, W) is told. A subclass says which pixels matter.

    Args:
        features: F.
        places: how many places a recogniser tells apart.
        published_unused: hold the tables of positions of published checkpoints.
    """

    def __init__(self, features: int, *, places: int, published_unused: bool = False) -> None:
        super().__init__()
        self.text_proj = nn.Linear(NUM_CLASSES, features, bias=False)
        if published_unused:
            self.vision_pos, self.text_pos = _Positions(1024, features), _Positions(40, features)
        self.text_Encoder = _stack(2, features, "self_attn", ("norm1", "norm2"))
        self.text_decoder = _stack(3, features, "multihead_attn", ("norm2", "norm3"))
        self.sematic_decoder = _stack(3, features, "multihead_attn", ("norm2", "norm3"))
        if published_unused:
            self.select_pos = _Positions(500, features)
        self.dropout = nn.Dropout(DROPOUT)
        self.positions: Tensor
        self.register_buffer("positions", sinusoids(places, features), persistent=False)

    def add_enhancement(self, features: int) -> None:
        """LEMMA's location enhancement, which SGENet's published checkpoints hold, too."""
        self.attn_conv = _location_attention(features)
        self.DWC = nn.Conv2d(features, features, 3, padding=1)

    def start_weights(self) -> None:
        """Random weights to train from, as published."""
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def words(self, text: Tensor, where: Tensor) -> Tensor:
        """What was read, (N, T, 37), and how much of it lies at each place, (N, T, places) -> (N, T, F)."""
        places = self.dropout(self.positions.expand(len(where), -1, -1))
        return self.text_Encoder.attend_to_itself(self.text_proj(text) + where @ places)

    def tell(self, words: Tensor, seen: Tensor, pixels: Tensor) -> Tensor:
        """(N, T, F) words, (N, S, F) pixels they look at, (N, P, F) pixels that ask -> (N, P, F)."""
        return self.sematic_decoder(pixels, self.text_decoder(words, seen, seen), words)


def _stack(count: int, features: int, attention: str, norms: tuple[str, str]) -> Stack:
    return Stack(count, features, attention, norms, heads=HEADS, hidden=features, dropout=DROPOUT)


class _Positions(nn.Module):
    """A table as published checkpoints hold it."""

    constant_buffers = ("pe",)

    def __init__(self, length: int, features: int) -> None:
        super().__init__()
        self.register_buffer("pe", sinusoids(length, features).unsqueeze(1))


def _location_attention(features: int) -> nn.Sequential:
    half = features // 2
    return nn.Sequential(
        nn.Conv2d(1, half, 3, padding=1, bias=False),
        nn.BatchNorm2d(half),
        nn.PReLU(),
        nn.Conv2d(half, features, 3, padding=1, bias=False),
        nn.BatchNorm2d(features),
        nn.PReLU(),
        nn.Conv2d(features, features, 3, padding=1, bias=False),
    )
