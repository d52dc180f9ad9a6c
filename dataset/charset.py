"""Alphabets, the label filter, and label encoding for CTC.

The class order is the one the published CRNN was trained with: 0 is the CTC blank, then digits, then a-z.
"""

import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

DIGITS = string.digits
LOWER = string.digits + string.ascii_lowercase
UPPER = string.digits + string.ascii_letters
ALL = UPPER + string.punctuation
VOCABULARIES = {"digit": DIGITS, "lower": LOWER, "upper": UPPER, "all": ALL}
CHINESE = "chinese"  # U+4E00..U+9FA5 with digits and ASCII letters

STROKES = "strokes"
CHARSETS = {"36": LOWER, "62": UPPER, "94": ALL, STROKES: "123456789"}
"""What recognisers usually can read: characters, by their number, all beginning with digits and a-z; or nine kinds of
strokes, in which `loss.stroke_focus` spells a label."""

BLANK = "-"
CTC_ALPHABET = BLANK + LOWER
# The published collate cuts a label to 15 characters before it drops those outside the alphabet.
CTC_MAX_CHARACTERS = 15

_CTC_IDS = {character: number for number, character in enumerate(CTC_ALPHABET)}


def vocabulary_names() -> list[str]:
    """Names that `filter_text` takes as `voc_type`."""
    return [*VOCABULARIES, CHINESE]


def filter_text(text: str, voc_type: str = "all") -> str:
    """Drop every character outside a vocabulary.

    Args:
        text: any string.
        voc_type: "digit", "lower" (lower-cases first), "upper" (both cases), "all" (with ASCII punctuation) or
            "chinese" (U+4E00..U+9FA5, digits, ASCII letters).

    Raises:
        ValueError: the vocabulary is unknown.
    """
    if voc_type == CHINESE:
        return "".join(c for c in text if c in UPPER or "\u4e00" <= c <= "\u9fa5")
    if voc_type not in VOCABULARIES:
        raise ValueError(f"unknown vocabulary {voc_type!r}; known: {vocabulary_names()}")
    if voc_type == "lower":
        text = text.lower()
    allowed = VOCABULARIES[voc_type]
    return "".join(c for c in text if c in allowed)


def canonical(text: str) -> str:
    """The form in which labels and readings are compared: lower-case, ASCII letters and digits only."""
    return filter_text(text, "lower")


def read_charset(name: str) -> str:
    """The characters of a charset in the order of their classes.

    Args:
        name: of `CHARSETS`, or a UTF-8 text file whose only line they are; a blank in it counts, too.

    Raises:
        ValueError: it is neither, or the file holds more than a line, nothing, or a character twice.
    """
    if name in CHARSETS:
        return CHARSETS[name]
    path = Path(name)
    if not path.is_file():
        raise ValueError(
            f"charset {name!r}: use {', '.join(CHARSETS)}, or name a text file with all characters in one line; "
            "there is no such file"
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"charset {path} is not UTF-8 ({error}); save it in that encoding") from error
    if len(lines) != 1 or not lines[0]:
        raise ValueError(f"charset {path} has {len(lines)} lines; all characters were expected in a single one")
    twice = sorted({character for character in lines[0] if lines[0].count(character) > 1})
    if twice:
        raise ValueError(
            f"charset {path} has {' '.join(map(repr, twice[:10]))} more than once; each may stand there once"
        )
    return lines[0]


def reduce_text(text: str, charset: str) -> str:
    """Drop every character outside a charset, in lower case first if the charset has no capitals."""
    if charset == charset.lower():
        text = text.lower()
    return "".join(character for character in text if character in charset)


@dataclass(frozen=True)
class CtcTargets:
    """CTC targets of N labels.

    Attributes:
        targets: (S,) int64, the ids of all labels one after the other.
        lengths: (N,) int64, how many of them belong to each label.
        valid: (N,) int64, 0 where the label has no character of the alphabet (it then holds one placeholder 0).
    """

    targets: Tensor
    lengths: Tensor
    valid: Tensor

    def to(self, device: torch.device | str) -> "CtcTargets":
        """A copy on another device."""
        return CtcTargets(self.targets.to(device), self.lengths.to(device), self.valid.to(device))


def ctc_ids(label: str, hyphen: str = "drop") -> list[int]:
    """Class ids of one label, cut to its first 15 characters.

    Args:
        label: any string; compared in lower case.
        hyphen: "drop" leaves hyphens out, as the alphabet has none. "blank" is the published behaviour: its alphabet
            string starts with "-", so a hyphen becomes the CTC blank inside the target, which CTC does not define.

    Raises:
        ValueError: `hyphen` is neither.
    """
    if hyphen not in ("drop", "blank"):
        raise ValueError(f'hyphen={hyphen!r}; use "drop" or "blank"')
    ids = [_CTC_IDS[c] for c in label.lower()[:CTC_MAX_CHARACTERS] if c in _CTC_IDS]
    return ids if hyphen == "blank" else [number for number in ids if number]


def encode_ctc(labels: Sequence[str], hyphen: str = "drop") -> CtcTargets:
    """Encode labels for `torch.nn.functional.ctc_loss`; see `ctc_ids` and `CtcTargets`."""
    ids = [ctc_ids(label, hyphen) for label in labels]
    return CtcTargets(
        targets=torch.tensor([number for word in ids for number in (word or [0])], dtype=torch.long),
        lengths=torch.tensor([max(1, len(word)) for word in ids], dtype=torch.long),
        valid=torch.tensor([int(bool(word)) for word in ids], dtype=torch.long),
    )


def one_hot_labels(labels: Sequence[str], hyphen: str = "drop") -> Tensor:
    """(N, 37, 1, L) float32 one-hot label rows, zero padded; L is the longest label after the cut, never 0.

    A label without a known character has one row, at class 0.
    """
    ids = [ctc_ids(label, hyphen) or [0] for label in labels]
    # The published collate counts the characters it drops, too; the padding rows are zero either way.
    length = max([1, *(min(len(label), CTC_MAX_CHARACTERS) for label in labels)])
    rows = np.zeros((len(ids), len(CTC_ALPHABET), 1, length), dtype=np.float32)
    for sample, word in enumerate(ids):
        rows[sample, word, 0, np.arange(len(word))] = 1.0
    return torch.from_numpy(rows)
