"""TBSRN: sizes as published, where its pixels are, files of the published program."""

import math

import pytest
import torch

from interface.checkpoint import CheckpointError, load_weights
from model import build_model, identify
from model.blocks.transformer import Attention
from model.tbsrn import TBSRN, FeatureEnhancer, position_codes


def small(**options) -> TBSRN:
    torch.manual_seed(0)
    return TBSRN(srb_nums=1, hidden_units=4, **options)


def test_with_all_that_is_never_used_it_has_the_published_number_of_parameters():
    with torch.device("meta"):
        whole, network = build_model("tbsrn", STN=True, published_unused=True), build_model("tbsrn", STN=True)
    assert sum(parameter.numel() for parameter in whole.parameters()) == 3_210_335
    gru = 64 * 64 + 64 + 2 * (96 * 64 + 96 * 32 + 2 * 96)
    unused = 3 * 3 * 9 + 3 + 2 * 3 + 5 * (2 * gru + 4 + 1)
    assert sum(parameter.numel() for parameter in network.parameters()) == 3_210_335 - unused


def test_a_published_file_is_known_and_what_is_unused_in_it_passed_over():
    published, network = small(STN=True, published_unused=True), small(STN=True)
    state = published.state_dict()
    assert state["block2.gru1.gru.weight_ih_l0"].shape == (12, 8)
    assert identify(state) == identify(network.state_dict()) == "tbsrn"
    assert identify([*state, "infoGen.tconv1.weight"]) != "tbsrn"
    load_weights(network, state, "model_best.pth")
    torch.testing.assert_close(network.block2.conv1.weight, published.block2.conv1.weight)
    with pytest.raises(CheckpointError, match=r"block2\.gru3"):
        load_weights(network, {**state, "block2.gru3.weight": torch.zeros(1)}, "model_best.pth")
    assert set(network.published_shapes()) == set(state)


def test_the_codes_tell_column_and_row():
    codes = position_codes(2, 3, 8)
    assert codes.shape == (6, 8)
    assert codes[0].tolist() == [0, 1, 0, 1, 0, 1, 0, 1]
    row, column = 1, 2
    expected = [f(place * rate) for place in (column, row) for rate in (1, 0.01) for f in (math.sin, math.cos)]
    torch.testing.assert_close(codes[row * 3 + column], torch.tensor(expected))


@torch.no_grad()
def test_a_pixel_sees_where_it_is_and_all_others():
    enhancer = FeatureEnhancer(8).eval()
    pixels, codes = torch.rand(1, 6, 8), position_codes(2, 3, 8)
    seen = enhancer(pixels, codes)
    order = torch.tensor([3, 1, 0, 5, 4, 2])
    torch.testing.assert_close(enhancer(pixels[:, order], codes[order]), seen[:, order])
    assert not torch.allclose(enhancer(pixels[:, order], codes), seen[:, order], atol=1e-3)
    pixels[0, 5] += 1
    assert (enhancer(pixels, codes) - seen)[0].abs().amax(1).min() > 0


@torch.no_grad()
def test_attention_without_its_map_is_the_same():
    attention, x = Attention(16, 4, 0.1).eval(), torch.randn(2, 5, 16)
    torch.testing.assert_close(attention.mix(x), attention(x, x)[0])
    attention.train().dropout.p = 1.0  # nothing is left of what is looked at
    torch.testing.assert_close(attention.mix(x), attention.linears[3].bias.expand(2, 5, 16))


@torch.no_grad()
def test_any_size_and_scale_without_a_rectifier():
    assert small().eval()(torch.rand(1, 3, 9, 20)).shape == (1, 3, 18, 40)
    assert small(scale_factor=4, mask=True).eval()(torch.rand(1, 4, 8, 32)).shape == (1, 4, 32, 128)
    network, images = small().eval(), torch.rand(1, 3, 16, 64)
    other = small(width=64).eval()  # made for another size
    other.load_state_dict(network.state_dict())
    assert torch.equal(network(images), other(images))


def test_options_without_meaning_are_refused():
    with pytest.raises(ValueError, match="hidden_units 3 must be even"):
        TBSRN(hidden_units=3)
    with pytest.raises(ValueError, match="16x128; use STN=False"):
        TBSRN(STN=True, width=256)
