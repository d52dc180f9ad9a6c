"""CUDA graphs: what networks ask of a GPU is recorded once and replayed, in inference and in training steps.

A picture is made by thousands of small operations, and a program needs longer to ask for them than a GPU to do them. So
what is asked for is recorded once for each size of a batch, and replayed for the next of that size.
"""

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from interface.systems.base import System

log = logging.getLogger(__name__)

KEPT = 4
"""Recordings: batches, the last of a data set, and single pictures."""

OWN = "thread_local"
"""What a recording forbids it forbids in its own thread: others may pin memory for the next batch meanwhile."""

SETTLED = 2
"""Training steps before one is recorded: libraries choose their ways in the first ones."""


class Replays:
    """`system.cascade` in evaluation, recorded and replayed where that can be done; elsewhere it is just called.

    Weights may change between calls, as they do between validations, but must stay where they are in memory.

    Args:
        enabled: False: just call it; may be changed.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self.enabled = enabled
        self._seen: set[Any] = set()
        self._refused: set[Any] = set()
        self._recorded: dict[Any, _Recording] = {}
        self._pool: Any = None

    def forget(self) -> None:
        """Give the memory of all recordings back."""
        self._recorded.clear()
        self._seen.clear()
        self._pool = None

    def __call__(self, system: System, images: Tensor) -> list[Tensor]:
        """(N, C, h, w) in [0, 1] -> one (N, C, H, W) picture per stage."""
        possible = images.device.type == "cuda" and not system.training and not torch.is_grad_enabled()
        if not possible or not self.enabled:
            return system.cascade(images)
        precision = _precision()
        key = (system, tuple(images.shape), images.stride(), images.dtype, precision)
        if key in self._recorded:
            return self._recorded[key](images)
        pictures = system.cascade(images)
        if key not in self._seen:  # a size that comes only once is not worth it
            self._seen.add(key)
        elif len(self._recorded) < KEPT and key not in self._refused:
            self._record(key, system, images, precision)
        return pictures

    def _record(self, key: Any, system: System, images: Tensor, precision: torch.dtype | None) -> None:
        try:
            # Results are copied at once, so recordings may use the same memory.
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            self._recorded[key] = _Recording(system, images, precision, self._pool)
        except RuntimeError as error:  # an operation that waits for the GPU, no memory left, ...
            self._refused.add(key)
            _tell(system, error)


def _precision() -> torch.dtype | None:
    """What autocast rounds to on a GPU; None where it is off."""
    return torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None


@contextmanager
def _recording() -> Iterator[None]:
    """What recordings need around them.

    Nothing on the GPU may be freed meanwhile, so Python's collector does its work before and then rests. A recording
    that fails leaves the random generator waiting for its end; then it gets its state of before.
    """
    generator = torch.cuda.default_generators[torch.cuda.current_device()]
    before = torch.Generator(device=generator.device)
    before.set_state(generator.get_state())
    gc.collect()
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    except RuntimeError:
        generator.graphsafe_set_state(before)
        raise
    finally:
        if collects:
            gc.enable()


def _tell(module: nn.Module, error: RuntimeError) -> None:
    first = str(error).strip().splitlines()[0]
    log.info("%s cannot be recorded as a CUDA graph (%s), so it runs as it is", type(module).__name__, first)


class _Recording:
    def __init__(self, system: System, images: Tensor, precision: torch.dtype | None, pool: Any) -> None:
        with torch.inference_mode(False):  # what is made there could not be written to elsewhere
            self._images = images.clone(memory_format=torch.preserve_format)
        self._graph = torch.cuda.CUDAGraph()
        # Rounded weights that autocast keeps would be gone when the graph is replayed.
        with torch.autocast("cuda", dtype=precision, enabled=precision is not None, cache_enabled=False):
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):  # libraries set themselves up in a first call, which no recording may hold
                system.cascade(self._images)
            torch.cuda.current_stream().wait_stream(aside)
            with _recording(), torch.cuda.graph(self._graph, pool=pool, capture_error_mode=OWN):
                self._pictures = system.cascade(self._images)

    def __call__(self, images: Tensor) -> list[Tensor]:
        self._images.copy_(images)
        self._graph.replay()
        return [pictures.clone() for pictures in self._pictures]  # the next replay writes over them


class RecordedSteps:
    """The forward and backward pass of a network in training, recorded when the same size has come a few times.

    It takes the place of `network.forward`. What a step keeps for its backward pass lies where the next call of the
    same recording writes, and so do the gradients: between two calls there must be a backward pass, an optimizer's step
    and `zero_grad(set_to_none=True)`.

    Args:
        network: called with tensors alone; returns one.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network, self._plain = network, network.forward
        self._calls: dict[Any, int] = {}
        self._recorded: dict[Any, Any] = {}
        self._impossible = False

    @classmethod
    def install(cls, network: nn.Module) -> None:
        """Let a network be recorded; elsewhere than on a GPU nothing changes but a detour."""
        network.forward = cls(network)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """As the network's own forward pass."""
        possible = inputs[0].device.type == "cuda" and self._network.training and torch.is_grad_enabled()
        if not possible or self._impossible:
            return self._call(inputs)
        key = (_precision(), *((tuple(x.shape), x.stride(), x.dtype, x.requires_grad) for x in inputs))
        if key not in self._recorded and not self._recorded:  # one size; what differs is the rest of an epoch
            self._calls[key] = self._calls.get(key, 0) + 1
            if self._calls[key] > SETTLED:
                self._record(key, inputs)
        recorded = self._recorded.get(key)
        if recorded is None:
            return self._call(inputs)
        result: Tensor = recorded(*inputs)
        return result

    def _call(self, inputs: tuple[Tensor, ...]) -> Tensor:
        result: Tensor = self._plain(*inputs)
        return result

    def _record(self, key: Any, inputs: tuple[Tensor, ...]) -> None:
        network, precision = self._network, _precision()
        outside = network.__dict__["forward"]  # this object, or what has been put around it
        buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]  # the recorder tries the network out
        generator = torch.cuda.get_rng_state()
        samples = tuple(x.detach().clone(memory_format=torch.preserve_format) for x in inputs)
        for sample, given in zip(samples, inputs, strict=True):
            sample.requires_grad_(given.requires_grad)
        network.forward = self._plain
        try:
            lower = torch.autocast("cuda", dtype=precision, enabled=precision is not None, cache_enabled=False)
            with _recording(), lower:
                record: Any = torch.cuda.make_graphed_callables
                mode = {"capture_error_mode": OWN} if "capture_error_mode" in signature(record).parameters else {}
                record(network, samples, allow_unused_input=True, **mode)
            self._recorded[key] = network.forward
        except RuntimeError as error:
            self._impossible = True
            _tell(network, error)
        finally:
            network.forward = outside
            torch.cuda.set_rng_state(generator)
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)
