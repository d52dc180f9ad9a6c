"""Build the LMDB of a scene-text recognition (STR) set from picture files and a list of labels.

    python scripts/build_str_lmdb.py data/str/IIIT5K --images IIIT5K --gt IIIT5K/gt.txt
    python scripts/build_str_lmdb.py data/str/ic13 --images ic13 --expect IC13_857

Keys: num-samples, image-%09d, label-%09d. If the folder is named after one of the standard benchmarks (IIIT5K, SVT,
IC03, IC13, IC15, SVTP, CUTE80), the number of samples is compared with the published ones; --expect insists on it.
Score with scripts/str_benchmark.py.

Exit status: 0, or 2 if the set could not be built.
"""

# ruff: noqa: PLC0415 - imports that take long wait for the arguments: --help is instant

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataset.listing import Entry

ROOT = Path(__file__).resolve().parent.parent


class LeftOut(ValueError):
    """One sample that is not taken: its line, for which kind of reason, and the details."""

    def __init__(self, entry: Entry, kind: str, details: object = "") -> None:
        super().__init__(f"{entry.place} {entry.name}: {kind}" + (f" ({details})" if str(details) else ""))
        self.kind = kind


def read_sample(entry: Entry, images: Path, gt: Path) -> dict[str, bytes | str]:
    """What `StrWriter.add_photo` takes, for one line of the list.

    Raises:
        LeftOut: something is missing or cannot be used.
    """
    from dataset.transforms import decode_image

    if not entry.label.strip():
        raise LeftOut(entry, "empty label")
    file = next((place for place in (images / entry.name, gt.parent / entry.name) if place.is_file()), None)
    if file is None:
        raise LeftOut(entry, "no such file", images / entry.name)
    try:
        data = file.read_bytes()
        decode_image(data)
    except (OSError, ValueError) as error:
        raise LeftOut(entry, "undecodable picture", error) from error
    return {"image": data, "label": entry.label}


def build(args: argparse.Namespace) -> None:
    """Write the LMDB; with --expect, nothing is written unless the number of samples fits."""
    from dataset.listing import find_list, read_list
    from dataset.str_sets import StrWriter, check_count, expected, find_benchmark

    benchmark = expected(args.expect) if args.expect else find_benchmark(args.out.absolute().name)
    images, gt = find_list(args.images, args.gt)
    entries = read_list(gt)
    left_out: list[LeftOut] = []
    with StrWriter(args.out) as writer:
        for entry in entries:
            try:
                writer.add_photo(**read_sample(entry, images, gt))
            except LeftOut as error:
                left_out.append(error)
        for error in left_out:
            print(f"{'refused' if args.strict else 'skipped'}: {error}", file=sys.stderr)
        kinds = ", ".join(f"{kind}: {count}" for kind, count in Counter(error.kind for error in left_out).items())
        summary = f"{writer.size} samples" + (f", {len(left_out)} left out ({kinds})" if kinds else "")
        if args.strict and left_out:
            raise ValueError(f"{summary}; nothing is written because of --strict")
        count = check_count(benchmark, writer.size) if benchmark else None
        if args.expect and count and not count.fits:
            raise ValueError(f"{summary}; nothing is written because of --expect {args.expect}: {count.text}")
    print(f"wrote {args.out}: {summary}")
    if count:
        print(count.text if count.fits else f"WARNING: {count.text}")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    from dataset.listing import GT_FORMATS

    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="build_str_lmdb.py", description=__doc__, formatter_class=raw)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; nothing is overwritten")
    parser.add_argument("--images", type=Path, help="folder of pictures (default: that of the list)")
    parser.add_argument("--gt", type=Path, help=f"list of labels, UTF-8: {GT_FORMATS} (gt.txt in --images)")
    parser.add_argument("--expect", default="", metavar="NAME", help="benchmark or variant it must be: IC13, IC13_857")
    parser.add_argument("--strict", action="store_true", help="write nothing if any sample has to be left out")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Build one set; returns the exit status."""
    sys.path.insert(0, str(ROOT))  # run as a file: the packages lie one folder up
    args = parse(argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # names may have characters that the terminal has not
    try:
        build(args)
    except (ValueError, OSError) as error:
        print(f"build_str_lmdb.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
