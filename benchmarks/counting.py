"""How many operations a work takes, and which parameters it uses: counted while it is done, not guessed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measuring import Clock

CPU = torch.device("cpu")


def deformable(*shapes: Any, out_shape: Sequence[int] | None = None, **_: Any) -> int:
    """Operations of a deformable convolution, given the shapes of its arguments."""
    assert out_shape is not None
    kernel = shapes[1]
    return 2 * torch.Size(out_shape).numel() * torch.Size(kernel[1:]).numel()


def lstm_layer(*shapes: Any, **_: Any) -> int:
    """Operations of one direction of an LSTM on a CPU, given the shapes of its arguments: input, two matrices, ..."""
    (steps, words, _), *matrices = shapes[:3]
    return 2 * steps * words * sum(torch.Size(matrix).numel() for matrix in matrices)


def counter() -> FlopCounterMode:
    """Counts operations while it is entered: convolutions, matrix products and recurrent layers."""
    known = {
        torch.ops.torchvision.deform_conv2d: deformable,  # PyTorch's counter knows neither of the two
        torch.ops.aten.mkldnn_rnn_layer: lstm_layer,
    }
    return FlopCounterMode(display=False, custom_mapping=known)


def operations(work: Callable[[], object]) -> int:
    """Floating-point operations, two for a multiplication and an addition."""
    with counter() as counted:
        work()
    return int(counted.get_total_flops())


def by_part(work: Callable[[Clock], object]) -> dict[str, float]:
    """Operations of the parts of a work that measures itself by a clock, and of the rest as "other"."""
    with counter() as counted:
        clock = Clock(CPU, counted.get_total_flops)
        work(clock)
        parts = clock.take()
        rest = counted.get_total_flops() - sum(parts.values())
        return {**parts, "other": parts.get("other", 0.0) + rest}


class UsedParameters(TorchFunctionMode):
    """Collects the parameters that functions of PyTorch are called with."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[int, nn.Parameter] = {}

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Note them and go on."""
        for value in tree_leaves((args, dict(kwargs or {}))):
            if isinstance(value, nn.Parameter):
                self.found[id(value)] = value
        return function(*args, **(kwargs or {}))


def used_parameters(work: Callable[[], object]) -> int:
    """Numbers in all parameters that a work takes part of; others may be there for training alone."""
    with UsedParameters() as used:
        work()
    return sum(parameter.numel() for parameter in used.found.values())
