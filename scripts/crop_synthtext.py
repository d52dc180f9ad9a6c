"""Cut the words out of SynthText: 800,000 pictures become up to 7 million word pictures.

    python scripts/crop_synthtext.py --gt_path SynthText/gt.mat --syntxt_path SynthText --out_path data/synthtext
    python scripts/crop_synthtext.py --gt_path SynthText/gt.mat --out_path data/synthtext --smallest 256 64

Writes `<out_path>/syntxt_crop/<folder>/<folder>_<picture>_<number>_<word>.jpg` and, when all is done, their list
`<out_path>/gt.txt`, of which scripts/lmdb_tool.py build makes an LMDB. Published sets took words of at least 128x32
(SynthText_hr) or 256x64 pixels. A run that was cut goes on with --resume; pictures that are there are not cut again.
Reading gt.mat takes SciPy, which nothing else needs: pip install scipy

Exit status: 0, or 2 if it could not be done.
"""

# ruff: noqa: PLC0415 - imports that take long wait for the arguments: --help is instant

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SYNTHTEXT = "https://www.robots.ox.ac.uk/~vgg/data/scenetext/"
QUALITY = 95  # of the JPEG files


@dataclass(frozen=True)
class Picture:
    """One picture of SynthText: its path below the data set, (2, 4, n) corners of its n words, and the words."""

    name: str
    corners: np.ndarray
    words: list[str]


def read_gt(path: Path) -> Iterator[Picture]:
    """The pictures of gt.mat, in order.

    Raises:
        ValueError: SciPy is not installed, or the file is not SynthText's.
    """
    from dataset.synthtext import split_words

    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ValueError("gt.mat is read with SciPy, which is not installed: pip install scipy") from error
    try:
        table = loadmat(str(path))
        names, boxes, texts = (table[key][0] for key in ("imnames", "wordBB", "txt"))
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise ValueError(
            f"--gt_path {path}: not SynthText's gt.mat, a MATLAB 5 file with imnames, wordBB and txt ({error!r})"
        ) from error
    if not len(names) == len(boxes) == len(texts):
        raise ValueError(
            f"--gt_path {path}: {len(names)} names, {len(boxes)} lists of boxes and {len(texts)} of words; one of each "
            "was expected for every picture, so the file is damaged: fetch it again"
        )
    for name, corners, text in zip(names, boxes, texts, strict=True):
        several = corners if corners.ndim == 3 else corners[:, :, None]
        yield Picture(str(name[0]), several, split_words(str(line) for line in text))


def crop(picture: Picture, args: argparse.Namespace, counts: Counter[str]) -> list[tuple[str, str]]:
    """Cut the words of one picture; returns (path below --out_path, word) of those that are there now."""
    from PIL import Image

    from dataset.synthtext import without_punctuation, word_box
    from dataset.transforms import decode_image

    if picture.corners.shape[2] != len(picture.words):
        counts["words of pictures with another number of boxes"] += len(picture.words)
        return []
    place = Path(picture.name)
    if place.is_absolute() or ".." in place.parts:
        counts["words of pictures outside of the data set"] += len(picture.words)
        return []
    image, entries = None, []
    try:
        with Image.open(args.syntxt_path / place) as header:  # not decoded: a resumed run needs the size alone
            width, height = header.size
        for number, word in enumerate(picture.words):
            box = word_box(picture.corners[:, :, number], height, width)
            if box.width < args.smallest[0] or box.height < args.smallest[1]:
                counts["words smaller than --smallest"] += 1
                continue
            if word.split() != [word]:
                counts["words with white space in them"] += 1
                continue
            stem = f"{place.parent.name}_{place.name.split('.')[0]}_{number}_{without_punctuation(word)}"
            relative = Path("syntxt_crop") / place.parent / f"{stem}.jpg"
            target = args.out_path / relative
            if not target.is_file():
                image = image or decode_image((args.syntxt_path / place).read_bytes())
                target.parent.mkdir(parents=True, exist_ok=True)
                partial = target.with_suffix(".partial")
                image.crop((box.left, box.top, box.right, box.bottom)).save(partial, "JPEG", quality=QUALITY)
                partial.replace(target)
            entries.append((relative.as_posix(), word))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        counts["pictures that cannot be read"] += 1
    return entries


def crop_all(args: argparse.Namespace) -> Counter[str]:
    """Cut all words and write their list; returns how many were left out, by reason, and "taken".

    Raises:
        ValueError: an option cannot be used, or not one word was taken.
    """
    from tqdm import tqdm

    if min(args.smallest) < 1:
        raise ValueError(f"--smallest {args.smallest[0]} {args.smallest[1]}: width and height of at least 1 pixel")
    if not args.gt_path.is_file():
        raise ValueError(f"--gt_path {args.gt_path}: no such file; it comes with SynthText: {SYNTHTEXT}")
    if not args.syntxt_path.is_dir():
        raise ValueError(f"--syntxt_path {args.syntxt_path}: no such folder; it holds SynthText's folders 1, 2, ...")
    listing = args.out_path / "gt.txt"
    if args.out_path.is_dir() and any(args.out_path.iterdir()) and not args.resume:
        raise ValueError(f"{args.out_path} is not empty; name another --out_path, or go on with --resume")
    args.out_path.mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    partial = listing.with_suffix(".partial")
    with partial.open("w", encoding="utf-8", newline="\n") as lines:
        for picture in tqdm(read_gt(args.gt_path), unit="picture", disable=None):
            for relative, word in crop(picture, args, counts):
                lines.write(f"{relative}\t{word}\n")
                counts["taken"] += 1
    if not counts["taken"]:
        partial.unlink()
        raise ValueError(f"{args.gt_path}: not one word was taken ({dict(counts)})")
    partial.replace(listing)
    return counts


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gt_path", type=Path, default=Path("SynthText/gt.mat"), help="(SynthText/gt.mat)")
    parser.add_argument("--syntxt_path", type=Path, default=Path("SynthText"), help="the pictures (SynthText)")
    parser.add_argument("--out_path", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--smallest", type=int, nargs=2, default=(1, 1), metavar=("W", "H"), help="pixels of the words to take (1 1)"
    )
    parser.add_argument("--resume", action="store_true", help="go on with a cut run")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Cut the words; returns the exit status."""
    args = parse(argv)
    sys.path.insert(0, str(ROOT))  # run as a file: the packages lie one folder up
    try:
        counts = crop_all(args)
    except (ValueError, OSError) as error:
        print(f"crop_synthtext.py: {error}", file=sys.stderr)
        return 2
    left_out = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()) if reason != "taken")
    print(f"wrote {counts['taken']} words to {args.out_path}" + (f"; left out: {left_out}" if left_out else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
