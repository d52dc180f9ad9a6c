"""The command line that the scripts export_*.py share; it is no command itself. Nothing here takes long to import."""

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path


def run(
    argv: list[str] | None,
    name: str,
    text: str | None,
    *,
    source: str,
    out: str,
    export: Callable[[argparse.Namespace], Iterable[str]],
) -> int:
    """Export; returns the exit status.

    Args:
        argv: the command line; None: that of the process.
        name: of the script, for its messages.
        text: of --help.
        source: what the first argument is.
        out: what the second one is.
        export: does the work for `source`, `out` (paths) and `which` ("best", "last" or ""), and says what it wrote.
    """
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=name, description=text, formatter_class=raw)
    parser.add_argument("source", type=Path, metavar="RUN", help=source)
    parser.add_argument("out", type=Path, metavar="OUT", help=f"{out}; nothing is overwritten")
    parser.add_argument(
        "--which", choices=["best", "last"], default="", help="checkpoint of a run folder (best, if there is one)"
    )
    args = parser.parse_args(argv)
    try:
        for line in export(args):
            print(line)
    except (ValueError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    return 0
