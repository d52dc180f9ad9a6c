"""How fast words come: rendered, decoded, changed at random; and how long a training waits for them.

Rendering and decoding go through the loaders of the program, resizing included. What is drawn or read for the first
time costs more (letters are kept, pages of a file are in no cache), so some batches pass before the clock starts;
"first pass" over an LMDB is without its kept pictures, but its file is in the memory of the system. What one process
does alone is also given for a second of CPU time, which says the same on a machine that others use.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import torch

from benchmarks.building import render
from benchmarks.measuring import number, timed
from dataset.augment import augment, batch_generator
from dataset.loading import Batch, LoaderSpec, PairLoader, build_loader
from dataset.rendered import RenderedWords
from dataset.synthetic import faces
from interface.config import load_settings
from interface.recognition import TextRecognition

CPU = torch.device("cpu")
AUGMENT = 0.5  # as configs/recognition.yaml has it
SIZES = {"HR": (32, 128), "LR": (16, 64)}


@dataclass
class Speed:
    """Measurements of one thing.

    Attributes:
        words_per_second: as they come.
        per_cpu_second: words in a second of CPU time of this process; none if others, or a GPU, do the work.
    """

    words_per_second: list[float] = field(default_factory=list)
    per_cpu_second: list[float] = field(default_factory=list)

    def measure(self, words: int, work: Callable[[], object], device: torch.device, *, alone: bool = True) -> None:
        """Time the work on so many words once more; `alone`: this process does all of it."""
        started = time.process_time()
        self.words_per_second.append(words / timed(work, device)[1])
        if alone and device.type == "cpu":
            self.per_cpu_second.append(words / (time.process_time() - started))


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """The speed of every part, and the share of waiting."""
    result: dict[str, Any] = {"cores": os.cpu_count(), "load": os.getloadavg()[0]}
    speeds = {
        "rendered by one process": rendering(args, 0),
        f"rendered by {args.workers} workers": rendering(args, args.workers),
    }
    with tempfile.TemporaryDirectory() as folder:
        speeds |= decoding(args, Path(folder) / "words") | augmentation(args)
        print("training ...", file=sys.stderr)
        result["training"] = training(args, folder)
    return result | {"speeds": {name: asdict(speed) for name, speed in speeds.items()}}


def endless(loader: PairLoader) -> Iterator[Batch]:
    """Batches of one epoch after the other."""
    epoch = 0
    while True:
        loader.batches.seek(epoch)
        yield from loader
        epoch += 1


def rendering(args: argparse.Namespace, workers: int) -> Speed:
    """What so many loader processes render; 0: this one."""
    spec = LoaderSpec(mask=False, voc_type="", workers=workers, batch_size=args.batch_size)
    loader = build_loader(spec.pairs([], stream=RenderedWords(args.words, seed=0, fonts=faces())), spec, train=True)
    batches = endless(loader)
    cv2.setNumThreads(1)  # one core a process, with loader processes and without
    count, speed = args.words // args.batch_size, Speed()
    try:
        for _ in range(count + 2 * workers):  # what the workers prepare beforehand is none of the clock's business
            next(batches)
        for _ in range(args.repeats):
            speed.measure(count * args.batch_size, lambda: take(batches, count), CPU, alone=not workers)
        return speed
    finally:
        loader.close()
        print(f"rendered by {workers} workers", file=sys.stderr)


def take(batches: Iterator[Batch], count: int) -> None:
    """Go through so many batches."""
    for _ in range(count):
        next(batches)


def decoding(args: argparse.Namespace, folder: Path) -> dict[str, Speed]:
    """How fast one thread takes pairs from an LMDB, and from memory."""
    render(folder, args.words)
    spec = LoaderSpec(mask=False, voc_type="", workers=1, batch_size=args.batch_size)
    found = {"LMDB pairs, first pass": Speed(), "LMDB pairs, kept": Speed()}
    for _ in range(args.repeats):
        loader = build_loader(spec.pairs([folder]), spec, train=False)
        for speed in found.values():
            speed.measure(args.words, lambda: list(loader), CPU)  # noqa: B023 - called at once
    return found


def augmentation(args: argparse.Namespace) -> dict[str, Speed]:
    """How fast pictures are changed at random on the device, in batches."""
    device = torch.device(args.device)
    found = {f"augmented, {name}": Speed() for name in SIZES}
    for speed, size in zip(found.values(), SIZES.values(), strict=True):
        images = torch.rand(args.batch_size, 3, *size, generator=torch.Generator().manual_seed(0)).to(device)
        for step in range(args.warmup + args.steps):
            kept = speed if step >= args.warmup else Speed()
            generator = batch_generator(0, step, 0)
            kept.measure(args.batch_size, lambda: augment(images, AUGMENT, generator), device)  # noqa: B023
    return found


def training(args: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Seconds that steps of a training take, and that they wait for their words."""
    flags = f"--arch {args.arch} --rendered {args.words} --batch_size {args.batch_size} --device {args.device} "
    flags += f"--workers {args.workers} --mixed_precision {args.mixed_precision} --steps {args.warmup + args.steps}"
    task = TextRecognition(load_settings([*flags.split(), "--ckpt_dir", folder]))
    waited, worked, busy = [], [], 0.0
    try:
        task.build_training()
        steps = task.steps_left()
        for step in range(args.warmup + args.steps):
            busy = time.process_time() if step == args.warmup else busy
            batches, seconds = timed(lambda: next(steps), task.device)
            waited.append(seconds)
            worked.append(timed(lambda: task.train_step(batches), task.device)[1])  # noqa: B023
        busy = time.process_time() - busy
    finally:
        task.at_end.close()
        task.run_log.close()
    waited, worked = waited[args.warmup :], worked[args.warmup :]
    total = sum(waited) + sum(worked)
    return {
        "seconds_waited": waited,
        "seconds_worked": worked,
        "words_per_second": args.steps * args.batch_size / total,
        "per_cpu_second": args.steps * args.batch_size / busy if task.device.type == "cpu" else None,
        "waiting_for_data": sum(waited) / total,
    }


def table(result: dict[str, Any]) -> str:
    """Words a second, median and range, as Markdown, and the waiting of the training."""
    lines = ["| words/s | median | slowest - fastest | per CPU second, median |", "|---|--:|---|--:|"]
    for name, speed in result["speeds"].items():
        values, alone = speed["words_per_second"], speed["per_cpu_second"]
        low, middle, high = map(number, (min(values), statistics.median(values), max(values)))
        lines.append(f"| {name} | {middle} | {low} - {high} | {number(statistics.median(alone)) if alone else ''} |")
    run, trained = result["arguments"], result["training"]
    where = f"{run['arch']} on {run['device']}, batch {run['batch_size']}, {run['workers']} workers"
    speed = f"{number(trained['words_per_second'])} words/s"
    if trained["per_cpu_second"]:
        speed += f" ({number(trained['per_cpu_second'])} in a CPU second of the training process)"
    return "\n".join([*lines, "", f"{where}: {speed}, {trained['waiting_for_data']:.1%} of the time waiting for data"])
