"""torch.compile, where it works."""

import logging
from typing import Any

import torch
from torch import nn

log = logging.getLogger(__name__)


def compile_networks(networks: list[nn.Module], method: str = "forward", backend: Any = "inductor") -> None:
    """Let networks be translated for their device when they are first called, in place; state keys stay as they are.

    What cannot be translated - recurrent layers, or all of it where there is no C++ compiler - runs as it is, and the
    log says so.

    Args:
        networks: to be translated.
        method: of theirs that a training step calls.
        backend: of torch.compile, a name or a function.
    """
    dynamo = torch._dynamo.config
    dynamo.suppress_errors = True  # it then warns, and goes on without
    for network in networks:
        if method == "forward":
            network.compile(dynamic=False, backend=backend)
        else:
            setattr(network, method, torch.compile(getattr(network, method), dynamic=False, backend=backend))
    log.info("%d networks are translated by torch.compile when they are first used; this takes a while", len(networks))
