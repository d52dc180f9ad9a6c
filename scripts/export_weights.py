"""Write the weights of a run in a small file, such as of a run that was stopped early.

    python scripts/export_weights.py ckpt/my_reader rec_pth/crnn.safetensors
    python scripts/export_weights.py ckpt/my_run my_rtsrn.safetensors --which last

Weights of a recogniser can stand wherever such weights are asked for; the training of one ends with such a file by
itself. Weights of a super-resolution system are tested, or trained on, with --resume FILE. Beside the file lies a .json
with what is known about it: sha256, command and data of the training, scores.
"""

# ruff: noqa: PLC0415 - imports that take long wait for the arguments: --help is instant

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="export_weights.py", description=__doc__, formatter_class=raw)
    parser.add_argument("source", type=Path, metavar="RUN", help="run folder or checkpoint file")
    parser.add_argument("out", type=Path, metavar="OUT", help="file to write, .safetensors; nothing is overwritten")
    parser.add_argument(
        "--which", choices=["best", "last"], default="", help="checkpoint of a run folder (best, if there is one)"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Export; returns the exit status."""
    args = parse(argv)
    sys.path.insert(0, str(ROOT))  # run as a file: the packages lie one folder up
    from interface.export_weights import export_weights

    try:
        facts = export_weights(args.source, args.out, which=args.which)
        print(f"wrote {args.out} ({args.out.stat().st_size / 1e6:.1f} MB) and {facts}")
    except (ValueError, OSError) as error:
        print(f"export_weights.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
