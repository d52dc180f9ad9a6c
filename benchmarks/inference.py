"""How long super-resolution takes, by the SR network alone, and what the straightforward way makes of it.

Evaluation mode, from LR pictures and two text clues to SR pictures; recognisers and the language model are left out.
All sides run in turn in one process with the same random weights on the same random pictures, so quote their ratio.
"""

import argparse
import copy
import statistics
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measuring import timed
from benchmarks.recognisers import number
from benchmarks.straightforward import straighten
from interface.config import load_settings
from interface.systems.base import build_network
from model.blocks.clue_guided import NUM_CLASSES, NUM_COLUMNS

BLEND = 0.3  # of the pixel adapter, which does nothing in a fresh network
SAMPLES = 16  # pictures whose statistics are those of the normalisations
FIRST = "straightforward"
SIDES = (FIRST, "ours", "ours, bf16")


def build(arch: str, pictures: Tensor, clues: list[Tensor]) -> nn.Module:
    """A random network in evaluation mode, all of whose parts count: none of its layers is the identity."""
    torch.manual_seed(0)
    config = load_settings(["--arch", arch, "--mask", "--triple_clues", "--tpg_pretrained", "unused"]).config
    network = build_network(config)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(".gama"):
                parameter.fill_(BLEND)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        network.train()(pictures[:SAMPLES], *(clue[:SAMPLES] for clue in clues))
    return network.eval().requires_grad_(False)


def sides(arch: str, pictures: Tensor, clues: list[Tensor]) -> dict[str, Callable[[int], Tensor]]:
    """The ways to super-resolve the first pictures, given their number."""
    network = build(arch, pictures.cpu(), [clue.cpu() for clue in clues])
    theirs = straighten(copy.deepcopy(network)).to(pictures.device)
    ours = network.to(pictures.device).to(memory_format=torch.channels_last)

    def resolve(network: nn.Module, count: int, *, lower: bool = False) -> Tensor:
        with torch.inference_mode(), torch.autocast(pictures.device.type, dtype=torch.bfloat16, enabled=lower):
            sr: Tensor = network(pictures[:count], *(clue[:count] for clue in clues))
        return sr.float()

    ways = (
        lambda count: resolve(theirs, count),
        lambda count: resolve(ours, count),
        lambda count: resolve(ours, count, lower=True),
    )
    return dict(zip(SIDES, ways, strict=True))


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds a batch of every side, at every batch size, and how far their pictures are from the straightforward."""
    generator, count = torch.Generator().manual_seed(0), max(SAMPLES, *args.batch_size)
    pictures = torch.rand(count, 4, 16, 64, generator=generator).to(args.device)
    clues = [
        torch.randn(count, NUM_CLASSES, 1, NUM_COLUMNS, generator=generator).mul(4).softmax(dim=1).to(args.device)
        for _ in range(2)
    ]
    ways, batches = sides(args.arch, pictures, clues), {}
    for batch_size in args.batch_size:
        expected = ways[FIRST](batch_size)
        difference = {name: (way(batch_size) - expected).abs().max().item() for name, way in ways.items()}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(args.repeats):
            for name, way in ways.items():  # in turn, so that whatever else the machine does meets all of them
                seconds[name].append(timed(lambda: way(batch_size), pictures.device)[1])  # noqa: B023
        batches[str(batch_size)] = {"seconds": seconds, "difference": difference}
        print(f"batch {batch_size}: {args.repeats} of {args.repeats}", file=sys.stderr)
    return {"batches": batches}


def table(result: dict[str, Any]) -> str:
    """Milliseconds a batch, pictures a second, ratios and differences as Markdown."""
    lines = ["| batch | side | ms | images/s | ratio | largest difference |", "|---" * 6 + "|"]
    for size, batch in result["batches"].items():
        middle = {name: statistics.median(values) for name, values in batch["seconds"].items()}
        for name, values in batch["seconds"].items():
            cells = [
                size,
                name,
                f"{number(1000 * middle[name])} [{number(1000 * min(values))} - {number(1000 * max(values))}]",
                number(int(size) / middle[name]),
                f"x{middle[FIRST] / middle[name]:.2f}",
                f"{batch['difference'][name]:.1e}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
