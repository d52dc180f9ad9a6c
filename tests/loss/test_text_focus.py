import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from loss.text_focus import AT_ONCE, TextFocus, encode_labels
from loss.weighted_ce import CLASSES, IGNORED, confusion_weights, weighted_cross_entropy
from model.recognizer.focus_transformer import FocusTransformer, LayerNorm


def small_recognizer():
    torch.manual_seed(0)
    return FocusTransformer(widths=(4, 4, 8, 8, 16), blocks=(1, 1), heads=4)


def dissimilarity(seed=0):
    matrix = np.random.RandomState(seed).uniform(0.02, 3.0, (62, 62))
    matrix = matrix + matrix.T
    np.fill_diagonal(matrix, 0.0)
    return matrix


def images(seed=1, planes=3):
    return torch.rand(2, planes, 16, 32, generator=torch.Generator().manual_seed(seed))


def test_text_focus_loss_labels():
    encoded = encode_labels(["Ab-1", "", "z!"])
    assert encoded.inputs.tolist() == [[0, 11, 12, 2], [0, 0, 0, 0], [0, 36, 0, 0]]
    no = IGNORED
    assert encoded.targets.tolist() == [[11, 12, 2, 0], [0, no, no, no], [36, 0, no, no]]
    assert encoded.lengths.tolist() == [4, 1, 2]
    with pytest.raises(ValueError, match="one label per image"):
        encode_labels([])


def test_weighted_cross_entropy_of_two_classes_by_hand():
    log_weights = torch.tensor([[1.0, 2.0], [1.0, 1.0]]).log()
    logits = torch.tensor([[0.0, math.log(3)], [9.0, 9.0]])
    loss = weighted_cross_entropy(logits, torch.tensor([0, IGNORED]), log_weights)
    assert loss.item() == pytest.approx(math.log(7))  # 1 / (1 + 2 * 3)


def test_weighted_cross_entropy_with_uniform_table_is_the_plain_one():
    logits, targets = torch.randn(6, CLASSES), torch.randint(0, CLASSES, (6,))
    table = confusion_weights()
    torch.testing.assert_close(weighted_cross_entropy(logits, targets, table.log()), F.cross_entropy(logits, targets))


def test_weighted_cross_entropy_of_large_logits_does_not_overflow():
    logits = torch.zeros(2, CLASSES)
    logits[:, 3] = 200.0
    logits.requires_grad_()
    loss = weighted_cross_entropy(logits, torch.tensor([3, 4]), confusion_weights(dissimilarity()).log())
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_weighted_table_by_hand():
    matrix = dissimilarity()
    digit, upper, lower = range(10), range(10, 36), range(36, 62)
    table = confusion_weights(matrix)
    assert table.shape == (37, 37)
    assert (table[0] == 1).all()
    assert (table[:, 0] == 1).all()
    torch.testing.assert_close(table.diagonal(), torch.ones(37))
    assert table[1 + 4, 1 + 7].item() == pytest.approx(1 / matrix[digit[4], digit[7]])
    # true "c", alternative "f": the more similar of "f" and "F"
    expected = max(1 / matrix[lower[2], lower[5]], 1 / matrix[lower[2], upper[5]])
    assert table[11 + 2, 11 + 5].item() == pytest.approx(expected)


def test_weighted_table_of_the_published_code_differs_on_the_letter_diagonal_only():
    matrix = dissimilarity()
    table, published = confusion_weights(matrix), confusion_weights(matrix, column_order="published")
    off_diagonal = ~torch.eye(37, dtype=torch.bool)
    torch.testing.assert_close(table[off_diagonal], published[off_diagonal])
    torch.testing.assert_close(published.diagonal()[:11], torch.ones(11))
    cases = torch.tensor([1 / matrix[36 + letter, 10 + letter] for letter in range(26)])
    torch.testing.assert_close(published.diagonal()[11:], cases.float())


def test_weighted_table_refuses_other_matrices():
    for wrong in (np.ones((37, 37)), np.full((62, 62), np.nan), -np.ones((62, 62))):
        with pytest.raises(ValueError, match="62 x 62"):
            confusion_weights(wrong)
    with pytest.raises(ValueError, match="'upper'"):
        confusion_weights(None, column_order="upper")


def test_text_focus_loss_gradient_reaches_the_images_only():
    focus = TextFocus(small_recognizer(), dissimilarity=dissimilarity())
    sr, hr = images(1).requires_grad_(), images(2).requires_grad_()
    terms = focus(sr, hr, ["ab1", "c"])
    assert set(terms) == {"attention", "recognition"}
    for term in terms.values():
        (gradient,) = torch.autograd.grad(term, sr, retain_graph=True)
        assert torch.isfinite(gradient).all()
        assert gradient.abs().sum() > 0
    sum(terms.values()).backward()
    assert hr.grad is None
    assert all(parameter.grad is None for parameter in focus.parameters())
    assert not [parameter for parameter in focus.parameters() if parameter.requires_grad]


def test_text_focus_loss_recognizer_stays_in_evaluation_mode():
    parent = nn.Sequential(TextFocus(small_recognizer())).train()
    focus = parent[0]
    assert not any(module.training for module in focus.recognizer.modules())
    before = focus.recognizer.encoder.cnn.bn1.running_mean.clone()
    first = focus(images(1), images(2), ["ab", "c"])
    again = focus(images(1), images(2), ["ab", "c"])
    assert torch.equal(focus.recognizer.encoder.cnn.bn1.running_mean, before)
    assert {name: term.item() for name, term in first.items()} == {name: term.item() for name, term in again.items()}


def test_text_focus_loss_of_equal_images_has_no_attention_term():
    focus = TextFocus(small_recognizer())
    sr = images().requires_grad_()
    terms = focus(sr, sr.detach().clone(), ["ab", "c"])
    assert terms["attention"].item() == 0.0
    terms["attention"].backward()
    assert torch.isfinite(sr.grad).all()


def test_text_focus_loss_runs_in_bfloat16_autocast():
    focus = TextFocus(small_recognizer())
    expected = focus(images(1), images(2), ["ab", "c"])
    sr = images(1).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = focus(sr, images(2), ["ab", "c"])
    for name, term in terms.items():
        assert term.dtype == torch.float32
        assert term.item() == pytest.approx(expected[name].item(), rel=0.2)
    sum(terms.values()).backward()
    assert torch.isfinite(sr.grad).all()


@pytest.mark.parametrize("labels", [["", "ab"], ["", ""], ["?!", "-"]])
def test_text_focus_loss_of_an_empty_label(labels):
    focus = TextFocus(small_recognizer())
    sr = images(1).requires_grad_()
    terms = focus(sr, images(2), labels)
    sum(terms.values()).backward()
    assert all(torch.isfinite(term) for term in terms.values())
    assert torch.isfinite(sr.grad).all()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_text_focus_loss_gradient_is_finite_on_flat_images(value):
    sr = torch.full((2, 4, 16, 32), value, requires_grad=True)
    sum(TextFocus(small_recognizer())(sr, sr.detach().clone(), ["ab", "c"]).values()).backward()
    assert torch.isfinite(sr.grad).all()


def test_text_focus_loss_takes_kept_attention_instead_of_the_sharp_images():
    focus = TextFocus(small_recognizer())
    sr, hr, labels = images(1), images(2), ["ab", "c"]
    expected = focus(sr, hr, labels)
    kept = focus.attention_targets(torch.cat([hr, hr[:1]]), encode_labels([*labels, "longer"]))[:2]
    assert kept.shape[2] == 7
    terms = focus(sr, None, labels, attention_hr=kept)
    for name, term in expected.items():
        torch.testing.assert_close(terms[name], term)


def test_text_focus_loss_ignores_the_mask():
    focus = TextFocus(small_recognizer())
    sr, hr = images(1, planes=4), images(2, planes=4)
    terms, without = focus(sr, hr, ["a", "b"]), focus(sr[:, :3], hr[:, :3], ["a", "b"])
    assert terms["attention"].item() == pytest.approx(without["attention"].item())


def test_text_focus_loss_refuses_missing_parts():
    focus = TextFocus(small_recognizer())
    with pytest.raises(ValueError, match="both are missing"):
        focus(images(), None, ["a", "b"])
    with pytest.raises(ValueError, match="1 labels for 2 images"):
        focus(images(), images(), ["a"])
    with pytest.raises(ValueError, match="equal shapes"):
        focus(images(), images()[:1], ["a", "b"])


def test_text_focus_loss_keeps_its_table_out_of_checkpoints_and_moves_it():
    focus = TextFocus(small_recognizer(), dissimilarity=dissimilarity())
    assert "log_weights" not in focus.state_dict()
    assert focus.to("meta").log_weights.device.type == "meta"


def test_text_focus_loss_recognizer_sees_no_later_character():
    recognizer = small_recognizer().eval()
    features = recognizer.encode(recognizer.preprocess(images()))
    logits, attention = recognizer.decode(features, torch.tensor([[0, 5, 6], [0, 7, 8]]))
    other, _ = recognizer.decode(features, torch.tensor([[0, 5, 9], [0, 7, 1]]))
    assert logits.shape == (2, 3, 37)
    assert attention.shape == (2, 4, 3, 4 * 8)
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, 4, 3))
    torch.testing.assert_close(logits[:, :2], other[:, :2])
    assert not torch.allclose(logits[:, 2], other[:, 2])


def test_text_focus_loss_layer_norm_uses_the_unbiased_deviation():
    norm = LayerNorm(2)
    expected = 1 / (math.sqrt(2) + 1e-6)
    assert norm(torch.tensor([1.0, 3.0])).tolist() == pytest.approx([-expected, expected])


def test_text_focus_loss_recognizer_refuses_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match="one per stage"):
        FocusTransformer(widths=(4, 4, 8), blocks=(1, 1))
    with pytest.raises(ValueError, match="number of heads"):
        FocusTransformer(widths=(4, 4, 8, 20), blocks=(1,), heads=16)
    with pytest.raises(ValueError, match="max_length"):
        FocusTransformer(widths=(4, 4, 8, 16), blocks=(1,), heads=4, max_length=2).decode(
            torch.rand(1, 4, 16), torch.zeros(1, 3, dtype=torch.long)
        )


def test_a_cpu_reads_large_batches_in_parts_with_the_same_result():
    loss = TextFocus(small_recognizer())
    sr = torch.rand(2 * AT_ONCE + 1, 3, 32, 128, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets = encode_labels([f"word{number}" for number in range(len(sr))])
    counts: list[int] = []
    loss.recognizer.encoder.register_forward_hook(lambda _, inputs, __: counts.append(len(inputs[0])))
    logits, attention = loss.read(sr, targets.inputs)
    assert counts == [AT_ONCE, AT_ONCE, 1]
    whole_logits, whole_attention = loss.read_at_once(sr, targets.inputs)
    torch.testing.assert_close(logits, whole_logits)
    torch.testing.assert_close(attention, whole_attention)
    (grad,) = torch.autograd.grad(logits.square().sum() + attention.square().sum(), sr)
    (whole,) = torch.autograd.grad(whole_logits.square().sum() + whole_attention.square().sum(), sr)
    torch.testing.assert_close(grad, whole, rtol=1e-4, atol=1e-6)
