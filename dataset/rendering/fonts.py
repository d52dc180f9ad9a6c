"""Typefaces and where to find them.

A pen alphabet of our own (`dataset.rendering.pen`), Pillow's built-in Aileron (CC0), the Rubik that OpenCV 5 draws with
(OFL), the DejaVu, STIX and Computer Modern files that come with matplotlib (Bitstream Vera, OFL, BaKoMa licences), and
the fonts of the system as matplotlib's font manager lists them. No font is shipped.
"""

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import cv2

EM = 64  # font size on the canvas, in pixels
# Files whose names say that they hold no letters of text; what slips through is caught by `drawable`.
_NOT_TEXT = re.compile(
    r"symbol|D050000L|math|emoji|dingbat|icon|STIXSiz|STIXNonUni|cmex|cmsy|LastResort|braille|music", re.I
)
_STYLE_SUFFIX = re.compile(r"[-_ ].*|(?:Bol|Ita|Reg|Obl|Light|Thin|Medium|Black|ExtraLight|SemiBold|10).*")


@dataclass(frozen=True, order=True)
class Face:
    """One typeface: `source` is a font file, "pillow", "opencv:<name>" or "pen:<kind>".

    `weight` counts for the last two: 100 (thin) to 900 (black), and the width of the pen in pixels.
    """

    family: str
    source: str
    weight: int = 400


def _matplotlib() -> ModuleType:
    """Matplotlib with its font manager; imported late, because that takes a third of a second and writes a cache."""
    log = logging.getLogger("matplotlib")
    level = log.level
    log.setLevel(logging.ERROR)  # that its cache is new, or has to be a temporary one, is no news to who draws words
    try:
        import matplotlib.font_manager  # noqa: PLC0415
    finally:
        log.setLevel(level)
    return matplotlib


def system_fonts() -> list[Path]:
    """Font files of the operating system, as matplotlib finds them; empty on bare machines."""
    return _text_fonts(map(Path, _matplotlib().font_manager.findSystemFonts()))


def bundled_fonts() -> list[Path]:
    """Font files that came with matplotlib."""
    return font_files([Path(_matplotlib().get_data_path()) / "fonts"])


def font_files(folders: Iterable[Path]) -> list[Path]:
    """All TrueType and OpenType files below some folders that look like text fonts, sorted."""
    return _text_fonts(file for folder in folders if folder.is_dir() for file in folder.rglob("*"))


def _text_fonts(files: Iterable[Path]) -> list[Path]:
    # no collections (.ttc): most of them are large Chinese, Japanese and Korean faces
    fonts = {file for file in files if file.suffix.lower() in {".ttf", ".otf"}}
    return sorted(file for file in fonts if not _NOT_TEXT.search(file.stem))


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
