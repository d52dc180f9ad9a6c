"""Inference on a CPU: in parts, and with weights that are rounded once."""

import pytest
import torch
from torch import nn

from interface.config import load_settings
from interface.inference import AT_ONCE, LOWERED, in_parts, lower_weights
from interface.systems import build_system
from model import list_models
from tests.interface.helpers import LIGHT, shrink_recognisers


class Counting(nn.Module):
    """Doubles pictures and adds a clue; remembers how many came at a time."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images, clue):
        self.seen.append(len(images))
        return 2 * images + clue[:, :, None, None]


@pytest.mark.parametrize(
    ("count", "parts"),
    [(1, [1]), (AT_ONCE, [AT_ONCE]), (AT_ONCE + 1, [AT_ONCE + 1]), (2 * AT_ONCE + 3, [AT_ONCE, AT_ONCE, 3])],
)
def test_pictures_come_in_parts_none_of_which_is_alone(count, parts):
    network = Counting().eval()
    images, clue = torch.rand(count, 3, 2, 2), torch.rand(count, 3)
    with torch.inference_mode():
        assert torch.equal(in_parts(network, images, clue), 2 * images + clue[:, :, None, None])
    assert network.seen == parts


def test_training_sees_the_whole_batch():
    network = Counting()
    images, clue = torch.rand(40, 3, 2, 2), torch.rand(40, 3)
    in_parts(network.eval(), images, clue)  # with gradients
    with torch.no_grad():
        in_parts(network.train(), images, clue)  # statistics of a batch
    assert network.seen == [40, 40]


@pytest.mark.parametrize("arch", list_models())
def test_weights_rounded_once_give_the_same_bits(arch, monkeypatch, tmp_path):
    shrink_recognisers(monkeypatch, tmp_path)
    torch.manual_seed(0)
    config = load_settings([*LIGHT, "--arch", arch, "--no-use_distill"]).config
    system = build_system(config, training=False, pretrained=False).eval()
    planes = 4 if config.MODEL.mask else 3
    images = torch.rand(2, planes, 16, 64).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = system.super_resolve(images)
    lower_weights(system, torch.bfloat16)
    lowered = [module for module in system.modules() if type(module) in LOWERED]
    assert lowered or not list(system.parameters())
    assert all(parameter.dtype == torch.bfloat16 for module in lowered for parameter in module.parameters())
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(system.super_resolve(images), expected)


def test_recurrent_weights_stay_as_they_are_on_other_devices():
    network = nn.Sequential(nn.Linear(2, 2), nn.LSTM(2, 2)).to("meta")
    lower_weights(network, torch.bfloat16)
    assert [parameter.dtype for parameter in network.parameters()] == [torch.bfloat16] * 2 + [torch.float32] * 4
