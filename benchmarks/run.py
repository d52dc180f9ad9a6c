"""What the parts of this program cost, and what they cost the straightforward way.

    python benchmarks/run.py train --arch rtsrn --batch_size 16 --mixed_precision no bf16 --threads 1
    python benchmarks/run.py eval --arch rtsrn --readers CRNN ASTER MORAN --threads 1
    python benchmarks/run.py infer --arch all --batch_size 1 48 --threads 1
    python benchmarks/run.py recognisers --batch_size 1 48 --threads 1
    python benchmarks/run.py data --workers 2 --device cpu
    python benchmarks/run.py scale --sizes 1000 10000 100000
    python benchmarks/run.py all --device cuda --out FOLDER

They are `training.py`, `evaluation.py`, `inference.py`, `recognisers.py`, `data.py` and `scale.py`; each of them says
what is compared. `all` runs all of them, a file for each. `table.py` makes README's tables of such files.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks import data, evaluation, inference, peak, recognisers, scale, training
from benchmarks.building import FOCUS, STRAIGHTFORWARD
from benchmarks.measuring import PRECISIONS, circumstances
from model import list_models, model_spec

PARTS = {
    "train": training,
    "eval": evaluation,
    "infer": inference,
    "recognisers": recognisers,
    "data": data,
    "scale": scale,
}
QUICK = {  # the smallest sizes
    "train": "--arch rtsrn --batch_size 2 --warmup 1 --repeats 1 --recogniser small --mixed_precision no bf16",
    "eval": "--images 4 --batch_size 2 --repeats 1 --mixed_precision no bf16",
    "infer": "--arch rtsrn srcnn --batch_size 1 2 --repeats 1",
    "recognisers": "--only CRNN --images 2 --batch_size 1 2 --repeats 1",
    "data": "--words 8 --batch_size 4 --workers 1 --repeats 1 --warmup 1 --steps 2",
    "scale": "--sizes 100 300 --batch_size 4 8 --words 100 --epochs 3 --repeats 1",
}
WHOLE = {
    "train": "--mixed_precision no bf16",
    "eval": "--readers CRNN ASTER MORAN --mixed_precision no bf16",
    "infer": "--arch all",
    "recognisers": "",
    "data": "",
    "scale": "",
}


def at_least(least: int) -> Callable[[str], int]:
    """What turns a word of the command line into a number, and refuses smaller ones."""

    def number(text: str) -> int:
        if not text.lstrip("-").isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number, {least} or more")
        return int(text)

    return number


def add_train(parts: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    """`run.py train`."""
    train = parts.add_parser("train", help="a training step, part by part")
    train.add_argument("--arch", default="rtsrn", choices=list_models(), metavar="ARCH", help="network")
    train.add_argument("--batch_size", type=at_least(2), default=16)
    train.add_argument("--stu_iter", type=at_least(1), default=1, help="stages")
    train.add_argument("--recogniser", choices=FOCUS, default="published", help="behind the text-focus loss")
    train.add_argument("--warmup", type=at_least(0), default=1, help="steps before the measured ones")
    train.add_argument("--repeats", type=at_least(1), default=5, help="measured steps; their median counts")
    add_precision(train)
    return train


def add_eval(parts: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    """`run.py eval`."""
    judge = parts.add_parser("eval", help="the evaluation of a system, part by part")
    judge.add_argument("--arch", default="rtsrn", choices=list_models(), metavar="ARCH", help="network")
    judge.add_argument("--images", type=at_least(2), default=96, help="rendered words")
    judge.add_argument("--batch_size", type=at_least(2), default=48)
    names = evaluation.READERS
    judge.add_argument("--readers", nargs="+", choices=names, default=["CRNN"], help="recognisers that score")
    judge.add_argument("--repeats", type=at_least(1), default=3, help="measurements; their median counts")
    judge.add_argument("--seed", type=at_least(0), default=0, help="of the recognisers' random weights")
    add_precision(judge)
    return judge


def add_precision(part: argparse.ArgumentParser) -> None:
    """Of our sides; the straightforward one is in float32."""
    part.add_argument("--mixed_precision", nargs="+", choices=PRECISIONS, default=["no"], help="of our sides")


def add_infer(parts: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    """`run.py infer`."""
    infer = parts.add_parser("infer", help="super-resolution, of the SR network alone and from LR pictures on")
    archs = [*list_models(), "all"]
    infer.add_argument("--arch", nargs="+", default=["rtsrn"], choices=archs, metavar="ARCH", help="networks, or all")
    infer.add_argument("--batch_size", type=at_least(1), nargs="+", default=[1, 48], help="one or several")
    infer.add_argument("--repeats", type=at_least(1), default=5, help="measurements; their median counts")
    infer.add_argument("--onnx", action="store_true", help="also by ONNX Runtime, on a CPU; the export takes a minute")
    return infer


def add_recognisers(parts: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    """`run.py recognisers`."""
    read = parts.add_parser("recognisers", help="reading of words by every recogniser")
    read.add_argument("--batch_size", type=at_least(1), nargs="+", default=[1, 48], help="one or several")
    read.add_argument("--images", type=at_least(2), default=48, help="rendered words, all of which are read each time")
    read.add_argument("--repeats", type=at_least(1), default=3, help="measurements; their median counts")
    read.add_argument("--seed", type=at_least(0), default=0, help="of the random weights")
    names = list(recognisers.RECOGNISERS)
    read.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    return read


def add_data(parts: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    """`run.py data`."""
    words = parts.add_parser("data", help="rendering, decoding and augmentation of words, and waiting for them")
    words.add_argument("--words", type=at_least(1), default=640, help="rendered and decoded in each measurement")
    words.add_argument("--workers", type=at_least(1), default=2, help="loader processes")
    words.add_argument("--batch_size", type=at_least(1), default=64)
    words.add_argument("--repeats", type=at_least(1), default=3, help="measurements; their median counts")
    words.add_argument("--arch", default="crnn", choices=list_models("recognition"), help="recogniser that is trained")
    words.add_argument("--mixed_precision", default="no", choices=["no", "bf16", "fp16"], help="of its training")
    words.add_argument("--warmup", type=at_least(0), default=3, help="training steps before the measured ones")
    words.add_argument("--steps", type=at_least(1), default=10, help="measured training steps")
    return words


def add_scale(parts: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    """`run.py scale`."""
    grow = parts.add_parser("scale", help="what a picture costs in larger data sets and batches; memory over epochs")
    grow.add_argument("--sizes", type=at_least(100), nargs="+", default=[1000, 10_000, 100_000], help="of data sets")
    batches = [16, 32, 64, 128, 256, 512]
    grow.add_argument("--batch_size", type=at_least(2), nargs="+", default=batches, help="of training steps")
    grow.add_argument("--arch", default="srcnn", choices=list_models(), metavar="ARCH", help="network that is trained")
    grow.add_argument("--words", type=at_least(100), default=1000, help="that are trained on, in epochs")
    grow.add_argument("--epochs", type=at_least(1), default=6, help="after each of which memory is looked at")
    grow.add_argument("--repeats", type=at_least(1), default=3, help="measured steps; their median counts")
    return grow


def command_line() -> argparse.ArgumentParser:
    """One command for each part of the program, and one for all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = "{" + ",".join([*PARTS, "all"]) + "}"
    parts = parser.add_subparsers(dest="what", required=True, metavar=names)
    compared = [add_train(parts), add_eval(parts), add_infer(parts)]
    found = [*compared, add_recognisers(parts), add_data(parts), add_scale(parts)]
    every = parts.add_parser("all", help="all of them, one after the other")
    every.add_argument("--quick", action="store_true", help="the smallest sizes: whether everything runs")
    for part in compared:
        part.add_argument("--against", choices=["straightforward", "none"], default="straightforward")
    for part in (*found, every):
        part.add_argument("--device", default="cpu")
        part.add_argument("--threads", type=at_least(0), default=0, help="of the CPU; 0: as PyTorch chooses")
    for part in found:
        part.add_argument("--out", type=Path, help="write everything measured there, as JSON")
    every.add_argument("--out", type=Path, required=True, help="folder for the files of all parts")
    return parser


def complete(args: argparse.Namespace) -> None:
    """Fill in what stands for several things.

    Raises:
        ValueError: options that do not go together.
    """
    if args.what == "recognisers" and max(args.batch_size) > args.images:
        raise ValueError(f"--batch_size {max(args.batch_size)} is more than --images {args.images}: give more images")
    if args.what == "data" and args.batch_size > args.words:
        raise ValueError(f"--batch_size {args.batch_size} is more than --words {args.words}: give more words")
    if args.what == "scale" and args.batch_size[0] > args.words // 2:
        raise ValueError(
            f"--batch_size {args.batch_size[0]} is more than half of --words {args.words}: give more words"
        )
    if args.what == "infer" and args.onnx and args.device != "cpu":
        raise ValueError(f"--onnx --device {args.device}: ONNX Runtime is measured on a CPU; leave one of them out")
    if args.what == "infer" and "all" in args.arch:
        args.arch = list_models()
    if args.what in ("train", "scale") and args.arch == "bicubic":
        raise ValueError("--arch bicubic has no parameters to train; take another one")
    if args.what in ("train", "eval") and args.against == "straightforward" and args.arch not in STRAIGHTFORWARD:
        known = ", ".join(STRAIGHTFORWARD)
        raise ValueError(f"--arch {args.arch}: only {known} are known the straightforward way; add --against none")
    if args.what == "train" and args.stu_iter > 1 and model_spec(args.arch).system not in ("clues", "prior_guided"):
        raise ValueError(f"--stu_iter {args.stu_iter}: --arch {args.arch} has no stages; leave it out")


def run_all(args: argparse.Namespace) -> int:
    """Run every part; one that fails does not keep the others from running. Returns how many failed."""
    failed = 0
    for name, flags in (QUICK if args.quick else WHOLE).items():
        common = ["--device", args.device, "--threads", str(args.threads), "--out", str(args.out / f"{name}.json")]
        print(f"\n{name} {flags}\n", flush=True)
        try:
            main([name, *flags.split(), *common])
        except Exception as error:  # whatever it is, the others are worth having
            print(f"{name} failed: {type(error).__name__}: {error}", file=sys.stderr)
            failed += 1
    return failed


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table, and keep the numbers; returns the exit code."""
    parser = command_line()
    args = parser.parse_args(argv)
    if args.what == "all":
        return min(1, run_all(args))
    try:
        complete(args)
    except ValueError as error:
        parser.error(str(error))
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32 on all sides, as in the program
    result = circumstances(args) | PARTS[args.what].measure(args)
    print(PARTS[args.what].table(result))
    print(f"\n{peak.line(result['peak'])}")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
