"""Reading with ASTER the way published programs do: the same words, and nothing done to save work.

It is what `recognisers.py` compares with and a test's oracle; no part of the program. Written from the description of
that code: every step of a word of 100 symbols is decoded five times per picture, columns are copied for every beam and
projected in every step, ends are looked up one by one, and a second decoding with made-up targets is thrown away.
"""

import math
from typing import Any, Protocol

import torch
from torch import Tensor

from model.recognizer.aster import ASTER
from model.recognizer.attention_decoder import AttentionDecoder, DecoderUnit, sequence_cross_entropy


def read_straightforwardly(network: ASTER, images: Tensor) -> list[str]:
    """`ASTER.read`, the long way: (N, >=3, H, W) RGB in [0, 1] -> N strings."""
    features = network.encode(network.preprocess(images))
    length = network.decoder.max_length
    targets = torch.ones(len(images), length, dtype=torch.long, device=images.device)
    logits = decode_with_targets(network.decoder, features, targets)
    sequence_cross_entropy(logits, targets, torch.full_like(targets[:, 0], length))
    ids, _, _ = search_all_steps(network.decoder, features, network.beam_width)
    return [text_one_by_one(network, row) for row in ids]


class Alphabet(Protocol):
    """Which class is which character; `end` is that of the symbol that ends a word."""

    charset: str
    end: int


def text_one_by_one(network: Alphabet, ids: Tensor) -> str:
    """(L,) -> the text before the first end symbol, a symbol at a time."""
    text = ""
    for symbol in ids:
        if int(symbol) == network.end:
            break
        if int(symbol) < len(network.charset):
            text += network.charset[int(symbol)]
    return text


def one_step(unit: DecoderUnit, columns: Tensor, previous: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """(N, T, C), (N,), (N, S) -> logits (N, K) and the next state (N, S)."""
    attention = unit.attention_unit
    projected = attention.xEmbed(columns)
    compared = attention.sEmbed(state)[:, None].expand_as(projected) + projected
    weights = attention.wEmbed(compared.tanh()).squeeze(2).softmax(1)
    context = (weights[:, None] @ columns).squeeze(1)
    given = torch.cat([unit.tgt_embedding(previous), context], dim=1)
    after = unit.gru(given[:, None], state[None])[1][0]
    return unit.fc(after), after


def decode_with_targets(decoder: AttentionDecoder, features: Tensor, targets: Tensor) -> Tensor:
    """`AttentionDecoder.forward`, a step at a time: (N, T, C), (N, L) -> (N, L, K)."""
    state = features.new_zeros(len(features), decoder.decoder.gru.hidden_size)
    previous = torch.full_like(targets[:, 0], decoder.num_classes)
    steps = []
    for step in range(targets.shape[1]):
        logits, state = one_step(decoder.decoder, features, previous, state)
        steps.append(logits)
        previous = targets[:, step]
    return torch.stack(steps, dim=1)


def search_all_steps(decoder: AttentionDecoder, features: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """`AttentionDecoder.search` with the published bookkeeping.

    Returns:
        Ids (N, L) of the best reading, those after its first end symbol mean nothing; scores and lengths (N, width)
        of the candidates, best first.
    """
    count, classes, device = len(features), decoder.num_classes, features.device
    columns = features.repeat_interleave(width, dim=0)  # beams of a sample stand together
    first = torch.arange(count, device=device)[:, None] * width
    state = features.new_zeros(count * width, decoder.decoder.gru.hidden_size)
    scores = features.new_full((count * width,), -math.inf)
    scores[::width] = 0
    previous = torch.full((count * width,), classes, device=device)
    steps = []
    for _ in range(decoder.max_length):
        logits, state = one_step(decoder.decoder, columns, previous, state)
        continued = scores[:, None] + logits.log_softmax(1)
        best, candidates = continued.view(count, width * classes).topk(width, dim=1)
        parents = (candidates // classes + first).flatten()
        previous, scores = (candidates % classes).flatten(), best.flatten()
        state = state[parents]
        steps.append((scores.clone(), parents, previous))
        scores[previous == decoder.end] = -math.inf
    return _collect(decoder, steps, count, width)


def _collect(decoder: AttentionDecoder, steps: list[Any], count: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Walk back through the steps; every end on the way takes one of the places, the worst one first, all around."""
    length = len(steps)
    scores, order = steps[-1][0].view(count, width).sort(dim=1, descending=True)
    followed = (order + torch.arange(count, device=order.device)[:, None] * width).flatten()
    scores, lengths = scores.clone(), torch.full_like(order, length)
    ended = [0] * count
    walked = []
    for step in reversed(range(length)):
        totals, parents, symbols = steps[step]
        taken, followed = symbols[followed], parents[followed]
        for flat in (symbols == decoder.end).nonzero().flatten().flip(0):
            sample = int(flat) // width
            place = width - 1 - ended[sample] % width
            ended[sample] += 1
            followed[sample * width + place] = parents[flat]
            taken[sample * width + place] = symbols[flat]
            scores[sample, place] = totals[flat]
            lengths[sample, place] = step + 1
        walked.append(taken.view(count, width))
    scores, order = scores.sort(dim=1, descending=True)
    ids = torch.stack(walked[::-1], dim=2).gather(1, order[:, :1, None].expand(-1, -1, length))[:, 0]
    return ids, scores, lengths.gather(1, order)
