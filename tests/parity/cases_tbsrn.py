"""TBSRN against the published implementation."""

import torch

from interface.checkpoint import clean_state, load_weights
from model import build_model, identify
from tests.parity.vectors import Case, assert_close, handles

MODULE, NETWORK = 1e-5, 1e-4


@handles("zoo/tbsrn")
@torch.no_grad()
def tbsrn(case: Case) -> None:
    # As the case asks in words, the scale of the layer norms is 1 + 5 times the usual value.
    filled = {
        key: 1 + 5 * value if key.endswith(".a_2") else value
        for key, value in case.state().items()
        if key not in case.meta["constant_buffers_not_filled"]
    }
    state = clean_state({f"module.{key}": value for key, value in filled.items()}, case.name)
    assert identify(state) == "tbsrn"
    network = build_model("tbsrn", STN=True).eval()
    own = network.state_dict()
    load_weights(network, {**{key: own[key] for key in network.constant_buffers}, **state}, case.name)
    images = case.tensor("x")
    shallow = network.block1(images)
    enhanced = network.block2.feature_enhancer(shallow.flatten(2).transpose(1, 2), network.codes).transpose(1, 2)
    expected = case.expected("block2_enhancer_of_block1_ch_step8")
    assert_close(enhanced[:, ::8], expected, atol=MODULE, what="enhancer")
    block = network.block2(shallow, network.codes)
    assert_close(block[:, ::8], case.expected("block2_ch_step8"), atol=MODULE, what="block2")
    assert_close(network(images), case.expected("sr"), atol=NETWORK, what="sr")
