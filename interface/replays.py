"""Inference on a GPU without the time that it takes to give it its work: CUDA graphs.

A picture is made by thousands of small operations, and a program needs longer to ask for them than a GPU to do them. So
what is asked for is recorded once for each size of a batch, and replayed for the next of that size.
"""

import logging
from typing import Any

import torch
from torch import Tensor

from interface.systems.base import System

log = logging.getLogger(__name__)

KEPT = 4
"""Recordings: batches, the last of a data set, and single pictures. Each holds memory for all its maps."""


class Replays:
    """`system.cascade` in evaluation, recorded and replayed where that can be done; elsewhere it is just called.

    Weights may change between calls, as they do between validations, but must stay where they are in memory.

    Attributes:
        enabled: False: just call it.
    """

    def __init__(self) -> None:
        self.enabled = True
        self._seen: set[Any] = set()
        self._recorded: dict[Any, _Recording] = {}
        self._impossible = False

    def __call__(self, system: System, images: Tensor) -> list[Tensor]:
        """(N, C, h, w) in [0, 1] -> one (N, C, H, W) picture per stage."""
        possible = images.device.type == "cuda" and not system.training and not torch.is_grad_enabled()
        if not possible or not self.enabled or self._impossible:
            return system.cascade(images)
        precision = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
        key = (system, tuple(images.shape), images.stride(), images.dtype, precision)
        if key in self._recorded:
            return self._recorded[key](images)
        pictures = system.cascade(images)
        if key not in self._seen:  # a size that comes only once is not worth it
            self._seen.add(key)
        elif len(self._recorded) < KEPT:
            self._record(key, system, images, precision)
        return pictures

    def _record(self, key: Any, system: System, images: Tensor, precision: torch.dtype | None) -> None:
        try:
            self._recorded[key] = _Recording(system, images, precision)
        except RuntimeError as error:  # an operation that waits for the GPU, or that no recording can hold
            self._impossible = True
            first = str(error).strip().splitlines()[0]
            log.info("%s cannot be recorded as a CUDA graph (%s), so it runs as it is", type(system).__name__, first)


class _Recording:
    def __init__(self, system: System, images: Tensor, precision: torch.dtype | None) -> None:
        self._images = images.clone(memory_format=torch.preserve_format)
        self._graph = torch.cuda.CUDAGraph()
        # Rounded weights that autocast keeps would be gone when the graph is replayed.
        with torch.autocast("cuda", dtype=precision, enabled=precision is not None, cache_enabled=False):
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):  # libraries set themselves up in a first call, which no recording may hold
                system.cascade(self._images)
            torch.cuda.current_stream().wait_stream(aside)
            with torch.cuda.graph(self._graph):
                self._pictures = system.cascade(self._images)

    def __call__(self, images: Tensor) -> list[Tensor]:
        self._images.copy_(images)
        self._graph.replay()
        return [pictures.clone() for pictures in self._pictures]  # the next replay writes over them
