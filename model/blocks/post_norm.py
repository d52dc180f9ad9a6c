"""Layers of attention with the norm behind each part, as PyTorch's own; which norms and attention a layer has is told.

Module names are those of the published programs of ABINet, LEMMA and SGENet. A decoder layer of theirs has no attention
among its queries.
"""

from torch import Tensor, nn


class Stack(nn.Module):
    """Layers of attention, (N, P, F) -> (N, P, F).

    Args:
        count: how many.
        features: F.
        attention: name of the attention module.
        norms: names of the two norms.
        heads: of the attention.
        hidden: width of the layer in each place.
        dropout: in training, on attention weights and on what is added.
    """

    def __init__(
        self,
        count: int,
        features: int,
        attention: str,
        norms: tuple[str, str],
        *,
        heads: int,
        hidden: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            Layer(features, attention, norms, heads=heads, hidden=hidden, dropout=dropout) for _ in range(count)
        )

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """All layers look at the same `key` and `value`."""
        for layer in self.layers:
            query = layer(query, key, value)
        return query

    def attend_to_itself(self, x: Tensor) -> Tensor:
        """Each layer looks at what the one before gave."""
        for layer in self.layers:
            x = layer(x, x, x)
        return x


class Layer(nn.Module):
    """Attention, then a layer in each place, each followed by a norm; arguments as of `Stack`."""

    def __init__(
        self, features: int, attention: str, norms: tuple[str, str], *, heads: int, hidden: int, dropout: float
    ) -> None:
        super().__init__()
        self.attention, self.norms = attention, norms
        self.add_module(attention, nn.MultiheadAttention(features, heads, dropout=dropout, batch_first=True))
        self.linear1, self.linear2 = nn.Linear(features, hidden), nn.Linear(hidden, features)
        for norm in norms:
            self.add_module(norm, nn.LayerNorm(features))
        self.dropout = nn.Dropout(dropout)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(N, P, F), (N, Q, F), (N, Q, F) -> (N, P, F)."""
        first, second = (self.get_submodule(norm) for norm in self.norms)
        found, _ = self.get_submodule(self.attention)(query, key, value, need_weights=False)
        x = first(query + self.dropout(found))
        return second(x + self.dropout(self.linear2(self.dropout(self.linear1(x).relu()))))
