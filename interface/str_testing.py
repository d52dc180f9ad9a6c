"""Testing on the recognition benchmarks: from data sets and options to reports, one for each set and one of all."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset.loading import split_names
from dataset.str_sets import Size, StrSet, find_sets, is_str_set
from dataset.textzoom import DataError
from interface import facts
from interface.logger import Progress
from interface.str_protocol import AUTO, PUBLISHED_SCALE, SIZES, StrProtocol
from interface.str_report import screen_table, write_benchmark, write_summary

if TYPE_CHECKING:
    from interface.evaluating import Evaluating

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StrOptions:
    """What of the protocol can be chosen.

    Attributes:
        sizes: what photos are reduced to.
        network_input: "auto", "direct" or "resized", see `StrProtocol`.
        limit: use the first so many photos of each set; 0 is all.
        system: super-resolve with the system of the run; without, bicubic enlargement alone, x4.
    """

    sizes: tuple[Size, ...] = SIZES
    network_input: str = AUTO
    limit: int = 0
    system: bool = True


def are_str_sets(paths: list[str]) -> bool:
    """Whether test data are STR sets, which have photos of words but no LR of them.

    Raises:
        DataError: some are and some are not.
    """
    found = [path for path in find_sets(paths) if (path / "data.mdb").is_file()]
    photos = [path for path in found if is_str_set(path)]
    if photos and len(photos) < len(found):
        pair = next(path for path in found if path not in photos)
        raise DataError(f"{photos[0]} is an STR set and {pair} a TextZoom set; test on one kind at a time")
    return bool(photos)


def build_protocol(task: Evaluating, options: StrOptions) -> StrProtocol:
    """The protocol with the system, the recognisers and the settings of a run."""
    spec = task.spec
    if options.system:
        task.build_trained_system()
    task.evaluator = task.build_evaluator()
    return StrProtocol(
        evaluator=task.evaluator,
        system=task.system if options.system else None,
        scale=spec.scale if options.system else PUBLISHED_SCALE,
        size_lr=(spec.width // spec.scale, spec.height // spec.scale),
        sizes=options.sizes,
        network_input=options.network_input,
        mask=spec.mask,
        batch_size=spec.batch_size,
        threads=spec.workers,
        rank=spec.rank,
        world_size=spec.world_size,
    )


def describe(task: Evaluating, protocol: StrProtocol, results: dict[str, Any]) -> dict[str, Any]:
    """The whole report of some benchmarks as one dict."""
    report = facts.describe(
        task.config,
        results=results,
        readers=protocol.evaluator.readers,
        stages=protocol.system.stages if protocol.system else 0,
        device=task.device,
        weights=task.resume.path if task.resume else None,
        step=task.resume.step if task.resume else None,
        resume=task.resume,
    )
    settings = {"mixed_precision": task.config.TRAIN.mixed_precision, **protocol.description()}
    return report | {"rows": protocol.rows, "protocol": settings}


def run_benchmarks(task: Evaluating, options: StrOptions) -> None:
    """Evaluate on every set; each is written as soon as it is done.

    Raises:
        ValueError: there is no recogniser, or a set cannot be used.
    """
    if not task.config.TEST.test_model:
        raise ValueError("--test_model names no recogniser; give one or more, e.g. PPOCR")
    paths = find_sets(task.config.TEST.test_data_dir)
    task.config.TEST.test_data_dir = [str(path) for path in paths]  # for the report
    names = split_names(paths)
    sets = [StrSet(path, name, limit=options.limit) for path, name in zip(paths, names, strict=True)]
    protocol = build_protocol(task, options)
    folder = task.output_folder("str") if task.rank == 0 else Path()
    results, folders = {}, {}
    for data in sets:
        with Progress(len(data), unit="image", text=data.name, show=task.rank == 0) as bar:
            results[data.name] = protocol.run(data, bar.advance)
        if task.rank == 0:
            report = describe(task, protocol, {data.name: results[data.name]})
            folders[data.name] = write_benchmark(folder, report)
    if task.rank == 0:
        report = describe(task, protocol, results)
        written = write_summary(folder, report, folders)
        sys.stdout.write(screen_table(report) + "\n")
        sys.stdout.flush()
        log.info("report=%s", written)
