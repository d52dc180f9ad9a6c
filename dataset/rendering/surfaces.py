"""What words are painted on: colours, textures and out-of-focus surroundings, all made by arithmetic."""

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np

from dataset.degradation import GAMMA

TILE = 256  # side of a texture, in pixels
# sRGB colours of signs, packages and shop fronts, in 0..255, with the share they are picked with.
_PALETTE = np.array(
    [
        (245, 245, 242), (250, 248, 235), (18, 18, 20), (45, 46, 50), (92, 94, 96), (150, 150, 148), (198, 196, 190),
        (200, 24, 32), (150, 20, 28), (226, 72, 28), (244, 140, 20), (250, 200, 30), (248, 226, 110), (20, 98, 52),
        (46, 150, 72), (130, 180, 60), (18, 60, 120), (24, 96, 180), (90, 160, 215), (160, 205, 235), (70, 30, 90),
        (214, 60, 120), (96, 60, 36), (150, 104, 66), (205, 178, 140), (30, 120, 120), (60, 30, 24), (12, 30, 60),
    ],
    np.float32,
)  # fmt: skip
_SHARES = np.array(
    [9, 4, 9, 5, 3, 3, 5, 6, 3, 3, 3, 5, 2, 4, 2, 1, 5, 4, 2, 2, 1, 1, 3, 3, 4, 1, 2, 4], np.float64
)  # fmt: skip
_SHARES = np.cumsum(_SHARES / _SHARES.sum())
LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)  # Rec. 709, linear light


def _standard(texture: np.ndarray) -> np.ndarray:
    """Mean 0, standard deviation 1, no outliers; float32."""
    texture = texture - texture.mean()
    return np.clip(texture / (texture.std() + 1e-6), -3, 3).astype(np.float32)


def _fractal(rng: np.random.Generator, *, fall: float, start: int = 2, shape: tuple[int, int] = (1, 1)) -> np.ndarray:
    """Sum of smooth noises; each octave is `fall` times weaker; `shape` stretches the first grid (rows, columns)."""
    total, weight = np.zeros((TILE, TILE), np.float32), 1.0
    for octave in range(7):
        rows, columns = (min(TILE, start * side * 2**octave) for side in shape)
        grid = rng.standard_normal((rows, columns), np.float32)
        total += np.float32(weight) * cv2.resize(grid, (TILE, TILE), interpolation=cv2.INTER_CUBIC)
        weight *= fall
    return total


def lit_relief(height: np.ndarray, angle: float) -> np.ndarray:
    """Shading of a height map by light from `angle` (radians)."""
    down, right = np.gradient(height)
    return np.cos(angle) * right + np.sin(angle) * down


def _bricks(rng: np.random.Generator) -> np.ndarray:
    """Courses of bricks (or tiles) with mortar joints."""
    rows, columns = int(rng.integers(4, 9)), int(rng.integers(2, 6))
    wall = np.zeros((TILE, TILE), np.float32)
    shift = 0.5 if rng.random() < 0.7 else 0.0
    ys = np.linspace(0, TILE, rows + 1).astype(int)
    for row in range(rows):
        xs = ((np.arange(columns + 1) + shift * (row % 2)) * TILE / columns).astype(int)
        for x0, x1 in zip([0, *xs], [*xs, TILE], strict=True):
            wall[ys[row] + 2 : ys[row + 1], x0 + 2 : x1] = 1.5 + rng.normal(0, 0.35)
    return cv2.GaussianBlur(wall, (0, 0), 0.8) + 0.25 * _fractal(rng, fall=0.7, start=8)


def _boards(rng: np.random.Generator) -> np.ndarray:
    """Wood: stretched noise, grain lines, at times gaps between boards."""
    grain = _fractal(rng, fall=0.75, start=2, shape=(6, 1))
    wood = grain + 0.5 * np.sin(6 * grain + np.linspace(0, 20, TILE, dtype=np.float32)[:, None])
    for y in range(int(rng.integers(20, 80)), TILE, int(rng.integers(50, 120))):
        wood[y : y + 3] -= 3
        wood[y:] += rng.normal(0, 0.5)
    return wood.T if rng.random() < 0.3 else wood


def _stripes(rng: np.random.Generator) -> np.ndarray:
    """Corrugated sheet, shutters, ribs."""
    phase = np.linspace(0, 2 * np.pi * rng.integers(6, 26), TILE, dtype=np.float32)
    wave = np.sin(phase) + 0.5 * np.sin(2 * phase + 1)
    return np.broadcast_to(wave if rng.random() < 0.4 else wave[:, None], (TILE, TILE)) + 0.2 * _fractal(rng, fall=0.6)


_MAKERS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "cloud": lambda rng: _fractal(rng, fall=0.5),
    "stone": lambda rng: _fractal(rng, fall=0.8, start=4),
    "grain": lambda rng: cv2.GaussianBlur(rng.standard_normal((TILE, TILE), np.float32), (0, 0), 0.9),
    "plaster": lambda rng: lit_relief(_fractal(rng, fall=0.62, start=8), rng.uniform(0, 6.28)),
    "metal": lambda rng: _fractal(rng, fall=0.9, start=2, shape=(32, 1)),
    "stains": lambda rng: np.tanh(3 * _standard(_fractal(rng, fall=0.55, start=3)) - 1.5),
    "boards": _boards,
    "bricks": _bricks,
    "stripes": _stripes,
}


@lru_cache(maxsize=1)
def textures() -> dict[str, tuple[np.ndarray, ...]]:
    """The bank of surfaces, three of each kind: (TILE, TILE) float32, mean 0, deviation 1. Always the same."""
    bank = {}
    for number, (name, make) in enumerate(_MAKERS.items()):
        bank[name] = tuple(_standard(make(np.random.default_rng((20, number, copy)))) for copy in range(3))
    return bank


@lru_cache(maxsize=1)
def scenes() -> tuple[np.ndarray, ...]:
    """Out-of-focus surroundings: (TILE, TILE, 3) float32 linear light. Always the same."""
    views = []
    for number in range(10):
        rng = np.random.default_rng((21, number))
        view = np.full((TILE, TILE, 3), 0.2, np.float32) * random_colour(rng)
        for _ in range(60):
            colour = tuple(float(value) for value in random_colour(rng))
            x, y, w, h = (int(value) for value in rng.integers(0, TILE, 4))
            if rng.random() < 0.6:
                cv2.rectangle(view, (x, y), (x + w // 3, y + h // 2), colour, -1)
            elif rng.random() < 0.5:
                cv2.ellipse(view, (x, y), (w // 4, h // 6), float(rng.uniform(0, 180)), 0, 360, colour, -1)
            else:
                cv2.line(view, (x, y), (w, h), colour, int(rng.integers(1, 9)), cv2.LINE_AA)
        view = cv2.GaussianBlur(view, (0, 0), float(rng.uniform(1.0, 7.0)))
        views.append(view * (1 + 0.15 * _standard(_fractal(rng, fall=0.8))[..., None]))
    return tuple(np.clip(view, 0, 1) for view in views)


def cut_out(tile: np.ndarray, shape: tuple[int, int], rng: np.random.Generator, *, zoom: float) -> np.ndarray:
    """A random piece of a texture, mirrored where it ends."""
    if rng.random() < 0.5:
        tile = tile[:, ::-1]
    x, y = rng.uniform(0, TILE, 2)
    turn = rng.normal(0, 0.03)
    matrix = np.array([[1 / zoom, turn, x], [-turn, 1 / zoom, y]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(tile, matrix, shape[::-1], flags=flags, borderMode=cv2.BORDER_REFLECT_101)


def random_colour(rng: np.random.Generator) -> np.ndarray:
    """A colour of the palette with some variation, (3,) float32 linear light in [0, 1]."""
    colour = _PALETTE[int(np.searchsorted(_SHARES, rng.random()))] + rng.normal(0, 10, 3).astype(np.float32)
    return (np.clip(colour, 3, 252) / np.float32(255)) ** np.float32(GAMMA)


def brightness(colour: np.ndarray) -> float:
    """Perceived brightness in [0, 1] of linear light."""
    return float(colour @ LUMA) ** (1 / GAMMA)


def colour_pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(surface, letters), (3,) float32 linear light each, far enough apart to be legible."""
    surface = random_colour(rng)
    wanted = rng.uniform(0.25, 0.7)
    for _ in range(12):
        letters = random_colour(rng)
        if abs(brightness(letters) - brightness(surface)) >= wanted:
            break
    else:
        letters = np.full(3, 0.9 if brightness(surface) < 0.5 else 0.01, np.float32)
    return surface, letters


def random_surface(shape: tuple[int, int], colour: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A painted, weathered or built surface: (h, w, 3) float32 linear light."""
    names = list(_MAKERS)
    tile = textures()[names[int(rng.integers(len(names)))]][int(rng.integers(3))]
    relief = cut_out(tile, shape, rng, zoom=float(np.exp(rng.normal(0, 0.4))))
    amount = np.float32(rng.exponential(0.045) if rng.random() < 0.75 else rng.uniform(0.1, 0.35))
    shade = np.maximum(1 + amount * relief, np.float32(0.05))[..., None]
    if rng.random() < 0.25:  # two colours in the material, e.g. rust, marble, dirt
        other = colour * np.exp(rng.normal(0, 0.25, 3)).astype(np.float32) * np.float32(np.exp(rng.normal(0, 0.4)))
        return (colour + np.clip(0.5 + 0.5 * relief, 0, 1)[..., None] * (other - colour)) * shade
    return colour * shade
