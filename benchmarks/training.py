"""Where the time of a training step goes, part by part, and what it costs the straightforward way.

All sides run in turn in one process on the same pictures, with the same random weights, so quote their ratio.
Recognisers have the published sizes; their weights are random, which changes no time. Words are rendered for this.

What a step needs is counted: operations of networks that learn three times (forward, gradients of activations and of
weights), of frozen ones that gradients flow through twice, of what is looked at once; nothing for what is kept. The
straightforward side needs as much as ours in later epochs; what it does more lowers its efficiency.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from easydict import EasyDict
from torch import Tensor, nn

from benchmarks import counting
from benchmarks.building import STRAIGHTFORWARD, guides_of, networks_of, render, training_config
from benchmarks.measuring import (
    PRECISIONS,
    Clock,
    efficiency,
    finish,
    host_waits,
    mebibytes,
    number,
    peak_memory,
    percent,
    recurrent_seconds,
    rows,
    state_bytes,
)
from benchmarks.straightforward import make_straightforward
from dataset.loading import Batch, WordPairs, collate
from interface.data import loader_spec, target_cache
from interface.inference import lay_channels_together
from interface.optim import build_optimizer
from interface.replays import RecordedSteps
from interface.systems import System, base, build_system
from interface.systems.clues import Clues
from interface.targets import Targets

KEPT = {  # parts of what frozen networks make of samples, by the names of `Targets.get`
    "teacher_prior": "teacher",
    "attention": "text focus, HR",
    "stroke_attention": "text focus, HR",
    "student_logits": "frozen student",
}
LOOKED_AT = ("teacher", "text focus, HR", "frozen student", "quiet student")  # without gradient
FLOWN_THROUGH = ("text focus, SR",)  # frozen, but gradients come back through them
PARTS = (
    *("data", "teacher", "student", "quiet student", "frozen student", "language model", "SR network"),
    *("text focus, HR", "text focus, SR", "character weights", "image losses", "strings", "backward", "optimizer"),
    *("other", "step"),
)
COMPARED = ("backward", "step")  # parts that all sides have, whose ratios are shown
FIRST = "straightforward"
OURS_FIRST, OURS_LATER = "ours, first epoch", "ours, later epochs"
SHARED, BF16 = "ours, later, one student pass", "ours, later, bf16"


@dataclass(frozen=True)
class Way:
    """How a step is taken.

    Attributes:
        kept: whether pictures and what frozen networks make of them are kept from earlier epochs.
        passes: of the student, see `MODEL.student_passes`.
        precision: a key of `PRECISIONS`.
    """

    kept: bool
    passes: str = "published"
    precision: str = "no"


def ways(args: argparse.Namespace, config: EasyDict) -> dict[str, Way]:
    """The sides of a measurement; those with two student passes in float32 compute the same."""
    linguistic = args.arch in STRAIGHTFORWARD and not config.MODEL.freeze_tpg  # the others know one pass
    found: dict[str, Way] = {}
    if args.against == FIRST:
        found[FIRST] = Way(kept=False)
    if "no" in args.mixed_precision:
        found |= {OURS_FIRST: Way(kept=False), OURS_LATER: Way(kept=True)}
        if linguistic:
            found[SHARED] = Way(kept=True, passes="shared")
    if "bf16" in args.mixed_precision:
        found[BF16] = Way(kept=True, passes="shared", precision="bf16")
    return found


@dataclass
class Side:
    """One way to take the step.

    Attributes:
        prepare: what is done before each step, outside of the time.
        results: seconds by part of each measured step.
        losses: of all steps.
        memory: most bytes that a step held, the state of networks and optimizer included.
        waits: how often the program waits for a GPU in a step, without the end of it; nothing is measured meanwhile.
        recurrent: seconds of a step that recurrent layers take forward.
    """

    way: Way
    system: System
    pairs: WordPairs
    clock: Clock
    config: EasyDict
    prepare: Callable[[], None]
    optimizer: torch.optim.Optimizer
    results: list[dict[str, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    memory: int | None = None
    waits: int | None = None
    recurrent: float = 0.0

    def step(self, number: int) -> dict[str, float]:
        """Train on one batch; returns seconds by part."""
        device, size = self.clock.device, self.config.TRAIN.batch_size
        numbers = [(number * size + i) % len(self.pairs) for i in range(size)]
        torch.manual_seed(number)
        self.prepare()
        finish(device)
        started = time.perf_counter()
        with self.clock("data"):
            batch = collate(self.pairs.__getitems__(numbers)).to(device)
        with self.clock("other"):
            total = self.loss(batch)
        with self.clock("backward"):
            total.backward()
        with self.clock("optimizer"):
            for group in self.system.clip_groups("main"):
                nn.utils.clip_grad_norm_(group, self.config.TRAIN.clip_grad or float("inf"))
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        finish(device)
        spent = time.perf_counter() - started
        self.losses.append(total.item())
        return {**self.clock.take(), "step": spent}

    def loss(self, batch: Batch) -> Tensor:
        """What is minimised, as `Training.train_step` has it."""
        lower = self.way.precision == "bf16"
        with torch.autocast(self.clock.device.type, dtype=torch.bfloat16, enabled=lower):
            losses = self.system(batch)
        return torch.stack([value.float() for value in losses.values()]).sum()

    def measure(self, number: int) -> None:
        """Take a measured step; on a GPU, whose work waits for no part otherwise, a second one for the parts."""
        if self.clock.device.type != "cuda":
            self.results.append(self.step(number))
            return
        self.clock.running = False
        whole = self.step(number)["step"]
        self.clock.running = True
        self.results.append({**self.step(number), "step": whole})
        del self.losses[-1]  # of the same batch a second time

    def warm_up(self, number: int) -> None:
        """Take a step that is not measured, but for its memory."""
        _, beside = peak_memory(lambda: self.step(number), self.clock.device)
        self.memory = None if beside is None else beside + state_bytes(self.system, self.optimizer)

    def look_closer(self, number: int) -> None:
        """Take steps that are not measured, for what would change their time."""
        taken = len(self.losses)
        self.clock.running = False
        waits = host_waits(lambda: self.step(number), self.clock.device)
        self.waits = None if waits is None else waits - 1
        self.recurrent = recurrent_seconds(self.system, lambda: self.step(number), self.clock.device)
        self.clock.running = True
        del self.losses[taken:]


class TimedTargets:
    """`Targets`, timed by name.

    Attributes:
        inner: those.
    """

    def __init__(self, clock: Clock, inner: Targets) -> None:
        self.clock, self.inner = clock, inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def get(self, name: str, *rest: Any) -> Tensor:
        """As `inner` has it."""
        with self.clock(KEPT.get(name, "other"), whole=True):
            return self.inner.get(name, *rest)


def watch(system: System, clock: Clock) -> TimedTargets:
    """Time the parts of a system of this program; returns its targets."""
    parts = [(module, "forward", "student") for module in guides_of(system)]
    for module in networks_of(system):
        parts += [(module, "forward", "SR network"), (module, "language_clue", "language model")]
        parts += [(module, "guided", "SR network")]
    losses: Any = system.losses
    parts += [(losses, "forward", "image losses")]
    parts += [(focus, "forward", "text focus, SR") for focus in (losses.text_focus, losses.stroke_focus) if focus]
    if isinstance(system, Clues):
        parts.append((system, "_quiet_reading", "quiet student"))
    teacher: Any = getattr(system, "teacher", None)
    if teacher is not None:  # of turned pictures nothing can be kept, so the targets are not asked
        parts.append((teacher, "forward", "teacher"))
    for module, method, part in parts:
        if hasattr(module, method):
            setattr(module, method, clock.wrap(getattr(module, method), part, whole=part in LOOKED_AT))
    targets: Any = TimedTargets(clock, Targets())
    system.targets = targets
    return targets


def needed(config: EasyDict, pairs: WordPairs) -> dict[str, float]:
    """Operations for a picture in later epochs, and for what is looked at ("kept"), counted on two pictures."""
    system = build_system(config, training=True).train()
    batch = collate(pairs.__getitems__([0, 1]))

    def work(clock: Clock) -> None:
        watch(system, clock)
        torch.manual_seed(0)
        system(batch)

    parts = {name: value / len(batch) for name, value in counting.by_part(work).items()}
    looked = {name: parts.pop(name, 0.0) for name in LOOKED_AT}
    quiet = looked.pop("quiet student")  # of LR, with weights that learn: never kept
    through = sum(parts.pop(name, 0.0) for name in FLOWN_THROUGH)
    return {"every step": 3 * sum(parts.values()) + 2 * through, "quiet": quiet, "kept": sum(looked.values())}


def needed_by(name: str, way: Way, counts: dict[str, float], config: EasyDict) -> float:
    """Operations for a picture that a way cannot do without."""
    anew = name == OURS_FIRST or bool(config.TRAIN.rotate_train)  # of turned pictures nothing can be kept
    quiet = counts["quiet"] if way.passes == "published" else 0.0
    return counts["every step"] + quiet + (counts["kept"] if anew else 0.0)


def build_side(name: str, way: Way, config: EasyDict, data: Path, device: torch.device) -> Side:
    """One way to take the step, on the words in `data`."""
    config.MODEL.student_passes = way.passes
    spec = replace(loader_spec(config, rank=0, world_size=1), cache=way.kept)
    pairs = spec.pairs([data])
    torch.manual_seed(0)
    clock = Clock(device)
    if name == FIRST:
        with mock.patch.object(base, "fold", lambda recognizer: None):  # published recognisers have all their layers
            system = build_system(config, training=True)
        assert isinstance(system, Clues)
        make_straightforward(system.to(device), clock).train()
        optimizer: Any = torch.optim.Adam(system.params("main"), lr=config.TRAIN.lr, betas=(config.TRAIN.beta1, 0.999))
        return Side(way, system, pairs, clock, config, lambda: None, optimizer)
    system = build_system(config, training=True)
    lay_channels_together(system.to(device)).train()
    if device.type == "cuda" and config.TRAIN.cuda_graphs:
        for network in system.called_once():
            RecordedSteps.install(network)
    targets = watch(system, clock)

    def forget() -> None:
        targets.inner = target_cache(config, pairs, spec, processes=1)

    forget()
    groups = [{"params": params, "lr": config.TRAIN.lr * share} for params, share in system.rate_groups("main")]
    optimizer = build_optimizer(groups, config.TRAIN)
    return Side(way, system, pairs, clock, config, (lambda: None) if way.kept else forget, optimizer)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a training step by part, memory and losses, of every side."""
    flags = ["--batch_size", str(args.batch_size), "--device", args.device, "--workers", "0"]
    flags += ["--stu_iter", str(args.stu_iter)] if args.stu_iter > 1 else []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "words"
        render(data, args.batch_size)
        config = training_config(args.arch, flags, Path(folder), args.recogniser)
        config.MODEL.student_passes = "published"  # so that what the second one needs is counted as well
        counts = needed(config, loader_spec(config, rank=0, world_size=1).pairs([data]))
        device = torch.device(args.device)
        sides = {name: build_side(name, way, config, data, device) for name, way in ways(args, config).items()}
        for step in range(args.warmup + args.repeats):
            for side in sides.values():  # in turn, so that whatever else the machine does meets all of them
                (side.warm_up if step < args.warmup else side.measure)(step)
            print(f"{step + 1 - args.warmup} of {args.repeats}", file=sys.stderr)
        for side in sides.values():
            side.look_closer(args.warmup + args.repeats)
    return {
        "seconds": {
            name: {part: statistics.median(r.get(part, 0.0) for r in side.results) for part in PARTS}
            for name, side in sides.items()
        },
        "steps": {name: [result["step"] for result in side.results] for name, side in sides.items()},
        "step_range": {
            name: [min(r["step"] for r in side.results), max(r["step"] for r in side.results)]
            for name, side in sides.items()
        },
        "losses": {name: side.losses for name, side in sides.items()},
        "memory": {name: side.memory for name, side in sides.items()},
        "host_waits": {name: side.waits for name, side in sides.items()},
        "recurrent_seconds": {name: side.recurrent for name, side in sides.items()},
        "precision": {name: PRECISIONS[side.way.precision] for name, side in sides.items()},
        "needed_flop": {name: needed_by(name, side.way, counts, config) for name, side in sides.items()},
        "largest_loss_difference": loss_difference([side.losses for side in sides.values() if exact(side.way)]),
    }


def exact(way: Way) -> bool:
    """Whether a way has to lose what the others of its kind lose."""
    return way.passes == "published" and way.precision == "no"


def loss_difference(losses: list[list[float]]) -> float | None:
    """The largest relative difference to the first side's losses, step by step; None if there is one side."""
    apart = [abs(b - a) / abs(a) for other in losses[1:] for a, b in zip(losses[0], other, strict=True)]
    return max(apart) if apart else None


def table(result: dict[str, Any]) -> str:
    """Milliseconds and ratios as Markdown; what an older file does not hold is left out."""
    seconds, batch_size = result["seconds"], result["arguments"]["batch_size"]
    names = list(seconds)
    first = seconds[names[0]]
    lines = []
    for part in PARTS:
        values = {name: seconds[name].get(part, 0.0) for name in names}
        if max(values.values()) < 5e-4:
            continue
        ratios = {name: f" (x{first[part] / value:.1f})" if part in COMPARED else "" for name, value in values.items()}
        ratios[names[0]] = ""
        mark = "**" if part == "step" else ""
        cells = [f"{mark}{1000 * values[name]:.0f}{ratios[name]}{mark}" for name in names]
        lines.append([f"{mark}{part}{mark}", *cells])
    low_high = [f"{1000 * low:.0f} - {1000 * high:.0f}" for low, high in result["step_range"].values()]
    lines.append(["fastest - slowest step", *low_high])
    lines.append(["images/s", *(f"{batch_size / seconds[name]['step']:.3g}" for name in names)])
    if "needed_flop" in result:
        shares = [_efficiency(result, name) for name in names]
        lines.append(["needed, GFLOP an image", *(number(result["needed_flop"][name] / 1e9) for name in names)])
        lines.append(["efficiency (needed work / peak)", *map(percent, shares)])
        lines.append(["memory, MiB", *(mebibytes(result["memory"][name]) for name in names)])
    if "recurrent_seconds" in result:
        taken = result["recurrent_seconds"]
        lines.append(["recurrent layers, forward", *(percent(taken[name] / seconds[name]["step"]) for name in names)])
    if any(result.get("host_waits", {}).values()):
        lines.append(["waits for the GPU in a step", *(str(result["host_waits"][name]) for name in names)])
    losses = ", ".join(f"{name} {losses[0]:.6g}" for name, losses in result["losses"].items())
    notes = [f"Loss of the first step: {losses}"]
    if result.get("largest_loss_difference") is not None:
        difference = result["largest_loss_difference"]
        notes.append(f"Largest relative difference of the losses of sides that compute the same: {difference:.1e}")
    return "\n".join([*rows(["ms", *names], lines), "", *notes])


def _efficiency(result: dict[str, Any], name: str) -> float | None:
    images = result["arguments"]["batch_size"]
    seconds, precision = result["seconds"][name]["step"], result["precision"][name]
    return efficiency(images * result["needed_flop"][name], seconds, result["peak"], precision)
