"""How long super-resolution takes, and what the straightforward way makes of it.

Two works: the SR network alone, from LR pictures and what it is guided by to SR pictures, and where a recogniser reads
the LR pictures for that, the whole path from LR pictures. Evaluation mode, random weights, random pictures. All sides
run in turn in one process with the same weights, so quote their ratio.
"""

import argparse
import copy
import statistics
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import counting
from benchmarks.building import SAMPLES, STRAIGHTFORWARD, guides_of, networks_of, ready_system
from benchmarks.measuring import (
    Clock,
    efficiency,
    in_turn,
    mebibytes,
    number,
    peak_memory,
    percent,
    rows,
    spread,
    state_bytes,
)
from benchmarks.straightforward import straighten
from benchmarks.straightforward_evaluation import super_resolve
from interface.inference import in_parts, lay_channels_together, lower_weights
from interface.onnx_export import onnx_model
from interface.onnx_runtime import OnnxPath
from interface.replays import Replays
from interface.systems import System

FIRST = "straightforward"
OURS, BF16, ONNX = "ours", "ours, bf16", "ours, ONNX Runtime"
GRAPH = ", CUDA graph"
ALONE, PATH = "SR network", "path"
PRECISION = {FIRST: "float32", OURS: "float32", BF16: "bfloat16", ONNX: "float32"}
PRECISION |= {OURS + GRAPH: "float32", BF16 + GRAPH: "bfloat16"}

Way = Callable[[int], Tensor]


def given_to(network: nn.Module, work: Callable[[], object]) -> tuple[Tensor, ...]:
    """What a network is called with at first while something is done."""
    seen: list[tuple[Any, ...]] = []
    hook = network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    with torch.enable_grad():  # without, it would be given a part of the pictures
        work()
    hook.remove()
    return tuple(value.detach() for value in seen[0])


def works_of(system: System, given: tuple[Tensor, ...]) -> dict[str, Way]:
    """What can be done, as the program does it, with so many of the pictures that the first SR network was `given`."""
    network, pictures = networks_of(system)[0], given[0]

    def alone(count: int) -> Tensor:
        images, *clues = (value[:count] for value in given)
        return in_parts(network, images, *clues)

    works: dict[str, Way] = {ALONE: alone}
    if guides_of(system):
        works[PATH] = lambda count: system.super_resolve(pictures[:count])
    return works


def straightforward_works(system: Any, given: tuple[Tensor, ...]) -> dict[str, Way]:
    """The same by the long way, for a straightened system of one stage, which takes all pictures at once."""
    clock = Clock(given[0].device)
    clock.running = False
    network = networks_of(system)[0]

    def alone(count: int) -> Tensor:
        sr: Tensor = network(*(value[:count] for value in given))
        return sr

    return {ALONE: alone, PATH: lambda count: super_resolve(system, given[0][:count], None, clock)}


def sides(arch: str, system: System, given: tuple[Tensor, ...], against: str) -> dict[str, dict[str, Way]]:
    """{work: {side: how to super-resolve the first pictures, given their number}}."""
    device = given[0].device
    theirs = straighten(copy.deepcopy(system)).to(device) if arch in STRAIGHTFORWARD and against == FIRST else None
    lowered = lay_channels_together(copy.deepcopy(system).to(device))
    lower_weights(lowered, torch.bfloat16)  # as a test in bf16 does
    ours = works_of(lay_channels_together(system.to(device)), given)

    def quiet(work: Way, *, lower: bool = False) -> Way:
        def resolve(count: int) -> Tensor:
            with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=lower):
                sr = work(count)
            return sr.float()

        return resolve

    found: dict[str, dict[str, Way]] = {name: {} for name in ours}
    if theirs is not None:
        for name, work in straightforward_works(theirs, given).items():
            found[name][FIRST] = quiet(work)
    for name, work in works_of(lowered, given).items():
        found[name] |= {OURS: quiet(ours[name]), BF16: quiet(work, lower=True)}
    if device.type == "cuda":
        whole = list(ours)[-1]
        found[whole] |= {OURS + GRAPH: quiet(replayed(system, given[0]))}
        found[whole] |= {BF16 + GRAPH: quiet(replayed(lowered, given[0]), lower=True)}
    return found


def replayed(system: System, pictures: Tensor) -> Way:
    """All that a system does, as tests and demos do it on a GPU."""
    replays = Replays()

    def resolve(count: int) -> Tensor:
        return replays(system, pictures[:count])[-1]

    return resolve


def by_onnx(system: System, pictures: Tensor) -> Way:
    """The whole of what a system does with the first pictures, by ONNX Runtime."""
    shape = (pictures.shape[1], pictures.shape[2], pictures.shape[3])
    path = OnnxPath(onnx_model(system, shape, {}), threads=torch.get_num_threads())
    return lambda count: path.super_resolve(pictures[:count])


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Size and speed of every network, and how far the sides are apart."""
    return {"networks": {arch: measure_network(arch, args) for arch in args.arch}}


def measure_network(arch: str, args: argparse.Namespace) -> dict[str, Any]:
    """{work: {"parameters" and "macs" for a picture, "state" in bytes, "batches"}}."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(max(SAMPLES, *args.batch_size), 4, 16, 64, generator=generator)
    system = ready_system(arch, pictures)
    usual = pictures if takes_mask(system, pictures) else pictures[:, :3]
    given = given_to(networks_of(system)[0], lambda: system.cascade(usual))
    sizes = {name: size_of(work) for name, work in works_of(system, given).items()}
    networks = {ALONE: state_bytes(networks_of(system)[0]), PATH: state_bytes(system)}
    assert len(given[0]) == len(pictures)
    given = tuple(value.to(args.device) for value in given)
    found: dict[str, Any] = {}
    works = sides(arch, system, given, args.against)
    if args.onnx:
        works[PATH if PATH in works else ALONE][ONNX] = by_onnx(system, usual)
    for name, ways in works.items():
        batches = {}
        for batch_size in args.batch_size:
            batches[str(batch_size)] = measure_batch(ways, batch_size, args.repeats, given[0].device)
            print(f"{arch}, {name}, batch {batch_size}", file=sys.stderr)
        found[name] = {**sizes[name], "state": networks[name], "batches": batches}
    return found


def takes_mask(system: System, pictures: Tensor) -> bool:
    """Whether pictures have a fourth plane for this system."""
    return bool(getattr(networks_of(system)[0], "in_channels", 3) == pictures.shape[1])


def size_of(work: Way) -> dict[str, int]:
    """Parameters that a picture takes part of, and multiplications for it; counted on two of them."""
    with torch.no_grad():
        return {
            "parameters": counting.used_parameters(lambda: work(2)),
            "macs": counting.operations(lambda: work(2)) // 4,
        }


def measure_batch(ways: dict[str, Way], batch_size: int, repeats: int, device: torch.device) -> dict[str, Any]:
    """Seconds of every side for a batch, memory beside the weights, and how far its pictures are from the first's."""
    expected = next(iter(ways.values()))(batch_size)
    difference, memory = {}, {}
    for name, way in ways.items():
        sr, memory[name] = peak_memory(lambda: way(batch_size), device)  # noqa: B023 - called at once
        if name.endswith(GRAPH):
            way(batch_size)  # recorded when a size comes again
        difference[name] = (sr - expected).abs().max().item()
    calls: dict[str, Callable[[], object]] = {name: lambda way=way: way(batch_size) for name, way in ways.items()}  # type: ignore[misc]
    return {"seconds": in_turn(calls, repeats, device), "difference": difference, "memory": memory}


def table(result: dict[str, Any]) -> str:
    """Milliseconds a batch, pictures a second, ratios, efficiency, memory and differences as Markdown."""
    if len(result["networks"]) > 1:
        return overview(result)
    head = ["network", "parameters", "MACs", "batch", "side", "ms", "images/s", "ratio", "efficiency", "memory, MiB"]
    cells = []
    for arch, works in result["networks"].items():
        for work, found in works.items():
            name = f"{arch}, {work}" if len(works) > 1 else arch
            size = (
                [f"{found['parameters'] / 1e6:.2f} M", f"{found['macs'] / 1e9:.2f} G"] if "macs" in found else ["", ""]
            )
            for batch_size, batch in found["batches"].items():
                cells += [[name, *size, batch_size, *line] for line in _lines(result, found, int(batch_size), batch)]
    return "\n".join(rows([*head, "largest difference"], cells))


def _lines(result: dict[str, Any], found: dict[str, Any], size: int, batch: dict[str, Any]) -> list[list[str]]:
    """The cells of every side at one batch size; what an older file does not hold is empty."""
    middle = {name: statistics.median(values) for name, values in batch["seconds"].items()}
    first, lines = next(iter(middle)), []
    for name, values in batch["seconds"].items():
        flop, peaks = 2 * size * found.get("macs", 0), result.get("peak", {})
        memory = batch.get("memory", {}).get(name)
        lines.append(
            [
                name,
                spread(values, 1000),
                number(size / middle[name]),
                f"x{middle[first] / middle[name]:.2f}" if name != first else "",
                percent(efficiency(flop, middle[name], peaks, PRECISION[name])),
                mebibytes(memory + found["state"] if memory is not None else None),
                f"{batch['difference'][name]:.1e}" if name != first else "",
            ]
        )
    return lines


def overview(result: dict[str, Any]) -> str:
    """Several networks, a line for each work: our sides at the smallest and the largest batch, as Markdown."""
    sizes = sorted(map(int, next(iter(next(iter(result["networks"].values())).values()))["batches"]))
    small, large = sizes[0], sizes[-1]
    head = ["network", "work", "parameters", "MACs", f"ms, batch {small}", f"images/s, batch {large}", "efficiency"]
    head += ["images/s, bf16", "efficiency, bf16", "memory, MiB"]
    lines = []
    for arch, works in result["networks"].items():
        for work, found in works.items():
            ways = found["batches"][str(small)]["seconds"]
            latency = statistics.median(ways.get(OURS + GRAPH, ways[OURS]))
            batch, cells = found["batches"][str(large)], []
            for plain in (OURS, BF16):
                side = plain + GRAPH if plain + GRAPH in batch["seconds"] else plain
                seconds = statistics.median(batch["seconds"][side])
                share = efficiency(2 * large * found["macs"], seconds, result.get("peak", {}), PRECISION[side])
                cells += [number(large / seconds), percent(share)]
            memory = batch["memory"].get(OURS)
            held = mebibytes(memory + found["state"] if memory is not None else None)
            size = [f"{found['parameters'] / 1e6:.2f} M", f"{found['macs'] / 1e9:.2f} G"]
            lines.append([arch, work, *size, number(1000 * latency), *cells, held])
    return "\n".join(rows(head, lines))
