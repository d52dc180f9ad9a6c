"""Bicubic enlargement."""

import numpy as np
import pytest
import torch
from PIL import Image

from model.bicubic import Bicubic, enlarge


def test_a_constant_stays_and_every_channel_is_enlarged():
    images = torch.full((2, 4, 16, 64), 0.25)
    torch.testing.assert_close(Bicubic()(images), torch.full((2, 4, 32, 128), 0.25))
    assert Bicubic(scale_factor=3)(images).shape == (2, 4, 48, 192)


def test_the_kernel_has_a_of_minus_one_half():
    image = torch.zeros(1, 1, 9, 9)
    image[0, 0, 4, 4] = 1
    row = Bicubic()(image)[0, 0].sum(dim=0)  # the other axis sums to 2, each source row lands in two rows
    # Keys' cubic at distances 0.25, 0.75, 1.25 and 1.75 with a = -0.5, by hand.
    weights = [0.8671875, 0.2265625, -0.0703125, -0.0234375]
    torch.testing.assert_close(row[9:13] / 2, torch.tensor(weights))
    assert bool(row.min() < 0)  # nothing is clamped


def test_it_is_what_pillow_computes():
    # Mild contrast: Pillow clips between its two passes, a tensor does not.
    pixels = np.random.RandomState(3).randint(80, 176, (16, 64, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize((128, 32), Image.Resampling.BICUBIC))
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    ours = (enlarge(images).clamp(0, 1) * 255).round()[0].permute(1, 2, 0).numpy()
    assert np.abs(ours - expected).max() <= 1  # Pillow rounds between its two passes


def test_the_published_form_keeps_the_corners():
    images = torch.rand(1, 3, 4, 6)
    enlarged = enlarge(images, published=True)
    torch.testing.assert_close(enlarged[..., ::7, ::11], images[..., ::3, ::5])


def test_a_scale_below_one_is_refused():
    with pytest.raises(ValueError, match="scale_factor 0"):
        Bicubic(scale_factor=0)
