"""What the parts of this program cost, and what they cost the straightforward way.

    python benchmarks/run.py train --batch_size 16 --repeats 5
    python benchmarks/run.py recognisers --batch_size 1 48 --threads 1
    python benchmarks/run.py data --workers 2 --device cpu

The first is `training.py`, the second `recognisers.py`, the third `data.py`.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks import data, recognisers, training
from benchmarks.measuring import circumstances
from model import list_models

PARTS = {"train": training, "recognisers": recognisers, "data": data}


def at_least(least: int) -> Callable[[str], int]:
    """What turns a word of the command line into a number, and refuses smaller ones."""

    def number(text: str) -> int:
        if not text.lstrip("-").isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number, {least} or more")
        return int(text)

    return number


def command_line() -> argparse.ArgumentParser:
    """One command for each part of the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(dest="what", required=True, metavar="{" + ",".join(PARTS) + "}")
    train = parts.add_parser("train", help="a training step, part by part")
    train.add_argument("--arch", default="rtsrn", choices=["rtsrn", "c3stisr"], help="network")
    train.add_argument("--batch_size", type=at_least(2), default=16)
    train.add_argument("--stu_iter", type=at_least(1), default=1, help="stages")
    train.add_argument("--warmup", type=at_least(0), default=1, help="steps before the measured ones")
    train.add_argument("--repeats", type=at_least(1), default=5, help="measured steps; their median counts")
    train.add_argument("--against", choices=["straightforward", "none"], default="straightforward")
    read = parts.add_parser("recognisers", help="reading of words by every recogniser")
    read.add_argument("--batch_size", type=at_least(1), nargs="+", default=[1, 48], help="one or several")
    read.add_argument("--images", type=at_least(2), default=48, help="rendered words, all of which are read each time")
    read.add_argument("--repeats", type=at_least(1), default=3, help="measurements; their median counts")
    read.add_argument("--seed", type=at_least(0), default=0, help="of the random weights")
    names = list(recognisers.RECOGNISERS)
    read.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    words = parts.add_parser("data", help="rendering, decoding and augmentation of words, and waiting for them")
    words.add_argument("--words", type=at_least(1), default=640, help="rendered and decoded in each measurement")
    words.add_argument("--workers", type=at_least(1), default=2, help="loader processes")
    words.add_argument("--batch_size", type=at_least(1), default=64)
    words.add_argument("--repeats", type=at_least(1), default=3, help="measurements; their median counts")
    words.add_argument("--arch", default="crnn", choices=list_models("recognition"), help="recogniser that is trained")
    words.add_argument("--mixed_precision", default="no", choices=["no", "bf16", "fp16"], help="of its training")
    words.add_argument("--warmup", type=at_least(0), default=3, help="training steps before the measured ones")
    words.add_argument("--steps", type=at_least(1), default=10, help="measured training steps")
    for part in (train, read, words):
        part.add_argument("--device", default="cpu")
        part.add_argument("--threads", type=at_least(0), default=0, help="of the CPU; 0: as PyTorch chooses")
        part.add_argument("--out", type=Path, help="write everything measured there, as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table, and keep the numbers."""
    parser = command_line()
    args = parser.parse_args(argv)
    if args.what == "recognisers" and max(args.batch_size) > args.images:
        parser.error(f"--batch_size {max(args.batch_size)} is more than --images {args.images}: give more images")
    if args.what == "data" and args.batch_size > args.words:
        parser.error(f"--batch_size {args.batch_size} is more than --words {args.words}: give more words")
    if args.threads:
        torch.set_num_threads(args.threads)
    result = circumstances(args) | PARTS[args.what].measure(args)
    print(PARTS[args.what].table(result))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
