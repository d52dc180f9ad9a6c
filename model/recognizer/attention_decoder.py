"""Attention decoder: a GRU that looks at the columns of a picture and spells the word, symbol by symbol.

Paper: ASTER, https://doi.org/10.1109/TPAMI.2018.2848939. Source: https://github.com/ayumiymk/aster.pytorch; key names
follow it so that its checkpoints load. Differences: what does not depend on the step is computed once, a picture's
columns are shared by its beams, and the beam search stops when its outcome is certain.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Steps between two looks at what is finished. A look makes a GPU wait; on a CPU it costs nothing.
STEPS_PER_LOOK = {"cpu": 1}
STEPS_PER_LOOK_ON_GPU = 4
# Finished samples leave the batch when at least this share of it is finished: leaving copies what remains.
WORTH_LEAVING = 0.125


class Memory(NamedTuple):
    """What no step changes.

    Attributes:
        keys: (N, T, A) columns, to be compared with the state.
        values: (N, T, 3 S) columns, as they enter the gates of the GRU.
        symbols: (K + 1, 3 S) symbols, as they enter the gates of the GRU, with its bias.
    """

    keys: Tensor
    values: Tensor
    symbols: Tensor

    def take(self, rows: Tensor) -> "Memory":
        """The same for some of the samples."""
        return Memory(self.keys[rows], self.values[rows], self.symbols)


class AttentionUnit(nn.Module):
    """Where to look: additive attention of a state over columns."""

    def __init__(self, in_size: int, state_size: int, attention_size: int) -> None:
        super().__init__()
        self.sEmbed = nn.Linear(state_size, attention_size)
        self.xEmbed = nn.Linear(in_size, attention_size)
        self.wEmbed = nn.Linear(attention_size, 1)

    def forward(self, keys: Tensor, state: Tensor, workspace: Tensor | None = None) -> Tensor:
        """(N, T, A), `xEmbed` of the columns, and (N, B, S) -> (N, B, T), rows sum to 1.

        What is compared has N * B * T * A values; it is written to `workspace` if there is one, without gradient.
        """
        query, keys = self.sEmbed(state).unsqueeze(2), keys.unsqueeze(1)
        if workspace is not None:
            shape = torch.broadcast_shapes(query.shape, keys.shape)
            workspace = workspace[: math.prod(shape)].view(shape)
        compared = torch.add(query, keys, out=workspace).tanh_()
        return self.wEmbed(compared).squeeze(3).softmax(2)


class DecoderUnit(nn.Module):
    """One step of the decoder: attention, GRU, classes.

    Args:
        num_classes: K symbols. Embeddings have one more, which stands for the start.
        in_size: features of a column.
        state_size: S, of the GRU.
        attention_size: A, also the size of an embedding.
    """

    def __init__(self, num_classes: int, in_size: int, state_size: int, attention_size: int) -> None:
        super().__init__()
        self.attention_unit = AttentionUnit(in_size, state_size, attention_size)
        self.tgt_embedding = nn.Embedding(num_classes + 1, attention_size)
        self.gru = nn.GRU(attention_size + in_size, state_size, batch_first=True)
        self.fc = nn.Linear(state_size, num_classes)

    def prepare(self, features: Tensor) -> Memory:
        """(N, T, in_size) -> everything about them that `forward` needs."""
        # The GRU is fed [symbol, context]. Its input product is linear in both, and a context is a mean of columns:
        # so columns and symbols are multiplied once, instead of every context and symbol of every step.
        weight, bias = (self.gru.get_parameter(name) for name in ("weight_ih_l0", "bias_ih_l0"))
        for_symbol, for_column = weight.tensor_split([self.tgt_embedding.embedding_dim], dim=1)
        return Memory(
            keys=self.attention_unit.xEmbed(features),
            values=F.linear(features, for_column),
            symbols=F.linear(self.tgt_embedding.weight, for_symbol, bias),
        )

    def start(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T, in_size) -> the symbol before the first, (N, 1), and the state before it, (N, 1, S)."""
        previous = torch.full((len(features), 1), self.fc.out_features, device=features.device)
        return previous, features.new_zeros(len(features), 1, self.gru.hidden_size)

    def forward(self, previous: Tensor, state: Tensor, memory: Memory, workspace: Tensor | None = None) -> Tensor:
        """(N, B) symbols and (N, B, S) -> the next state (N, B, S), for each of the B beams of a sample."""
        attention = self.attention_unit(memory.keys, state, workspace)
        given = attention @ memory.values + F.embedding(previous, memory.symbols)
        kept = F.linear(state, self.gru.get_parameter("weight_hh_l0"), self.gru.get_parameter("bias_hh_l0"))
        size = self.gru.hidden_size
        reset, update = (given[..., : 2 * size] + kept[..., : 2 * size]).sigmoid().chunk(2, dim=2)
        new = (given[..., 2 * size :] + reset * kept[..., 2 * size :]).tanh()
        return new + update * (state - new)


@dataclass(frozen=True)
class Trace:
    """Every step of a beam search; beams of a sample are sorted, the best one first.

    Attributes:
        scores: (L, N, B) sums of log-probabilities.
        parents: (L, N, B) from which beam of the step before each was continued.
        symbols: (L, N, B) and by which symbol.
    """

    scores: Tensor
    parents: Tensor
    symbols: Tensor


@dataclass(frozen=True)
class Spelling:
    """What was read.

    Attributes:
        ids: (N, L) best reading, up to and including its end symbol, then filled with end symbols.
        log_probabilities: (N, L) of these symbols, each given those before it; 0 in the filling.
        scores: (N, B) sums of log-probabilities of the candidates, descending; the first belongs to `ids`.
        lengths: (N, B) symbols of the candidates, end symbol included.
    """

    ids: Tensor
    log_probabilities: Tensor
    scores: Tensor
    lengths: Tensor


class AttentionDecoder(nn.Module):
    """(N, T, in_size) columns -> symbols.

    Args:
        num_classes: K symbols, with all special ones.
        end: the symbol that ends a word.
        in_size: features of a column.
        state_size: S, of the GRU.
        attention_size: of the space in which state and columns are compared.
        max_length: symbols after which a search gives up, end symbol included.

    Raises:
        ValueError: `end` is no symbol, or `max_length` not positive.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        end: int,
        in_size: int = 512,
        state_size: int = 512,
        attention_size: int = 512,
        max_length: int = 100,
    ) -> None:
        super().__init__()
        if not 0 <= end < num_classes:
            raise ValueError(f"end symbol {end}: must be one of the {num_classes} classes, 0 to {num_classes - 1}")
        if max_length < 1:
            raise ValueError(f"max_length {max_length}: a word has at least its end symbol, so at least 1")
        self.num_classes = num_classes
        self.end = end
        self.max_length = max_length
        self.decoder = DecoderUnit(num_classes, in_size, state_size, attention_size)

    def forward(self, features: Tensor, targets: Tensor) -> Tensor:
        """Predict each symbol of a known text from the picture and the symbols before it.

        Args:
            features: (N, T, in_size).
            targets: (N, L) int64, padded with any symbol; what stands last is not looked at.

        Returns:
            Logits (N, L, K).

        Raises:
            ValueError: the shapes do not fit, or L is 0.
        """
        self._check(features)
        if targets.ndim != 2 or len(targets) != len(features) or not targets.shape[1]:
            raise ValueError(
                f"targets of shape {tuple(targets.shape)} for {len(features)} pictures: expected (N, L), L at least 1"
            )
        memory = self.decoder.prepare(features)
        first, state = self.decoder.start(features)
        states = []
        for previous in torch.cat([first, targets[:, :-1]], dim=1).split(1, dim=1):
            state = self.decoder(previous, state, memory)
            states.append(state)
        return self.decoder.fc(torch.cat(states, dim=1))

    @torch.no_grad()
    def search(self, features: Tensor, *, beam_width: int = 5) -> Spelling:
        """Beam search by the published rule: the best of the earliest `beam_width` readings that ended.

        Scores are sums of log-probabilities, not divided by the length. A beam that ends is not continued and keeps
        its place for that step only. The candidates are the first `beam_width` beams that ended, in the order of
        steps, in a step in the order of scores; what ends later can't win, however probable. If fewer ended within
        `max_length` symbols, the best beams of the last step complete them. The search of a sample stops as soon as
        its candidates are complete, which changes nothing in the result.

        Args:
            features: (N, T, in_size).
            beam_width: B; 1 is greedy reading.

        Raises:
            ValueError: the shape does not fit, or `beam_width` is not in 1 .. K.
        """
        return self.select(self.trace(features, beam_width=beam_width))

    @torch.no_grad()
    def trace(self, features: Tensor, *, beam_width: int) -> Trace:
        """The steps of `search`; those after a sample's last candidate mean nothing."""
        self._check(features)
        if not 1 <= beam_width <= self.num_classes:
            raise ValueError(f"beam_width {beam_width}: must be 1 to {self.num_classes}, the number of classes")
        device, count = features.device, len(features)
        rows, ended = torch.arange(count, device=device), torch.zeros(count, dtype=torch.long, device=device)
        memory = self.decoder.prepare(features)
        previous, state = self.decoder.start(features)  # one beam, from which the first step makes all
        scores = torch.zeros(count, 1, device=device)
        # Megabytes that the system would have to find anew in every step, which takes longer than to fill them.
        workspace = memory.keys.new_empty(memory.keys.numel() * beam_width)
        look = STEPS_PER_LOOK.get(device.type, STEPS_PER_LOOK_ON_GPU)
        steps = []
        for step in range(1, self.max_length + 1):
            state = self.decoder(previous, state, memory, workspace)
            continued = scores.unsqueeze(2) + self.decoder.fc(state).log_softmax(2)
            best, candidates = continued.flatten(1).topk(beam_width)
            parents, previous = candidates // self.num_classes, candidates % self.num_classes
            steps.append(tuple(_spread(values, rows, count) for values in (best, parents, previous)))
            state = state.gather(1, parents.unsqueeze(2).expand(-1, -1, state.shape[2]))
            over = previous == self.end
            scores = best.masked_fill(over, -math.inf)
            ended = ended + over.sum(1)
            if step % look == 0:
                going = ended < beam_width
                remaining = int(going.sum())
                if not remaining:
                    break
                if remaining <= (1 - WORTH_LEAVING) * len(rows):
                    kept = going.nonzero().squeeze(1)
                    rows, ended, memory = rows[kept], ended[kept], memory.take(kept)
                    previous, state, scores = previous[kept], state[kept], scores[kept]
        return Trace(*(torch.stack(values) for values in zip(*steps, strict=True)))

    def select(self, trace: Trace) -> Spelling:
        """The rule of `search`, applied to its steps."""
        length, count, width = trace.scores.shape
        beams = torch.arange(width, device=trace.scores.device)
        scores, symbols = (values.transpose(0, 1).flatten(1) for values in (trace.scores, trace.symbols))  # (N, L * B)
        over = symbols == self.end
        number = over.cumsum(1)  # of the ends so far: where the first B of them happened is written to B places
        place = torch.where(over & (number <= width), number - 1, width)
        moments = torch.arange(length * width, device=place.device).expand(count, -1)
        found = moments.new_zeros(count, width + 1).scatter_(1, place, moments)[:, :width]
        missing = beams - number[:, -1:]  # from 0 on: so many candidates are still to be taken from the last step
        candidates = torch.where(missing < 0, found, (length - 1) * width + missing)
        scores, order = scores.gather(1, candidates).sort(dim=1, descending=True, stable=True)
        candidates = candidates.gather(1, order)
        ids, log_probabilities = self._walk_back(trace, candidates[:, :1] // width, candidates[:, :1] % width)
        return Spelling(ids, log_probabilities, scores, candidates // width + 1)

    def _walk_back(self, trace: Trace, last: Tensor, beam: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 1) number of the last step and beam in it -> `ids` and `log_probabilities` of `Spelling`."""
        symbols, totals = [], []
        for step in reversed(range(len(trace.scores))):
            inside = step <= last
            symbols.append(torch.where(inside, trace.symbols[step].gather(1, beam), self.end))
            totals.append(trace.scores[step].gather(1, beam))
            beam = torch.where(inside, trace.parents[step].gather(1, beam), beam)
        total = torch.cat(totals[::-1], dim=1)
        # A sum that grows by a negative number never rounds up, so no difference is positive.
        gained = total.diff(dim=1, prepend=torch.zeros_like(total[:, :1]))
        steps = torch.arange(len(trace.scores), device=last.device)
        return torch.cat(symbols[::-1], dim=1), gained.masked_fill(steps > last, 0)

    def _check(self, features: Tensor) -> None:
        size = self.decoder.attention_unit.xEmbed.in_features
        if features.ndim != 3 or features.shape[2] != size or not features.shape[1]:
            raise ValueError(f"features of shape {tuple(features.shape)}: expected (N, T, {size}), T at least 1")


def _spread(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """(n, B) for the samples `rows` -> (count, B), 0 for the others."""
    if len(rows) == count:
        return values
    return values.new_zeros(count, values.shape[1]).index_copy_(0, rows, values)


def sequence_cross_entropy(logits: Tensor, targets: Tensor, lengths: Tensor, *, normalize: str = "sample") -> Tensor:
    """Cross entropy of texts of different lengths.

    Args:
        logits: (N, L, K) of teacher forcing.
        targets: (N, >=L) int64.
        lengths: (N,) symbols of each text, end symbol included; what follows in `targets` does not count.
        normalize: "sample" divides the sum over all symbols by N (the published loss), "symbol" by the number of
            symbols, "none" by nothing.

    Raises:
        ValueError: there are more logits than targets, or `normalize` is unknown.
    """
    length = logits.shape[1]
    if targets.shape[1] < length:
        raise ValueError(f"{length} logits for {targets.shape[1]} targets per text: give at least as many targets")
    losses = F.cross_entropy(logits.transpose(1, 2), targets[:, :length], reduction="none")
    counted = torch.arange(length, device=lengths.device) < lengths.unsqueeze(1)
    total = losses.masked_fill(~counted, 0).sum()
    if normalize == "none":
        return total
    if normalize not in ("sample", "symbol"):
        raise ValueError(f'normalize={normalize!r}; use "sample", "symbol" or "none"')
    return total / (len(logits) if normalize == "sample" else lengths.sum())
