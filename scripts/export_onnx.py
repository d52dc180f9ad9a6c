"""Write the system of a run as one ONNX file, which other programs run without PyTorch, and this one with --onnx.

    python scripts/export_onnx.py ckpt/my_run my_rtsrn.onnx
    python scripts/export_onnx.py ckpt/zoo/rtsrn.safetensors rtsrn.onnx

The file takes `lr`, LR pictures (N, C, h, w) in [0, 1], in float32, and gives `sr`, what --demo would make of them, not
clamped; the fourth plane of systems with --mask is the text mask. It takes a minute. What ONNX Runtime makes of random
pictures is compared with what PyTorch makes before the file is written.
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
    from interface.onnx_export import export_onnx

    apart = export_onnx(args.source, args.out, args.which)
    size = args.out.stat().st_size / 1e6
    yield f"wrote {args.out} ({size:.1f} MB); its pictures differ from PyTorch's by {apart:.1e} at most"


def main(argv: list[str] | None = None) -> int:
    """Export; returns the exit status."""
    source, out = "run folder or weights file: what --resume takes", "file to write, .onnx"
    return run(argv, "export_onnx.py", __doc__, source=source, out=out, export=export)


if __name__ == "__main__":
    sys.exit(main())
