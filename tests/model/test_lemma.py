"""LEMMA and the recogniser that guides it: sizes as published, where text is, what is told, what is refused."""

import math

import pytest
import torch
from torch import Tensor, nn

from interface.checkpoint import load_weights, read_weights
from model import build_model, identify
from model.blocks.skeleton import residual_blocks
from model.language.bcn import BCN
from model.lemma import LEMMA, SELECTED, LocationAlignment
from model.recognizer.abinet import ABINet, PositionAttention, Vision, word_lengths
from tests.model.published import GOLDEN
from tests.parity.vectors import load_case

CASE = load_case(GOLDEN.parent / "vectors" / "zoo" / "lemma.npz")


@pytest.fixture(scope="module")
def small() -> ABINet:
    """A narrow recogniser."""
    torch.manual_seed(0)
    return ABINet(widths=(4, 4, 8, 8, 16), blocks=(1, 1, 1, 1, 1), hidden=16).eval()


def test_it_has_the_published_keys_and_number_of_parameters():
    with torch.device("meta"):
        network = build_model("lemma", STN=True)
    assert sum(value.numel() for value in network.parameters()) == 39_754_541
    assert sum(value.numel() for value in network.position_prior.parameters()) == 36_194_922
    published, own = network.published_shapes(), network.state_dict()
    assert published.keys() - own.keys() == {f"guidanceGen.{name}_pos.pe" for name in ("vision", "text", "select")}
    constant = {key for key in published if key.endswith(".pe") or key.startswith("tps.")}
    assert set(CASE.shapes) == published.keys() - constant
    assert constant & own.keys() == set(network.constant_buffers)
    for keys in (published, own):
        assert (identify(keys), residual_blocks(keys)) == ("lemma", 5)


def test_files_of_abinet_load(tmp_path):
    for part, network in (("vision", Vision()), ("language", BCN())):
        state = {key: torch.full_like(value, 0.5) for key, value in network.state_dict().items()}
        torch.save({"model": state, "opt": {"lr": 1e-4}}, tmp_path / f"{part}.pth")
        path = tmp_path / f"{part}.pth"
        load_weights(network, read_weights(path, option="a key", purpose="LEMMA", remedy="none"), path)
        assert all(bool((value == 0.5).all()) for value in network.parameters())
        expected = {key for key in CASE.shapes if key.startswith(f"position_prior.{part}.")}
        assert {key for key in expected if key.split(".", 2)[2] not in state} == set()


def test_lengths_by_hand():
    logits = torch.zeros(4, 5, 3)
    for row, classes in enumerate(([1, 2, 0, 1, 0], [0, 1, 1, 1, 1], [1, 1, 1, 1, 2], [1, 1, 1, 1, 0])):
        logits[row, range(5), classes] = 1.0
    assert word_lengths(logits).tolist() == [3, 2, 5, 5]


def test_words_end_where_the_first_end_is(small):
    logits = torch.zeros(2, 26, 37)
    logits[0, range(26), [20, 5, 36, 27, *[0] * 22]] = 1.0  # t, e, the last digit, which is 0, and the first, 1
    logits[1, :, 26] = 1.0
    assert small.decode(logits) == ["te01", "z" * 26]


@torch.no_grad()
def test_pictures_are_read_in_colour_and_normalised(small):
    images = torch.rand(2, 4, 16, 64)
    fed = small.preprocess(images)
    assert fed.shape == (2, 3, 32, 128)
    corner = (images[0, :3, 0, 0] - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(fed[0, :, 0, 0], corner)  # corners stay where they are
    assert torch.equal(small.preprocess(images[:, :3]), fed)
    found = small(fed)
    assert small.read(images) == small.decode(found.language)
    torch.testing.assert_close(found.maps.sum((2, 3)), torch.ones(2, 26))
    with pytest.raises(ValueError, match=r"\(2, 4, 16, 64\): ABINet takes \(N, 3, 32, 128\)"):
        small(images)


@torch.no_grad()
def test_each_character_is_the_mean_of_the_places_where_it_is():
    torch.manual_seed(0)
    attention, values = PositionAttention(16).eval(), torch.randn(1, 16, 8, 32)
    characters, maps = attention(values)
    assert maps.std() > 0
    torch.testing.assert_close(characters[0, 7], (maps[0, 7] * values[0]).sum((1, 2)))


def test_the_language_model_teaches_only_itself(small):
    """What was meant sends no gradient to what was seen."""
    small.zero_grad()
    small(torch.randn(2, 3, 32, 128)).language.sum().backward()
    assert {key.split(".")[0] for key, value in small.named_parameters() if value.grad is not None} == {"language"}


class Told(nn.Module):
    """In place of a stack: keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: tuple[Tensor, ...] = ()

    def forward(self, *given: Tensor) -> Tensor:
        self.given = given
        return given[0]


def maps_of(*places: int) -> Tensor:
    """(1, 26, 16, 64): the n-th character is at the n-th place; a slope towards the end breaks ties."""
    maps = torch.linspace(0, 1e-3, 1024).repeat(26, 1)
    for character, place in enumerate(places):
        maps[character, place] = 1.0
    return maps.view(1, 26, 16, 64)


@torch.no_grad()
def test_pixels_elsewhere_are_told_but_not_asked():
    """Of three characters the last is behind the end; two places and the last 498 have text."""
    torch.manual_seed(0)
    alignment = LocationAlignment(8).eval()
    alignment.text_decoder, alignment.sematic_decoder = Told(), Told()
    shallow, maps = torch.randn(1, 8, 16, 64), maps_of(5, 200, 300)
    alignment(shallow, maps, torch.randn(1, 26, 37), torch.tensor([2]))
    pixels = alignment.enhance(shallow, maps[:, :2].amax(1, keepdim=True))[0]
    chosen = [5, 200, *range(1024 - SELECTED + 2, 1024)]
    _, seen, _ = alignment.text_decoder.given
    assert sorted(seen[0].tolist()) == sorted(pixels[chosen].tolist())
    asking, _, _ = alignment.sematic_decoder.given
    torch.testing.assert_close(asking[0, chosen], pixels[chosen])
    others = sorted(set(range(1024)) - set(chosen))
    assert 300 in others
    assert not asking[0, others].any()


@torch.no_grad()
def test_a_character_knows_its_place():
    alignment = LocationAlignment(8).eval()
    alignment.text_Encoder.layers = nn.ModuleList()
    words = alignment.words(torch.zeros(1, 26, 37), torch.eye(1024)[None, 3:29] * 2)
    angles = (3 + 4) * torch.tensor([1.0, 0.1, 0.01, 0.001])  # of the fifth character, 10000 ** (-2 i / 8)
    torch.testing.assert_close(words[0, 4], 2 * torch.stack([angles.sin(), angles.cos()], dim=1).flatten())


@torch.no_grad()
def test_enhancement_by_hand():
    """Weights that are the same everywhere, and a convolution that only looks at its centre."""
    alignment = LocationAlignment(8).eval()
    nn.init.zeros_(alignment.attn_conv[-1].weight)
    nn.init.zeros_(alignment.DWC.weight)
    nn.init.constant_(alignment.DWC.bias, 0.25)
    alignment.DWC.weight[range(8), range(8), 1, 1] = 1024.0
    shallow = 5 + 3 * torch.randn(2, 8, 16, 64)
    pixels = alignment.enhance(shallow, torch.rand(2, 1, 16, 64)) - alignment.positions
    deviation, mean = torch.std_mean(shallow, dim=(2, 3), keepdim=True, correction=0)
    expected = (shallow - mean) / deviation + 0.25
    torch.testing.assert_close(pixels.transpose(1, 2).view_as(shallow), expected, atol=1e-4, rtol=1e-4)
    assert math.isclose(alignment.positions[0, 1].item(), 1.0)  # the cosine of 0


@pytest.mark.parametrize(
    ("options", "message"),
    [({"width": 256}, r"takes \(16, 64\)"), ({"hidden_units": 3}, "hidden_units 3 must be even")],
)
def test_options_without_meaning_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LEMMA(**options)


def test_images_of_another_size_are_refused():
    with torch.device("meta"):
        network = LEMMA(hidden_units=4)
    with pytest.raises(ValueError, match="16x32: this network takes 16x64 alone"):
        network(torch.rand(2, 4, 16, 32))
