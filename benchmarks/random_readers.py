"""Random weights that read as learned ones do: other words in other pictures, which end after a few letters.

Plain random weights read the same in every picture, or nothing, and never end a word. Then equal strings would say
little, and decoders that stop when a word has ended would not be measured.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from model.recognizer.aster import ASTER
from model.recognizer.attention_decoder import sequence_cross_entropy

LETTERS = (3, 10)  # of the shortest and of the longest word, for decoders that end words
MISTAKES = 0.3  # share of the symbols before, while ASTER learns
BLANK = 1.0  # by which the blank of CTC is preferred, in standard deviations of a class


def word_lengths(count: int) -> Tensor:
    """(count,) numbers of letters."""
    return torch.from_numpy(np.random.default_rng(0).integers(LETTERS[0], LETTERS[1] + 1, count))


@torch.no_grad()
def strengthen(*layers: nn.Module, factor: float) -> None:
    """Multiply all weights of some layers, in place: what passes through them then counts for more."""
    for layer in layers:
        for weight in layer.parameters():
            weight.mul_(factor)


@torch.no_grad()
def tell_apart(network: nn.Module, read: Callable[[], object], classes: nn.Module, *, blank: int | None = None) -> None:
    """Make what a network reads depend on the picture, in place.

    Args:
        network: with random weights, in evaluation mode.
        read: lets it read some pictures, at least 2.
        classes: its last layer, linear; afterwards, no class has a higher mean or a wider spread than another.
        blank: the class of CTC's blank.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0  # the statistics become those of these pictures
    read()
    for norm in norms:
        norm.eval()
    seen: list[Tensor] = []
    hook = classes.register_forward_hook(lambda layer, inputs, output: seen.append(output.flatten(0, -2)))
    read()
    hook.remove()
    spread, mean = torch.std_mean(torch.cat(seen), dim=0)
    weight, bias = classes.get_parameter("weight"), classes.get_parameter("bias")
    weight.div_(spread[:, None])
    bias.sub_(mean).div_(spread)
    if blank is not None:
        bias[blank] += BLANK


class EndsAfter(nn.Module):
    """The layer before the classes, changed so that words end after `lengths` letters, and not before."""

    def __init__(self, layer: nn.Module, end: int, lengths: Tensor) -> None:
        super().__init__()
        self.layer, self.end = layer, end
        self.register_buffer("all_lengths", lengths)
        self.expect(slice(None))

    def expect(self, rows: slice) -> None:
        """The words `rows` are read next, from their beginning."""
        self.lengths, self.step = self.get_buffer("all_lengths")[rows], 0

    def forward(self, state: Tensor) -> Tensor:
        """(N, C), the next symbol, or (N, T, C), the next one (T = 1) or all so far -> logits."""
        logits = self.layer(state)
        count = 1 if state.ndim == 2 else state.shape[1]
        self.step = self.step + 1 if count == 1 else count
        steps = torch.arange(self.step - count, self.step, device=state.device)
        ends = torch.where(self.lengths[:, None] == steps, 1e4, -1e4)
        logits[..., self.end] += ends if state.ndim == 3 else ends[:, 0]
        return logits


class Memorised(nn.Module):
    """An encoder of random weights whose result, once computed, is replaced by learned columns (N, T, C)."""

    def __init__(self, encoder: nn.Module, columns: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("columns", columns)
        self.expect(slice(None))

    def expect(self, rows: slice) -> None:
        """The words `rows` are read next."""
        self.rows = rows

    def forward(self, images: Tensor) -> Tensor:
        """Work as the encoder does, and give the columns of the next words."""
        self.encoder(images)
        return self.get_buffer("columns")[self.rows]


def learn_by_heart(network: ASTER, words: int) -> None:
    """Let ASTER's decoder learn random words, in place; the n-th picture will be read as the n-th of them.

    Random decoders end no beam. Of the symbols it is given, some are wrong: so it learns to go on after a mistake, as
    all beams but the best one have to, and they end when the word does.
    """
    rng, lengths = np.random.default_rng(0), word_lengths(words)
    targets = torch.full((words, LETTERS[1] + 1), network.padding)
    for row, length in zip(targets, lengths.tolist(), strict=True):
        row[:length] = torch.from_numpy(rng.integers(10, 36, length))
        row[length] = network.end
    size = network.decoder.decoder.attention_unit.xEmbed.in_features
    columns = torch.from_numpy(rng.normal(0, 0.3, (words, 25, size)).astype(np.float32))
    optimizer = torch.optim.Adam(network.decoder.parameters(), 2e-3)
    loss = torch.tensor(math.inf)
    while loss > 0.3:
        wrong = torch.rand(targets.shape) < MISTAKES
        given = torch.where(wrong, torch.randint(network.num_classes, targets.shape), targets)
        loss = sequence_cross_entropy(network.decoder(columns, given), targets, lengths + 1)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.decoder.parameters(), 1.0)
        optimizer.step()
    network.encoder = Memorised(network.encoder, columns)  # type: ignore[assignment]


def expect(network: nn.Module, rows: slice) -> None:
    """Tell a network that the pictures `rows` are read next."""
    for module in network.modules():
        if isinstance(module, EndsAfter | Memorised):
            module.expect(rows)
