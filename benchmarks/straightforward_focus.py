"""Reading with the text-focus transformer as its published forward allows: the same words, decoded anew and anew.

It is what `recognisers.py` compares with; no part of the program. Written from the description of that network, which
takes a picture and a whole text: for every symbol, all symbols so far are decoded, and the picture's keys and values
computed again. The picture itself is encoded once, and decoding stops when all words have ended.
"""

import torch
from torch import Tensor

from model.recognizer.focus_transformer import READ_LENGTH, FocusTransformer


def read_focus(network: FocusTransformer, images: Tensor) -> list[str]:
    """`FocusTransformer.read`, the long way: (N, >=3, 32, 128) RGB in [0, 1] -> N strings."""
    features = network.encode(network.preprocess(images))
    ids = torch.zeros(len(images), 1, dtype=torch.long, device=images.device)
    for _ in range(READ_LENGTH):
        logits, _ = network.decode(features, ids)
        ids = torch.cat([ids, logits[:, -1:].argmax(2)], dim=1)
        if bool((ids[:, 1:] == 0).any(1).all()):
            break
    return [text_one_by_one(network, row) for row in ids[:, 1:]]


def text_one_by_one(network: FocusTransformer, ids: Tensor) -> str:
    """(L,) -> the text before the first end symbol, a symbol at a time."""
    text = ""
    for symbol in ids:
        if int(symbol) == 0:
            break
        text += network.charset[int(symbol) - 1]
    return text
