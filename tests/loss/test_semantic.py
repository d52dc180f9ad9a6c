import math

import pytest
import torch

from loss.semantic import distillation, semantic_loss


def test_semantic_loss_of_two_classes_by_hand():
    student, teacher = torch.tensor([[0.25, 0.75]]), torch.tensor([[0.5, 0.5]])
    terms = distillation(student, teacher)
    assert terms["l1"].item() == pytest.approx(0.25)
    divergence = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert terms["kl"].item() == pytest.approx(divergence / 2)  # mean over both classes
    assert semantic_loss(student, teacher).item() == pytest.approx(0.25 + divergence / 2)


def test_semantic_loss_of_equal_priors_is_zero():
    prior = torch.randn(5, 2, 7).softmax(-1)
    assert semantic_loss(prior, prior).item() == pytest.approx(0.0, abs=1e-7)


def test_semantic_loss_takes_logits():
    student, teacher = torch.randn(5, 2, 7), torch.randn(5, 2, 7)
    expected = semantic_loss(student.softmax(-1), teacher.softmax(-1))
    torch.testing.assert_close(semantic_loss(student, teacher, inputs="logits"), expected)


@pytest.mark.parametrize("inputs", ["probabilities", "logits"])
def test_semantic_loss_gradient_is_finite_for_certain_priors(inputs):
    student = torch.tensor([[300.0, 0.0, -300.0]], requires_grad=True)
    teacher = torch.tensor([[-300.0, 0.0, 300.0]], requires_grad=True)
    given = (student, teacher) if inputs == "logits" else (student.softmax(-1), teacher.softmax(-1))
    loss = semantic_loss(*given, inputs=inputs)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()
    assert teacher.grad is None


def test_semantic_loss_refuses_other_shapes_and_words():
    with pytest.raises(ValueError, match="same columns"):
        semantic_loss(torch.rand(26, 2, 37), torch.rand(25, 2, 37))
    with pytest.raises(ValueError, match="'scores'"):
        semantic_loss(torch.rand(2, 37), torch.rand(2, 37), inputs="scores")
