"""TSRN: sizes as published, what tells it from its successors, its rectifier."""

import pytest
import torch

from model import build_model, identify
from model.tsrn import TSRN


def small(**options) -> TSRN:
    torch.manual_seed(0)
    return TSRN(srb_nums=1, hidden_units=4, **options)


@pytest.mark.parametrize(("options", "count"), [({"STN": True}, 2_681_677), ({"mask": False}, 816_260)])
def test_it_has_the_published_number_of_parameters(options, count):
    with torch.device("meta"):
        network = build_model("tsrn", **options)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize(
    "more",
    [
        "infoGen.tconv1.weight",
        "guidanceGen.text_proj.weight",
        "block2.feature_enhancer.linear.weight",
        "block2.affine.BN.weight",
        "block2.wave_mlp.attn.fc_h.weight",
    ],
)
def test_a_successor_is_not_taken_for_it(more):
    keys = list(small(STN=True).state_dict())
    assert identify(keys) == "tsrn"
    assert identify([*keys, more]) != "tsrn"


@pytest.mark.parametrize("height", [16, 32])
def test_the_rectifier_works_in_training_only(height):
    network, images = small(STN=True, stn_height=height, mask=False), torch.rand(2, 3, 16, 64)
    seen = []
    network.stn_head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    with torch.no_grad():
        network.eval()(images)
        assert not seen
        network.train()(images)
    assert seen == [(2, 3, height, 64)]


@torch.no_grad()
def test_rectified_from_the_enlarged_image_it_is_the_image_where_the_points_are_the_targets():
    network, images = small(STN=True), torch.rand(1, 4, 1, 64).expand(2, 4, 16, 64)  # columns of one colour
    network.stn_head.stn_fc2.bias.copy_(network.tps.target_control_points.flatten())
    torch.testing.assert_close(network.eval().rectify(images), images, atol=1e-3, rtol=0)


@torch.no_grad()
def test_any_size_and_scale_without_a_rectifier():
    assert small().eval()(torch.rand(1, 4, 9, 20)).shape == (1, 4, 18, 40)
    assert small(scale_factor=4).eval()(torch.rand(1, 4, 8, 32)).shape == (1, 4, 32, 128)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale_factor": 3}, "power of two"),
        ({"srb_nums": 0}, "srb_nums 0"),
        ({"hidden_units": 1}, "hidden_units 1"),
        ({"STN": True, "width": 256}, "16x128; use STN=False"),
        ({"STN": True, "stn_height": 24}, "24 pixels high"),
    ],
)
def test_options_without_meaning_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TSRN(**options)


def test_images_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"expected \(N, 4, H, W\); the option mask=True"):
        small()(torch.rand(2, 3, 16, 64))
    with pytest.raises(ValueError, match="with STN=True they must be 16x64"):
        small(STN=True)(torch.rand(2, 4, 16, 32))
