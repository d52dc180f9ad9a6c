"""torch.compile, where it works."""

import logging

import torch
from torch import nn

log = logging.getLogger(__name__)


def compile_networks(networks: list[nn.Module], backend: str = "inductor") -> None:
    """Let networks be translated for their device when they are first called, in place; state keys stay as they are.

    What cannot be translated - recurrent layers, or all of it where there is no C++ compiler - runs as it is, and the
    log says so.
    """
    dynamo = torch._dynamo.config
    dynamo.suppress_errors = True  # it then warns, and goes on without
    for network in networks:
        network.compile(dynamic=False, backend=backend)
    log.info("%d networks are translated by torch.compile when they are first used; this takes a while", len(networks))
