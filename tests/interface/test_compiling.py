"""--compile reaches what a training step calls."""

import pytest
import torch
from torch import nn

from interface.compiling import compile_networks
from interface.systems import SYSTEMS


class Doubling(nn.Module):
    """Twice its input, by either name."""

    def forward(self, x):
        return 2 * x

    def guided(self, x):
        return 2 * x


@pytest.mark.parametrize("method", ["forward", "guided"])
def test_the_method_that_is_named_is_translated(method):
    network, graphs = Doubling(), []
    compile_networks([network], method, backend=lambda graph, _: graphs.append(graph) or graph.forward)
    call = network if method == "forward" else network.guided
    assert graphs == []
    assert torch.equal(call(torch.ones(2)), torch.full((2,), 2.0))
    assert len(graphs) == 1
    assert not network.state_dict()


def test_recipes_name_what_their_steps_call():
    methods = {name: system.method for name, system in SYSTEMS.items()}
    others = {name: method for name, method in methods.items() if method != "forward"}
    assert others == {
        "semantic": "guided",
        "semantic_attention": "guided",
        **{name: "predict" for name in methods if name.startswith("recognizer_") and name != "recognizer_ctc"},
    }
