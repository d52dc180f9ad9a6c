"""Fused loops for inference on CPUs, where numba is installed; PyTorch's own operations do the same without.

A GRU of few units, or a chain of element-wise operations, spends most of its time between them. The loops are those of
`model/blocks/compiled.py`; what a sequence or a picture becomes does not depend, bit by bit, on those beside it, nor
on the number of threads.
"""

import functools
import importlib
import itertools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

log = logging.getLogger(__name__)


def usable(x: Tensor) -> bool:
    """Whether the loops can take over what is done to `x`.

    That is inference alone (`torch.inference_mode`): nothing there asks for gradients or watches single operations.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or not torch.is_inference_mode_enabled():
        return False
    plain = type(x) is Tensor and x.device.type == "cpu" and x.dtype == torch.float32 and x.numel() > 0
    return plain and _loops() is not None


def read(gru: nn.GRU, x: Tensor, pointwise: nn.Conv2d | None, *, columns: bool) -> Tensor:
    """Let a bidirectional GRU of one layer read the rows or the columns of a map, after a 1x1 convolution.

    Args:
        gru: from C to 2 * H channels.
        x: (N, C, H, W), `usable`; without a copy if its channels lie together in memory.
        pointwise: the convolution, which becomes a part of the GRU's weights for its input. None if there is none.
        columns: read the columns.

    Returns:
        (N, 2 * H, H, W), channels together in memory.
    """
    loops = _loops()
    assert loops is not None
    input_weight, input_bias, state_weight, state_bias = _gru_weights(gru, loops.LANES)
    if pointwise is not None:
        with torch.autocast("cpu", enabled=False):
            if pointwise.bias is not None:
                input_bias = torch.addmv(input_bias, input_weight, pointwise.bias)
            input_weight = input_weight @ pointwise.weight.flatten(1)
    count, _, height, width = x.shape
    pixels = x.permute(0, 2, 3, 1).flatten(1, 2)
    out = pixels.new_empty(count, height * width, 2, gru.hidden_size)
    inner, steps = (width, height) if columns else (height, width)
    strides = (height * width, *((1, width) if columns else (width, 1)))
    weights = state_weight.numpy(), state_bias.numpy()
    for given, result in in_parts(pixels, out):
        with torch.autocast("cpu", enabled=False):
            projected = F.linear(given, input_weight, input_bias).view(-1, 2, 3, gru.hidden_size)
        arrays = projected.numpy(), *weights, result.flatten(0, 1).numpy()
        _share_out(loops.gru, len(given) * inner, loops.TILE, *arrays, strides, inner, steps)
    return out.view(count, height, width, -1).permute(0, 3, 1, 2)


def in_parts(pixels: Tensor, out: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Both cut along their first axis, a picture for each thread: what is made of it on the way stays in the cache."""
    threads = torch.get_num_threads()
    return zip(pixels.split(threads), out.split(threads), strict=True)


def _gru_weights(gru: nn.GRU, lanes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights and biases of the input for all gates of both directions, and of the state as the loop wants them."""
    assert gru.bidirectional and gru.num_layers == 1 and gru.bias
    size, ends = gru.hidden_size, ("", "_reverse")
    input_weight, input_bias, state_weight, state_bias = (
        torch.stack([gru.get_parameter(f"{name}_l0{end}") for end in ends])
        for name in ("weight_ih", "bias_ih", "weight_hh", "bias_hh")
    )
    input_bias[:, : 2 * size] += state_bias[:, : 2 * size]  # the candidate's is multiplied by the reset gate first
    padded = F.pad(state_weight, (0, 0, 0, -3 * size % lanes))
    panels = padded.unflatten(1, (-1, lanes)).transpose(2, 3).contiguous()
    return input_weight.flatten(0, 1), input_bias.flatten(), panels, state_bias[:, 2 * size :].contiguous()


def mixes(channels: int) -> bool:
    """Whether `mix` can take so many channels."""
    loops = _loops()
    return loops is not None and channels % loops.LANES == 0


def mix(pixels: Tensor, weights: Sequence[Tensor], width: int, out: Tensor) -> None:
    """Token mixing of whole pictures in place and into `out`, see `mix` in `model/blocks/compiled.py`.

    Its arguments from `along_h` to `outer_bias` are the `weights`.
    """
    loops = _loops()
    assert loops is not None
    arrays = [value.numpy() for value in (pixels, *weights)]
    _share_out(loops.mix, len(pixels), 1, *arrays, width, out.numpy())


def _share_out(loop: Callable[..., None], count: int, least: int, *arguments: Any) -> None:
    """`loop(first, last, *arguments)` on parts of `range(count)`, a thread each, of `least` if there are so many."""
    threads = min(torch.get_num_threads(), max(1, count // least))
    if threads == 1:
        loop(0, count, *arguments)
        return
    ends = [count * number // threads for number in range(threads + 1)]
    pool = _threads(os.getpid(), threads)
    for part in [pool.submit(loop, first, last, *arguments) for first, last in itertools.pairwise(ends)]:
        part.result()


@functools.cache
def _threads(process: int, number: int) -> ThreadPoolExecutor:
    """Threads of this process: after a fork there are none in the new one."""
    return ThreadPoolExecutor(number)


@functools.cache
def _loops() -> ModuleType | None:
    """Imported at the first use: a training does without, and so can everything."""
    try:
        loops = importlib.import_module("model.blocks.compiled")
    except (ImportError, OSError):  # missing, or made for another system or NumPy
        return None
    units, lanes = loops.LANES, loops.LANES
    projected, weight = np.zeros((1, 2, 3, units), np.float32), np.zeros((2, 3, units, lanes), np.float32)
    bias, out = np.zeros((2, units), np.float32), np.zeros((1, 2, units), np.float32)
    try:
        loops.gru(0, 1, projected, weight, bias, out, (1, 1, 1), 1, 1)
    except Exception as error:  # of a compiler: what it raises is not documented
        log.warning("networks infer by PyTorch's operations, which is slower: numba does not work here: %s", error)
        return None
    return loops
