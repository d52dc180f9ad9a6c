"""BCN: the bidirectional cloze network of ABINet, a spelling corrector on class probabilities.

Paper: Read Like Humans, CVPR 2021, https://arxiv.org/abs/2103.06495. Key names are those of published RTSRN
checkpoints (`lm.*`). Each position is predicted from all others: attention cannot look at the position itself.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BCN(nn.Module):
    """(N, T, K) class probabilities -> (N, T, K) logits of the corrected text.

    Args:
        num_classes: K, blank included.
        length: T, the only number of positions it takes.
        width: size of a position's feature.
        heads: attention heads.
        layers: decoder layers.
        hidden: width of the feed-forward part.
        dropout: in training, on features and attention weights.
    """

    constant_buffers = ("token_encoder.pe", "pos_encoder.pe")

    def __init__(
        self,
        *,
        num_classes: int = 37,
        length: int = 26,
        width: int = 512,
        heads: int = 8,
        layers: int = 4,
        hidden: int = 2048,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.length = length
        self.proj = nn.Linear(num_classes, width, bias=False)
        self.token_encoder = PositionCode(width, length, dropout=dropout)
        self.pos_encoder = PositionCode(width, length, dropout=0.0)
        self.model = ClozeDecoder(width, heads, layers, hidden, dropout)
        self.cls = nn.Linear(width, num_classes)

    def forward(self, probabilities: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Correct the text; no gradient flows into `probabilities`.

        Args:
            probabilities: (N, T, K).
            lengths: (N,) number of positions that hold text, None for all. At least 2 are looked at, for with one
                nothing is left to predict from.

        Raises:
            ValueError: `probabilities` has another T or K.
        """
        return self.cls(self.features(probabilities, lengths))

    def features(self, probabilities: Tensor, lengths: Tensor | None = None) -> Tensor:
        """As `forward`, but the features (N, T, width) before the classifier."""
        expected = (self.length, self.num_classes)
        if probabilities.ndim != 3 or probabilities.shape[1:] != expected:
            raise ValueError(
                f"class probabilities of shape {tuple(probabilities.shape)}: this language model takes (N, "
                f"{self.length}, {self.num_classes}); read the image at the width that gives {self.length} columns"
            )
        tokens = self.proj(probabilities.detach()).transpose(0, 1)  # (T, N, width)
        memory = self.token_encoder(tokens)
        query = self.pos_encoder(torch.zeros_like(tokens))
        hidden = torch.eye(self.length, dtype=torch.bool, device=tokens.device)
        padding = None
        if lengths is not None:
            positions = torch.arange(self.length, device=tokens.device)
            padding = positions >= lengths.to(tokens.device).clamp(min=2)[:, None]
        return self.model(query, memory, hidden, padding).transpose(0, 1)


class PositionCode(nn.Module):
    """(T, N, width) + sinusoidal code of the position, sine on even and cosine on odd features."""

    pe: Tensor

    def __init__(self, width: int, length: int, *, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        position = torch.arange(length, dtype=torch.float32, device="cpu")[:, None]
        steps = torch.arange(0, width, 2, dtype=torch.float32, device="cpu")
        angle = position * torch.exp(steps * (-math.log(10000.0) / width))
        code = torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)
        self.register_buffer("pe", code[:, None])

    def forward(self, x: Tensor) -> Tensor:
        """Add the code."""
        return self.dropout(x + self.pe)


class ClozeDecoder(nn.Module):
    """A stack of `ClozeLayer`; all layers look at the same memory."""

    def __init__(self, width: int, heads: int, layers: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ClozeLayer(width, heads, hidden, dropout) for _ in range(layers))

    def forward(self, query: Tensor, memory: Tensor, hidden: Tensor, padding: Tensor | None) -> Tensor:
        """(T, N, width), (T, N, width) -> (T, N, width)."""
        for layer in self.layers:
            query = layer(query, memory, hidden, padding)
        return query


class ClozeLayer(nn.Module):
    """A transformer decoder layer without self attention."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.multihead_attn = nn.MultiheadAttention(width, heads, dropout=dropout)
        self.linear1 = nn.Linear(width, hidden)
        self.dropout = nn.Dropout(dropout)
        self.linear2 = nn.Linear(hidden, width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)
        self.dropout2 = nn.Dropout(dropout)
        self.dropout3 = nn.Dropout(dropout)

    def forward(self, query: Tensor, memory: Tensor, hidden: Tensor, padding: Tensor | None) -> Tensor:
        """Attend to `memory` except where `hidden` (T, T) or `padding` (N, T) is True."""
        seen, _ = self.multihead_attn(
            query, memory, memory, attn_mask=hidden, key_padding_mask=padding, need_weights=False
        )
        query = self.norm2(query + self.dropout2(seen))
        thought = self.linear2(self.dropout(F.relu(self.linear1(query))))
        return self.norm3(query + self.dropout3(thought))
