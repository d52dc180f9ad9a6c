"""Rendered words as training data: a stream without end, drawn when they are asked for, and a part nobody trains on."""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from dataset.rendering.fonts import Face, faces, font_files
from dataset.rendering.glyphs import draws
from dataset.synthetic import label_of, make_sample
from dataset.words import WordList, random_label, read_word_list

log = logging.getLogger(__name__)

# Seeds of trainings and of scripts/make_synthetic.py are below 2^63, and NumPy makes random numbers of seed and index
# by their digits: words of this stream are in no other.
VALIDATION_SEED = 1 << 96


class RenderedWords:
    """Words of one stream; word `index` is a function of seed, index, faces and word list.

    Args:
        size: words in an epoch.
        seed: of the stream.
        fonts: faces to draw with.
        words: what to draw; None draws English words, names and numbers (`dataset.words`).
    """

    def __init__(self, size: int, *, seed: int, fonts: Sequence[Face], words: WordList | None = None) -> None:
        self.size, self.seed, self.fonts, self.words = size, seed, tuple(fonts), words
        self._labels = random_label if words is None else words.draw

    def __len__(self) -> int:
        return self.size

    @property
    def path(self) -> str:
        """What it is, in the place of a path."""
        return "rendered words" + (", held out" if self.seed == VALIDATION_SEED else f" of seed {self.seed}")

    def name(self, index: int) -> str:
        """What a sample is called in messages."""
        return f"{self.path}, number {index}"

    def label(self, index: int) -> str:
        """The label of word `index`, without rendering it."""
        return label_of(self.seed, index, self._labels)

    def pair(self, index: int) -> tuple[Image.Image, Image.Image, str]:
        """HR and LR of word `index`, which may be beyond `size`, and its label."""
        sample = make_sample(self.seed, index, fonts=self.fonts, labels=self._labels)
        return Image.fromarray(sample.hr), Image.fromarray(sample.lr), sample.label

    def fingerprint(self) -> str:
        """sha256 of what its words depend on: faces by name, the list by content."""
        digest = hashlib.sha256(f"{self.seed} {self.size}".encode())
        for face in self.fonts:
            digest.update(f"{Path(face.source).name} {face.weight}\n".encode())
        if self.words is not None:
            digest.update("\n".join(self.words.words).encode())
            digest.update(self.words.weights.tobytes())
        return digest.hexdigest()


def find_faces(folders: Sequence[str]) -> tuple[Face, ...]:
    """The faces of this machine and of `folders`.

    Raises:
        ValueError: a folder holds no font.
    """
    for folder in folders:
        if not font_files([Path(folder)]):
            raise ValueError(f"fonts {folder}: no .ttf or .otf file is there; name a folder with fonts of letters")
    return faces(*folders)


def drawable_list(path: str | Path, fonts: Sequence[Face]) -> WordList:
    """The words of a file (`read_word_list`) that a face can draw; says how many are left out.

    Raises:
        ValueError: no list, or none of its words can be drawn.
    """
    words = read_word_list(path)
    lost = undrawable(words.words, fonts)
    if not lost:
        return words
    first, reason = next(iter(lost.items()))
    if len(lost) == len(set(words.words)):
        raise ValueError(
            f"word list {path}: none of its {len(words)} words can be drawn by any of {len(fonts)} faces, the first, "
            f"{first!r}, for {reason}; name folders with fonts that have these letters (--font_dirs, or --fonts of "
            "make_synthetic.py)"
        )
    kept = words.without(lost)
    log.warning(
        "word list %s: %d of %d words are left out, no face can draw them; the first is %r, for %s",
        path, len(words) - len(kept), len(words), first, reason,
    )  # fmt: skip
    return kept


def undrawable(words: Sequence[str], fonts: Sequence[Face]) -> dict[str, str]:
    """Words that no face can draw as a whole, and what they lack."""
    lost: dict[str, str] = {}
    hopeless: dict[str, bool] = {}  # characters that no face has
    last = fonts[0]
    for word in words:
        if word in lost or draws(last, word):
            continue
        for char in word:
            if char not in hopeless:
                hopeless[char] = not any(draws(face, char) for face in fonts)
        missing = "".join(char for char in dict.fromkeys(word) if hopeless[char])
        able = None if missing else next((face for face in fonts if draws(face, word)), None)
        if able is None:
            lost[word] = repr(missing) if missing else "want of one face with all of its letters"
        else:
            last = able
    return lost
