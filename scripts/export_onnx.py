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
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="export_onnx.py", description=__doc__, formatter_class=raw)
    parser.add_argument("source", type=Path, metavar="RUN", help="run folder or weights file: what --resume takes")
    parser.add_argument("out", type=Path, metavar="OUT", help="file to write, .onnx; nothing is overwritten")
    parser.add_argument(
        "--which", choices=["best", "last"], default="", help="checkpoint of a run folder (best, if there is one)"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Export; returns the exit status."""
    args = parse(argv)
    sys.path.insert(0, str(ROOT))  # run as a file: the packages lie one folder up
    from interface.onnx_export import export_onnx

    try:
        apart = export_onnx(args.source, args.out, args.which)
        size = args.out.stat().st_size / 1e6
        print(f"wrote {args.out} ({size:.1f} MB); its pictures differ from PyTorch's by {apart:.1e} at most")
    except (ValueError, OSError) as error:
        print(f"export_onnx.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
