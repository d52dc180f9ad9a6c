"""How recognisers are trained: a batch of words, the terms of the loss.

One recipe for all that read by CTC (ICML 2006, https://doi.org/10.1145/1143844.1143891), three for those that spell
with attention: they predict each symbol of the label from the picture and the symbols before it (teacher forcing), and
the loss is the cross entropy of all symbols, that of the end included.

With `MODEL.charset: strokes` a recogniser spells the strokes of a word, not its characters, as the one behind the
stroke-focus loss does (Text Gestalt, https://arxiv.org/abs/2112.08171).
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from easydict import EasyDict
from torch import Tensor, nn

from dataset.charset import STROKES, read_charset, reduce_text
from interface.checkpoint import CheckpointError, load_weights, read_weights
from interface.systems.base import Losses, System
from loss.ctc import ctc_loss
from loss.stroke_focus import strokes_of
from model import build_model, model_spec
from model.recognizer.attention_decoder import sequence_cross_entropy

log = logging.getLogger(__name__)

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


STROKES_READ = 128  # strokes and end symbol of the longest word: four of each of the 31 characters that are read else

MARKS = 3  # classes beside those of the charset, at most: blank, or end, padding and unknown
OTHER_CHARSET = "If the file was made with another --charset, give the same here."


def start_weights(network: Any) -> None:
    """Give a network random weights to train from: those of its paper if it has some (`network.start_weights`).

    Without, convolutions and linear layers get some that keep the variance through ReLU,
    https://arxiv.org/abs/1502.01852. One pair of CRNN trainings over the same 120 batches of 32 words: a loss of 3.63,
    against 3.69 with PyTorch's own.
    """
    if hasattr(network, "start_weights"):
        network.start_weights()
        return
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def other_symbols(network: Any, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's own tensors with a row for each symbol, if the weights are of another number of symbols.

    Args:
        network: a recogniser; its `charset` says how many symbols it has.
        state: weights.

    Returns:
        Nothing if all shapes are equal, or differ in another way.
    """
    own = network.state_dict()
    others = {key: value for key, value in own.items() if key in state and state[key].shape != value.shape}
    symbols = range(len(network.charset), len(network.charset) + MARKS + 1)
    if any(not len(value.shape) == len(state[key].shape) > 0 for key, value in others.items()):
        return {}
    rows = {len(value) - len(state[key]) for key, value in others.items()}
    alike = all(len(value) in symbols and value.shape[1:] == state[key].shape[1:] for key, value in others.items())
    return others if alike and len(rows) == 1 else {}


def begin_with(network: Any, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Load weights to begin a training with; those of another number of symbols serve, too.

    What knows symbols then keeps its random weights; the rest of a recogniser looks at pictures.

    Raises:
        CheckpointError: they don't fit in another way.
    """
    others = other_symbols(network, state)
    load_weights(network, {**state, **others}, source, hint=OTHER_CHARSET)
    if others:
        log.warning("%s was made with another charset; what knows symbols begins anew: %s", source, ", ".join(others))


class RecognizerSystem(System):
    """A recogniser and what all recipes for recognisers share.

    Args:
        network: as `model.recognizer.base.Recognizer` says.
        charset: what it can read.

    Attributes:
        strokes: the characters of the charset are kinds of strokes, and labels are spelled with them.
    """

    strokes: bool = False

    def __init__(self, network: Any, charset: str) -> None:
        super().__init__()
        self.network: Any = network
        self.charset = charset

    @classmethod
    def build(cls, config: EasyDict, *, training: bool, pretrained: bool) -> "RecognizerSystem":
        """Build the network, with the weights that it is to begin with.

        Raises:
            ValueError: it cannot be trained with batches of one word.
        """
        charset = read_charset(config.MODEL.charset)
        options: dict[str, Any] = {"charset": charset}
        strokes = config.MODEL.charset == STROKES
        if strokes and "read_length" in model_spec(config.arch).options:
            options["read_length"] = STROKES_READ
        network = build_model(config.arch, **options)
        if training and config.TRAIN.batch_size == 1 and any(isinstance(m, nn.BatchNorm1d) for m in network.modules()):
            raise ValueError(
                f"--arch {config.arch} normalises the features of its rectifier over the batch, so one word is not "
                "enough; use --batch_size 2 or more"
            )
        if training and pretrained and not config.MODEL.pretrained:
            start_weights(network)
        if pretrained and config.MODEL.pretrained:
            state = read_weights(
                config.MODEL.pretrained,
                option="--pretrained",
                purpose="the beginning of the training",
                remedy="leave --pretrained out to train from nothing",
            )
            begin_with(network, state, config.MODEL.pretrained)
        system = cls(network, charset)
        system.strokes = strokes
        return system

    @property
    def symbols(self) -> str:
        """What it spells words with."""
        return "strokes" if self.strokes else "characters"

    def reduce(self, label: str) -> str:
        """What of a label the recogniser can read, as it would read it."""
        return strokes_of(label) if self.strokes else reduce_text(label, self.charset)

    def unusable(self, label: str) -> str:
        """Why a label cannot be learned; empty if it can."""
        reason = "without a character that has strokes" if self.strokes else "without a character of the charset"
        return "" if self.reduce(label) else reason

    def prepared(self, words: Words) -> Tensor:
        """(N, ...) what the network eats, of pictures of several sizes.

        One that takes any size gets all in that of the largest: its rectifier looks between pixels in the same way.
        """
        groups = [self.network.preprocess(images) for images in words.groups]
        sizes = {group.shape[2:] for group in groups}
        if len(sizes) > 1:
            size = max(sizes)
            groups = [F.interpolate(group, size, mode="bilinear", align_corners=False) for group in groups]
        return torch.cat(groups)

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


class AttentionRecognizer(RecognizerSystem):
    """A recogniser that spells: for each place of the text one distribution over characters and the end symbol.

    Attributes:
        per: what the cross entropy of a batch is divided by, its symbols or its words.
        terms: names of the terms of the loss, each with its weight.
    """

    method = "predict"
    per: Literal["symbol", "word"] = "symbol"
    terms: Mapping[str, float] = {"cross_entropy": 1.0}

    def __init__(self, network: Any, charset: str) -> None:
        super().__init__(network, charset)
        self.weights = dict(self.terms)
        first = 1 if network.end == 0 else 0  # the end symbol is the class before the characters, or after them
        self._ids = {character: number for number, character in enumerate(charset, start=first)}

    def unusable(self, label: str) -> str:
        """Why a label cannot be learned: reading would give up before its end."""
        limit = self.network.reading_length
        too_long = f"too long to be read with {limit - 1} {self.symbols} at most"
        return super().unusable(label) or (too_long if len(self.reduce(label)) >= limit else "")

    def spelled(self, labels: Sequence[str]) -> tuple[list[list[int]], Tensor]:
        """N labels -> ids of their characters, and (N,) symbols with the end symbol; 0 where a label is unusable."""
        texts = ["" if self.unusable(label) else self.reduce(label) for label in labels]
        ids = [[self._ids[character] for character in text] for text in texts]
        return ids, torch.tensor([len(text) + 1 if text else 0 for text in texts], dtype=torch.long)

    def padded(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """Ids of N texts -> (N, L), each followed by end symbols, one of them at least."""
        length = max(map(len, ids)) + 1
        return torch.tensor([[*text, *[self.network.end] * (length - len(text))] for text in ids], dtype=torch.long)

    def cross_entropy(self, logits: Tensor, targets: Tensor, lengths: Tensor) -> Tensor:
        """Of (N, L, K) logits against (N, L) ids, of which (N,) count; 0 if none does."""
        total = sequence_cross_entropy(
            logits.float(), targets, lengths.to(targets.device, non_blocking=True), normalize="none"
        )
        counted = lengths if self.per == "symbol" else lengths > 0
        return total / max(1, int(counted.sum()))

    def forward(self, batch: Words, phase: str = "main") -> Losses:  # type: ignore[override]
        """The cross entropy, over the words that can be learned."""
        x = self.prepared(batch)
        ids, lengths = self.spelled(batch.labels)
        targets = self.padded(ids).to(x.device, non_blocking=True)
        return {"cross_entropy": self.cross_entropy(self.network.predict(x, targets), targets, lengths)}


class AttentionRecognizerPerWord(AttentionRecognizer):
    """ASTER's recipe: the cross entropy of a word is the sum over its symbols, so long words count more.

    Source: https://github.com/ayumiymk/aster.pytorch.
    """

    per = "word"


class BothDirections(AttentionRecognizer):
    """MORAN's recipe: one decoder spells the text, one spells it backwards; both count alike.

    Source: https://github.com/Canjie-Luo/MORAN_v2, which takes the mean over the symbols of both.
    """

    terms: Mapping[str, float] = {"left_to_right": 0.5, "right_to_left": 0.5}

    def forward(self, batch: Words, phase: str = "main") -> Losses:  # type: ignore[override]
        """The cross entropy of each direction, over the words that can be learned."""
        x = self.prepared(batch)
        ids, lengths = self.spelled(batch.labels)
        targets = [self.padded(texts).to(x.device, non_blocking=True) for texts in (ids, [text[::-1] for text in ids])]
        found = self.network.predict(x, *targets)
        losses = map(self.cross_entropy, found, targets, [lengths] * 2)
        return {name: weight * loss for (name, weight), loss in zip(self.weights.items(), losses, strict=True)}
