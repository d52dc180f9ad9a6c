"""A word as sign painters set it: the coverage mask of its letters.

Bold, light, condensed, slanted, small-capital, hand-shaken and curved variants of every face are made here.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from dataset.rendering.fonts import EM, Face
from dataset.rendering.glyphs import draw_glyph, draws, kerning
from dataset.words import Labels

Box = tuple[int, int, int, int]  # left, top, width, height of the word on the canvas, in pixels


@dataclass(frozen=True)
class Look:
    """How a face is set.

    Attributes:
        stretch: width factor.
        slant: shift in x per pixel of y; an italic of 12 degrees has 0.21.
        spacing: added to every advance, in EM.
        small_capitals: height of the letters after the first, 1 for plain setting.
        shake: size of the random displacement of every letter, in EM; a steady hand has 0.
        swell: blur radius (x, y) in pixels by which strokes are rounded before they are cut at `cut`.
        cut: level in (0, 1) of that cut; below 0.5 the strokes get bolder.
        bend: height of the arc of the baseline, in heights of the word; negative bends downwards.
        waves: number of half waves of the baseline (1 is an arc).
    """

    stretch: float = 1.0
    slant: float = 0.0
    spacing: float = 0.0
    small_capitals: float = 1.0
    shake: float = 0.0
    swell: tuple[float, float] = (0.0, 0.0)
    cut: float = 0.5
    bend: float = 0.0
    waves: float = 1.0


def random_look(label: str, rng: np.random.Generator) -> Look:
    """Settings as sign painters use them; most words are set plainly."""
    chance = rng.random(8)
    swell, cut = float(rng.uniform(0.8, 2.4)), float(rng.uniform(0.20, 0.58))
    anisotropy = float(np.exp(rng.normal(0, 0.5))) if chance[6] < 0.3 and cut < 0.45 else 1.0
    return Look(
        stretch=float(np.clip(np.exp(rng.normal(-0.06, 0.20)), 0.55, 1.6)),
        slant=float(rng.uniform(0.08, 0.32)) if chance[0] < 0.10 else float(rng.normal(0, 0.02)),
        spacing=float(rng.uniform(0.06, 0.30)) if chance[1] < 0.18 else float(rng.uniform(-0.03, 0.05)),
        small_capitals=0.78 if label.isupper() and chance[2] < 0.10 else 1.0,
        shake=float(rng.uniform(0.01, 0.05)) if chance[3] < 0.14 else 0.0,
        swell=(swell * anisotropy, swell / anisotropy) if chance[4] < 0.6 else (0.0, 0.0),
        cut=cut,
        bend=float(rng.uniform(0.12, 0.55) * rng.choice([-1, 1, 1])) if chance[5] < 0.09 and len(label) > 3 else 0.0,
        waves=2.0 if chance[7] < 0.15 else 1.0,
    )


def _shaken(ink: np.ndarray, shake: float, rng: np.random.Generator) -> np.ndarray:
    """One letter as a hand would repeat it: turned, scaled and skewed a little."""
    height, width = ink.shape
    pad = 4
    turn, skew, size_x, size_y = rng.normal(0, shake, 4) * (3.0, 4.0, 2.0, 2.0)
    matrix = np.array([[1 + size_x, skew - turn, 0], [turn, 1 + size_y, 0]])
    centre = np.array([width / 2, height / 2])
    matrix[:, 2] = centre + pad - matrix[:, :2] @ centre
    return cv2.warpAffine(ink, matrix, (width + 2 * pad, height + 2 * pad), flags=cv2.INTER_LINEAR)


def _set_line(label: str, face: Face, look: Look, rng: np.random.Generator) -> np.ndarray:
    """Letters side by side: (h, w) uint8 with some empty border."""
    placed, pen = [], 0.0
    for index, char in enumerate(label):
        glyph = draw_glyph(face, char)
        ink, left, top, advance = glyph.ink, glyph.left, glyph.top, glyph.advance
        if look.small_capitals < 1 and index and char.isalpha():
            factor = look.small_capitals
            size = (max(1, round(ink.shape[1] * factor)), max(1, round(ink.shape[0] * factor)))
            ink = cv2.resize(ink, size, interpolation=cv2.INTER_AREA)
            left, top, advance = round(left * factor), round(top * factor), advance * factor
        if look.shake:
            ink, left, top = _shaken(ink, look.shake, rng), left - 4, top - 4 + round(rng.normal(0, look.shake) * EM)
        if index:
            pen += kerning(face, label[index - 1 : index + 1])
        placed.append((ink, round(pen) + left, top))
        pen += advance + look.spacing * EM
    x0, y0 = min(x for _, x, _ in placed), min(y for _, _, y in placed)
    x1 = max(x + ink.shape[1] for ink, x, _ in placed)
    y1 = max(y + ink.shape[0] for ink, _, y in placed)
    border = 10
    line = np.zeros((y1 - y0 + 2 * border, x1 - x0 + 2 * border), np.uint8)
    for ink, x, y in placed:
        place = line[y - y0 + border :, x - x0 + border :][: ink.shape[0], : ink.shape[1]]
        np.maximum(place, ink, out=place)
    return line


def _stretched(line: np.ndarray, look: Look) -> np.ndarray:
    """Width and slant."""
    height, width = line.shape
    run = abs(look.slant) * height
    matrix = np.array([[look.stretch, -look.slant, look.slant * height if look.slant > 0 else 0], [0, 1, 0]])
    return cv2.warpAffine(line, matrix, (round(width * look.stretch + run), height), flags=cv2.INTER_LINEAR)


def _swollen(line: np.ndarray, look: Look) -> np.ndarray:
    """Bolder, lighter and rounder strokes: blur, then cut at another level than one half."""
    soft = cv2.GaussianBlur(line, (0, 0), look.swell[0], sigmaY=look.swell[1])
    cut = np.clip((np.arange(256) - 255 * look.cut) * 4 + 128, 0, 255).astype(np.uint8)
    cut_line = cut[soft]
    if look.cut < 0.5:
        return np.maximum(cut_line, line)
    return cut_line if cut_line.mean() > 0.7 * line.mean() else line  # thin strokes must survive


def _bent(line: np.ndarray, look: Look) -> np.ndarray:
    """A curved or wavy baseline; letters keep upright, as in most curved signs seen from a distance."""
    height, width = line.shape
    rise = look.bend * height
    profile = np.sin(np.linspace(0, np.pi * look.waves, width, dtype=np.float32)) * np.float32(rise)
    low, high = float(min(profile.min(), 0)), float(max(profile.max(), 0))
    rows = np.arange(round(height + high - low), dtype=np.float32)[:, None] - np.float32(high)
    across = np.broadcast_to(np.arange(width, dtype=np.float32), (rows.size, width)).copy()
    return cv2.remap(line, across, rows + profile, cv2.INTER_LINEAR)


def word_mask(label: str, face: Face, look: Look, rng: np.random.Generator) -> np.ndarray:
    """Coverage of the letters, (h, w) uint8, cut to the ink."""
    line = _set_line(label, face, look, rng)
    line = _stretched(line, look)
    if look.swell[0]:
        line = _swollen(line, look)
    if look.bend:
        line = _bent(line, look)
    left, top, width, height = cv2.boundingRect((line > 40).view(np.uint8))
    return line[top : top + height, left : left + width] if width and height else line


def add_neighbours(
    mask: np.ndarray, ink: Box, face: Face, look: Look, rng: np.random.Generator, *, labels: Labels
) -> None:
    """Other words of the sign, of which the crop will show slivers; drawn into the mask in place."""
    x, y, width, height = ink
    for side in range(4):
        if rng.random() > 0.14:
            continue
        label = labels(rng)[: 6 if side > 1 else 14]
        if not draws(face, label):
            continue
        other = word_mask(label, face, look, rng)
        gap = round(rng.uniform(0.12, 0.4) * height) if side < 2 else round(rng.uniform(0.2, 0.45) * EM)
        if side == 0:
            left, top = x + round(rng.uniform(-0.5, 0.5) * width), y - gap - other.shape[0]
        elif side == 1:
            left, top = x + round(rng.uniform(-0.5, 0.5) * width), y + height + gap
        else:
            left, top = (x - gap - other.shape[1] if side == 2 else x + width + gap), y
        _paste(mask, other, left, top)


def _paste(mask: np.ndarray, other: np.ndarray, left: int, top: int) -> None:
    """Maximum of two masks where they overlap, in place."""
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + other.shape[1], mask.shape[1]), min(top + other.shape[0], mask.shape[0])
    if x0 < x1 and y0 < y1:
        place = mask[y0:y1, x0:x1]
        np.maximum(place, other[y0 - top : y1 - top, x0 - left : x1 - left], out=place)
