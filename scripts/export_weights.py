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
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a file: the packages lie one folder up

from scripts.export_command import run


def export(args: argparse.Namespace) -> Iterator[str]:
    """Write it; yields what is to be said."""
    from interface.export_weights import export_weights

    facts = export_weights(args.source, args.out, which=args.which)
    yield f"wrote {args.out} ({args.out.stat().st_size / 1e6:.1f} MB) and {facts}"


def main(argv: list[str] | None = None) -> int:
    """Export; returns the exit status."""
    source, out = "run folder or checkpoint file", "file to write, .safetensors"
    return run(argv, "export_weights.py", __doc__, source=source, out=out, export=export)


if __name__ == "__main__":
    sys.exit(main())
