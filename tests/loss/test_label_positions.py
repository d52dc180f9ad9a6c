"""The fine-tuning loss of LEMMA and SGENet."""

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


def test_each_column_is_a_character_by_hand():
    text = torch.zeros(1, 25, 37)
    text[0, 0, 3] = math.log(4.0)  # "c" in the first column: 4 of 4 + 36
    expected = (math.log(40 / 4) + 25 * math.log(37)) / 26
    assert position_loss(text, ["c"]).item() == pytest.approx(expected, rel=1e-5)
    assert position_loss(text, ["C?"]).item() == pytest.approx(expected, rel=1e-5)
    assert position_loss(text, [""]).item() == pytest.approx(expected + math.log(4) / 26, rel=1e-5)


def test_as_published_the_softmax_is_taken_twice():
    text = torch.full((1, 25, 37), -100.0)
    text[:, :, 0] = 100.0  # blank everywhere: probability 1 in 25 columns, and none in the one that is added
    sure = math.log(math.e + 36) - 1
    none = math.log(37)
    assert position_loss(text, [""], published=True).item() == pytest.approx((25 * sure + none) / 26, rel=1e-5)
    wrong = math.log(math.e + 36)
    assert position_loss(text, ["a"], published=True).item() == pytest.approx((24 * sure + wrong + none) / 26, rel=1e-5)


def test_bad_input():
    with pytest.raises(ValueError, match="use letters or digits"):
        encode_positions(["a"], "keyboard")
    with pytest.raises(ValueError, match="1 labels for 2 images"):
        position_loss(torch.zeros(2, 25, 37), ["a"])
