"""Characters of a face as pictures, which of them a face has, and the choice of a face for a word."""

import re
import string
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dataset.rendering.fonts import EM, Face
from dataset.rendering.pen import draw_with_pen

LETTERS = frozenset(string.ascii_letters)
ALPHANUMERIC = LETTERS | frozenset(string.digits)


@dataclass(frozen=True)
class Glyph:
    """A drawn character: `ink` (h, w) uint8, its left and top edge relative to the pen, and the pen's advance."""

    ink: np.ndarray
    left: int
    top: int
    advance: float


@lru_cache(maxsize=512)
def _font(source: str) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    if source == "pillow":
        return ImageFont.load_default(EM)
    return ImageFont.truetype(source, EM, layout_engine=ImageFont.Layout.BASIC)


def forget_font_files() -> None:
    """Close them; they are opened again when they are needed."""
    _font.cache_clear()


@lru_cache(maxsize=8)
def _opencv_font(name: str) -> "cv2.FontFace":
    return cv2.FontFace(name)


@lru_cache(maxsize=8192)
def draw_glyph(face: Face, char: str) -> Glyph:
    """Draw one character at size EM."""
    side, pen = 3 * EM, EM
    if face.source.startswith("opencv:"):
        plane = np.zeros((side, side), np.uint8)
        name = face.source.removeprefix("opencv:")
        end, _ = cv2.putText(plane, char, (pen, 2 * EM), 255, _opencv_font(name), EM, face.weight)
        advance = float(end[0] - pen)
    elif face.source.startswith("pen:"):
        plane, advance = draw_with_pen(face, char, pen, 2 * EM)
    else:
        picture = Image.new("L", (side, side))
        font = _font(face.source)
        ImageDraw.Draw(picture).text((pen, 2 * EM), char, fill=255, font=font, anchor="ls")
        plane, advance = np.asarray(picture), font.getlength(char)
    left, top, width, height = cv2.boundingRect(plane)
    return Glyph(plane[top : top + height, left : left + width].copy(), left - pen, top - 2 * EM, advance)


@lru_cache(maxsize=4096)
def kerning(face: Face, pair: str) -> float:
    """Correction of the first advance of a pair of characters, in pixels."""
    if face.source.startswith(("opencv:", "pen:")):
        return 0.0
    font = _font(face.source)
    return font.getlength(pair) - font.getlength(pair[0]) - font.getlength(pair[1])


def _missing(face: Face) -> bytes:
    """The picture that stands for characters the face lacks (empty in some): that of one no face has."""
    return draw_glyph(face, "\uffff").ink.tobytes()


@lru_cache(maxsize=512)
def _printable(face: Face) -> tuple[frozenset[str], bool]:
    """The printable ASCII characters that the face has, and whether its Latin letters are letters, and all there."""
    try:
        missing = _missing(face)
        shapes = {chr(code): draw_glyph(face, chr(code)).ink.tobytes() for code in range(33, 127)}
    except OSError:  # not a font after all
        return frozenset(), False
    own = frozenset(
        char for char, shape in shapes.items() if shape and (shape != missing or face.source.startswith("opencv:"))
    )
    name = Path(face.source).name
    if name.startswith("cm"):  # TeX's own encodings: other characters (and cmmi's digits) are something else
        own &= LETTERS if name.startswith("cmmi") else ALPHANUMERIC
    letters = own & ALPHANUMERIC
    distinct = {shapes[char] for char in letters}
    return own, len(letters) >= 52 and len(distinct) > 0.9 * len(letters)


def drawable(face: Face) -> frozenset[str]:
    """Printable ASCII characters the face has; none for symbol fonts, whose letters are missing or all alike."""
    own, are_letters = _printable(face)
    return own if are_letters else frozenset()


@lru_cache(maxsize=1 << 16)
def _has(face: Face, char: str) -> bool:
    """Whether the face has a character beyond ASCII, and a word with it can be set letter by letter from the left."""
    if unicodedata.category(char)[0] in "MZC" or unicodedata.bidirectional(char) in ("R", "AL", "AN"):
        return False  # marks stack, blanks and control characters show nothing, Arabic and Hebrew run to the left
    if Path(face.source).name.startswith("cm"):  # TeX's own encodings
        return False
    try:
        shape = draw_glyph(face, char).ink.tobytes()
        if not shape or shape == _missing(face):
            return False
    except OSError:  # not a font after all
        return False
    latin, are_letters = _printable(face)
    return are_letters or not latin & LETTERS  # where Latin letters are no letters, others are not either


def draws(face: Face, text: str) -> bool:
    """Whether the face has every character of a text; a blank is none that it could have."""
    if text.isascii():
        return drawable(face).issuperset(text)
    return all(char in drawable(face) if char.isascii() else _has(face, char) for char in text)


@lru_cache(maxsize=8)
def _families(faces: tuple[Face, ...]) -> tuple[tuple[Face, ...], ...]:
    """Faces grouped by family: many weights of one family must not crowd out the others."""
    names = sorted({face.family for face in faces})
    return tuple(tuple(face for face in faces if face.family == name) for name in names)


@lru_cache(maxsize=512)
def _reluctance(face: Face) -> float:
    """Share of draws that are repeated, so that the mix of kinds resembles signs: mostly upright sans-serifs."""
    name = Path(face.source).name + face.family
    reluctance = 0.6 if re.search("mono|typewriter|courier|cmtt", name, re.I) else 0.0
    reluctance = max(reluctance, 0.6 if re.search("ital|obl|cmti|cmmi|Ita[.]", name, re.I) else 0.0)
    sans = re.search(
        "sans|pen(?:round|nib|brush)|rubik|aileron|arial|helvet|roboto|verdana|gothic|grotesk|cmss|impact|futura",
        name,
        re.I,
    )
    return max(reluctance, 0.0 if sans else 0.45)


def choose_face(label: str, fonts: Sequence[Face], rng: np.random.Generator) -> Face:
    """A random face that can draw `label`.

    Raises:
        ValueError: no face can.
    """
    families = _families(tuple(fonts))
    for _ in range(12):
        family = families[int(rng.integers(len(families)))]
        face = family[int(rng.integers(len(family)))]
        if rng.random() < _reluctance(face):
            continue
        if draws(face, label):
            return face
    able = (face for face in fonts if draws(face, label))
    first = next(able, None)
    if first is not None:
        if label.isascii():  # as it always was: data sets made before can be made again
            return first
        others = [first, *able]
        return others[int(rng.integers(len(others)))]
    lost = "".join(char for char in sorted(set(label)) if not any(draws(face, char) for face in fonts)) or label
    raise ValueError(
        f"none of {len(fonts)} fonts can draw {lost!r} of {label!r}; name folders with fonts that can (scripts: "
        "--fonts, training: --font_dirs)"
    )
