"""The classic networks: what each does beyond its reference vector."""

import pytest
import torch

from interface.checkpoint import CheckpointError, load_weights
from model import build_model, identify
from model.blocks.pictures import MEAN_COLOUR, MeanShift
from model.lapsrn import LapSRN
from model.pcan import PCAN

CLASSICS = ("srcnn", "vdsr", "edsr", "rdn", "lapsrn", "esrgan", "han")
SMALL = {"hidden_units": 2}


def small(name: str, **options):
    torch.manual_seed(0)
    more = {} if name in ("srcnn", "lapsrn") else {"srb_nums": 1}
    more |= {} if name == "srcnn" else SMALL
    return build_model(name, **{**more, **({"group_blocks": 1} if name == "han" else {}), **options}).eval()


@pytest.mark.parametrize("name", CLASSICS)
@torch.no_grad()
def test_other_sizes_scales_and_the_mask(name):
    assert small(name, mask=True)(torch.rand(1, 4, 7, 12)).shape == (1, 4, 14, 24)
    assert small(name, scale_factor=4)(torch.rand(1, 3, 7, 12)).shape == (1, 3, 28, 48)
    with pytest.raises(ValueError, match=r"expected \(N, 3, H, W\); the option mask=True"):
        small(name)(torch.rand(1, 4, 7, 12))
    with pytest.raises(ValueError, match="scale_factor 0"):
        small(name, scale_factor=0)


@pytest.mark.parametrize("name", [name for name in CLASSICS if name not in ("srcnn", "lapsrn")])
def test_options_without_meaning_are_refused(name):
    with pytest.raises(ValueError, match="srb_nums 0"):
        small(name, srb_nums=0)
    with pytest.raises(ValueError, match="hidden_units 0"):
        small(name, hidden_units=0)


@pytest.mark.parametrize("name", [*CLASSICS, "pcan", "srresnet", "tsrn"])
def test_a_text_guided_form_of_it_is_not_taken_for_it(name):
    with torch.device("meta"):
        keys = list(build_model(name).state_dict())
    assert identify([f"{key}" for key in keys]) == name
    if name not in ("vdsr", "lapsrn", "han"):  # those have no key of that name in their text-guided form
        assert identify([*keys, "infoGen.tconv1.weight"]) != name


@torch.no_grad()
def test_the_mean_colour_is_taken_away_and_given_back():
    images = torch.tensor([*MEAN_COLOUR, 0.5])[None, :, None, None].expand(1, 4, 2, 3)
    without = MeanShift(4, sign=-1)(images)
    torch.testing.assert_close(without[0, :, 0, 0], torch.tensor([0, 0, 0, 0.5]))
    torch.testing.assert_close(MeanShift(4, sign=1)(without), images)
    assert not any(value.requires_grad for value in MeanShift(3, sign=1).parameters())


@torch.no_grad()
def test_vdsr_and_lapsrn_start_from_the_enlarged_picture():
    network = small("vdsr")
    network.output.weight.zero_()
    images = torch.rand(1, 3, 4, 5)
    assert torch.equal(network(images), images.repeat_interleave(2, 2).repeat_interleave(2, 3))
    network = small("lapsrn")
    network.convt_R1.weight.zero_()
    bilinear = torch.nn.functional.interpolate(images, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(network(images)[..., 1:-1, 1:-1], bilinear[..., 1:-1, 1:-1])


def test_the_level_that_lapsrn_does_not_use_is_passed_over():
    published, network = LapSRN(scale_factor=4), LapSRN()
    state = published.state_dict()
    load_weights(network, state, "lapsrn.pth")
    assert torch.equal(network.convt_I1.weight, published.convt_I1.weight)
    assert sum(shape.numel() for shape in network.published_shapes().values()) == 873_824
    with pytest.raises(CheckpointError, match="other"):
        load_weights(network, {**state, "other": torch.zeros(1)}, "lapsrn.pth")


def test_pcan_refuses_what_its_attention_cannot_pool():
    network = PCAN(srb_nums=1, hidden_units=2).eval()
    assert network(torch.rand(1, 4, 15, 20)).shape == (1, 4, 30, 40)
    with pytest.raises(ValueError, match="15 pixels a side"):
        network(torch.rand(1, 4, 14, 64))


def test_han_starts_without_attention_between_layers():
    maps = torch.rand(2, 3, 4, 5, 6)
    attention = small("han").la
    assert torch.equal(attention(maps), maps.flatten(1, 2))
    attention.gamma.data.fill_(1.0)  # equal maps resemble each other alike, so each gets their mean, which is itself
    same = maps[:, :1].expand(2, 3, 4, 5, 6)
    torch.testing.assert_close(attention(same), 2 * same.flatten(1, 2))
