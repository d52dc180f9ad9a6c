"""Word crops as a camera would have taken them, rendered from scratch: pairs to train on without any download.

A word is set in a random face (`rendering.glyphs`, `rendering.lettering`), painted on a random surface
(`rendering.surfaces`, `rendering.painting`), lit, looked at from a random side, cropped as tightly as a text detector
would, and passed through a small camera (`rendering.camera`); LR comes from `dataset.degradation`. Everything is
arithmetic on NumPy arrays: no picture, texture or font is shipped. `rendering.fonts` says where the faces come from;
other fonts make other pictures, so "the same sample" means: on machines with the same fonts and library versions.

A sample is a function of (seed, index) alone: it does not matter which process renders it, or what was rendered before.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from dataset.degradation import SEVERITIES, degrade
from dataset.rendering.camera import HR_HEIGHTS, HR_MAX_WIDTH, illuminate, photograph
from dataset.rendering.fonts import Face, faces, find_fonts
from dataset.rendering.glyphs import ALPHANUMERIC, choose_face, drawable, draws
from dataset.rendering.lettering import add_neighbours, random_look, word_mask
from dataset.rendering.painting import choose_painter, draw_lines, on_a_plate
from dataset.rendering.surfaces import colour_pair, cut_out, random_surface, scenes
from dataset.words import Labels, random_label

__all__ = [
    "ALPHANUMERIC",
    "HR_HEIGHTS",
    "HR_MAX_WIDTH",
    "Face",
    "Sample",
    "choose_face",
    "drawable",
    "draws",
    "faces",
    "find_fonts",
    "label_of",
    "make_sample",
    "photo_pair",
    "render_word",
]


@dataclass(frozen=True)
class Sample:
    """A training pair: `hr` (H, W, 3) and `lr` (H // 2, W // 2, 3), uint8 RGB, and the text they show."""

    hr: np.ndarray
    lr: np.ndarray
    label: str


def render_word(
    label: str, rng: np.random.Generator, fonts: Sequence[Face], labels: Labels = random_label
) -> np.ndarray:
    """A photo of `label`, cropped tightly.

    Args:
        label: characters that one of the faces has, at least one; no spaces.
        rng: source of all randomness.
        fonts: faces to choose from, e.g. `find_fonts()`.
        labels: what stands beside it on the sign.

    Returns:
        (H, W, 3) uint8 RGB; H within `HR_HEIGHTS`, W at most `HR_MAX_WIDTH`, both even.

    Raises:
        ValueError: empty label, or no font has one of its characters.
    """
    if not label:
        raise ValueError("label is empty; a word needs at least one character")
    face = choose_face(label, fonts, rng)
    look = random_look(label, rng)
    word = word_mask(label, face, look, rng)
    pad = 24 + round(0.25 * word.shape[0])
    ink = (pad, pad, word.shape[1], word.shape[0])
    mask = cv2.copyMakeBorder(word, pad, pad, pad, pad, cv2.BORDER_CONSTANT)
    add_neighbours(mask, ink, face, look, rng, labels=labels)
    size = (mask.shape[0], mask.shape[1])
    surface, letters = colour_pair(rng)
    chance = rng.random(5)
    if chance[0] < 0.06:
        canvas = cut_out(scenes()[int(rng.integers(10))], size, rng, zoom=float(rng.uniform(0.8, 2.5)))
        canvas = surface + np.float32(rng.uniform(0.2, 0.6)) * (canvas - surface)
    else:
        canvas = random_surface(size, surface, rng)
    if chance[1] < 0.30:
        canvas = on_a_plate(canvas, ink, letters, rng)
    if chance[2] < 0.12:
        draw_lines(canvas, ink, letters, rng)
    paint, may_fade = choose_painter(chance[3])
    if may_fade and chance[4] < 0.2:
        letters = surface + np.float32(rng.uniform(0.2, 0.5)) * (letters - surface)
    paint(canvas, mask, letters, rng)
    illuminate(canvas, rng)
    return photograph(canvas, ink, rng)


def _begun(seed: int, index: int, labels: Labels) -> tuple[np.random.Generator, str, str]:
    """Where the rendering of a sample begins: its random numbers, its severity and its label."""
    rng = np.random.default_rng((seed, index))
    chosen = list(SEVERITIES)[int(rng.integers(len(SEVERITIES)))]
    return rng, chosen, labels(rng)


def label_of(seed: int, index: int, labels: Labels = random_label) -> str:
    """The label of `make_sample(seed, index, labels=labels)`, which is not rendered for it."""
    return _begun(seed, index, labels)[2]


def make_sample(
    seed: int,
    index: int,
    severity: str | None = None,
    *,
    fonts: Sequence[Face] | None = None,
    labels: Labels = random_label,
) -> Sample:
    """Sample `index` of the endless stream `seed`; the HR does not depend on the severity.

    Args:
        seed: of the stream, >= 0.
        index: within it, >= 0.
        severity: a name of `degradation.SEVERITIES`; None takes one by chance.
        fonts: faces to use; None takes `find_fonts()`.
        labels: draws the words.

    Raises:
        ValueError: unknown severity, or a word that no face can draw.
    """
    rng, chosen, label = _begun(seed, index, labels)
    hr = render_word(label, rng, faces() if fonts is None else fonts, labels)
    return Sample(hr, degrade(hr, severity or chosen, rng), label)


def photo_pair(image: np.ndarray, rng: np.random.Generator, severity: str) -> tuple[np.ndarray, np.ndarray]:
    """(HR, LR) of a real word photo, (H, W, 3) uint8 RGB; HR is shrunk to at most 64 pixels of height, to even sizes.

    Raises:
        ValueError: unknown severity or not such an image.
    """
    height, width = image.shape[:2]
    factor = min(1.0, HR_HEIGHTS[1] / height)
    size = (max(2, 2 * round(width * factor / 2)), max(2, 2 * round(height * factor / 2)))
    hr = image if size == (width, height) else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return hr, degrade(hr, severity, rng)
