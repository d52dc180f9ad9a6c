"""Networks that only infer: a few pictures at a time on a CPU, and with weights in the precision they are used in."""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from model.blocks.convolution import PictureConv2d

Network = TypeVar("Network", bound=nn.Module)

AT_ONCE = 16
"""Pictures: the maps of more do not stay in a CPU's cache, and fewer leave its vector units waiting."""

# What autocast would run in the lower precision, weights included. Those that inherit from these have reasons of
# their own, but for one.
LOWERED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.LSTM, PictureConv2d)


def in_parts(network: Any, images: Tensor, *clues: Tensor) -> Tensor:
    """`network(images, *clues)`; in evaluation on a CPU, `AT_ONCE` pictures after the other.

    Unless the network's `whole_batches` says that what becomes of a picture depends on the others.
    """
    whole = network.training or getattr(network, "whole_batches", False)
    if whole or images.device.type != "cpu" or torch.is_grad_enabled() or len(images) <= AT_ONCE:
        result: Tensor = network(images, *clues)
        return result
    starts = range(0, len(images) - 1, AT_ONCE)  # the last part has two pictures or more: one alone takes other kernels
    parts = [slice(start, start + AT_ONCE if start + AT_ONCE < len(images) - 1 else None) for start in starts]
    return torch.cat([network(images[part], *(clue[part] for clue in clues)) for part in parts])


def lower_weights(system: nn.Module, dtype: torch.dtype) -> None:
    """Round the weights, in place, as autocast to `dtype` would in every call; the system cannot be trained any more.

    What comes out under autocast on a CPU stays the same, bit by bit. LSTMs elsewhere are left to autocast: for those
    of cuDNN it takes float16 whatever `dtype` is, so they would be rounded twice.
    """
    system.requires_grad_(False)
    for module in system.modules():
        elsewhere = any(parameter.device.type != "cpu" for parameter in module.parameters(recurse=False))
        if type(module) in LOWERED and not (elsewhere and isinstance(module, nn.LSTM)):
            module.to(dtype)


def lay_channels_together(module: Network) -> Network:
    """Change a network in place, and return it, so that the channels of a pixel lie together in memory.

    Convolutions are then a fifth faster on a CPU, and take tensor cores on a GPU.
    `module.to(memory_format=...)` fails where a network has three-dimensional convolutions; those stay as they are.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return module
