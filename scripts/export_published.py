"""Write the weights of a run as the files that the published programs read.

    python scripts/export_published.py ckpt/my_run my_run_published
    python scripts/export_published.py ckpt/my_run/last.pth my_run_published

The folder gets `model_best_acc_<i>.pth` for each SR network and `recognizer_best_acc_<i>.pth` for each stage's student.
Read it with `--resume my_run_published` and the flags of the run (its `config.yaml` has them), there or here.
"""

# ruff: noqa: PLC0415 - imports that take long wait for the arguments: --help is instant

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="export_published.py", description=__doc__, formatter_class=raw)
    parser.add_argument("source", type=Path, metavar="RUN", help="run folder or checkpoint file of this program")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write; nothing is overwritten")
    parser.add_argument(
        "--which", choices=["best", "last"], default="", help="checkpoint of a run folder (best, if there is one)"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Export; returns the exit status."""
    args = parse(argv)
    sys.path.insert(0, str(ROOT))  # run as a file: the packages lie one folder up
    from interface.export import export_published

    try:
        for path in export_published(args.source, args.out, args.which):
            print(f"wrote {path}")
        print(f"to read them here: --resume {args.out} with the options of the run (its config.yaml)")
    except (ValueError, OSError) as error:
        print(f"export_published.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
