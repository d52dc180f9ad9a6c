"""`main.py --list`: every network with its paper, size, the weights it needs and what others have measured of it.

Sizes are those of the SR network that `--arch NAME` builds without further options; a recogniser that guides it is not
counted. MACs are the multiplications that one picture of 16x64 pixels takes at test: in convolutions, matrix products
and recurrent layers.
"""

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from easydict import EasyDict
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from interface.config import ConfigError, get, load_settings
from interface.doctor_weights import WEIGHTS
from interface.systems import build_system
from model import ModelSpec, list_models, model_spec

FORMS = ("text", "markdown")
JUDGES = ("CRNN", "MORAN", "ASTER")
HEAD = ("--arch", "parameters", "MACs", "weights", *JUDGES, "paper", "source", "licence")
UNKNOWN = "?"  # a licence that is not stated here: see the repository
GUIDES = "recognizer"  # begins the name of the part of a system that reads


@dataclass(frozen=True)
class Size:
    """Of an SR network, with how many multiplications it takes for one picture."""

    parameters: int
    macs: int


def _deformable(*shapes: Any, out_shape: Sequence[int] | None = None, **_: Any) -> int:
    """Operations of a deformable convolution, which PyTorch's counter does not know."""
    assert out_shape is not None
    kernel = shapes[1]
    return 2 * torch.Size(out_shape).numel() * torch.Size(kernel[1:]).numel()


def measure(config: EasyDict) -> Size:
    """Count the SR network of a configuration; nothing is computed."""
    shape = (1, 4 if config.MODEL.mask else 3, *(side // config.TRAIN.down_sample_scale for side in (32, 128)))
    # Built in earnest: some weights are drawn in ways that fake tensors do not know.
    system = build_system(config, training=False, pretrained=False).eval()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), unfused_attention():
        parts = system.published_parts()
        networks = [part for name, found in parts.items() if not name.startswith(GUIDES) for part in found]
        readers = [part for name, found in parts.items() if name.startswith(GUIDES) for part in found]
        recurrent, _ = ([count_recurrences(part) for part in parts] for parts in (networks, readers))
        importlib.import_module("torchvision")  # makes its operators known
        deformable = {torch.ops.torchvision.deform_conv2d: _deformable}
        with FlopCounterMode(display=False, custom_mapping=deformable) as counter, left_out(readers, counter) as read:
            system.super_resolve(torch.zeros(shape))
        operations = counter.get_total_flops() - sum(read)
    macs = operations // 2 + sum(map(sum, recurrent))
    return Size(sum(value.numel() for part in networks for value in part.parameters()), macs)


def count_recurrences(network: nn.Module) -> list[int]:
    """Count the multiplications of recurrent layers from now on, which then compute nothing.

    Each step multiplies every matrix of a layer by one vector. PyTorch's counter goes through all steps one by one.
    """
    taken: list[int] = []

    def counted(layer: nn.RNNBase) -> Callable[..., tuple[Tensor, None]]:
        def forward(sequence: Tensor, state: Tensor | None = None) -> tuple[Tensor, None]:
            steps = torch.Size(sequence.shape[:-1]).numel()
            taken.append(steps * sum(value.numel() for value in layer.parameters() if value.ndim == 2))
            return sequence.new_empty(*sequence.shape[:-1], layer.hidden_size * (1 + layer.bidirectional)), None

        return forward

    for layer in network.modules():
        if isinstance(layer, nn.RNNBase):
            layer.forward = counted(layer)
    return taken


@contextmanager
def unfused_attention() -> Iterator[None]:
    """Self-attention in steps that PyTorch's counter knows: in evaluation it is one operation, which counts nothing."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def left_out(readers: Sequence[nn.Module], counter: FlopCounterMode) -> Iterator[list[int]]:
    """Collect the operations that these modules take while the block runs."""
    before: list[int] = []
    taken: list[int] = []

    def begin(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        before.append(counter.get_total_flops())

    def end(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        taken.append(counter.get_total_flops() - before.pop())

    hooks = [
        hook
        for reader in readers
        for hook in (reader.register_forward_pre_hook(begin), reader.register_forward_hook(end))
    ]
    yield taken
    for hook in hooks:
        hook.remove()


def default_config(arch: str) -> EasyDict:
    """What `--arch NAME` alone stands for."""
    return load_settings(["--arch", arch, "--go_test"]).config


def needed_weights(spec: ModelSpec, config: EasyDict) -> str:
    """Files that a training of this network begins with."""
    named = [get(config, file.option) for file in WEIGHTS if spec.system in file.systems]
    return ", ".join(path.rpartition("/")[2] for path in named if path)


def row(arch: str, *, links: bool) -> tuple[str, ...]:
    """The cells of one network, in the order of `HEAD`."""
    spec, config = model_spec(arch), default_config(arch)
    size = measure(config)
    scores = [f"{spec.scores[judge]:.1f}" if judge in spec.scores else "-" for judge in JUDGES]
    places = [(f"[{name}]({address})" if links else address) if address else "-"
              for name, address in (("paper", spec.paper), ("code", spec.source))]  # fmt: skip
    licence = spec.licence or (UNKNOWN if spec.source else "-")
    weights = needed_weights(spec, config) or "-"
    name = f"`{arch}`" if links else arch
    return (name, f"{size.parameters / 1e6:.2f} M", f"{size.macs / 1e9:.2f} G", weights, *scores, *places, licence)


def table(form: str) -> str:
    """All networks for super-resolution as a table.

    Args:
        form: "text" or "markdown".
    """
    rows = [HEAD, *(row(arch, links=form == "markdown") for arch in list_models())]
    if form == "markdown":
        lines = [f"| {' | '.join(cells)} |" for cells in rows]
        return "\n".join([lines[0], "|" + "---|" * len(HEAD), *lines[1:]])
    paper = HEAD.index("paper")  # an address can be long: it comes last
    rows = [(*cells[:paper], *cells[paper + 1 :], cells[paper]) for cells in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in rows
    )


def run(arguments: Sequence[str] | None = None) -> int:
    """Print the table that a command line asks for; returns the exit code.

    Raises:
        ConfigError: the command line asks for more, or for a form that there is not.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    form = "text"
    given = [word for argument in arguments for word in argument.split("=", 1)]
    if len(given) == 2 and given[0] == "--list":
        form = given[1]
    if given[:1] != ["--list"] or len(given) > 2 or form not in FORMS:
        raise ConfigError(f"--list stands alone, or with one of {', '.join(FORMS)}; given was {' '.join(arguments)}")
    sys.stdout.write(table(form) + "\n")
    return 0
