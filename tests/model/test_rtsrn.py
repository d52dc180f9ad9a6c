"""RTSRN beyond the numbers: published key tables, options, errors."""

import pytest
import torch
from torch import nn

from model import identify
from model.rtsrn import RTSRN
from tests.model.published import RTSRN as VARIANTS
from tests.model.published import table

COUNTS = {
    "rtsrn_mask4_stn_triple": (30_890_500, 711),
    "rtsrn_rgb3_stn_triple": (30_879_843, 711),
    "rtsrn_mask4_nostn_triple": (29_035_452, 656),
    "rtsrn_mask4_stn_notriple": (3_427_486, 395),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_the_published_network_has_the_published_keys(name):
    count, keys = table(name)
    assert (count, len(keys)) == COUNTS[name]
    with torch.device("meta"):
        network = RTSRN(**VARIANTS[name], published_unused=True)
    parameters = dict(network.named_parameters())
    assert sum(value.numel() for value in parameters.values()) == count
    state = network.state_dict()
    assert list(state) == list(keys)
    assert identify(keys) == "rtsrn"
    for key, (shape, kind) in keys.items():
        assert tuple(state[key].shape) == shape, key
        assert (kind == "param") == (key in parameters), key


@pytest.mark.parametrize("name", VARIANTS)
def test_the_lean_network_is_a_part_of_it(name):
    _, keys = table(name)
    network = RTSRN(**VARIANTS[name])
    assert {key: tuple(shape) for key, shape in network.published_shapes().items()} == {
        key: shape for key, (shape, _) in keys.items()
    }
    lean = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert lean.items() <= {key: shape for key, (shape, _) in keys.items()}.items()
    unused = {key.split(".")[0] for key in keys.keys() - lean.keys()}
    triple = {"correction_model", "infoGen_visual", "dsta_vis", "vis_rec_fuser", "gated"}
    assert unused == (triple if network.triple_clues else set())
    assert {key for key in keys.keys() - lean.keys() if key.startswith("gated")} == {
        key for key in keys if network.triple_clues and key.startswith("gated.gated3.")
    }


def test_constant_buffers_are_buffers_that_hold_constants():
    network, other = RTSRN(STN=True), RTSRN(STN=True)
    buffers, others = dict(network.named_buffers()), dict(other.named_buffers())
    constant = network.constant_buffers
    assert len(constant) == 6
    assert all(torch.equal(buffers[key], others[key]) for key in constant)
    assert all(key.endswith(("running_mean", "running_var", "tracked")) for key in buffers.keys() - set(constant))


def test_the_rectifier_works_in_training_only():
    torch.manual_seed(0)
    network = RTSRN(STN=True, triple_clues=False, srb_nums=1)
    calls = []
    network.tps.register_forward_hook(lambda *_: calls.append(1))
    images = torch.rand(2, 4, 16, 64)
    network.eval()(images)
    assert calls == []
    network.train()(images)
    assert calls == [1]


@torch.no_grad()
def test_no_prior_is_zeros_for_any_batch():
    network = RTSRN(srb_nums=1).eval()
    images, zeros = torch.rand(3, 4, 16, 64), torch.zeros(3, 37, 1, 26)
    assert torch.equal(network(images), network(images, zeros, zeros))
    assert torch.equal(network(images, zeros), network(images, zeros, zeros))


@torch.no_grad()
def test_without_triple_clues_the_recognized_text_is_the_hint():
    torch.manual_seed(0)
    network = RTSRN(srb_nums=1, triple_clues=False, hidden_units=8, mask=False).eval()
    images, prior = torch.rand(2, 3, 16, 64), torch.rand(2, 37, 1, 26).mul(30).softmax(dim=1)
    hints = []
    network.block2.register_forward_pre_hook(lambda _, inputs: hints.append(inputs[1]))
    assert network(images, prior).shape == (2, 3, 32, 128)
    drawn = nn.functional.interpolate(network.infoGen(prior), (16, 64), mode="bilinear", align_corners=True)
    assert torch.equal(hints[0], drawn)
    with pytest.raises(ValueError, match="triple_clues"):
        network.language_clue(torch.rand(2, 26, 37))
    with pytest.raises(ValueError, match="triple_clues"):
        network(images, prior, prior)


@torch.no_grad()
def test_other_scales_and_sizes():
    network = RTSRN(scale_factor=4, srb_nums=1, triple_clues=False, hidden_units=4).eval()
    assert network(torch.rand(1, 4, 8, 32)).shape == (1, 4, 32, 128)
    assert RTSRN(srb_nums=1).eval()(torch.rand(1, 4, 20, 40)).shape == (1, 4, 40, 80)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale_factor": 3}, "scale_factor 3"),
        ({"width": 127}, "32x127"),
        ({"STN": True, "width": 256}, "16x64"),
        ({"srb_nums": 0}, "srb_nums 0"),
        ({"hidden_units": 64}, "hidden_units 64"),
        ({"hidden_units": 1, "triple_clues": False}, "hidden_units 1"),
    ],
)
def test_options_without_meaning_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RTSRN(**options)


def test_inputs_that_do_not_fit_are_refused():
    network = RTSRN(STN=True, srb_nums=1).eval()
    good = torch.rand(2, 4, 16, 64)
    for images, prior, linguistic, message in (
        (torch.rand(2, 3, 16, 64), None, None, "text mask"),
        (torch.rand(2, 4, 32, 64), None, None, "16x64"),
        (good, torch.rand(2, 37, 1, 25), None, "prior clue"),
        (good, torch.rand(1, 37, 1, 26), None, "prior clue"),
        (good, None, torch.rand(2, 26, 37), "linguistic clue"),
    ):
        with pytest.raises(ValueError, match=message):
            network(images, prior, linguistic)
    with pytest.raises(ValueError, match="15 pixels"):
        RTSRN(srb_nums=1)(torch.rand(2, 4, 8, 64))
    with pytest.raises(ValueError, match="26 columns"):
        network.language_clue(torch.rand(2, 25, 37))


def test_the_language_model_sends_no_gradient_to_the_recognizer():
    network = RTSRN(srb_nums=1)
    probabilities = torch.rand(2, 26, 37, requires_grad=True)
    network.language_clue(probabilities).sum().backward()
    assert probabilities.grad is None
    assert network.lm.proj.weight.grad is not None


@torch.no_grad()
def test_the_language_model_never_looks_at_the_position_it_predicts():
    torch.manual_seed(0)
    network = RTSRN(srb_nums=1).eval()
    text = torch.randn(1, 26, 37).softmax(dim=2)
    other = text.clone()
    other[0, 5] = text[0, 5].flip(0)
    before, after = network.language_clue(text)[0], network.language_clue(other)[0]
    torch.testing.assert_close(before[5], after[5], atol=1e-5, rtol=0)
    assert bool((before[4] - after[4]).abs().max() > 1e-4)
    short = network.language_clue(text, torch.tensor([1]))
    assert bool(short.isfinite().all())
