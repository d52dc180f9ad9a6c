"""Words out of SynthText (https://www.robots.ox.ac.uk/~vgg/data/scenetext/): 800,000 pictures with many words each.

The rule of the published crops (crop_800k.py of TextSR, https://github.com/xieenze/TextSR), of which data sets
such as SynthText_hr were made.
"""

import math
import string
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Box:
    """Part of a picture: columns `left` to `right` - 1, rows `top` to `bottom` - 1."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """In pixels; 0 or less if nothing of it is within the picture."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """In pixels, likewise."""
        return self.bottom - self.top


def word_box(corners: np.ndarray, height: int, width: int) -> Box:
    """The upright box around a word, as far as it is within the picture.

    Args:
        corners: (2, 4) x and y of the four corners, in pixels.
        height: of the picture.
        width: of the picture.
    """
    (left, top), (right, bottom) = corners.min(axis=1), corners.max(axis=1)
    return Box(
        max(0, math.floor(left)),
        max(0, math.floor(top)),
        min(width, math.ceil(right)),
        min(height, math.ceil(bottom)),
    )


def split_words(texts: Iterable[str]) -> list[str]:
    """The words of a picture in the order of their boxes: texts are split at spaces and at ends of lines."""
    return [word for text in texts for part in text.split(" ") for word in part.split("\n") if word]


def without_punctuation(word: str) -> str:
    """The word as it stands in file names: without ASCII punctuation."""
    return word.translate(_WITHOUT_PUNCTUATION)
