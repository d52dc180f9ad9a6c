"""What CUDA graphs stand in for; the recording itself is tested where a GPU is (test_gpu.py)."""

import torch
from torch import nn

from interface.replays import RecordedSteps, Replays
from interface.systems.base import System


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
