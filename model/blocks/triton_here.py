"""Whether the Triton kernels of this package work where a map lies."""

import importlib
import logging
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)


def kernel_type(x: Tensor) -> torch.dtype | None:
    """The type of a layer's output for this input, under autocast too, or None where no kernel serves."""
    if x.device.type != "cuda" or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return None
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
    return dtype if dtype in (torch.float32, torch.bfloat16, torch.float16) else None


@cache
def translated(name: str, without: str, device: torch.device, *case: Any, backward: bool) -> ModuleType | None:
    """The module of a kernel, once its kernel has run for such a case, or None, where a warning says why.

    Kernels run on NVIDIA GPUs of compute capability 8.0 or higher, with Triton, which comes with PyTorch for Linux,
    and a C compiler, which Triton needs.

    Args:
        name: of a module of this package; its `rehearse(device, *case, backward)` translates and starts the kernels.
        without: what happens without it, for the warning.
        device: a GPU.
        case: what the translation depends on, as `rehearse` takes it.
        backward: the backward kernel is needed, too.
    """
    if torch.version.hip or torch.cuda.get_device_capability(device) < (8, 0):
        return None
    try:
        module = importlib.import_module(f"model.blocks.{name}")
    except ImportError:
        return None
    try:
        module.rehearse(device, *case, backward=backward)
    except torch.OutOfMemoryError:  # says nothing about Triton
        raise
    except Exception as error:  # of a compiler, a linker, a driver: what they raise is not documented
        log.warning("%s, which is slower, since Triton does not work here: %s", without, error)
        return None
    return module
