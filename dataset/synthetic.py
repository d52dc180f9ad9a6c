"""Word crops as a camera would have taken them, rendered from scratch: pairs to train on without any download.

A word is set in a random face, painted on a random surface (flat, bevelled, outlined, extruded, engraved, neon, ...),
lit, looked at from a random side, cropped as tightly as a text detector would, and passed through a small camera; LR
comes from `dataset.degradation`. Everything is arithmetic on NumPy arrays: no picture, texture or font is shipped.

Fonts: a pen alphabet of our own, Pillow's built-in Aileron (CC0), the Rubik that OpenCV 5 draws with (OFL), the DejaVu,
STIX and Computer Modern files of matplotlib where it is installed (Bitstream Vera, OFL, BaKoMa licences), and the fonts
of the system. A machine without any font file has the first three; bold, light, condensed, slanted, small-capital,
hand-shaken and curved variants of every face are made by the renderer. Other fonts make other pictures, so "the same
sample" means: on machines with the same fonts and library versions.

A sample is a function of (seed, index) alone: it does not matter which process renders it, or what was rendered before.
"""

import importlib.util
import re
import string
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dataset.degradation import GAMMA, SEVERITIES, add_noise, degrade, jpeg, sharpen, to_display
from dataset.words import random_label

EM = 64  # font size on the canvas, in pixels
TILE = 256  # side of a texture, in pixels
Box = tuple[int, int, int, int]  # left, top, width, height of the word on the canvas, in pixels
HR_HEIGHTS = (28, 64)  # pixels
HR_MAX_WIDTH = 416  # pixels
LETTERS = frozenset(string.ascii_letters)
ALPHANUMERIC = LETTERS | frozenset(string.digits)
SYSTEM_FOLDERS = (
    "/usr/share/fonts", "/usr/local/share/fonts", "~/.fonts", "~/.local/share/fonts",
    "/Library/Fonts", "/System/Library/Fonts/Supplemental", "~/Library/Fonts", "C:/Windows/Fonts",
)  # fmt: skip
# Files whose names say that they hold no letters of text; what slips through is caught by `drawable`.
_NOT_TEXT = re.compile(r"symbol|math|emoji|dingbat|icon|STIXSiz|STIXNonUni|cmex|cmsy|LastResort|braille|music", re.I)
_STYLE_SUFFIX = re.compile(r"[-_ ].*|(?:Bol|Ita|Reg|Obl|Light|Thin|Medium|Black|ExtraLight|SemiBold|10).*")

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
_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)  # Rec. 709, linear light

# A pen alphabet, drawn for this project: strokes separated by "|", "~" before a smooth one, points as two hexadecimal
# digits x, y; 3 is the baseline, 8 the x-height, b the height of capitals, 0 the descender line.
_STROKES = dict(
    line.split("=", 1)
    for line in """
A=03 3b 63|16 56;B=03 0b|~0b 4b 59 47 07|~07 47 65 43 03;C=~69 4b 2b 08 06 23 43 65;D=03 0b|~0b 3b 68 66 33 03
E=6b 0b 03 63|07 47;F=6b 0b 03|07 47;G=~69 4b 2b 08 06 23 43 64|63 67 37;H=03 0b|63 6b|07 67;I=03 0b
J=~4b 45 33 13 05;K=03 0b|5b 07 63;L=0b 03 53;M=03 0b 35 6b 63;N=03 0b 63 6b;O=~3b 1a 07 14 33 54 67 5a 3b
P=03 0b|~0b 4b 69 47 07;Q=~3b 1a 07 14 33 54 67 5a 3b|46 72;R=03 0b|~0b 4b 69 47 07|37 63
S=~5a 3b 1a 18 37 56 54 33 04;T=0b 6b|3b 33;U=~0b 05 23 43 65 6b;V=0b 33 6b;W=0b 23 49 63 8b;X=0b 63|6b 03
Y=0b 37 6b|37 33;Z=0b 6b 03 63;a=~48 28 07 04 23 45|48 43;b=0b 03|~06 28 47 44 23 04;c=~47 28 07 04 23 44
d=4b 43|~46 28 07 04 23 44;e=~06 46 47 28 07 04 23 44;f=~4a 3b 29 23|08 38;g=48 42|~42 20 01|~47 28 07 04 23 45
h=0b 03|~06 28 47 43;i=08 03|0a 0b;j=28 21|~21 10 00|2a 2b;k=0b 03|38 05 43;l=0b 03
m=08 03|~06 28 36 33|~36 58 66 63;n=08 03|~06 28 47 43;o=~28 07 04 23 44 47 28;p=08 00|~06 28 47 44 23 04
q=48 40|~46 28 07 04 23 44;r=08 03|~06 18 38;s=~37 28 07 16 35 44 23 03;t=~1a 14 23 34|08 38;u=~08 04 23 45|48 43
v=08 23 48;w=08 13 37 53 68;x=08 43|48 03;y=08 23|48 00;z=08 48 03 43;0=~2b 09 05 23 45 49 2b;1=09 2b 23
2=~0a 2b 49 36 03|03 53;3=~0a 2b 49 27|~27 45 23 04;4=33 3b 05 55;5=4b 0b 07|~07 38 46 44 23 04
6=~3b 07 04 23 45 37 06;7=0b 4b 13;8=~2b 09 27 44 23 04 27 49 2b;9=~48 17 09 2b 49 45 13;.=03 04;,=13 02
:=04 03|07 08;!=0b 06|03 04;-=07 37;'=0b 09;/=02 3b;&=~62 19 2b 39 05 14 33 66;$=~5a 3b 1a 18 37 56 54 33 04|3c 32
""".strip()
    .replace("\n", ";")
    .split(";")
)


@dataclass(frozen=True)
class Sample:
    """A training pair: `hr` (H, W, 3) and `lr` (H // 2, W // 2, 3), uint8 RGB, and the text they show."""

    hr: np.ndarray
    lr: np.ndarray
    label: str


@dataclass(frozen=True, order=True)
class Face:
    """One typeface: `source` is a font file, "pillow", "opencv:<name>" or "pen:<kind>".

    `weight` counts for the last two: 100 (thin) to 900 (black), and the width of the pen in pixels.
    """

    family: str
    source: str
    weight: int = 400


@dataclass(frozen=True)
class Glyph:
    """A drawn character: `ink` (h, w) uint8, its left and top edge relative to the pen, and the pen's advance."""

    ink: np.ndarray
    left: int
    top: int
    advance: float


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


# ------------------------------------------------------------------------------------------------------------- fonts


def system_fonts() -> list[Path]:
    """Font files of the operating system, by its customary folders; empty on bare machines."""
    return font_files(Path(folder).expanduser() for folder in SYSTEM_FOLDERS)


def bundled_fonts() -> list[Path]:
    """Font files that came with installed Python packages (matplotlib); the package itself is not imported."""
    package = importlib.util.find_spec("matplotlib")
    places = package.submodule_search_locations if package else None
    return font_files(Path(place) / "mpl-data" / "fonts" for place in places or [])


def font_files(folders: Iterable[Path]) -> list[Path]:
    """All TrueType and OpenType files below some folders that look like text fonts, sorted."""
    found = {
        file
        for folder in folders
        if folder.is_dir()
        for file in folder.rglob("*")
        if file.suffix.lower() in {".ttf", ".otf"}
    }
    return sorted(file for file in found if not _NOT_TEXT.search(file.stem))


def find_fonts(*folders: str | Path) -> tuple[Face, ...]:
    """Every face this machine can draw with: built-in ones, those of packages, of the system and of `folders`."""
    built_in = [Face("Aileron", "pillow")]
    if hasattr(cv2, "FontFace"):  # OpenCV >= 5
        built_in += [Face("Rubik", "opencv:sans", weight) for weight in (300, 400, 500, 600, 700, 800, 900)]
        built_in += [Face("RubikItalic", "opencv:italic", weight) for weight in (400, 600, 800)]
    built_in += [
        Face(f"Pen{kind}", f"pen:{kind}", weight) for kind in ("round", "nib", "brush") for weight in (4, 6, 9)
    ]
    by_name = {}  # the same file may lie in several places
    for file in [*system_fonts(), *bundled_fonts(), *font_files(map(Path, folders))]:
        by_name[file.name.lower()] = Face(_STYLE_SUFFIX.sub("", file.stem) or file.stem, str(file))
    return tuple(sorted(built_in + list(by_name.values())))


@lru_cache(maxsize=8)
def faces(*folders: str) -> tuple[Face, ...]:
    """`find_fonts(*folders)`, looked for once in each process."""
    return find_fonts(*folders)


@lru_cache(maxsize=512)
def _font(source: str) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    if source == "pillow":
        return ImageFont.load_default(EM)
    return ImageFont.truetype(source, EM, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=8)
def _opencv_font(name: str) -> "cv2.FontFace":
    return cv2.FontFace(name)


def _path(stroke: str) -> np.ndarray:
    """Points of one stroke of `_STROKES`, (n, 2) float64, x to the right and y up from the baseline, in EM / 11."""
    points = np.array([[int(point[0], 16), int(point[1], 16) - 3] for point in stroke.lstrip("~").split()], float)
    if stroke[0] != "~":
        steps = np.linspace(0, len(points) - 1, 48 * (len(points) - 1) + 1)
        return np.stack([np.interp(steps, np.arange(len(points)), axis) for axis in points.T], axis=1)
    # Catmull-Rom: through every point, without corners
    ends = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    t = np.linspace(0, 1, 48, endpoint=False)[:, None]
    pieces = []
    for p0, p1, p2, p3 in zip(ends, ends[1:], ends[2:], ends[3:], strict=False):
        pieces.append(p1 + 0.5 * t * (p2 - p0 + t * (2 * p0 - 5 * p1 + 4 * p2 - p3 + t * (3 * (p1 - p2) + p3 - p0))))
    return np.concatenate([*pieces, points[-1:]])


def _pen_stroke(face: Face, char: str, x: int, y: int) -> tuple[np.ndarray, float]:
    """A letter of the pen alphabet: plane (3 EM, 3 EM) uint8 with the pen starting at (x, y), and its advance."""
    fine, unit, kind = 4, EM / 11, face.source.removeprefix("pen:")
    plane = np.zeros((3 * EM * fine, 3 * EM * fine), np.uint8)
    width = 0.0
    for stroke in filter(None, _STROKES.get(char, "").split("|")):
        path = _path(stroke)
        width = max(width, float(path[:, 0].max()))
        pressure = np.ones(len(path))
        if kind == "brush":  # set down firmly, lifted towards the end
            pressure = 1.25 - 0.8 * np.linspace(0, 1, len(path)) ** 2
        for (px, py), force in zip(path, pressure, strict=True):
            centre = (round(fine * (x + unit * px)), round(fine * (y - unit * py)))
            radius = max(1, round(fine * face.weight * force * (0.8 if kind == "nib" else 0.5)))
            axes = (radius, max(1, round(radius * (0.3 if kind == "nib" else 1.0))))
            cv2.ellipse(plane, centre, axes, -40.0 if kind == "nib" else 0.0, 0, 360, 255, -1)
    return cv2.resize(plane, None, fx=1 / fine, fy=1 / fine, interpolation=cv2.INTER_AREA), unit * (
        width + 2
    ) + 0.4 * face.weight


@lru_cache(maxsize=8192)
def _glyph(face: Face, char: str) -> Glyph:
    """Draw one character at size EM."""
    side, pen = 3 * EM, EM
    if face.source.startswith("opencv:"):
        plane = np.zeros((side, side), np.uint8)
        name = face.source.removeprefix("opencv:")
        end, _ = cv2.putText(plane, char, (pen, 2 * EM), 255, _opencv_font(name), EM, face.weight)
        advance = float(end[0] - pen)
    elif face.source.startswith("pen:"):
        plane, advance = _pen_stroke(face, char, pen, 2 * EM)
    else:
        picture = Image.new("L", (side, side))
        font = _font(face.source)
        ImageDraw.Draw(picture).text((pen, 2 * EM), char, fill=255, font=font, anchor="ls")
        plane, advance = np.asarray(picture), font.getlength(char)
    left, top, width, height = cv2.boundingRect(plane)
    return Glyph(plane[top : top + height, left : left + width].copy(), left - pen, top - 2 * EM, advance)


@lru_cache(maxsize=4096)
def _kerning(face: Face, pair: str) -> float:
    """Correction of the first advance of a pair of characters, in pixels."""
    if face.source.startswith(("opencv:", "pen:")):
        return 0.0
    font = _font(face.source)
    return font.getlength(pair) - font.getlength(pair[0]) - font.getlength(pair[1])


@lru_cache(maxsize=512)
def drawable(face: Face) -> frozenset[str]:
    """Printable ASCII characters the face has; none for symbol fonts, whose letters are missing or all alike."""
    try:
        missing = _glyph(face, "\uffff").ink.tobytes()
        shapes = {chr(code): _glyph(face, chr(code)).ink.tobytes() for code in range(33, 127)}
    except OSError:  # not a font after all
        return frozenset()
    own = frozenset(
        char for char, shape in shapes.items() if shape and (shape != missing or face.source.startswith("opencv:"))
    )
    name = Path(face.source).name
    if name.startswith("cm"):  # TeX's own encodings: other characters (and cmmi's digits) are something else
        own &= LETTERS if name.startswith("cmmi") else ALPHANUMERIC
    letters = own & ALPHANUMERIC
    distinct = {shapes[char] for char in letters}
    return own if len(letters) >= 52 and len(distinct) > 0.9 * len(letters) else frozenset()


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
        if drawable(face).issuperset(label):
            return face
    for face in fonts:
        if drawable(face).issuperset(label):
            return face
    known = frozenset().union(*(drawable(face) for face in fonts))
    lost = "".join(sorted(set(label) - known)) or label
    raise ValueError(f"none of {len(fonts)} fonts can draw {lost!r} of {label!r}; only printable ASCII is supported")


# -------------------------------------------------------------------------------------------------------- the letters


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
        glyph = _glyph(face, char)
        ink, left, top, advance = glyph.ink, glyph.left, glyph.top, glyph.advance
        if look.small_capitals < 1 and index and char.isalpha():
            factor = look.small_capitals
            size = (max(1, round(ink.shape[1] * factor)), max(1, round(ink.shape[0] * factor)))
            ink = cv2.resize(ink, size, interpolation=cv2.INTER_AREA)
            left, top, advance = round(left * factor), round(top * factor), advance * factor
        if look.shake:
            ink, left, top = _shaken(ink, look.shake, rng), left - 4, top - 4 + round(rng.normal(0, look.shake) * EM)
        if index:
            pen += _kerning(face, label[index - 1 : index + 1])
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


# ----------------------------------------------------------------------------------------------------------- surfaces


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


def _lit_relief(height: np.ndarray, angle: float) -> np.ndarray:
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
    "plaster": lambda rng: _lit_relief(_fractal(rng, fall=0.62, start=8), rng.uniform(0, 6.28)),
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
        view = np.full((TILE, TILE, 3), 0.2, np.float32) * _colour(rng)
        for _ in range(60):
            colour = tuple(float(value) for value in _colour(rng))
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


def _cut_out(tile: np.ndarray, shape: tuple[int, int], rng: np.random.Generator, *, zoom: float) -> np.ndarray:
    """A random piece of a texture, mirrored where it ends."""
    if rng.random() < 0.5:
        tile = tile[:, ::-1]
    x, y = rng.uniform(0, TILE, 2)
    turn = rng.normal(0, 0.03)
    matrix = np.array([[1 / zoom, turn, x], [-turn, 1 / zoom, y]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(tile, matrix, shape[::-1], flags=flags, borderMode=cv2.BORDER_REFLECT_101)


def _colour(rng: np.random.Generator) -> np.ndarray:
    """A colour of the palette with some variation, (3,) float32 linear light in [0, 1]."""
    colour = _PALETTE[int(np.searchsorted(_SHARES, rng.random()))] + rng.normal(0, 10, 3).astype(np.float32)
    return (np.clip(colour, 3, 252) / np.float32(255)) ** np.float32(GAMMA)


def _brightness(colour: np.ndarray) -> float:
    """Perceived brightness in [0, 1] of linear light."""
    return float(colour @ _LUMA) ** (1 / GAMMA)


def colour_pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(surface, letters), (3,) float32 linear light each, far enough apart to be legible."""
    surface = _colour(rng)
    wanted = rng.uniform(0.25, 0.7)
    for _ in range(12):
        letters = _colour(rng)
        if abs(_brightness(letters) - _brightness(surface)) >= wanted:
            break
    else:
        letters = np.full(3, 0.9 if _brightness(surface) < 0.5 else 0.01, np.float32)
    return surface, letters


def _surface(shape: tuple[int, int], colour: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A painted, weathered or built surface: (h, w, 3) float32 linear light."""
    names = list(_MAKERS)
    tile = textures()[names[int(rng.integers(len(names)))]][int(rng.integers(3))]
    relief = _cut_out(tile, shape, rng, zoom=float(np.exp(rng.normal(0, 0.4))))
    amount = np.float32(rng.exponential(0.045) if rng.random() < 0.75 else rng.uniform(0.1, 0.35))
    shade = np.maximum(1 + amount * relief, np.float32(0.05))[..., None]
    if rng.random() < 0.25:  # two colours in the material, e.g. rust, marble, dirt
        other = colour * np.exp(rng.normal(0, 0.25, 3)).astype(np.float32) * np.float32(np.exp(rng.normal(0, 0.4)))
        return (colour + np.clip(0.5 + 0.5 * relief, 0, 1)[..., None] * (other - colour)) * shade
    return colour * shade


# ----------------------------------------------------------------------------------------------------------- painting


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
        worn = _cut_out(textures()["stone"][int(rng.integers(3))], mask.shape, rng, zoom=float(rng.uniform(0.4, 1.2)))
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
    bright = _brightness(letters)
    colour = _colour(rng)
    if abs(_brightness(colour) - bright) < 0.3 or rng.random() < 0.5:
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
    _blend(canvas, _unit(sides), letters * dark if _brightness(letters) > 0.35 else letters + dark * (1 - letters))
    _flat(canvas, mask, letters, rng)


def _relief(canvas: np.ndarray, mask: np.ndarray, letters: np.ndarray, rng: np.random.Generator) -> None:
    """Cast, carved or embossed letters: the surface goes on, only its shading tells the letters."""
    body = cv2.GaussianBlur(_unit(mask), (0, 0), float(rng.uniform(0.8, 2.0)))
    angle = rng.uniform(0, 2 * np.pi)
    shading = _lit_relief(body, angle) * np.float32(rng.uniform(3.0, 6.0))
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


_PAINTERS = (_flat, _shadowed, _outlined, _extruded, _relief, _hollow, _neon, _dotted)
_PAINTER_SHARES = np.cumsum([0.50, 0.12, 0.11, 0.09, 0.08, 0.02, 0.06, 0.02])


def _neighbours(mask: np.ndarray, ink: Box, face: Face, look: Look, rng: np.random.Generator) -> None:
    """Other words of the sign, of which the crop will show slivers; drawn into the mask in place."""
    x, y, width, height = ink
    for side in range(4):
        if rng.random() > 0.14:
            continue
        label = random_label(rng)[: 6 if side > 1 else 14]
        if not drawable(face).issuperset(label):
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


def _plate(canvas: np.ndarray, ink: Box, colour: np.ndarray, rng: np.random.Generator) -> np.ndarray:
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
        around = _cut_out(scenes()[int(rng.integers(10))], size, rng, zoom=float(rng.uniform(0.5, 1.5)))
    else:
        around = _surface(size, _colour(rng), rng)
    _blend(around, cv2.GaussianBlur(_unit(_moved(shape, 2, 4)), (0, 0), 3) * np.float32(0.6), around * np.float32(0.2))
    _blend(around, _unit(shape), canvas)
    if rng.random() < 0.35:
        inset = int(rng.integers(2, 6))
        line = shape.copy()
        line -= cv2.erode(shape, np.ones((2 * inset + 1, 2 * inset + 1), np.uint8))
        _blend(around, _unit(line), colour)
    return around


def _lines(canvas: np.ndarray, ink: Box, colour: np.ndarray, rng: np.random.Generator) -> None:
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


# ------------------------------------------------------------------------------------------------- light and the camera


def _lit(canvas: np.ndarray, rng: np.random.Generator) -> None:
    """Uneven light, shadows of other things, reflections; in place."""
    height, width = canvas.shape[:2]
    grid = np.exp(rng.normal(0, rng.uniform(0.02, 0.3), (2, 3))).astype(np.float32)
    canvas *= cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)[..., None]
    chance = rng.random(2)
    if chance[0] < 0.10:  # the edge of a shadow
        angle, offset, soft = rng.uniform(0, np.pi), rng.uniform(-0.3, 0.3) * width, rng.uniform(1, 12)
        x = np.arange(width, dtype=np.float32) - width / 2
        y = np.arange(height, dtype=np.float32)[:, None] - height / 2
        distance = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle)) - np.float32(offset)
        shade = np.clip(0.5 + 0.5 * distance / np.float32(soft), 0, 1)
        canvas *= (1 - np.float32(rng.uniform(0.3, 0.65)) * shade)[..., None]
    if chance[1] < 0.08:  # a reflection
        spot = np.zeros((8, 16), np.float32)
        spot[int(rng.integers(8)), int(rng.integers(16))] = rng.uniform(0.3, 1.2)
        glare = cv2.GaussianBlur(spot, (0, 0), float(rng.uniform(0.8, 2.0)))
        canvas += cv2.resize(glare, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]


def _view(ink: Box, rng: np.random.Generator) -> tuple[np.ndarray, tuple[int, int], float]:
    """Where the camera stands and how the word is cropped.

    Returns:
        Homography canvas -> HR, HR size (width, height), and canvas pixels per HR pixel.
    """
    x, y, width, height = ink
    yaw, pitch, roll = np.deg2rad(rng.normal(0, 1, 3) * ((10, 6, 1.5) if rng.random() < 0.87 else (28, 12, 6.0)))
    cos, sin = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    turn_y = np.array([[cos[0], 0, sin[0]], [0, 1, 0], [-sin[0], 0, cos[0]]])
    turn_x = np.array([[1, 0, 0], [0, cos[1], -sin[1]], [0, sin[1], cos[1]]])
    turn_z = np.array([[cos[2], -sin[2], 0], [sin[2], cos[2], 0], [0, 0, 1]])
    half = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * (width / 2, height / 2, 0)
    seen = half @ (turn_z @ turn_y @ turn_x).T
    distance = rng.uniform(1.5, 5.0) * max(width, 2.0 * height)
    flat = seen[:, :2] * (distance / (distance + seen[:, 2:]))
    low, high = flat.min(0), flat.max(0)
    box_height = high[1] - low[1]
    margin = rng.uniform(0.01, 0.16, 4) * box_height
    if rng.random() < 0.2:
        margin += rng.uniform(-0.05, 0.15) * box_height
    low, high = low - margin[:2], high + margin[2:]
    hr_height = 2 * round(rng.uniform(*HR_HEIGHTS) / 2)
    aspect = (high[0] - low[0]) / (high[1] - low[1])
    hr_width = 2 * int(np.clip(round(hr_height * aspect / 2), 8, HR_MAX_WIDTH / 2))
    corners = np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]], np.float32)
    target = (flat - low) / (high - low) * (hr_width, hr_height)
    return (
        cv2.getPerspectiveTransform(corners, target.astype(np.float32)),
        (hr_width, hr_height),
        box_height / hr_height,
    )


def _photographed(canvas: np.ndarray, ink: Box, rng: np.random.Generator) -> np.ndarray:
    """Lens, sensor and processing of the HR camera: (H, W, 3) uint8 RGB."""
    view, size, ratio = _view(ink, rng)
    softness = float(np.clip(np.exp(rng.normal(-0.55, 0.4)), 0.3, 1.4))  # of the lens, in HR pixels
    canvas = cv2.GaussianBlur(canvas, (0, 0), max(0.35, softness * ratio), borderType=cv2.BORDER_REFLECT_101)
    light = cv2.warpPerspective(canvas, view, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    # Automatic exposure: what is brighter than the sensor's range is brought back, what is dark only half-way.
    bright = float(light.mean() + 1.5 * light.std())
    exposure = 2.0 ** rng.normal(-0.1, 0.4) * (0.85 / bright) ** (0.9 if bright > 0.85 else 0.3)
    exposure = exposure * np.exp(rng.normal(0, 0.05, 3))
    haze = max(0.0, rng.normal(0.005, 0.02))
    light = light * exposure.astype(np.float32) + np.float32(haze)
    light = add_noise(light, rng, shot=float(rng.uniform(0.002, 0.014)), read=float(rng.uniform(0.0003, 0.003)))
    shown = to_display(light)
    grey = shown @ _LUMA
    dull = np.float32(rng.uniform(0.0, 0.45))
    shown = shown + dull * (grey[..., None] - shown)
    if rng.random() < 0.5:
        shown = sharpen(shown, strength=float(rng.uniform(0.2, 1.2)))
    shown = 128 + np.float32(rng.uniform(0.75, 1.1)) * (shown - 128)
    return jpeg(np.clip(np.rint(shown), 0, 255).astype(np.uint8), int(rng.integers(55, 97)))


# -------------------------------------------------------------------------------------------------------------- samples


def render_word(label: str, rng: np.random.Generator, fonts: Sequence[Face]) -> np.ndarray:
    """A photo of `label`, cropped tightly.

    Args:
        label: printable ASCII without spaces, at least one character.
        rng: source of all randomness.
        fonts: faces to choose from, e.g. `find_fonts()`.

    Returns:
        (H, W, 3) uint8 RGB; H within `HR_HEIGHTS`, W at most `HR_MAX_WIDTH`, both even.

    Raises:
        ValueError: empty label, or no font has one of its characters.
    """
    if not label:
        raise ValueError("label is empty; a word needs at least one printable ASCII character")
    face = choose_face(label, fonts, rng)
    look = random_look(label, rng)
    word = word_mask(label, face, look, rng)
    pad = 24 + round(0.25 * word.shape[0])
    ink = (pad, pad, word.shape[1], word.shape[0])
    mask = cv2.copyMakeBorder(word, pad, pad, pad, pad, cv2.BORDER_CONSTANT)
    _neighbours(mask, ink, face, look, rng)
    size = (mask.shape[0], mask.shape[1])
    surface, letters = colour_pair(rng)
    chance = rng.random(5)
    if chance[0] < 0.06:
        canvas = _cut_out(scenes()[int(rng.integers(10))], size, rng, zoom=float(rng.uniform(0.8, 2.5)))
        canvas = surface + np.float32(rng.uniform(0.2, 0.6)) * (canvas - surface)
    else:
        canvas = _surface(size, surface, rng)
    if chance[1] < 0.30:
        canvas = _plate(canvas, ink, letters, rng)
    if chance[2] < 0.12:
        _lines(canvas, ink, letters, rng)
    paint = _PAINTERS[min(int(np.searchsorted(_PAINTER_SHARES, chance[3])), len(_PAINTERS) - 1)]
    if paint in (_flat, _shadowed, _extruded) and chance[4] < 0.2:  # faded
        letters = surface + np.float32(rng.uniform(0.2, 0.5)) * (letters - surface)
    paint(canvas, mask, letters, rng)
    _lit(canvas, rng)
    return _photographed(canvas, ink, rng)


def make_sample(seed: int, index: int, severity: str | None = None, *, fonts: Sequence[Face] | None = None) -> Sample:
    """Sample `index` of the endless stream `seed`; the HR does not depend on the severity.

    Args:
        seed: of the stream, >= 0.
        index: within it, >= 0.
        severity: a name of `degradation.SEVERITIES`; None takes one by chance.
        fonts: faces to use; None takes `find_fonts()`.

    Raises:
        ValueError: unknown severity.
    """
    rng = np.random.default_rng((seed, index))
    chosen = list(SEVERITIES)[int(rng.integers(len(SEVERITIES)))]
    label = random_label(rng)
    hr = render_word(label, rng, faces() if fonts is None else fonts)
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
