"""What CUDA graphs stand in for; the recording itself is tested where a GPU is (test_gpu.py)."""

import pytest
import torch
from torch import nn

from dataset.loading import LoaderSpec, collate
from interface.config import load_settings
from interface.replays import RecordedSteps, Replays
from interface.systems import build_system
from interface.systems.base import System
from tests.interface.helpers import LIGHT, shrink_recognisers


class Doubles(System):
    def cascade(self, images_lr):
        return [images_lr, 2 * images_lr]


def test_elsewhere_than_on_a_gpu_the_cascade_is_called():
    replays, images = Replays(), torch.rand(2, 3, 4, 4)
    for _ in range(3):
        first, second = replays(Doubles().eval(), images)
        assert first is images and torch.equal(second, 2 * images)


def test_elsewhere_than_on_a_gpu_the_network_takes_its_steps():
    network, images = nn.Conv2d(3, 3, 1), torch.rand(2, 3, 4, 4)
    expected = network(images)
    names = list(network.state_dict())
    RecordedSteps.install(network)
    for _ in range(5):
        assert torch.equal(network(images), expected)
    network(images).sum().backward()
    assert network.weight.grad is not None
    assert list(network.state_dict()) == names


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ("--arch tsrn", ["TSRN"]),
        ("--arch rtsrn --triple_clues --use_distill", ["RTSRN", "SmallBCN", "SmallCRNN"]),
        ("--arch tpgsr --stu_iter 2", ["SmallCRNN", "SmallCRNN"]),
        ("--arch tpgsr --stu_iter 2 --no-sr_share", ["SmallCRNN", "SmallCRNN", "TPGSR", "TPGSR"]),
        ("--arch tpgsr --freeze_tpg --no-use_distill", ["TPGSR"]),
        ("--arch tatt --tssim_loss", []),
        ("--arch sgenet", []),
    ],
)
def test_what_may_be_recorded_is_called_once_in_a_step(options, kinds, monkeypatch, tmp_path, tiny_dir):
    small = [str(word) for word in shrink_recognisers(monkeypatch, tmp_path)]
    random = ["--tpg_pretrained", "random"] if "sgenet" in options else []
    config = load_settings([*LIGHT, *small, *options.split(), *random]).config
    system = build_system(config, training=True, pretrained=not random).train()
    calls = dict.fromkeys(system.called_once(), 0)

    def count(network, inputs):
        calls[network] += network.training and torch.is_grad_enabled()

    for network in calls:
        network.register_forward_pre_hook(count)
    pairs = LoaderSpec(mask=config.MODEL.mask).pairs([tiny_dir / "train"])
    system(collate(pairs.__getitems__([0, 1])))
    assert sorted(type(network).__name__ for network in calls) == kinds
    assert set(calls.values()) <= {1}
