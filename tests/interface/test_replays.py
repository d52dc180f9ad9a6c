"""What CUDA graphs stand in for; the recording itself is tested where a GPU is (test_gpu.py)."""

import torch

from interface.replays import Replays
from interface.systems.base import System


class Doubles(System):
    def cascade(self, images_lr):
        return [images_lr, 2 * images_lr]


def test_elsewhere_than_on_a_gpu_the_cascade_is_called():
    replays, images = Replays(), torch.rand(2, 3, 4, 4)
    for _ in range(3):
        first, second = replays(Doubles().eval(), images)
        assert first is images and torch.equal(second, 2 * images)
