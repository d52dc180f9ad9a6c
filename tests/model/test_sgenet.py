"""SGENet: sizes as published, what it is told, what it refuses."""

import pytest
import torch
from torch import nn

from model import build_model, identify
from model.blocks.skeleton import residual_blocks
from model.sgenet import CELLS, SeenAlignment, SGENet


@pytest.fixture(scope="module")
def network() -> SGENet:
    torch.manual_seed(0)
    return SGENet(hidden_units=4)


@pytest.mark.parametrize(("blocks", "whole", "used"), [(2, 7_018_300, 6_925_594), (5, 7_727_176, 7_634_470)])
def test_it_has_the_published_number_of_parameters(blocks, whole, used):
    """The difference is LEMMA's location enhancement: 296,802 parameters of the alignment, 204,096 of them used."""
    assert whole - used == 296_802 - 204_096
    with torch.device("meta"):
        for unused, count in ((True, whole), (False, used)):
            built = build_model("sgenet", srb_nums=blocks, published_unused=unused)
            assert sum(parameter.numel() for parameter in built.parameters()) == count


def test_keys_tell_the_network_and_the_number_of_its_blocks():
    for blocks in (2, 5):
        with torch.device("meta"):
            keys = build_model("sgenet", srb_nums=blocks, published_unused=True).state_dict().keys()
        assert identify(keys) == "sgenet"
        assert residual_blocks(keys) == blocks
    lemma = ["guidanceGen.text_proj.weight", "position_prior.vision.backbone.conv1.weight", "block2.affine.BN.weight"]
    assert identify(lemma) == "lemma"
    assert residual_blocks(["conv.weight", "block1.0.weight"]) == residual_blocks([]) == 0


@torch.no_grad()
@pytest.mark.parametrize(("form", "in_training"), [("probabilities", True), ("published", False), ("logits", False)])
def test_the_form_of_the_text(network, form, in_training):
    images = torch.rand(2, 4, 16, 64)
    for training in (True, False):
        network.text_form = form
        guided = network.train(training).guided(images)
        probabilities = in_training or (form == "published" and not training)
        expected = guided.logits.softmax(2) if probabilities else guided.logits
        assert torch.equal(guided.text, expected)
    network.text_form = "probabilities"


def test_what_is_read_is_the_picture_in_colour_and_moves_the_reader_alone(network):
    network.zero_grad()
    images = torch.rand(2, 4, 16, 64, requires_grad=True)
    network.eval().guided(images).logits.sum().backward()
    assert images.grad is None
    reads = {key.split(".")[0] for key, value in network.named_parameters() if value.grad is not None}
    assert reads == {"position_prior"}
    with torch.no_grad():
        other = torch.cat([images[:, :3], 1 - images[:, 3:]], dim=1)
        assert torch.equal(network.guided(images).logits, network.guided(other).logits)


@torch.no_grad()
def test_the_channels_of_what_was_seen_are_places():
    """One channel that is on stands for the code of its place, the same whatever else is there."""
    alignment = SeenAlignment(8).eval()
    alignment.text_Encoder.layers, alignment.text_decoder.layers = nn.ModuleList(), nn.ModuleList()
    told = []
    alignment.sematic_decoder.register_forward_pre_hook(lambda _, inputs: told.append(inputs[2]))
    seen = torch.zeros(1, CELLS, 1, 25)
    seen[0, 3, 0, 7] = 2.0
    alignment(torch.rand(1, 8, 16, 64), seen, torch.zeros(1, 25, 37))
    expected = torch.zeros(1, 25, 8)
    angles = 3 * torch.tensor([1.0, 0.1, 0.01, 0.001])  # 10000 ** (-2 i / 8)
    expected[0, 7] = 2 * torch.stack([angles.sin(), angles.cos()], dim=1).flatten()
    torch.testing.assert_close(told[0], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text_form": "words"}, "text_form='words'; use probabilities"),
        ({"width": 256}, r"takes \(16, 64\)"),
        ({"hidden_units": 3}, "hidden_units 3 must be even"),
    ],
)
def test_options_without_meaning_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SGENet(**options)


def test_images_of_another_size_are_refused(network):
    with pytest.raises(ValueError, match="16x32: this network takes 16x64 alone"):
        network(torch.rand(2, 4, 16, 32))
