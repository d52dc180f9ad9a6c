"""Optimizers, and the learning rate as a function of the step: it has no state, so a resumed run needs none."""

import math
from functools import lru_cache
from typing import Any

import torch
from easydict import EasyDict

RELEASE_WARMUP_EPOCHS = 5
RELEASE_PERIOD = 95  # epochs, the T_max of the published scheduler


def build_optimizer(groups: list[dict[str, Any]], config: EasyDict) -> torch.optim.Optimizer:
    """The optimizer of one phase.

    Args:
        groups: what it trains, as PyTorch takes it: each has a list "params".
        config: `config.TRAIN`: optimizer, lr, beta1.
    """
    if config.optimizer == "SGD":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9)
    # One kernel instead of a dozen for each group of tensors; on CPUs it is not faster.
    fused = all(parameter.device.type == "cuda" for group in groups for parameter in group["params"])
    return torch.optim.Adam(groups, lr=config.lr, betas=(config.beta1, 0.999), fused=fused)


def load_optimizer(optimizer: Any, state: dict[str, Any]) -> None:
    """Take over the state of an optimizer, but not its options, such as beta1: they are those of this command line.

    Raises:
        ValueError: the state is that of other parameters.
    """
    # Options first: where the state of a parameter has to lie depends on them.
    options = [{key: value for key, value in g.items() if key != "params"} for g in optimizer.param_groups]
    groups = [{**saved, **own} for saved, own in zip(state["param_groups"], options, strict=False)]
    whole = len(groups) == len(state["param_groups"])
    optimizer.load_state_dict({**state, "param_groups": groups} if whole else state)


def lr_factor(images: int, *, scaling: str, reference: int) -> float:
    """What the learning rate is multiplied by where a step sees another number of images than it was chosen for.

    Args:
        images: of a step, in all processes and accumulated batches.
        scaling: "none": 1; "linear": images / reference (https://arxiv.org/abs/1706.02677, for SGD); "sqrt": the root
            of that (https://arxiv.org/abs/2205.10287, for Adam).
        reference: images of a step for which the rate was chosen.

    Raises:
        ValueError: unknown scaling.
    """
    powers = {"none": 0.0, "linear": 1.0, "sqrt": 0.5}
    if scaling not in powers:
        raise ValueError(f"unknown scaling of the learning rate {scaling!r}; known: {', '.join(powers)}")
    return float((images / reference) ** powers[scaling])


def learning_rate(step: int, *, schedule: str, peak: float, warmup: int, total: int) -> float:
    """Learning rate of step `step` (0-based) of `total`.

    Args:
        step: number of steps taken before this one.
        schedule: "cosine": linear rise in `warmup` steps, then a half cosine to 0; "constant": the rise, then `peak`.
        peak: the largest rate.
        warmup: steps of the rise.
        total: all steps.

    Raises:
        ValueError: unknown schedule.
    """
    if schedule not in ("cosine", "constant"):
        raise ValueError(f"unknown schedule {schedule!r}; known: cosine, constant, step, rtsrn_release")
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "constant":
        return peak
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


def step_learning_rate(step: int, *, peak: float, period: int, factor: float) -> float:
    """Learning rate of step `step` (0-based): `peak`, multiplied by `factor` after every `period` steps."""
    return peak * factor ** (step // period)


def release_learning_rate(step: int, *, peak: float, samples: int, steps_per_epoch: int) -> float:
    """The rate that the published RTSRN program really used at step `step` (0-based).

    Its warm-up counts samples where it meant steps, so after five epochs the rate is peak / batch size, and its cosine
    goes on from there: 0 after epoch 99, `peak` at epoch 194, and so on with a period of 190 epochs. The published
    scores come from epoch 424.

    Args:
        step: number of steps taken before this one.
        peak: the nominal rate.
        samples: size of the training set.
        steps_per_epoch: steps of one epoch.
    """
    epoch = step // steps_per_epoch
    if epoch < RELEASE_WARMUP_EPOCHS:
        return peak * (step + 1) / (RELEASE_WARMUP_EPOCHS * samples + 1e-8)
    return _release_epoch(epoch - RELEASE_WARMUP_EPOCHS + 1, peak, samples, steps_per_epoch)


@lru_cache(maxsize=16)
def _release_table(count: int, peak: float, samples: int, steps_per_epoch: int) -> tuple[float, ...]:
    rate = peak * RELEASE_WARMUP_EPOCHS * steps_per_epoch / (RELEASE_WARMUP_EPOCHS * samples + 1e-8)
    rates = [rate]
    for s in range(1, count + 1):
        if (s - 1 - RELEASE_PERIOD) % (2 * RELEASE_PERIOD) == 0:
            rate += peak * (1 - math.cos(math.pi / RELEASE_PERIOD)) / 2
        else:
            rate *= (1 + math.cos(math.pi * s / RELEASE_PERIOD)) / (1 + math.cos(math.pi * (s - 1) / RELEASE_PERIOD))
        rates.append(rate)
    return tuple(rates)


def _release_epoch(s: int, peak: float, samples: int, steps_per_epoch: int) -> float:
    # Tables grow in blocks, so that a run does not build one per epoch.
    return _release_table(-(-s // 500) * 500, peak, samples, steps_per_epoch)[s]
