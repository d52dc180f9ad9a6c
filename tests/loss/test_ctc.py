import math

import pytest
import torch

from loss.ctc import ctc_loss

LN3 = math.log(3)


def ids(*numbers):
    return torch.tensor(numbers, dtype=torch.long)


def test_ctc_of_a_one_character_label_by_hand():
    # Two columns, three equal classes: 9 paths, of which "1-", "-1" and "11" read "1".
    logits = torch.zeros(1, 2, 3)
    for form in ("clean", "published"):
        assert ctc_loss(logits, ids(1), ids(1), ids(1), form=form).item() == pytest.approx(LN3)


def test_ctc_of_a_doubled_character_is_divided_by_its_length():
    # Three columns: "1-1" is the only one of 27 paths.
    assert ctc_loss(torch.zeros(1, 3, 3), ids(1, 1), ids(2)).item() == pytest.approx(math.log(27) / 2)


def test_ctc_sample_without_known_character_contributes_nothing():
    logits = torch.zeros(2, 2, 3, requires_grad=True)
    loss = ctc_loss(logits, ids(1, 0), ids(1, 1), ids(1, 0))
    assert loss.item() == pytest.approx(LN3 / 2)
    loss.backward()
    assert logits.grad[0].abs().sum() > 0
    assert logits.grad[1].abs().sum() == 0


def test_ctc_published_form_scales_all_samples_by_the_valid_share():
    logits = torch.randn(2, 4, 3)
    whole = ctc_loss(logits, ids(1, 0), ids(1, 1), form="published")
    half = ctc_loss(logits, ids(1, 0), ids(1, 1), ids(1, 0), form="published")
    torch.testing.assert_close(half, whole / 2)


def test_ctc_blanks_inside_a_target_are_removed():
    logits = torch.randn(2, 6, 3)
    with_hyphen = ctc_loss(logits, ids(1, 0, 2, 2), ids(3, 1))
    torch.testing.assert_close(with_hyphen, ctc_loss(logits, ids(1, 2, 2), ids(2, 1)))
    published = ctc_loss(logits, ids(1, 0, 2, 2), ids(3, 1), form="published")
    assert not torch.isclose(published, with_hyphen)


def test_ctc_forms_agree_on_ordinary_labels():
    logits = torch.randn(3, 26, 37)
    targets, lengths = ids(5, 6, 7, 11, 36, 36), torch.tensor([3.0, 1.0, 2.0])
    clean = ctc_loss(logits, targets, lengths)
    torch.testing.assert_close(clean, ctc_loss(logits, targets, lengths, ids(1, 1, 1), form="published"))


def test_ctc_label_too_long_for_the_columns_gives_no_infinity():
    logits = torch.randn(2, 2, 3, requires_grad=True)
    loss = ctc_loss(logits, ids(1, 1, 2), ids(2, 1))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0].abs().sum() == 0
    assert torch.isinf(ctc_loss(logits, ids(1, 1, 2), ids(2, 1), form="published"))


def test_ctc_batch_without_any_known_character_keeps_the_graph():
    logits = torch.randn(2, 2, 3, requires_grad=True)
    loss = ctc_loss(logits, ids(0, 0), ids(1, 1), ids(0, 0))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad.abs().sum() == 0


def test_ctc_refuses_what_does_not_add_up():
    with pytest.raises(ValueError, match="add up"):
        ctc_loss(torch.zeros(1, 2, 3), ids(1, 1), ids(1))
    with pytest.raises(ValueError, match="add up"):
        ctc_loss(torch.zeros(2, 2, 3), ids(1), ids(1))
    with pytest.raises(ValueError, match="'raw'"):
        ctc_loss(torch.zeros(1, 2, 3), ids(1), ids(1), form="raw")
