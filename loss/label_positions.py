"""The fine-tuning loss of LEMMA and SGENet: the classes in each column against the characters of the label in turn.

Papers: LEMMA, IJCAI 2023, https://arxiv.org/abs/2307.09749; SGENet, ICASSP 2024, https://arxiv.org/abs/2403.13330. As
published it takes the softmax twice. LEMMA's recogniser does have the n-th character in the n-th column; SGENet's was
trained by CTC, and `loss.ctc` is what such a recogniser learns by.
"""

import string
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

COLUMNS = 26
ORDERS = {
    "letters": string.ascii_lowercase + "1234567890",
    "digits": string.digits + string.ascii_lowercase,
}
"""Characters of classes 1, 2, ...: LEMMA's file, which SGENet's is taken for (inferred), and SVTR's own."""


def encode_positions(labels: Sequence[str], order: str = "letters") -> Tensor:
    """(N, 26) int64 class ids of the labels in lower case; 0 for other characters, and after the end.

    Raises:
        ValueError: no such order.
    """
    if order not in ORDERS:
        raise ValueError(f"order of classes {order!r}; use {' or '.join(ORDERS)}")
    ids = {character: number for number, character in enumerate(ORDERS[order], 1)}
    rows = [[ids.get(character, 0) for character in label.lower()][:COLUMNS] for label in labels]
    return torch.tensor([row + [0] * (COLUMNS - len(row)) for row in rows], dtype=torch.long)


def position_loss(text: Tensor, labels: Sequence[str], *, order: str = "letters", published: bool = False) -> Tensor:
    """Cross entropy over all 26 columns; those behind the text are of class 0.

    Args:
        text: (N, T, 37), T at most 26, logits; missing columns are zeros.
        labels: N texts.
        order: of the classes, of `ORDERS`.
        published: take the softmax of the logits (or probabilities) for the logits, as published: no text can then be
            more than e to 1 against each other class, and the loss is never below log(e + 36) - 1.

    Returns:
        () float32.

    Raises:
        ValueError: not one label per image, or no such order.
    """
    if len(labels) != len(text):
        raise ValueError(f"{len(labels)} labels for {len(text)} images; give one label per image")
    targets = encode_positions(labels, order).to(text.device, non_blocking=True)
    padded = F.pad(text.float(), (0, 0, 0, COLUMNS - text.shape[1]))
    return F.cross_entropy((padded.softmax(2) if published else padded).flatten(0, 1), targets.flatten())
