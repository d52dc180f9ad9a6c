"""How long the evaluation of a system takes, part by part: data, SR, recognisers, metrics, strings and intervals.

Ours is `interface.evaluation.Evaluator` as the program uses it: the first time, when nothing is known of the pictures,
and later, as in all validations of a training but the first, when they are kept in memory, and so is what recognisers
read in LR, bicubic and HR. The straightforward side is `straightforward_evaluation.py`. Words are rendered; systems and
recognisers have random weights, see `building.ready_system` and `random_readers`. Before any time is taken, all sides
in float32 have to come to the same scores and, but for roundings that decide between two symbols, the same strings.

Ours does more: it reads bicubic as well, compares single pictures, clamped and not, and draws intervals.
"""

import argparse
import copy
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import counting
from benchmarks.building import CLUES, STRAIGHTFORWARD, guides_of, networks_of, ready_system, render
from benchmarks.measuring import (
    Clock,
    efficiency,
    mebibytes,
    number,
    peak_memory,
    percent,
    rows,
    state_bytes,
    timed,
)
from benchmarks.random_readers import expect
from benchmarks.recognisers import RECOGNISERS, Comparison
from benchmarks.recognisers import render as render_pictures
from benchmarks.straightforward import straighten
from benchmarks.straightforward_evaluation import SR, Run, evaluate
from dataset.loading import Batch, LoaderSpec, build_loader, collate
from interface.config import load_settings
from interface.data import loader_spec, named_splits
from interface.evaluation import BICUBIC, HR, LR, Evaluator, Split
from interface.inference import lay_channels_together
from interface.readers import Reader, ReadingCache
from interface.systems import System
from model.recognizer.reading import Reading

FIRST = "straightforward"
OURS_FIRST, OURS_LATER, BF16 = "ours, first time", "ours, later", "ours, later, bf16"
READERS = ("CRNN", "ASTER", "MORAN")
COUNTED = 8  # words in which the operations of recognisers are counted
DECIBELS, SIMILARITY = 1e-3, 1e-4  # by which sides that compute the same may differ
STRINGS = 0.01  # share of readings that rounding may decide
SHARED_ROWS = (LR, HR, SR)


class Announced:
    """A loader that tells recognisers of random weights which words come next, and times the data.

    Args:
        loader: a `PairLoader`.
        readers: who is told.
        clock: measures "data".
    """

    def __init__(self, loader: Any, readers: "list[TimedReader]", clock: Clock) -> None:
        self.loader, self.readers, self.clock = loader, readers, clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def __iter__(self) -> Iterator[Batch]:
        batches, start = iter(self.loader), 0
        while True:
            with self.clock("data"):
                batch = next(batches, None)
            if batch is None:
                return
            for reader in self.readers:
                reader.next = slice(start, start + len(batch))
            start += len(batch)
            yield batch


class TimedReader:
    """A recogniser, as `Reader` takes it, whose words are announced and whose time is taken.

    Args:
        network: what reads; None: `read` needs no announcement.
        name: as in the table.
        clock: measures it.
        read: (N, >=3, H, W) -> what is read.
    """

    def __init__(self, network: nn.Module | None, name: str, clock: Clock, read: Any) -> None:
        self.network, self.name, self.clock, self._read = network, name, clock, read
        self.next = slice(None)

    def __call__(self, images: Tensor) -> Any:
        """Read pictures of the next words."""
        if self.network is not None:
            expect(self.network, self.next)
        with self.clock(self.name):
            return self._read(images)

    def read_with_confidence(self, images: Tensor) -> list[Reading]:
        """As recognisers do."""
        readings: list[Reading] = self(images)
        return readings


@dataclass
class Bench:
    """What all sides share.

    Attributes:
        system: of this program, on the device.
        theirs: the same, straightened; None where there is no straightforward way.
        comparisons: both ways to read, by recogniser.
        data: an LMDB.
        spec: how it is read.
        batch_size: of pictures, and of the published PSNR.
        device: where it all runs.
    """

    system: System
    theirs: Any
    comparisons: dict[str, Comparison]
    data: Path
    spec: LoaderSpec
    batch_size: int
    device: torch.device

    def straightforward(self, clock: Clock) -> dict[str, Run]:
        """A run for each recogniser."""
        runs = {}
        for name, comparison in self.comparisons.items():
            pairs = replace(self.spec, cache=False).pairs([self.data])
            way = comparison.straightforward
            reader = TimedReader(way.network, name, clock, way.read)
            loader = Announced(build_loader(pairs, self.spec, train=False), [reader], clock)
            runs[name] = evaluate(self.theirs, loader, reader, clock)
        return runs

    def fresh(self) -> Split:
        """The data set as it is opened."""
        return named_splits([str(self.data)], self.spec)[0]

    def evaluator(self, clock: Clock, folder: Path, *, lower: bool = False) -> tuple[Evaluator, list[TimedReader]]:
        """As the program has it, with parts that are timed."""
        ours: list[TimedReader] = []
        for name, comparison in self.comparisons.items():
            network: Any = comparison.ours.network
            read = network.read_with_confidence if network is not None else comparison.ours.read
            ours.append(TimedReader(network, name, clock, read))
        readers: list[Any] = [Reader(r.name, r, r.name, r.name, lower=lower) for r in ours]  # type: ignore[arg-type]
        kind = self.device.type
        evaluator = Evaluator(
            readers=readers,
            device=self.device,
            cache=ReadingCache(folder),
            psnr_batch_size=self.batch_size,
            autocast=partial(torch.autocast, kind, dtype=torch.bfloat16) if lower else nullcontext,
        )
        for method, part in (("summarise", "summaries"), ("_keep_readings", "readings kept")):
            setattr(evaluator, method, clock.wrap(getattr(evaluator, method), part))
        return evaluator, ours


class Ours:
    """Our side: an evaluator, and a data set that may be known already.

    Args:
        bench: what is evaluated.
        clock: measures parts.
        folder: where readings are kept.
        later: whether there was an evaluation before.
        lower: super-resolve and read in bfloat16.
    """

    def __init__(self, bench: Bench, clock: Clock, folder: Path, *, later: bool, lower: bool = False) -> None:
        self.bench, self.clock, self.folder, self.later, self.lower = bench, clock, folder, later, lower
        self.evaluator, self.readers = bench.evaluator(clock, folder / "known", lower=lower)
        self.split, self.count = bench.fresh(), 0
        if later:
            self()

    def __call__(self) -> dict[str, Any]:
        """Evaluate once more."""
        if not self.later:
            self.count += 1
            self.evaluator, self.readers = self.bench.evaluator(self.clock, self.folder / str(self.count))
            self.split = self.bench.fresh()
        self.evaluator.replays.enabled = not self.clock.running  # what is replayed has no parts
        split = replace(self.split, loader=Announced(self.split.loader, self.readers, self.clock))
        return self.evaluator.run(self.bench.system, split)


def watch(system: System, clock: Clock) -> None:
    """Time the networks of a system."""
    for part, modules in {"student": guides_of(system), "SR network": networks_of(system)}.items():
        for module in modules:
            module.forward = clock.wrap(module.forward, part)  # type: ignore[method-assign]
            if hasattr(module, "language_clue"):
                clue: Any = module.language_clue
                module.language_clue = clock.wrap(clue, "language model")  # type: ignore[assignment]


def build(args: argparse.Namespace, data: Path) -> tuple[Bench, dict[str, Any]]:
    """Systems and recognisers on the device, and the operations that they need for a picture."""
    device = torch.device(args.device)
    flags = ["--arch", args.arch, *(CLUES if args.arch in STRAIGHTFORWARD else []), "--go_test", "--workers", "0"]
    flags += ["--tpg_pretrained", "random", "--batch_size", str(args.batch_size), "--device", args.device]
    config = load_settings(flags).config
    spec = loader_spec(config, rank=0, world_size=1, device=device)
    words = collate(spec.pairs([data]).__getitems__(range(min(args.images, 16))))
    lr = words.images_lr if words.images_lr.shape[1] > 3 else torch.cat([words.images_lr, words.images_lr[:, :1]], 1)
    system = ready_system(args.arch, lr)
    cascade = counting.operations(lambda: system.cascade(words.images_lr[:2])) / 2
    pictures = render_pictures(args.images)
    torch.manual_seed(args.seed)
    comparisons = {name: RECOGNISERS[name](pictures, device) for name in args.readers}
    reading = {name: read_operations(comparison, pictures) for name, comparison in comparisons.items()}
    theirs = None
    if args.against == FIRST:
        theirs = straighten(copy.deepcopy(system)).requires_grad_(True).to(device)
    lay_channels_together(system.to(device))
    bench = Bench(system, theirs, comparisons, data, spec, args.batch_size, device)
    return bench, {"cascade": cascade, "reading": reading, "stages": system.stages}


def read_operations(comparison: Comparison, pictures: Tensor) -> float:
    """Operations of our way to read a word, the mean of a few, counted on the CPU."""
    network: Any = comparison.ours.network
    if network is None:
        return 0.0
    on_cpu, count = copy.deepcopy(network).cpu(), min(COUNTED, len(pictures))
    expect(on_cpu, slice(0, count))
    return counting.operations(lambda: on_cpu.read_with_confidence(pictures[:count])) / count


def check(runs: dict[str, Run], ours: dict[str, Any], batch_size: int) -> dict[str, Any]:
    """How far ours is from the straightforward way.

    Returns:
        Differences of "psnr" (dB) and "ssim", and the number of "strings" that differ "of" all.

    Raises:
        RuntimeError: they are further apart than rounding explains.
    """
    strings = [
        one != other
        for name, run in runs.items()
        for row in SHARED_ROWS
        for one, other in zip(run.readings[row], ours["per_image"]["readings"][name][row], strict=True)
    ]
    run = next(iter(runs.values()))
    apart = {
        "psnr": abs(float(np.mean(run.psnr)) - ours["psnr_batch"][SR]),
        "ssim": abs(float(np.mean(run.ssim)) - ours["ssim_batch"][SR]),
        "strings": sum(strings),
        "of": len(strings),
    }
    if apart["psnr"] > DECIBELS or apart["ssim"] > SIMILARITY or apart["strings"] > STRINGS * apart["of"]:
        raise RuntimeError(
            f"batch size {batch_size}: both ways differ by {apart['psnr']:.1e} dB, {apart['ssim']:.1e} of SSIM and "
            f"{apart['strings']} of {apart['of']} strings, more than roundings do; one of them is wrong"
        )
    return apart


def make_sides(args: argparse.Namespace, bench: Bench, clock: Clock, folder: Path) -> dict[str, Any]:
    """What evaluates once, by name."""
    found: dict[str, Any] = {}
    if bench.theirs is not None:
        found[FIRST] = lambda: bench.straightforward(clock)
    found[OURS_FIRST] = Ours(bench, clock, folder / "first", later=False)
    found[OURS_LATER] = Ours(bench, clock, folder / "later", later=True)
    if "bf16" in args.mixed_precision:
        found[BF16] = Ours(bench, clock, folder / "bf16", later=True, lower=True)
    return found


def needed_by(name: str, counts: dict[str, Any]) -> float:
    """Operations for a picture that a side cannot do without: everything is read once, and kept."""
    read = counts["stages"] + (len((LR, BICUBIC, HR)) if name == OURS_FIRST else 0)
    return float(counts["cascade"] + read * sum(counts["reading"].values()))


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of an evaluation by part, of every side, and how far they are apart."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "words"
        render(data, args.images)
        bench, counts = build(args, data)
        clock = Clock(bench.device)
        watch(bench.system, clock)
        sides = make_sides(args, bench, clock, Path(folder))
        held = {name: peak_memory(side, bench.device) for name, side in sides.items()}
        if bench.device.type == "cuda":
            clock.running = False
            for side in sides.values():  # graphs are recorded
                side()
            clock.running = True
        outcomes = {name: outcome for name, (outcome, _) in held.items()}
        apart = check(outcomes[FIRST], outcomes[OURS_LATER], args.batch_size) if FIRST in sides else None
        parts: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
        for repeat in range(args.repeats):
            for name, side in sides.items():  # in turn, so that whatever else the machine does meets all of them
                parts[name].append(once(side, clock))
            print(f"{repeat + 1} of {args.repeats}", file=sys.stderr)
    networks = [bench.system, *(c.ours.network for c in bench.comparisons.values() if c.ours.network is not None)]
    state = sum(map(state_bytes, networks))
    return {
        "seconds": {name: [part["all"] for part in found] for name, found in parts.items()},
        "parts": {name: medians(found) for name, found in parts.items()},
        "memory": {name: None if beside is None else beside + state for name, (_, beside) in held.items()},
        "precision": {name: "bfloat16" if name == BF16 else "float32" for name in sides},
        "needed_flop": {name: needed_by(name, counts) for name in sides},
        "apart": apart,
        "scores": {name: scores(outcomes[name]) for name in sides if name != FIRST},
    }


def once(side: Any, clock: Clock) -> dict[str, float]:
    """Seconds of an evaluation by part; on a GPU, whose work waits for no part otherwise, it is done twice.

    There the parts are those of operations that are asked for one by one, and the whole is that of CUDA graphs.
    """
    if clock.device.type == "cuda":
        clock.running = False
        _, whole = timed(side, clock.device)
        clock.running = True
        clock.take()
        _, watched = timed(side, clock.device)
        parts = clock.take()
        return {**parts, "other": watched - sum(parts.values()), "all": whole}
    clock.take()
    _, whole = timed(side, clock.device)
    parts = clock.take()
    return {**parts, "other": whole - sum(parts.values()), "all": whole}


def medians(found: list[dict[str, float]]) -> dict[str, float]:
    """Of every part."""
    names = dict.fromkeys(name for parts in found for name in parts)
    return {name: statistics.median(parts.get(name, 0.0) for parts in found) for name in names}


def scores(outcome: dict[str, Any]) -> dict[str, float]:
    """What a side found, for comparison between precisions."""
    accuracy = {f"{name} {SR}": by_row[SR]["value"] for name, by_row in outcome["accuracy"].items()}
    return {"psnr": outcome["psnr"][SR]["value"], "ssim": outcome["ssim"][SR]["value"], **accuracy}


def table(result: dict[str, Any]) -> str:
    """Milliseconds a picture by part, pictures a second, ratios, efficiency and memory as Markdown."""
    seconds, parts, count = result["seconds"], result["parts"], result["arguments"]["images"]
    names = list(seconds)
    lines = []
    for part in dict.fromkeys(part for name in names for part in parts[name] if part != "all"):
        values = [1000 * parts[name].get(part, 0.0) / count for name in names]
        if max(values) >= 0.05:
            lines.append([part, *(f"{value:.1f}" for value in values)])
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = ["", *(f" (x{middle[names[0]] / middle[name]:.2f})" for name in names[1:])]
    wholes = [f"**{number(1000 * middle[name] / count)}{ratio}**" for name, ratio in zip(names, ratios, strict=True)]
    lines.append(["**all**", *wholes])
    lines.append(["fastest - slowest", *(low_high([1000 * s / count for s in seconds[name]]) for name in names)])
    lines.append(["images/s", *(number(count / middle[name]) for name in names)])
    lines.append(["needed, GFLOP an image", *(number(result["needed_flop"][name] / 1e9) for name in names)])
    shares = [
        efficiency(count * result["needed_flop"][name], middle[name], result["peak"], result["precision"][name])
        for name in names
    ]
    lines.append(["efficiency (needed work / peak)", *map(percent, shares)])
    lines.append(["memory, MiB", *(mebibytes(result["memory"][name]) for name in names)])
    text = "\n".join(rows(["ms an image", *names], lines))
    if result["apart"] is None:
        return text
    apart = result["apart"]
    return (
        f"{text}\n\nStraightforward and ours differ by {apart['psnr']:.1e} dB, {apart['ssim']:.1e} of SSIM and "
        f"{apart['strings']} of {apart['of']} strings."
    )


def low_high(values: list[float]) -> str:
    """The ends of a range."""
    return f"{number(min(values))} - {number(max(values))}"
