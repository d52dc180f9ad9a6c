"""Where the time of a training step goes, part by part, and what it costs the straightforward way.

All sides run in turn in one process on the same pictures, with the same random weights, so quote their ratio.
Recognisers have the published sizes; their weights are random, which changes no time. Words are rendered for this.
"""

import argparse
import contextlib
import io
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from easydict import EasyDict
from PIL import Image
from torch import nn

from benchmarks.measuring import finish
from benchmarks.straightforward import make_straightforward
from dataset.loading import Batch, LoaderSpec, WordPairs, collate
from dataset.synthetic import make_sample
from dataset.textzoom import TextZoomWriter
from interface.config import load_settings
from interface.data import loader_spec
from interface.systems.base import ImageLosses, build_network
from interface.systems.clues import Clues
from interface.targets import TargetCache, Targets
from loss.text_focus import TextFocus
from model.recognizer.crnn import CRNN
from model.recognizer.focus_transformer import FocusTransformer

RECIPE = "--STN --mask --triple_clues --gradient --use_distill --text_focus --lca".split()  # the published command
PARTS = (
    "data",
    "teacher",
    "student",
    "language model",
    "SR network",
    "text focus, HR",
    "text focus, SR",
    "character weights",
    "image losses",
    "strings",
    "backward",
    "optimizer",
    "other",
    "step",
)


class Clock:
    """Seconds by part; parts do not overlap."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds = device, defaultdict(float)

    @contextlib.contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Add the time spent inside to a part."""
        finish(self.device)
        started = time.perf_counter()
        try:
            yield
        finally:
            finish(self.device)
            self.seconds[part] += time.perf_counter() - started

    def wrap(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        """`function`, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self(part):
                return function(*args, **kwargs)

        return timed

    def take(self) -> dict[str, float]:
        """What was measured since the last time."""
        taken, self.seconds = dict(self.seconds), defaultdict(float)
        return taken


class Side:
    """One way to take the step."""

    def __init__(
        self,
        name: str,
        system: Clues,
        pairs: WordPairs,
        clock: Clock,
        *,
        batch_size: int,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        self.name, self.system, self.pairs, self.clock, self.batch_size = name, system, pairs, clock, batch_size
        self.prepare = prepare
        self.optimizer = torch.optim.Adam(system.params("main"), lr=1e-3, betas=(0.5, 0.999))
        self.results: list[dict[str, float]] = []
        self.losses: list[float] = []

    def step(self, number: int) -> dict[str, float]:
        """Train on one batch; returns seconds by part."""
        device = self.clock.device
        numbers = [(number * self.batch_size + i) % len(self.pairs) for i in range(self.batch_size)]
        torch.manual_seed(number)
        if self.prepare is not None:
            self.prepare()
        started = time.perf_counter()
        with self.clock("data"):
            batch = self._batch(numbers).to(device)
        total = torch.stack(list(self.system(batch).values())).sum()
        with self.clock("backward"):
            total.backward()
        with self.clock("optimizer"):
            for group in self.system.clip_groups("main"):
                nn.utils.clip_grad_norm_(group, 0.25)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        spent = time.perf_counter() - started
        parts = self.clock.take()
        self.losses.append(total.item())
        return {**parts, "other": spent - sum(parts.values()), "step": spent}

    def _batch(self, numbers: list[int]) -> Batch:
        return collate(self.pairs.__getitems__(numbers))


def render(folder: Path, count: int) -> None:
    """An LMDB of rendered words."""

    def encoded(image: np.ndarray, kind: str) -> bytes:
        file = io.BytesIO()
        Image.fromarray(image).save(file, kind, **({"quality": 95} if kind == "JPEG" else {}))
        return file.getvalue()

    with TextZoomWriter(folder) as writer:
        for index in range(count):
            sample = make_sample(0, index)
            writer.add(hr=encoded(sample.hr, "JPEG"), lr=encoded(sample.lr, "PNG"), label=sample.label)


def build(config: EasyDict, device: torch.device) -> Clues:
    """The whole system of the published recipe, with random weights."""
    torch.manual_seed(0)
    stages = config.MODEL.stu_iter
    system = Clues(
        networks=[build_network(config) for _ in range(1 if config.MODEL.sr_share else stages)],
        students=[CRNN() for _ in range(1 if config.MODEL.tpg_share else stages)],
        stages=stages,
        losses=ImageLosses(config.LOSS, TextFocus(FocusTransformer())),
        weights=dict(config.LOSS.weights),
        teacher=CRNN(),
        config=config,
    )
    return system.to(device).to(memory_format=torch.channels_last).train()


class TimedTargets(Targets):
    """Those of `inner`, timed by name."""

    def __init__(self, clock: Clock, parts: dict[str, str]) -> None:
        self.clock, self.parts, self.inner = clock, parts, Targets()

    @property
    def longest(self) -> int:  # type: ignore[override]
        """As `inner` has it."""
        return self.inner.longest

    def get(self, name: str, *rest: Any) -> torch.Tensor:
        """As `inner` has it."""
        with self.clock(self.parts[name]):
            return self.inner.get(name, *rest)


def watch(system: Clues, clock: Clock) -> None:
    """Time the parts of a system of this program."""
    focus = system.losses.text_focus
    assert focus is not None
    assert system.teacher is not None
    for network in system.networks:
        network.forward = clock.wrap(network.forward, "SR network")
        network.language_clue = clock.wrap(network.language_clue, "language model")
    for student in system.students:
        student.forward = clock.wrap(student.forward, "student")
    parts = {"teacher_prior": "teacher", "attention": "text focus, HR"}
    system.targets = TimedTargets(clock, parts)
    focus.forward = clock.wrap(focus.forward, "text focus, SR")
    compare = system.losses.forward

    def image_losses(sr: torch.Tensor, sharp: Any) -> Any:
        """Without the text focus, which is timed by itself."""
        before = clock.seconds["text focus, SR"]
        with clock("image losses"):
            terms = compare(sr, sharp)
        clock.seconds["image losses"] -= clock.seconds["text focus, SR"] - before
        return terms

    system.losses.forward = image_losses


def training_sides(config: EasyDict, args: argparse.Namespace, folder: Path) -> list[Side]:
    """The straightforward way, and ours: with nothing kept yet, with everything kept, and with one student pass."""
    device = torch.device(args.device)
    spec: LoaderSpec = loader_spec(config, rank=0, world_size=1)
    kept, fresh = spec.pairs([folder]), replace(spec, cache=False).pairs([folder])
    sides = []
    for name, passes, epoch in (
        ("straightforward", "published", 0),
        ("ours, first epoch", "published", 1),
        ("ours, later epochs", "published", 2),
        ("ours, later, one student pass", "shared", 2),
    ):
        if name == "straightforward" and args.against != "straightforward":
            continue
        config.MODEL.student_passes = passes
        system, clock = build(config, device), Clock(device)
        pairs = kept if epoch == 2 else fresh
        if epoch == 0:
            make_straightforward(system, clock)
        else:
            watch(system, clock)
            forgetting(system, pairs)()
        every_step = forgetting(system, pairs) if epoch == 1 else None
        sides.append(Side(name, system, pairs, clock, batch_size=args.batch_size, prepare=every_step))
    return sides


def forgetting(system: Clues, pairs: WordPairs) -> Callable[[], None]:
    """What empties the cache of targets, as it is in a first epoch."""
    longest = pairs.longest_label()

    def forget() -> None:
        assert isinstance(system.targets, TimedTargets)
        system.targets.inner = TargetCache(len(pairs), longest=longest, key=str, folder=None, limit=2**36)

    return forget


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a training step by part, of every side."""
    flags = ["--arch", args.arch, *RECIPE, "--batch_size", str(args.batch_size), "--device", args.device]
    flags += ["--stu_iter", str(args.stu_iter), "--workers", "0", "--tpg_pretrained", "unused"]
    config = load_settings(flags).config
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "words"
        render(data, args.batch_size)
        sides = training_sides(config, args, data)
        for number in range(args.warmup + args.repeats):
            for side in sides:  # in turn, so that whatever else the machine does meets all of them
                parts = side.step(number)
                if number >= args.warmup:
                    side.results.append(parts)
            print(f"{number + 1 - args.warmup} of {args.repeats}", file=sys.stderr)
    medians = {
        side.name: {part: statistics.median(r.get(part, 0.0) for r in side.results) for part in PARTS} for side in sides
    }
    spread = {side.name: [min(r["step"] for r in side.results), max(r["step"] for r in side.results)] for side in sides}
    return {
        "seconds": medians,
        "step_range": spread,
        "losses": {side.name: side.losses for side in sides},
    }


def table(result: dict[str, Any]) -> str:
    """Milliseconds and ratios as Markdown."""
    seconds, batch_size = result["seconds"], result["arguments"]["batch_size"]
    names = list(seconds)
    lines = ["| ms | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for part in PARTS:
        values = [seconds[name][part] for name in names]
        if max(values) < 5e-4:
            continue
        ratios = [f" (x{values[0] / value:.1f})" if value > 5e-4 else "" for value in values[1:]]
        cells = [f"{value * 1000:.0f}{ratio}" for value, ratio in zip(values[1:], ratios, strict=True)]
        lines.append(f"| {part} | {values[0] * 1000:.0f} | " + " | ".join(cells) + " |")
    first = ", ".join(f"{name} {losses[0]:.6g}" for name, losses in result["losses"].items())
    rates = " | ".join(f"{batch_size / seconds[name]['step']:.2f}" for name in names)
    return "\n".join([*lines, f"| images/s | {rates} |", "", f"Loss of the first step: {first}"])
