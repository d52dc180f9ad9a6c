"""What grows with the data: a picture of a large data set must not cost more than one of a small one.

Three questions, each with a table: CPU time for a picture and memory of everything that is done once for a picture, on
LMDBs of several sizes (a few pictures under ever new keys; labels differ); pictures a second of a training by batch
size; memory of a training after each of its epochs.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.building import encoded, training_config
from benchmarks.measuring import mebibytes, number, peak_memory, resident, rows, spread
from benchmarks.training import Way, build_side
from dataset.loading import LoaderSpec, PairLoader, build_loader, split_held_out
from dataset.synthetic import make_sample
from dataset.textzoom import TextZoomLMDB, TextZoomWriter
from interface.config import load_settings
from interface.data import loader_spec, named_splits
from interface.evaluation import BICUBIC, HR, LR, Evaluator, Record, averages, stage_rows
from interface.logger import Progress
from interface.readers import Reader, ReadingCache
from interface.report import write_report
from interface.state import StopSignals
from interface.super_resolution import TextSR
from interface.systems import build_system
from model.recognizer.reading import Reading

PICTURES = 8  # different ones
EVALUATED = 10_000  # of larger sets, the evaluation itself is left out: it compares pictures, which takes its time
DECODED = 10_000  # of larger sets, pictures are decoded for the first of these only
CPU = torch.device("cpu")
READ_ROWS = (LR, BICUBIC, *stage_rows(1), HR)


class Copyist:
    """A recogniser that takes no time: it always reads the same."""

    charset = "abc"

    def read_with_confidence(self, images: Tensor) -> list[Reading]:
        """N times the same word."""
        return [Reading("abc", 0.5, (0.5, 0.5, 0.5))] * len(images)


READER = Reader("CRNN", Copyist(), "copyist", "reads nothing")  # type: ignore[arg-type]


def write_repeated(folder: Path, count: int) -> None:
    """An LMDB of few pictures under many keys; every label is another one."""
    samples = [make_sample(0, index) for index in range(PICTURES)]
    files = [(encoded(sample.hr, "JPEG"), encoded(sample.lr, "PNG")) for sample in samples]
    with TextZoomWriter(folder) as writer:
        for index in range(count):
            hr, lr = files[index % PICTURES]
            writer.add(hr=hr, lr=lr, label=f"{samples[index % PICTURES].label}{index}")


def made_up(count: int) -> list[Record]:
    """Records of an evaluation, as `Evaluator` collects them."""
    generator = np.random.default_rng(0)
    values = generator.random((count, 2, 4)).tolist()
    names = ("psnr", "ssim", "mse_raw", "ssim_raw")
    right = (generator.random((count, len(READ_ROWS))) < 0.5).tolist()
    return [
        {
            "index": index,
            "label": f"word{index}",
            "readings": {
                ("CRNN", row): (f"word{index}" if hit else "other", 0.5)
                for row, hit in zip(READ_ROWS, right[index], strict=True)
            },
            "metrics": {
                row: dict(zip(names, numbers, strict=True))
                for row, numbers in zip((BICUBIC, stage_rows(1)[0]), values[index], strict=True)
            },
        }
        for index in range(count)
    ]


def go_through(loader: PairLoader) -> None:
    """Take all batches of an epoch."""
    for _ in loader:
        pass


class Sizes:
    """What is measured at one size of data.

    Args:
        count: pictures.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.found: dict[str, dict[str, float | int | None]] = {}

    def measure(self, name: str, work: Callable[[], Any], *, images: int = 0) -> Any:
        """Do it once; `images` of it are all if it is not given. Returns what it returns."""
        images = images or self.count
        started = time.process_time()
        result, memory = peak_memory(work, CPU)
        microseconds = 1e6 * (time.process_time() - started) / images
        self.found[name] = {"images": images, "microseconds": microseconds, "memory": memory}
        print(f"{self.count} pictures, {name}: {microseconds:.3g} us each", file=sys.stderr)
        return result


def data_costs(sizes: Sizes, folder: Path) -> None:
    """Writing, opening and going through a data set."""
    path = folder / "data"
    sizes.measure("write the LMDB", lambda: write_repeated(path, sizes.count))
    source = sizes.measure("open it", lambda: TextZoomLMDB(path))
    sizes.measure("fingerprint", source.fingerprint)
    spec = LoaderSpec(batch_size=48)
    pairs = sizes.measure("number its samples", lambda: spec.pairs([path]))
    sizes.measure("longest label", pairs.longest_label)
    kept, held = sizes.measure("hold out 1 %", lambda: split_held_out(pairs, 0.01))
    sizes.measure("select", lambda: spec.pairs([path], kept))
    assert len(kept) + len(held) == sizes.count
    shown = min(sizes.count, DECODED)
    few = spec.pairs([path], range(shown))
    loader = build_loader(few, spec, train=True)
    sizes.measure("train: first epoch (decoded)", lambda: go_through(loader), images=shown)
    sizes.measure("train: later epoch (kept)", lambda: go_through(loader), images=shown)
    order = build_loader(pairs, spec, train=True).batches
    sizes.measure("train: order of an epoch", lambda: list(order))
    order.seek(0, len(order) - 1)
    sizes.measure("train: resume at its last step", lambda: list(order))


def bookkeeping_costs(sizes: Sizes, folder: Path) -> None:
    """What an evaluation does with the numbers of its pictures."""
    records = sizes.measure("(records made up)", lambda: made_up(sizes.count))
    cache = ReadingCache(folder / "cache")
    answers = {record["index"]: record["readings"]["CRNN", HR] for record in records}
    sizes.measure("keep readings", lambda: cache.store(READER, "data", HR, answers))
    found = sizes.measure("load kept readings", lambda: cache.load(READER, "data", HR))
    assert found == answers
    evaluator = Evaluator(readers=[READER], device=CPU)
    counted = sizes.measure("summaries, intervals", lambda: evaluator.summarise(records, list(READ_ROWS)))
    split = {"path": "data", "fingerprint": "0", "images": sizes.count, "skipped": 0, **counted}
    report = {"rows": list(READ_ROWS), "splits": {"data": split}, "readers": {"CRNN": {}}}
    report["average"] = averages({"data": split})
    sizes.measure("write the report", lambda: write_report(folder / "report", report))


def evaluation_costs(sizes: Sizes, folder: Path) -> None:
    """A whole evaluation of the cheapest system with the cheapest reader."""
    if sizes.count > EVALUATED:
        return
    config = load_settings(["--arch", "bicubic", "--go_test", "--device", "cpu", "--workers", "0"]).config
    system = build_system(config, training=False, pretrained=False)
    spec = loader_spec(config, rank=0, world_size=1)
    evaluator = Evaluator(readers=[READER], device=CPU, cache=ReadingCache(folder / "evaluated"))
    split = sizes.measure("open a test set", lambda: named_splits([str(folder / "data")], spec)[0])
    for name in ("evaluate: first time", "evaluate: later"):
        sizes.measure(name, lambda: evaluator.run(system, split))


def by_size(sizes: list[int]) -> dict[str, Any]:
    """{size: {what is done: {"images", "microseconds" of CPU time for each, "memory"}}}."""
    result = {}
    for count in sizes:
        measured = Sizes(count)
        with tempfile.TemporaryDirectory() as folder:
            for costs in (data_costs, bookkeeping_costs, evaluation_costs):
                costs(measured, Path(folder))
        result[str(count)] = measured.found
    return result


def by_batch(args: argparse.Namespace) -> dict[str, Any]:
    """{batch size: seconds of each training step}."""
    result = {}
    for size in args.batch_size:
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "words"
            write_repeated(data, size)
            flags = ["--batch_size", str(size), "--device", args.device, "--workers", "0"]
            config = training_config(args.arch, flags, Path(folder), "published")
            side = build_side(str(size), Way(kept=True, passes="shared"), config, data, torch.device(args.device))
            side.warm_up(0)
            for step in range(1, 1 + args.repeats):
                side.measure(step)
        result[str(size)] = {"seconds": [taken["step"] for taken in side.results], "memory": side.memory}
        print(f"batch {size}", file=sys.stderr)
    return result


def over_epochs(args: argparse.Namespace) -> list[int | None]:
    """Bytes that the process holds after each epoch of a training with validations and saves."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "words"
        write_repeated(data, args.words)
        (Path(folder) / "quiet.yaml").write_text(json.dumps({"TEST": {"test_model": []}}), encoding="utf-8")
        flags = f"--arch {args.arch} --batch_size {args.batch_size[0]} --epochs {args.epochs} --device {args.device}"
        flags += f" --workers 0 --val_interval 0 --config {folder}/quiet.yaml --train_data_dir {data}"
        task = TextSR(load_settings([*flags.split(), "--ckpt_dir", folder, "--tpg_pretrained", "random"]))
        held: list[int | None] = []
        try:
            task.build_training()
            with StopSignals() as task.signals, Progress(task.total_steps, unit="step", show=False) as bar:
                for batches in task.steps_left():
                    task.train_step(batches)
                    task.after_step(bar)
                    if task.step % task.steps_per_epoch == 0:
                        held.append(resident())
        finally:
            task.at_end.close()
            task.run_log.close()
    return held


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Costs by the size of the data, by the batch size, and over epochs."""
    return {
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "sizes": by_size(args.sizes),
        "batches": by_batch(args),
        "epochs": over_epochs(args),
    }


def growth(sizes: dict[str, Any], name: str, measure: str) -> float | None:
    """How much more a picture of the largest data set costs than one of the smallest."""
    found = [sizes[size][name] for size in sizes if name in sizes[size]]
    values = [entry[measure] / (entry["images"] if measure == "memory" else 1) for entry in found if entry[measure]]
    return values[-1] / values[0] if len(values) > 1 and values[0] else None


def table(result: dict[str, Any]) -> str:
    """Three tables: CPU time for a picture by size, training by batch size, memory by epoch."""
    sizes, batches = result["sizes"], result["batches"]
    names = list(next(iter(sizes.values())))
    head = ["microseconds a picture, of", *(f"{int(size):,}" for size in sizes), "growth", "MiB at the most"]
    cells = []
    for name in names:
        found = [sizes[size].get(name) for size in sizes]
        grown = growth(sizes, name, "microseconds")
        memory = [entry["memory"] for entry in found if entry and entry["memory"] is not None]
        times = [number(entry["microseconds"]) if entry else "" for entry in found]
        cells.append([name, *times, f"x{grown:.2f}" if grown else "", mebibytes(max(memory)) if memory else ""])
    lines = [*rows(head, cells), ""]
    cells = [
        [size, spread([1000 * second / int(size) for second in entry["seconds"]]), mebibytes(entry["memory"])]
        for size, entry in batches.items()
    ]
    lines += [*rows(["batch", "ms a picture in training", "memory, MiB"], cells), ""]
    cells = [[str(epoch), mebibytes(held)] for epoch, held in enumerate(result["epochs"], start=1)]
    return "\n".join([*lines, *rows(["after epoch", "memory of the process, MiB"], cells)])
