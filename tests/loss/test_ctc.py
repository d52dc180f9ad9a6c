import math

import pytest
import torch

from loss.ctc import ctc_loss
from loss.ctc_recursion import ctc_by_recursion

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


def padded(targets, lengths):
    return torch.nn.utils.rnn.pad_sequence(list(targets.split(lengths.tolist())), batch_first=True)


@pytest.mark.parametrize(
    ("targets", "lengths"),
    [
        (ids(5, 6, 6, 11, 36, 36, 1), ids(4, 1, 2)),
        (ids(7, 0, 7, 3, 1), ids(3, 1, 1)),  # with the published id of a hyphen, which is the blank's
        (ids(2, 2, 2, 2, 2, 9), ids(0, 5, 1)),  # nothing to read, and just room enough for five times the same
        (ids(*[4] * 6, 8), ids(6, 0, 1)),  # too long for the columns
    ],
)
def test_recursion_gives_the_numbers_and_gradients_of_pytorch(targets, lengths):
    logits = torch.randn(3, 9, 37, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weights = torch.tensor([0.5, 2.0, 1.0])
    columns = torch.full_like(lengths, 9)
    chances = logits.log_softmax(-1).transpose(0, 1)
    expected = torch.nn.functional.ctc_loss(chances, targets, columns, lengths, reduction="none", zero_infinity=True)
    (wanted,) = torch.autograd.grad((expected * weights).sum(), logits)
    losses = ctc_by_recursion(logits, padded(targets, lengths), lengths)
    possible = losses.isfinite()
    (gradient,) = torch.autograd.grad((losses.where(possible, 0.0) * weights).sum(), logits)
    torch.testing.assert_close(losses.where(possible, 0.0), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-6)
    assert possible.tolist() == [length < 6 for length in lengths.tolist()]


def test_recursion_gives_the_derivative_where_the_blank_is_to_be_read():
    """Every column must be blank; PyTorch forgets a part of the last one."""
    logits = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ctc_by_recursion(logits, ids(0)[None], ids(1)).sum().backward()
    torch.testing.assert_close(logits.grad, logits.detach().softmax(-1) - torch.tensor([1.0, 0.0, 0.0]))


def test_recursion_of_hopeless_logits_stays_finite():
    logits = torch.full((1, 8, 5), -200.0)
    logits[..., 1] = 200.0  # sure of a class that the target has not
    logits.requires_grad_()
    loss = ctc_by_recursion(logits, ids(2, 3)[None], ids(2))
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(logits.grad).all()


def test_recursion_stays_in_float32_under_autocast():
    logits = torch.randn(2, 9, 37, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (expected,) = torch.autograd.grad(ctc_by_recursion(logits, ids(5, 6, 7, 8).view(2, 2), ids(2, 2)).sum(), logits)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = ctc_by_recursion(logits, ids(5, 6, 7, 8).view(2, 2), ids(2, 2)).sum()
    assert torch.equal(torch.autograd.grad(loss, logits)[0], expected)
