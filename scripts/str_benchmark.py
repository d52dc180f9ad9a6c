"""Score recognition on STR benchmarks: of the photos, and of the photos reduced to small sizes and super-resolved.

    python scripts/str_benchmark.py --test_data_dir data/str                        (bicubic enlargement alone)
    python scripts/str_benchmark.py --test_data_dir data/str/IIIT5K data/str/SVT --resume ckpt/my_run

Data sets are LMDBs with image-%09d and label-%09d, or folders of such LMDBs (scripts/build_str_lmdb.py makes them).
All options of `main.py --go_test` are taken as well: --arch, --resume, --test_model, --batch_size, --report_dir, ...
`main.py --go_test` with such data sets does the same with a system, without the options of this script; its
`--arch bicubic` enlarges as other systems do, x2.
Without --arch and --resume there is no system, and bicubic enlargement is x4, as in the published table.

Writes report.md, and for each benchmark a folder with report.json (all readings) and accuracy.svg. How pictures are
made is said in interface/str_protocol.py and in report.md.
"""

# ruff: noqa: PLC0415 - imports that take long wait for the arguments: --help is instant

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SMALLEST, LARGEST = 4, 1024  # pixels of a side


def size_of(text: str) -> tuple[int, int]:
    """(width, height) of `32x8`.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    found = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; give width x height in pixels, e.g. 32x8")
    width, height = int(found[1]), int(found[2])
    if height > width or height < SMALLEST or width > LARGEST:
        raise argparse.ArgumentTypeError(
            f"{text} is no size of a word: width x height, wider than high, {SMALLEST} to {LARGEST} pixels, e.g. 64x16"
        )
    return width, height


def count_of(text: str) -> int:
    """A whole number of at least 1.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not re.fullmatch(r"[1-9]\d{0,8}", text):
        raise argparse.ArgumentTypeError(f"{text!r}; a whole number of at least 1 was expected")
    return int(text)


def parse(argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The options of this script, and those that go to the configuration."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="str_benchmark.py", description=__doc__, formatter_class=raw, allow_abbrev=False
    )
    parser.add_argument(
        "--sizes", nargs="+", type=size_of, default=[], metavar="WxH", help="(128x32 64x16 32x8 24x6 20x5)"
    )
    parser.add_argument(
        "--input",
        choices=["auto", "direct", "resized"],
        default="auto",
        help="what the network gets: the reduced picture as it is, or resized to the LR size it was built for "
        "(auto: direct if it takes all sizes)",
    )
    parser.add_argument("--limit", type=count_of, default=0, help="only the first so many pictures of each set")
    return parser.parse_known_args(argv)


def run(args: argparse.Namespace, rest: list[str]) -> None:
    """Read the configuration and evaluate.

    Raises:
        ValueError: an option or a data set cannot be used.
    """
    from interface.config import SUPER_RESOLUTION, load_settings, switch_arch
    from interface.evaluation import BICUBIC

    settings = load_settings(["--go_test", *rest])
    if settings.interface != SUPER_RESOLUTION:
        raise ValueError(f"{settings.config.arch} is a recogniser; test it with main.py --go_test, or name a system")
    if not {"TEST.test_data_dir", "TRAIN.VAL.val_data_dir"} & settings.given:
        raise ValueError("name the benchmarks with --test_data_dir: STR LMDBs, or folders of them")
    system = "arch" in settings.given or bool(settings.config.TRAIN.resume)
    if not system:
        if args.input != "auto":
            raise ValueError(f"--input {args.input} is about a system; name one with --arch and --resume")
        switch_arch(settings, BICUBIC)
    from interface.evaluating import Evaluating
    from interface.str_protocol import SIZES
    from interface.str_testing import StrOptions, run_benchmarks

    sizes = tuple(dict.fromkeys(args.sizes)) or SIZES
    task = Evaluating(settings)
    try:
        run_benchmarks(task, StrOptions(sizes, args.input, args.limit, system))
    finally:
        task.accelerator.end_training()


def main(argv: list[str] | None = None) -> int:
    """Evaluate; returns the exit status."""
    args, rest = parse(argv)
    sys.path.insert(0, str(ROOT))  # run as a file: the packages lie one folder up
    try:
        run(args, rest)
    except (ValueError, OSError) as error:
        print(f"str_benchmark.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
