"""Bicubic enlargement."""

import pytest
import torch

from model.bicubic import Bicubic


def test_a_constant_stays_and_every_channel_is_enlarged():
    images = torch.full((2, 4, 16, 64), 0.25)
    torch.testing.assert_close(Bicubic()(images), torch.full((2, 4, 32, 128), 0.25))
    assert Bicubic(scale_factor=3)(images).shape == (2, 4, 48, 192)


def test_the_kernel_has_a_of_minus_three_quarters():
    image = torch.zeros(1, 1, 9, 9)
    image[0, 0, 4, 4] = 1
    row = Bicubic()(image)[0, 0].sum(dim=0)  # the other axis sums to 2, each source row lands in two rows
    # Keys' cubic at distances 0.25, 0.75, 1.25 and 1.75 with a = -0.75, by hand.
    weights = [0.87890625, 0.26171875, -0.10546875, -0.03515625]
    torch.testing.assert_close(row[9:13] / 2, torch.tensor(weights))
    assert bool(row.min() < 0)  # nothing is clamped


def test_a_scale_below_one_is_refused():
    with pytest.raises(ValueError, match="scale_factor 0"):
        Bicubic(scale_factor=0)
