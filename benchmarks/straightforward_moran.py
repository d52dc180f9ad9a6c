"""Reading with MORAN the way published programs do: the same words, and nothing done to save work.

It is what `recognisers.py` compares with and a test's oracle; no part of the program. Written from the description of
that code: 20 symbols are decoded for every word, from both ends of it, though only one of the two is read; columns are
projected in every step; symbols are looked up one by one. That it also draws the offsets of every picture, pixel by
pixel, is left out.
"""

import torch
from torch import Tensor

from benchmarks.straightforward_recognisers import text_one_by_one
from model.recognizer.moran import MORAN, Decoder


def read_straightforwardly(network: MORAN, images: Tensor) -> list[str]:
    """`MORAN.read`, the long way: (N, >=3, H, W) RGB in [0, 1] -> N strings."""
    columns = network.encode(network.preprocess(images))
    logits = decode_all_steps(network.ASRN.attentionL2R, columns, network.max_length)
    decode_all_steps(network.ASRN.attentionR2L, columns, network.max_length)
    return [text_one_by_one(network, row) for row in logits.argmax(2)]


def decode_all_steps(decoder: Decoder, columns: Tensor, length: int) -> Tensor:
    """(N, T, 256) -> (N, L, K) logits."""
    cell = decoder.attention_cell
    state = torch.zeros_like(columns[:, 0])
    previous = torch.zeros(len(columns), dtype=torch.long, device=columns.device)
    steps = []
    for _ in range(length):
        compared = (cell.i2h(columns) + cell.h2h(state)[:, None].expand_as(columns)).tanh()
        weights = cell.score(compared).squeeze(2).softmax(1)
        context = (weights[:, None] @ columns).squeeze(1)
        state = cell.rnn(torch.cat([context, decoder.char_embeddings[previous]], dim=1), state)
        logits = decoder.generator(state)
        steps.append(logits)
        previous = logits.argmax(1) + 1
    return torch.stack(steps, dim=1)
