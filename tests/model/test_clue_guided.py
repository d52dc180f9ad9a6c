"""The visual clue, in both networks that may have it."""

import pytest
import torch

from model import build_model
from model.blocks.clue import GatedFusion
from model.blocks.clue_guided import ClueGuidedNetwork
from model.rtsrn import RTSRN

NAMES = ("rtsrn", "c3stisr")


def visual(name: str = "c3stisr", **options) -> ClueGuidedNetwork:
    torch.manual_seed(0)
    network = build_model(name, srb_nums=1, visual_clue=True, **options)
    assert isinstance(network, ClueGuidedNetwork)
    return network.eval()


def prior_of(*words: str) -> torch.Tensor:
    """Probabilities that read as `words`, a blank after each character."""
    best = torch.zeros(len(words), 26, dtype=torch.long)
    for row, word in enumerate(words):
        for column, character in enumerate(word):
            best[row, 2 * column] = "0123456789abcdefghijklmnopqrstuvwxyz".index(character) + 1
    return (8 * torch.nn.functional.one_hot(best, 37).float()).softmax(dim=2).transpose(1, 2)[:, :, None]


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_the_recognized_text_is_drawn(name):
    network = visual(name)
    fused = []
    network.vis_rec_fuser.register_forward_pre_hook(lambda _, inputs: fused.append(inputs[0]))
    prior = prior_of("hello", "x")
    prior[1] = 0  # as for a sample whose prior is dropped
    assert network(torch.rand(2, 4, 16, 64), prior).shape == (2, 4, 32, 128)
    words = torch.tensor([[18, 15, 22, 22, 25], [0, 0, 0, 0, 0]])
    assert fused[0].shape == (2, 16, 16, 64)
    torch.testing.assert_close(fused[0][:, :6], network.glyphs(words, (16, 64)))
    assert bool((fused[0][1, :6] == 1).all())
    read = torch.nn.functional.interpolate(network.infoGen_visual(prior), (16, 64), mode="bilinear", align_corners=True)
    assert torch.equal(fused[0][:, 6:], read)


@torch.no_grad()
def test_no_prior_draws_nothing():
    network, images = visual(), torch.rand(2, 4, 32, 48)
    assert torch.equal(network(images), network(images, torch.zeros(2, 37, 1, 26)))


def test_the_gradient_reaches_the_prior_around_the_picture():
    network = visual()
    prior = prior_of("hello").requires_grad_()
    network.picture_clue(prior, (16, 64)).square().sum().backward()
    assert bool(prior.grad.any())
    assert all(not buffer.requires_grad for buffer in network.glyphs.buffers())


@pytest.mark.parametrize("clues", [2, 3])
@torch.no_grad()
def test_fusion_by_hand(clues):
    torch.manual_seed(0)
    fusion = GatedFusion(4, clues=clues)
    center, *maps = torch.randn(clues + 1, 2, 4, 6, 7)
    gates = [getattr(fusion, f"gated{number}") for number in range(1, clues + 1)]
    assert not hasattr(fusion, f"gated{clues + 1}")
    seen = torch.cat([gate(torch.cat([center, clue], dim=1)) for gate, clue in zip(gates, maps, strict=True)], dim=1)
    weight = fusion.compress(seen).view(2, clues, 4, 6, 7).exp()
    blend = (torch.stack(maps, dim=1) * weight).sum(dim=1) / weight.sum(dim=1)
    torch.testing.assert_close(fusion(center, *maps), blend)
    fusion.compress[1].weight_g.zero_()  # then every clue has the same share
    torch.testing.assert_close(fusion(center, *maps), sum(maps) / clues)


def test_what_remains_unused_with_a_visual_clue():
    with torch.device("meta"):
        lean = RTSRN(visual_clue=True)
    published = lean.published_shapes()
    assert lean.state_dict().keys() < published.keys()
    assert {key.split(".")[0] for key in published.keys() - lean.state_dict().keys()} == {"correction_model"}
    assert {"infoGen_visual", "dsta_vis", "vis_rec_fuser", "glyphs"} <= {name for name, _ in lean.named_children()}


def test_the_drawn_characters_are_constant():
    assert {"glyphs.atlas", "glyphs.widths"} <= set(visual().constant_buffers)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"triple_clues": False}, "use triple_clues=True or visual_clue=False"),
        ({"height": 40}, "multiples of 16, but 40x128 with scale_factor 2 makes 20x64"),
        ({"scale_factor": 8}, "makes 4x16"),
        ({"width": 80}, "makes 16x40"),
    ],
)
def test_options_without_meaning_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_model(name, visual_clue=True, **options)


def test_images_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(20, 64\): with visual_clue=True both sides must be multiples of 16"):
        visual()(torch.rand(1, 4, 20, 64))
