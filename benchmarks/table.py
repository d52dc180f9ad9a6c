"""README's tables of measurements, made of the files in `benchmarks/results/`.

    python benchmarks/table.py                      # print them
    python benchmarks/table.py --write README.md    # put them in their places

Such a place begins with `<!-- benchmarks/table.py: FILE [FILE ...] -->`, which names the files, and ends with
`<!-- end -->`. What several files of `recognisers` hold is shown in one table, where a later file replaces what an
earlier one says of the same recogniser.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import peak
from benchmarks.run import PARTS

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PLACE = re.compile(r"(<!-- benchmarks/table\.py: (?P<files>[^>]*?) -->\n).*?(<!-- end -->)", re.DOTALL)


def load(name: str, folder: Path) -> dict[str, Any]:
    """What a file of `run.py` holds.

    Raises:
        ValueError: it is not there, or is no such file.
    """
    path = folder / name
    if not path.is_file():
        there = ", ".join(sorted(found.name for found in folder.glob("*.json")))
        raise ValueError(f"{path} is not there; {folder} holds {there or 'no measurement'}")
    result = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(result, dict) or result.get("arguments", {}).get("what") not in PARTS:
        raise ValueError(f"{path} was not written by benchmarks/run.py: its arguments name none of {', '.join(PARTS)}")
    return result


def merged(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One result of several of recognisers; of anything else there may be one.

    Raises:
        ValueError: several of something else.
    """
    first, *others = results
    kinds = {result["arguments"]["what"] for result in results}
    if others and kinds != {"recognisers"}:
        raise ValueError(f"files of {', '.join(sorted(kinds))} make no common table; give each a place of its own")
    for other in others:
        first = {**first, "recognisers": {**first["recognisers"], **other["recognisers"]}}
    return first


def text_of(names: str, folder: Path) -> str:
    """The table of the files that a place names.

    Raises:
        ValueError: they cannot be used.
    """
    if not names.split():
        raise ValueError("a place names no file: write <!-- benchmarks/table.py: FILE -->")
    result = merged([load(name, folder) for name in names.split()])
    text = PARTS[result["arguments"]["what"]].table(result)
    best = f"\n\n{peak.line(result['peak'])}." if "peak" in result else ""
    return f"{text}{best}"


def filled(document: str, folder: Path = RESULTS) -> str:
    """A document with a fresh table in each place.

    Raises:
        ValueError: a place names files that cannot be used, or there is none.
    """
    if not PLACE.search(document):
        raise ValueError(
            "no place for a table; it begins with <!-- benchmarks/table.py: FILE --> and ends with <!-- end -->"
        )
    return PLACE.sub(lambda found: f"{found[1]}{text_of(found['files'], folder)}\n{found[3]}", document)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables, or write them into a document; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, metavar="DOCUMENT", help="put the tables in their places there")
    args = parser.parse_args(argv)
    document = args.write or ROOT / "README.md"
    try:
        text = filled(document.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        parser.error(f"{document}: {error}")
    if args.write:
        args.write.write_text(text, encoding="utf-8")
        return 0
    for found in PLACE.finditer(text):
        print(found[0], end="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
