"""How fast words come: rendered, decoded, changed at random; and how long a training waits for them.

Rendering and decoding go through the loaders of the program, resizing included. What is drawn or read for the first
time costs more (letters are kept, pages of a file are in no cache), so some batches pass before the clock starts;
"first pass" over an LMDB is without its kept pictures, but its file is in the memory of the system.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import timed
from benchmarks.training import render
from dataset.augment import augment, batch_generator
from dataset.loading import Batch, LoaderSpec, PairLoader, build_loader
from dataset.rendered import RenderedWords
from dataset.synthetic import faces
from interface.config import load_settings
from interface.recognition import TextRecognition

CPU = torch.device("cpu")
AUGMENT = 0.5  # as configs/recognition.yaml has it
SIZES = {"HR": (32, 128), "LR": (16, 64)}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Words a second of every part, `repeats` times, and the share of waiting."""
    result: dict[str, Any] = {"cores": os.cpu_count(), "load": os.getloadavg()[0]}
    result["words_per_second"] = {
        "rendered by one process": rendering(args, 0),
        f"rendered by {args.workers} workers": rendering(args, args.workers),
    }
    with tempfile.TemporaryDirectory() as folder:
        result["words_per_second"] |= decoding(args, Path(folder) / "words")
        result["words_per_second"] |= augmentation(args)
        print("training ...", file=sys.stderr)
        result["training"] = training(args, folder)
    return result


def endless(loader: PairLoader) -> Iterator[Batch]:
    """Batches of one epoch after the other."""
    epoch = 0
    while True:
        loader.batches.seek(epoch)
        yield from loader
        epoch += 1


def rendering(args: argparse.Namespace, workers: int) -> list[float]:
    """Words a second that so many loader processes render; 0: this one."""
    spec = LoaderSpec(mask=False, voc_type="", workers=workers, batch_size=args.batch_size)
    loader = build_loader(spec.pairs([], stream=RenderedWords(args.words, seed=0, fonts=faces())), spec, train=True)
    batches = endless(loader)
    count = args.words // args.batch_size
    try:
        for _ in range(count + 2 * workers):  # what the workers prepare beforehand is none of the clock's business
            next(batches)
        return [count * args.batch_size / timed(lambda: take(batches, count), CPU)[1] for _ in range(args.repeats)]
    finally:
        loader.close()
        print(f"rendered by {workers} workers", file=sys.stderr)


def take(batches: Iterator[Batch], count: int) -> None:
    """Go through so many batches."""
    for _ in range(count):
        next(batches)


def decoding(args: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    """Pairs a second that one thread takes from an LMDB, and from memory."""
    render(folder, args.words)
    spec = LoaderSpec(mask=False, voc_type="", workers=1, batch_size=args.batch_size)
    found: dict[str, list[float]] = {"LMDB pairs, first pass": [], "LMDB pairs, kept": []}
    for _ in range(args.repeats):
        loader = build_loader(spec.pairs([folder]), spec, train=False)
        for speeds in found.values():
            speeds.append(args.words / timed(lambda: list(loader), CPU)[1])  # noqa: B023 - called at once
    return found


def augmentation(args: argparse.Namespace) -> dict[str, list[float]]:
    """Pictures a second that are changed at random on the device, in batches."""
    device, found = torch.device(args.device), {}
    for name, size in SIZES.items():
        images = torch.rand(args.batch_size, 3, *size, generator=torch.Generator().manual_seed(0)).to(device)
        seconds = [
            timed(lambda: augment(images, AUGMENT, batch_generator(0, step, 0)), device)[1]  # noqa: B023
            for step in range(args.warmup + args.steps)
        ]
        found[f"augmented, {name}"] = [args.batch_size / value for value in seconds[args.warmup :]]
    return found


def training(args: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Seconds that steps of a training take, and that they wait for their words."""
    flags = f"--arch {args.arch} --rendered {args.words} --batch_size {args.batch_size} --device {args.device} "
    flags += f"--workers {args.workers} --mixed_precision {args.mixed_precision} --steps {args.warmup + args.steps}"
    task = TextRecognition(load_settings([*flags.split(), "--ckpt_dir", folder]))
    waited, worked = [], []
    try:
        task.build_training()
        steps = task.steps_left()
        for _ in range(args.warmup + args.steps):
            batches, seconds = timed(lambda: next(steps), task.device)
            waited.append(seconds)
            worked.append(timed(lambda: task.train_step(batches), task.device)[1])  # noqa: B023
    finally:
        task.at_end.close()
        task.run_log.close()
    waited, worked = waited[args.warmup :], worked[args.warmup :]
    total = sum(waited) + sum(worked)
    return {
        "seconds_waited": waited,
        "seconds_worked": worked,
        "words_per_second": args.steps * args.batch_size / total,
        "waiting_for_data": sum(waited) / total,
    }


def table(result: dict[str, Any]) -> str:
    """Words a second, median and range, as Markdown, and the waiting of the training."""
    lines = ["| words/s | median | slowest - fastest |", "|---|--:|---|"]
    for name, speeds in result["words_per_second"].items():
        low, middle, high = (f"{value:.3g}" for value in (min(speeds), statistics.median(speeds), max(speeds)))
        lines.append(f"| {name} | {middle} | {low} - {high} |")
    run, trained = result["arguments"], result["training"]
    where = f"{run['arch']} on {run['device']}, batch {run['batch_size']}, {run['workers']} workers"
    speed = f"{trained['words_per_second']:.3g} words/s, {trained['waiting_for_data']:.1%} of the time waiting for data"
    return "\n".join([*lines, "", f"{where}: {speed}"])
