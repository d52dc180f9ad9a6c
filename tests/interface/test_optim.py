import math
from itertools import pairwise

import pytest
import torch
from easydict import EasyDict
from torch import nn

from interface.optim import (
    build_optimizer,
    learning_rate,
    load_optimizer,
    lr_factor,
    release_learning_rate,
    step_learning_rate,
)


def cosine(step, *, warmup=10, total=110, peak=2.0):
    return learning_rate(step, schedule="cosine", peak=peak, warmup=warmup, total=total)


def test_cosine_at_its_corners():
    assert cosine(0) == pytest.approx(0.2)  # the first step is not wasted
    assert cosine(4) == pytest.approx(1.0)
    assert cosine(9) == pytest.approx(2.0)
    assert cosine(10) == pytest.approx(2.0)
    assert cosine(60) == pytest.approx(1.0)  # half of the way
    assert cosine(35) == pytest.approx(1 + math.sqrt(0.5))
    assert 0 < cosine(109) < 1e-3
    assert cosine(110) == pytest.approx(0)
    assert cosine(1000) == pytest.approx(0)  # it stays there


def test_cosine_rises_then_falls():
    rates = [cosine(step) for step in range(111)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert max(rates) == 2.0


@pytest.mark.parametrize(("warmup", "total"), [(0, 1), (1, 1), (0, 0), (5, 5), (10, 3)])
def test_cosine_of_very_short_runs_is_defined(warmup, total):
    for step in range(total + 2):
        assert 0 <= cosine(step, warmup=warmup, total=total) <= 2
    if total:
        assert cosine(0, warmup=warmup, total=total) > 0


def test_constant():
    rates = [learning_rate(step, schedule="constant", peak=0.3, warmup=3, total=10) for step in range(12)]
    assert rates == pytest.approx([0.1, 0.2, *[0.3] * 10])


def test_unknown_schedule():
    with pytest.raises(ValueError, match=r"'linear'.*cosine, constant, step, rtsrn_release"):
        learning_rate(0, schedule="linear", peak=1, warmup=0, total=1)


def test_steps_down():
    rates = [step_learning_rate(step, peak=0.8, period=3, factor=0.5) for step in range(8)]
    assert rates == pytest.approx([0.8] * 3 + [0.4] * 3 + [0.2] * 2)


# The published run: 17367 pairs in batches of 48, without the last short one.
SAMPLES, STEPS = 17367, 361


def release(epoch, step=0):
    return release_learning_rate(epoch * STEPS + step, peak=1e-3, samples=SAMPLES, steps_per_epoch=STEPS)


def test_release_trace():
    assert release(0) == pytest.approx(1e-3 / (5 * SAMPLES))
    assert release(4, STEPS - 1) == pytest.approx(1e-3 * STEPS / SAMPLES)  # it warms up to peak / batch size only
    assert release(4, STEPS - 1) == pytest.approx(1e-3 / 48, rel=0.01)
    assert release(98) > 0
    assert release(99) == pytest.approx(0, abs=1e-12)
    assert release(194) == pytest.approx(1e-3, rel=0.01)
    assert release(289) == pytest.approx(0, abs=1e-9)
    assert release(384) == pytest.approx(1e-3, rel=0.01)
    assert release(424) == pytest.approx(release(424 - 190), rel=0.01)


def test_release_is_constant_within_an_epoch_and_never_negative():
    assert release(50, 0) == release(50, STEPS - 1)
    rates = [release(epoch) for epoch in range(700)]  # beyond one block of the table
    assert min(rates) > -1e-12
    assert max(rates) < 1.02e-3
    steps = [abs(b - a) for a, b in pairwise(rates[6:])]
    assert max(steps) < 3e-5  # no jump anywhere, where blocks meet included


def test_release_continues_from_any_step():
    forward = [release(epoch) for epoch in range(0, 520, 7)]
    assert forward == [release(epoch) for epoch in reversed(range(0, 520, 7))][::-1]


def test_optimizers():
    parameters = [{"params": [nn.Parameter(torch.zeros(1))]}]
    adam = build_optimizer(parameters, EasyDict(optimizer="Adam", lr=0.1, beta1=0.4))
    assert isinstance(adam, torch.optim.Adam)
    assert adam.defaults["betas"] == (0.4, 0.999)
    assert adam.defaults["lr"] == 0.1
    sgd = build_optimizer(parameters, EasyDict(optimizer="SGD", lr=0.2, beta1=0.4))
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.defaults["lr"], sgd.defaults["momentum"]) == (0.2, 0.9)


def test_a_state_from_a_cpu_serves_on_a_gpu():
    """Where Adam is one kernel and its count of steps lies on the device, too; here "meta" stands for it."""
    on_cpu = torch.optim.Adam([nn.Parameter(torch.zeros(2))], lr=0.1)
    on_cpu.param_groups[0]["params"][0].grad = torch.ones(2)
    on_cpu.step()
    elsewhere = nn.Parameter(torch.zeros(2, device="meta"))
    optimizer = torch.optim.Adam([elsewhere], lr=0.3)
    optimizer.param_groups[0]["fused"] = True
    load_optimizer(optimizer, on_cpu.state_dict())
    assert {value.device.type for value in optimizer.state[elsewhere].values()} == {"meta"}
    assert optimizer.param_groups[0]["lr"] == 0.3
    with pytest.raises(ValueError, match="different number of parameter groups"):
        load_optimizer(optimizer, {"state": {}, "param_groups": []})


@pytest.mark.parametrize(
    ("images", "scaling", "factor"),
    [(48, "linear", 1), (192, "none", 1), (192, "linear", 4), (192, "sqrt", 2), (12, "sqrt", 0.5)],
)
def test_the_rate_grows_with_the_images_of_a_step(images, scaling, factor):
    assert lr_factor(images, scaling=scaling, reference=48) == pytest.approx(factor)


def test_an_unknown_scaling_is_refused():
    with pytest.raises(ValueError, match=r"'cubic'; known: none, linear, sqrt"):
        lr_factor(48, scaling="cubic", reference=48)
