"""Compare two reports of the same test pictures: B minus A, with intervals and probabilities.

    python scripts/compare_reports.py ckpt/one/report-A ckpt/two/report-B

Accuracy is in percent points, `only A` and `only B` count the words that one of the two alone reads right, and p is
McNemar's: how likely such an uneven count is if both read equally well.
"""

# ruff: noqa: PLC0415 - imports that take long wait for the arguments: --help is instant

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interface.compare import Difference

HEADER = ["set", "measure", "A", "B", "B - A", "95 % interval", "only A", "only B", "p"]


def cells(found: Difference) -> list[str]:
    """One line of the table."""
    share = "accuracy" in found.measure
    scale, digits = (100.0, 1) if share else (1.0, 4 if found.measure == "ssim" else 2)

    def number(value: float, sign: str = "") -> str:
        return "-" if math.isnan(value) else f"{scale * value:{sign}.{digits}f}"

    known = not (math.isnan(found.low) or math.isnan(found.high) or math.isnan(found.change))
    interval = f"{number(found.low, '+')} to {number(found.high, '+')}" if known else "-"
    test = [str(found.only_a), str(found.only_b), f"{found.p:.2g}"] if found.p is not None else ["", "", ""]
    difference = number(found.change, "+")
    return [found.split, found.measure, number(found.a), number(found.b), difference, interval, *test]


def aligned(rows: list[list[str]]) -> str:
    """Columns of equal width, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        padded = [
            cell.ljust(width) if n < 2 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Print the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a", type=Path, metavar="A", help="report.json or the folder it lies in")
    parser.add_argument("b", type=Path, metavar="B", help="the same of the other system")
    parser.add_argument(
        "--row", default="", help="compare these pictures (lr, bicubic, sr_1, ...); default: the result"
    )
    parser.add_argument("--samples", type=int, default=10_000, help="resamples of the bootstrap (10000)")
    args = parser.parse_args(argv)
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a file: the packages lie one folder up
    from interface.compare import CompareError, compare, load_report

    try:
        if args.samples < 10:
            raise CompareError(f"--samples {args.samples}: give 10 or more")
        reports = load_report(args.a), load_report(args.b)
        found = compare(*reports, row=args.row, samples=args.samples)
    except CompareError as error:
        print(f"compare_reports.py: {error}", file=sys.stderr)
        return 2
    print(f"A: {args.a}\nB: {args.b}\n")
    one, other = (set(report["splits"]) for report in reports)
    if one ^ other:
        print(f"Left out, as only one of them has it: {', '.join(sorted(one ^ other))}\n")
    print(aligned([HEADER, *(cells(difference) for difference in found)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
