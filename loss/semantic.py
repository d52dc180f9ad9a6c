"""Distillation of text priors: the student reads the blurred image as the teacher reads the sharp one.

Paper: Text Prior Guided Scene Text Image Super-resolution, TIP 2023, https://arxiv.org/abs/2106.15368 (equation 4)
Source: https://github.com/mjq11302010044/TPGSR
Differences: the terms are returned one by one; logits may be given, whose logarithm needs no guard.
"""

from typing import Literal

from torch import Tensor

EPSILON = 1e-20  # of the published code; the smallest float32 logarithm it allows is -46


def distillation(
    student: Tensor, teacher: Tensor, *, inputs: Literal["probabilities", "logits"] = "probabilities"
) -> dict[str, Tensor]:
    """L1 distance and Kullback-Leibler divergence between two text priors; published weights are 1 and 1.

    Both are means over all elements. For the divergence this is the published choice: it is smaller than the usual
    mean over positions by the number of classes.

    Args:
        student: (..., K) probabilities or logits of K classes; leading axes in any order (time or batch first).
        teacher: like `student`; no gradient flows into it.
        inputs: what the two tensors hold.

    Returns:
        {"l1": (), "kl": ()} float32.

    Raises:
        ValueError: the shapes differ, or unknown `inputs`.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"priors of shape {tuple(student.shape)} and {tuple(teacher.shape)} cannot be compared: "
            "student and teacher must have the same columns and classes"
        )
    if inputs not in ("probabilities", "logits"):
        raise ValueError(f"unknown inputs {inputs!r}; known: 'probabilities', 'logits'")
    student, teacher = student.float(), teacher.detach().float()
    if inputs == "logits":
        log_student, student, teacher = student.log_softmax(-1), student.softmax(-1), teacher.softmax(-1)
    else:
        log_student = (student + EPSILON).log()
    teacher_safe = teacher + EPSILON
    return {
        "l1": (teacher - student).abs().mean(),
        "kl": (teacher_safe * (teacher_safe.log() - log_student)).mean(),
    }


def semantic_loss(
    student: Tensor, teacher: Tensor, *, inputs: Literal["probabilities", "logits"] = "probabilities"
) -> Tensor:
    """Sum of the two terms of `distillation`, same arguments."""
    terms = distillation(student, teacher, inputs=inputs)
    return terms["l1"] + terms["kl"]
