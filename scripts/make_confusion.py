"""Compute the table of `LOSS.confusion`: how much each two of the 62 digits and letters differ to the eye.

    python scripts/make_confusion.py --out rec_pth/confuse.npz

Characters are compared as a recogniser sees them in an LR picture: all of one size on one baseline, blurred and reduced
as `dataset.degradation` does it at medium severity. Two of them differ by the share of their energy that they do not
have in common, 1 - 2 <a, b> / (<a, a> + <b, b>), at the best of a few horizontal shifts. A word is cut out tightly and
resized to 32x128 pixels, so nobody can be sure of size and proportions: a character may also be larger, or wider, than
the other, which costs a little (`COST`). The mean over the faces of each family, then over all families that have both
characters, is scaled to the mean of the published table.

Why shapes and not the mistakes of a recogniser: shapes need no weights and know all 62 characters, while recognisers
trained here read 36 and cannot tell upper from lower case; and mistakes are rare for most pairs, and follow the words
that were read.

The same fonts give the same file. A `.json` beside it says what it was made from.
"""

# ruff: noqa: PLC0415 - imports that take long wait for the arguments: --help and refusals are instant

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import platform
import shlex
import string
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from dataset.rendering.fonts import Face
    from dataset.rendering.glyphs import Glyph

ROOT = Path(__file__).resolve().parent.parent
CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase  # the order of the published table
MEAN = 1.07  # of the published table, off the diagonal; the loss puts the end of a text at 1 from everything
DECIMALS = 4  # what is left of sums in any order
SEVERITY = "medium"
STEP = 4  # canvas pixels in an LR pixel: a crop is about one em high, 64 pixels on the canvas, 16 in LR
ROWS, COLUMNS, BASELINE = 28, 40, 20  # of an LR picture with room for every glyph; the baseline is the top of row 20
SHIFTS = (-6, -4, -2, 0, 2, 4, 6)  # canvas pixels
SIZES = (1.0, 1.2, 1.44)  # of one character to the other, or the other way round; a capital has 1.3 to 1.5 x-heights
WIDTHS = (1 / 1.25, 1.0, 1.25)
# For each unit of the logarithm of size and of width. Set by the mistakes of CRNN on 13,500 rendered words in LR: 0 to
# 0.2 explain them about equally well, without other sizes at all they are explained a little less well.
COST = 0.05


def lr_pictures(glyphs: Sequence[Glyph], *, size: float, width: float, shifts: Sequence[int]) -> np.ndarray:
    """Glyphs as an LR picture shows them, ink in the middle.

    Args:
        glyphs: drawn at size EM.
        size: factor on height and width, about the baseline.
        width: another factor on the width.
        shifts: to the right, in canvas pixels.

    Returns:
        (n, len(shifts), ROWS * COLUMNS) float32; full ink is 1.
    """
    import cv2
    import numpy as np

    from dataset.degradation import REFERENCE_HEIGHT, severity_of
    from dataset.rendering.fonts import EM

    blur = sum(severity_of(SEVERITY).blur) / 2 * EM / REFERENCE_HEIGHT
    across, up = size * width, size
    margin = int(3 * blur / min(across, up)) + 1
    pictures = np.empty((len(glyphs), len(shifts), ROWS, COLUMNS), np.float32)
    for row, glyph in zip(pictures, glyphs, strict=True):
        ink = np.pad(glyph.ink.astype(np.float32) / 255, margin)
        ink = cv2.GaussianBlur(ink, (0, 0), blur / across, sigmaY=blur / up)  # blur comes after scaling in the picture
        middle = margin + (glyph.ink.shape[1] - 1) / 2
        top = (0.5 - BASELINE) * STEP / up - 0.5 - glyph.top + margin
        for picture, shift in zip(row, shifts, strict=True):
            left = middle - ((COLUMNS - 1) / 2 * STEP + shift) / across
            sampled = np.array([[STEP / across, 0, left], [0, STEP / up, top]])
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            picture[:] = cv2.warpAffine(ink, sampled, (COLUMNS, ROWS), flags=flags)
    return pictures.reshape(len(glyphs), len(shifts), -1)


def compare(glyphs: Sequence[Glyph]) -> np.ndarray:
    """How much the characters of one face differ: (n, n) float64, symmetric, zero diagonal, 0 to about 1."""
    import numpy as np

    best: np.ndarray = np.full((len(glyphs), len(glyphs)), np.inf)
    for size, width in product(SIZES, WIDTHS):
        if size == 1 and width < 1:
            continue  # the other way round, which is seen to below
        # Half of the change for either: neither is blurred more than the other.
        larger = lr_pictures(glyphs, size=size**0.5, width=width**0.5, shifts=SHIFTS)
        smaller = lr_pictures(glyphs, size=size**-0.5, width=width**-0.5, shifts=(0,))[:, 0]
        common = np.tensordot(larger, smaller, (2, 1)).max(axis=1)
        energy = (larger[:, SHIFTS.index(0)] ** 2).sum(1)[:, None] + (smaller**2).sum(1)
        cost = COST * (abs(np.log(size)) + abs(np.log(width)))
        best = np.minimum(best, 1 - 2 * common.astype(np.float64) / energy + cost)
    best = np.maximum(np.minimum(best, best.T), 0)  # rounding errors go below 0
    np.fill_diagonal(best, 0)
    return best


def make_table(faces: Iterable[Face]) -> tuple[np.ndarray, dict[str, int]]:
    """The table, and how many faces of which family it was made from.

    Returns:
        (62, 62) float64 in the order of `CHARACTERS`, symmetric, positive off the zero diagonal, where its mean is
        `MEAN`; and {family: faces}.

    Raises:
        ValueError: the faces lack a character, or two characters look the same in all of them.
    """
    import numpy as np

    from dataset.rendering.glyphs import draw_glyph, drawable

    square = (len(CHARACTERS), len(CHARACTERS))
    families: dict[str, list[np.ndarray]] = {}  # sum and number of faces for each pair
    faces_of: dict[str, int] = {}
    for face in faces:
        known = [place for place, character in enumerate(CHARACTERS) if character in drawable(face)]
        if known:
            own, number = families.setdefault(face.family, [np.zeros(square), np.zeros(square)])
            own[np.ix_(known, known)] += compare([draw_glyph(face, CHARACTERS[place]) for place in known])
            number[np.ix_(known, known)] += 1
            faces_of[face.family] = faces_of.get(face.family, 0) + 1
    # Many weights of one family must not crowd out the others.
    total = sum((own / np.maximum(number, 1) for own, number in families.values()), np.zeros(square))
    count = sum((number > 0 for _, number in families.values()), np.zeros(square))
    if not count.all():
        lost = "".join(np.array(list(CHARACTERS))[~count.diagonal().astype(bool)]) or "some pairs"
        raise ValueError(f"no font has all of the 62 digits and letters, {lost} are missing; name folders by --fonts")
    table = total / count
    table = np.round(table * MEAN / table[~np.eye(len(table), dtype=bool)].mean(), DECIMALS)
    same = np.argwhere(np.triu(table == 0, 1))
    if len(same):
        first, second = (CHARACTERS[place] for place in same[0])
        raise ValueError(f"{first} and {second} look the same in all fonts; name folders with more by --fonts")
    return table, faces_of


def nearest(table: np.ndarray, number: int) -> list[str]:
    """The pairs of characters that look most alike, as `0O 0.27`."""
    import numpy as np

    rows, columns = np.triu_indices(len(table), 1)
    order = np.argsort(table[rows, columns], kind="stable")[:number]
    pairs = zip(rows[order], columns[order], strict=True)
    return [f"{CHARACTERS[row]}{CHARACTERS[column]} {table[row, column]:.2f}" for row, column in pairs]


def check_target(out: Path) -> None:
    """Refuse to overwrite anything.

    Raises:
        ValueError: `out` is no `.npz`, or it or what belongs to another file would be overwritten.
    """
    if out.suffix != ".npz":
        raise ValueError(f"--out {out}: the table is written as .npz; name it so")
    beside = out.with_suffix(".json")
    foreign = beside.exists()
    if foreign:  # left over from a table that was removed?
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            foreign = json.loads(beside.read_text(encoding="utf-8"))["file"] != out.name
    for file, there in ((out, out.exists()), (beside, foreign)):
        if there:
            raise ValueError(f"{file} exists; nothing is overwritten: choose another --out, or remove it")


def write(out: Path, table: np.ndarray, families: Mapping[str, int], command: str) -> None:
    """Write the table and, beside it, what it was made from."""
    import cv2
    import matplotlib
    import numpy as np
    import PIL
    from PIL import features

    from interface.checkpoint import write_atomically, write_text
    from interface.confusion import ARRAY

    content = io.BytesIO()
    np.savez(content, **{ARRAY: table})
    versions = {"python": platform.python_version(), "numpy": np.__version__, "opencv": cv2.__version__}
    versions |= {"pillow": PIL.__version__, "freetype": str(features.version("freetype2"))}
    facts = {
        "file": out.name,
        "sha256": hashlib.sha256(content.getvalue()).hexdigest(),
        "command": command,
        "characters": CHARACTERS,
        "nearest": nearest(table, 15),
        "faces": sum(families.values()),
        "families": families,
        "versions": {**versions, "matplotlib": matplotlib.__version__},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, lambda temporary: temporary.write_bytes(content.getvalue()))
    text = json.dumps(facts, indent=1) + "\n"
    write_atomically(out.with_suffix(".json"), lambda temporary: write_text(temporary, text))


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="make_confusion.py", description=__doc__, formatter_class=raw)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.npz", help="file; nothing is overwritten")
    parser.add_argument("--fonts", type=Path, nargs="*", default=[], help="folders with further .ttf and .otf fonts")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Make the table; returns the exit status."""
    args = parse(argv)
    sys.path.insert(0, str(ROOT))  # run as a file: the packages lie one folder up
    try:
        check_target(args.out)
        lost = [str(folder) for folder in args.fonts if not folder.is_dir()]
        if lost:
            raise ValueError(f"--fonts {' '.join(lost)}: no such folder")
        from tqdm import tqdm

        from dataset.rendering.fonts import find_fonts

        table, families = make_table(tqdm(find_fonts(*args.fonts), unit="face", disable=None))
        words = ["--out", str(args.out), *(["--fonts", *map(str, args.fonts)] if args.fonts else [])]
        write(args.out, table, families, shlex.join(["python", "scripts/make_confusion.py", *words]))
    except (ValueError, OSError) as error:
        print(f"make_confusion.py: {error}", file=sys.stderr)
        return 2
    print(f"wrote {args.out} from {sum(families.values())} faces of {len(families)} families; nearest:")
    print(f"  {', '.join(nearest(table, 15))}")
    print(f"use it: --text_focus --confusion {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
