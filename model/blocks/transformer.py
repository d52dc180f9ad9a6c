"""Parts of a transformer as Scene Text Telescope wrote them, for its network and for the recogniser of its losses.

Paper: https://openaccess.thecvf.com/content/CVPR2021/html/Chen_Scene_Text_Telescope_Text-Focused_Scene_Image_Super-Resolution_CVPR_2021_paper.html
Source: https://github.com/FudanVI/FudanOCR (scene-text-telescope), whose module names are kept.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Projected = tuple[Tensor, Tensor]  # keys and values


class LayerNorm(nn.Module):
    """Layer norm with the unbiased deviation and the epsilon outside of the root, as the checkpoint was trained."""

    def __init__(self, features: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.a_2 = nn.Parameter(torch.ones(features))
        self.b_2 = nn.Parameter(torch.zeros(features))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        mean, deviation = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
        return self.a_2 * (x - mean) / (deviation + self.eps) + self.b_2


class Attention(nn.Module):
    """Multi-head attention that also returns its map; `linears` are query, key, value, output."""

    def __init__(self, features: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.linears = nn.ModuleList(nn.Linear(features, features) for _ in range(4))
        self.dropout = nn.Dropout(dropout)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, query: Tensor, memory: Tensor, *, causal: bool = False) -> tuple[Tensor, Tensor]:
        """(N, T, D), (N, P, D) -> (N, T, D) and the map (N, heads, T, P), rows sum to 1, before dropout."""
        return self.look_up(query, self.project(memory), causal=causal)

    def project(self, memory: Tensor) -> Projected:
        """(N, P, D) -> keys and values, (N, heads, P, D / heads) each."""
        return self._split(self.linears[1](memory)), self._split(self.linears[2](memory))

    def look_up(self, query: Tensor, projected: Projected, *, causal: bool = False) -> tuple[Tensor, Tensor]:
        """`forward` in a memory that was projected before."""
        q, (k, v) = self._split(self.linears[0](query)), projected
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if causal:
            future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(future, -math.inf)
        attention = scores.softmax(-1)
        mixed = self.dropout(attention).to(v.dtype) @ v
        return self.linears[3](mixed.transpose(1, 2).flatten(2)), attention

    def mix(self, x: Tensor) -> Tensor:
        """(N, P, D) -> (N, P, D): `forward(x, x)` without the map, which then needs no memory."""
        query, (key, value) = self._split(self.linears[0](x)), self.project(x)
        share = self.dropout.p if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=share)
        return self.linears[3](mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """D -> `hidden` -> D at each position."""

    def __init__(self, features: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.w_1 = nn.Linear(features, hidden)
        self.w_2 = nn.Linear(hidden, features)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.w_2(self.dropout(self.w_1(x).relu()))


def sinusoids(length: int, features: int) -> Tensor:
    """(length, features) position codes: sine at even, cosine at odd places, wavelengths from 2 pi to 1e4 * 2 pi."""
    position = torch.arange(length, dtype=torch.float32).unsqueeze(1)
    rate = torch.exp(torch.arange(0, features, 2, dtype=torch.float32) * -(math.log(10000.0) / features))
    return torch.stack([(position * rate).sin(), (position * rate).cos()], dim=-1).flatten(1)
