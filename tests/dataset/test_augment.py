"""Random changes of word pictures: the same for the same place in a training, within the range, none at strength 0."""

import pytest
import torch

from dataset import augment as module
from dataset.augment import augment, batch_generator


def words(count=6, height=32, width=128):
    """Bright pictures with a dark bar, which no change may lose."""
    images = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1)) * 0.1 + 0.8
    images[..., height // 4 : -height // 4, width // 4 : -width // 4] = 0.1
    return images


def changed(strength=1.0, place=(0, 0, 0, 0), images=None):
    return augment(words() if images is None else images, strength, batch_generator(*place))


def test_a_place_in_a_training_gives_one_result():
    assert torch.equal(changed(place=(3, 7, 1, 2)), changed(place=(3, 7, 1, 2)))


@pytest.mark.parametrize("other", [(4, 7, 1, 2), (3, 8, 1, 2), (3, 7, 0, 2), (3, 7, 1, 1)])
def test_seed_step_process_and_batch_count(other):
    assert not torch.equal(changed(place=(3, 7, 1, 2)), changed(place=other))


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    changed()
    assert torch.equal(before, torch.get_rng_state())


def test_large_seeds_are_taken():
    batch_generator((1 << 63) - 1, 10**9, 512, 64)


def test_strength_0_is_the_identity():
    images = words()
    assert changed(0.0, images=images) is images


@pytest.mark.parametrize("strength", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(32, 128), (16, 64), (5, 20), (32, 8)])
def test_shape_and_range_are_kept_and_the_input_is_not_written(strength, shape):
    for step in range(12):
        images = words(5, *shape)
        before = images.clone()
        result = augment(images, strength, batch_generator(0, step, 0))
        assert result.shape == images.shape
        assert result.dtype == torch.float32
        assert bool(result.isfinite().all())
        assert result.min() >= 0
        assert result.max() <= 1
        assert torch.equal(images, before)


def test_no_pictures_are_no_error():
    assert augment(torch.empty(0, 3, 32, 128), 1.0, batch_generator(0, 0, 0)).shape == (0, 3, 32, 128)


def test_one_picture_and_channels_last():
    images = words(1).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(changed(images=images), changed(images=images.contiguous()))


def test_more_strength_changes_more():
    images = words(64)
    distances = [(changed(strength, images=images) - images).abs().mean() for strength in (0.1, 0.5, 1.0)]
    assert distances == sorted(distances)
    assert distances[0] > 0


@pytest.mark.parametrize("name", ["_bend", "_photometry", "_coarsen", "_blur", "_noise", "_erase"])
def test_every_change_is_made_to_some_pictures_and_not_to_all(name):
    images = words(64)
    dice = module._Dice(64, 1.0, batch_generator(0, 1, 0))
    difference = (getattr(module, name)(images, dice) - images).abs().amax((1, 2, 3))
    assert 0 < int((difference > 1e-3).sum()) < 64


def test_text_stays_where_it_can_be_read():
    """The dark bar, or the bright one after an inversion, still fills about a quarter of the picture."""
    images = words(64)
    bent = module._bend(images, module._Dice(64, 1.0, batch_generator(0, 2, 0)))
    share = (bent.mean(1) < 0.45).float().mean((1, 2))
    assert share.min() > 0.1
    assert share.max() < 0.5
