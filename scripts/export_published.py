"""Write the weights of a run as the files that the published programs read.

    python scripts/export_published.py ckpt/my_run my_run_published
    python scripts/export_published.py ckpt/my_run/last.pth my_run_published

The folder gets `model_best_acc_<i>.pth` for each SR network and `recognizer_best_acc_<i>.pth` for each stage's student.
Read it with `--resume my_run_published` and the flags of the run (its `config.yaml` has them), there or here.
"""

# ruff: noqa: PLC0415 - imports that take long wait for the arguments: --help is instant

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a file: the packages lie one folder up

from scripts.export_command import run


def export(args: argparse.Namespace) -> Iterator[str]:
    """Write it; yields what is to be said."""
    from interface.export import export_published

    for path in export_published(args.source, args.out, args.which):
        yield f"wrote {path}"
    yield f"to read them here: --resume {args.out} with the options of the run (its config.yaml)"


def main(argv: list[str] | None = None) -> int:
    """Export; returns the exit status."""
    source, out = "run folder or checkpoint file of this program", "folder to write"
    return run(argv, "export_published.py", __doc__, source=source, out=out, export=export)


if __name__ == "__main__":
    sys.exit(main())
