"""The published fine-tuning loss of SGENet."""

import math

import pytest
import torch

from loss.label_positions import encode_positions, position_loss


def test_classes_by_hand():
    ids = encode_positions(["Az-90", "1" * 30])
    assert ids.shape == (2, 26)
    assert ids[0].tolist() == [1, 26, 0, 35, 36] + [0] * 21
    assert ids[1].tolist() == [27] * 26
    assert encode_positions(["a09"], "digits")[0, :4].tolist() == [11, 1, 10, 0]


def test_the_softmax_is_taken_twice():
    text = torch.full((1, 25, 37), -100.0)
    text[:, :, 0] = 100.0  # blank everywhere: probability 1 in 25 columns, and none in the one that is added
    sure = math.log(math.e + 36) - 1
    none = math.log(37)
    assert position_loss(text, [""]).item() == pytest.approx((25 * sure + none) / 26, rel=1e-5)
    wrong = math.log(math.e + 36)
    assert position_loss(text, ["a"]).item() == pytest.approx((24 * sure + wrong + none) / 26, rel=1e-5)


def test_bad_input():
    with pytest.raises(ValueError, match="use letters or digits"):
        encode_positions(["a"], "keyboard")
    with pytest.raises(ValueError, match="1 labels for 2 images"):
        position_loss(torch.zeros(2, 25, 37), ["a"])
