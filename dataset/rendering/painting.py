"""Letters put on a surface: flat, bevelled, outlined, extruded, engraved, neon, ... and what stands around them.

Every painter has the arguments (canvas, mask, letters, rng) and paints in place: canvas (h, w, 3) float32 linear light,
mask (h, w) uint8 coverage of the letters, and their colour, (3,) float32 linear light.
"""

from collections.abc import Callable

import cv2
import numpy as np

from dataset.rendering.lettering import Box
from dataset.rendering.surfaces import (
    brightness,
    cut_out,
    lit_relief,
    random_colour,
    random_surface,
    scenes,
    textures,
)

Painter = Callable[[np.ndarray, np.ndarray, np.ndarray, np.random.Generator], None]


def _blend(canvas: np.ndarray, alpha: np.ndarray, colour: np.ndarray) -> None:
    """Paint `colour` ((3,) or (h, w, 3)) over the canvas in place where `alpha` (h, w) in [0, 1] says."""
    canvas += alpha[..., None] * (colour - canvas)


def _moved(mask: np.ndarray, dx: int, dy: int) -> np.ndarray:
    """The mask shifted by whole pixels; what leaves is lost."""
    out = np.zeros_like(mask)
    height, width = mask.shape
    out[max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)] = mask[
        max(-dy, 0) : height + min(-dy, 0), max(-dx, 0) : width + min(-dx, 0)
    ]
    return out


def _unit(mask: np.ndarray) -> np.ndarray:
    return mask.astype(np.float32) * np.float32(1 / 255)


def _grown(mask: np.ndarray, radius: int) -> np.ndarray:
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return cv2.dilate(mask, kernel)


def _flat(canvas: np.ndarray, mask: np.ndarray, letters: np.ndarray, rng: np.random.Generator) -> None:
    """Paint or print: one colour, at times a gradient, at times worn."""
    alpha = _unit(mask)
    chance = rng.random()
    if chance < 0.15:
        slope = np.linspace(rng.uniform(0.5, 1), rng.uniform(1, 1.5), mask.shape[0], dtype=np.float32)
        _blend(canvas, alpha, slope[:: int(rng.choice([-1, 1])), None, None] * letters)
        return
    if chance < 0.30:
        worn = cut_out(textures()["stone"][int(rng.integers(3))], mask.shape, rng, zoom=float(rng.uniform(0.4, 1.2)))
        alpha = alpha * np.clip(rng.uniform(1.2, 2.4) + worn, 0.15, 1)
    _blend(canvas, alpha, letters)


def _shadowed(canvas: np.ndarray, mask: np.ndarray, letters: np.ndarray, rng: np.random.Generator) -> None:
    """Letters in front of the wall, or a printed drop shadow."""
    dx, dy = (int(value) for value in rng.integers(-5, 6, 2))
    shade = _unit(_moved(mask, dx, max(dy, 1)))
    soft = rng.uniform(0.3, 3.5)
    shade = cv2.GaussianBlur(shade, (0, 0), soft) * np.float32(rng.uniform(0.4, 0.95))
    _blend(canvas, shade, canvas * np.float32(0.12))
    _flat(canvas, mask, letters, rng)


def _outlined(canvas: np.ndarray, mask: np.ndarray, letters: np.ndarray, rng: np.random.Generator) -> None:
    """A rim of another colour around the letters."""
    rim = _grown(mask, int(rng.integers(1, 5)))
    bright = brightness(letters)
    colour = random_colour(rng)
    if abs(brightness(colour) - bright) < 0.3 or rng.random() < 0.5:
        colour = np.full(3, 0.01 if bright > 0.45 else 0.85, np.float32)
    if rng.random() < 0.35:
        rim = np.maximum(rim, _moved(rim, int(rng.integers(-4, 5)), int(rng.integers(1, 5))))
    _blend(canvas, _unit(rim), colour)
    _flat(canvas, mask, letters, rng)


def _extruded(canvas: np.ndarray, mask: np.ndarray, letters: np.ndarray, rng: np.random.Generator) -> None:
    """Solid letters with visible sides and a shadow on the wall."""
    depth = int(rng.integers(2, 6))
    angle = rng.uniform(0, 2 * np.pi)
    steps = [(round(np.cos(angle) * step), round(np.sin(angle) * step)) for step in range(1, depth + 1)]
    sides = mask.copy()
    for dx, dy in steps:
        np.maximum(sides, _moved(mask, dx, dy), out=sides)
    shade = cv2.GaussianBlur(_unit(_moved(sides, *steps[-1])), (0, 0), 3.0)
    _blend(canvas, shade * np.float32(0.5), canvas * np.float32(0.2))
    dark = np.float32(rng.uniform(0.12, 0.45))
    _blend(canvas, _unit(sides), letters * dark if brightness(letters) > 0.35 else letters + dark * (1 - letters))
    _flat(canvas, mask, letters, rng)


def _relief(canvas: np.ndarray, mask: np.ndarray, letters: np.ndarray, rng: np.random.Generator) -> None:
    """Cast, carved or embossed letters: the surface goes on, only its shading tells the letters."""
    body = cv2.GaussianBlur(_unit(mask), (0, 0), float(rng.uniform(0.8, 2.0)))
    angle = rng.uniform(0, 2 * np.pi)
    shading = lit_relief(body, angle) * np.float32(rng.uniform(3.0, 6.0))
    _blend(canvas, body * np.float32(rng.uniform(0.1, 0.55)), letters)
    canvas *= np.clip(1 + shading, 0.25, 2.5)[..., None]
    cast = _unit(_moved(mask, round(3 * np.cos(angle)), round(3 * np.sin(angle)))) * (1 - _unit(mask))
    canvas *= 1 - np.float32(0.4) * cv2.GaussianBlur(cast, (0, 0), 1.2)[..., None]


def _hollow(canvas: np.ndarray, mask: np.ndarray, letters: np.ndarray, rng: np.random.Generator) -> None:
    """Outlines only."""
    rim = _grown(mask, int(rng.integers(1, 4))) - cv2.erode(mask, np.ones((2, 2), np.uint8))
    _blend(canvas, _unit(rim), letters)


def _neon(canvas: np.ndarray, mask: np.ndarray, letters: np.ndarray, rng: np.random.Generator) -> None:
    """Lit letters: tubes or boxes with a glow."""
    canvas *= np.float32(rng.uniform(0.1, 0.5))
    colour = letters / max(float(letters.max()), 0.05)
    light = _unit(mask)
    glow = cv2.GaussianBlur(light, (0, 0), float(rng.uniform(4, 10)))
    canvas += (glow * np.float32(rng.uniform(0.1, 0.6)))[..., None] * colour
    _blend(canvas, light, np.minimum(colour + np.float32(rng.uniform(0, 0.5)), 1))


def _dotted(canvas: np.ndarray, mask: np.ndarray, letters: np.ndarray, rng: np.random.Generator) -> None:
    """Lamps or LEDs in a grid."""
    pitch = int(rng.integers(4, 7))
    grid = np.zeros_like(mask)
    grid[::pitch, ::pitch] = 255
    lamps = _unit(cv2.bitwise_and(_grown(grid, 1), mask))
    canvas *= np.float32(rng.uniform(0.1, 0.6))
    colour = letters / max(float(letters.max()), 0.05)
    _blend(canvas, cv2.GaussianBlur(lamps, (0, 0), 0.8), colour)
    _blend(canvas, _unit(mask) * np.float32(rng.uniform(0.15, 0.6)), colour)


_PAINTERS: tuple[Painter, ...] = (_flat, _shadowed, _outlined, _extruded, _relief, _hollow, _neon, _dotted)
_PAINTER_SHARES = np.cumsum([0.50, 0.12, 0.11, 0.09, 0.08, 0.02, 0.06, 0.02])
_FADING = (_flat, _shadowed, _extruded)  # plain paint and print; lamps and reliefs keep their colour


def choose_painter(chance: float) -> tuple[Painter, bool]:
    """The painter for a `chance` in [0, 1), and whether its paint may fade."""
    paint = _PAINTERS[min(int(np.searchsorted(_PAINTER_SHARES, chance)), len(_PAINTERS) - 1)]
    return paint, paint in _FADING


def on_a_plate(canvas: np.ndarray, ink: Box, colour: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Limit the surface to a plate: outside it something else is seen; at times it has a border line."""
    x, y, width, height = ink
    gaps = [round(value * height) for value in rng.uniform(0.08, 0.5, 4)]
    corner_a, corner_b = (x - gaps[0], y - gaps[1]), (x + width + gaps[2], y + height + gaps[3])
    size = (canvas.shape[0], canvas.shape[1])
    shape = np.zeros(size, np.uint8)
    if rng.random() < 0.12:
        centre = (x + width // 2, y + height // 2)
        cv2.ellipse(shape, centre, (round(0.75 * width) + 6, round(0.8 * height) + 6), 0, 0, 360, 255, -1, cv2.LINE_AA)
    else:
        cv2.rectangle(shape, corner_a, corner_b, 255, -1)
    if rng.random() < 0.4:
        around = cut_out(scenes()[int(rng.integers(10))], size, rng, zoom=float(rng.uniform(0.5, 1.5)))
    else:
        around = random_surface(size, random_colour(rng), rng)
    _blend(around, cv2.GaussianBlur(_unit(_moved(shape, 2, 4)), (0, 0), 3) * np.float32(0.6), around * np.float32(0.2))
    _blend(around, _unit(shape), canvas)
    if rng.random() < 0.35:
        inset = int(rng.integers(2, 6))
        line = shape.copy()
        line -= cv2.erode(shape, np.ones((2 * inset + 1, 2 * inset + 1), np.uint8))
        _blend(around, _unit(line), colour)
    return around


def draw_lines(canvas: np.ndarray, ink: Box, colour: np.ndarray, rng: np.random.Generator) -> None:
    """Rules above or below the word, joints and cables, before the letters are painted."""
    _, y, _, height = ink
    span = canvas.shape[1]
    for _ in range(int(rng.integers(1, 3))):
        where = y - 0.25 * height if rng.random() < 0.5 else y + 1.25 * height
        row = round(where + rng.normal(0, 0.08) * height)
        tilt = round(rng.normal(0, 2))
        paint = colour if rng.random() < 0.5 else canvas[0, 0] * np.float32(rng.uniform(0.2, 0.6))
        shade = tuple(float(value) for value in paint)
        cv2.line(canvas, (0, row), (span, row + tilt), shade, int(rng.integers(1, 6)), cv2.LINE_AA)
