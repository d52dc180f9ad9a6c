import math

import numpy as np
import pytest
import torch

from interface.metrics import (
    batch_groups,
    batch_psnr,
    batch_ssim,
    bootstrap_interval,
    image_metrics,
    is_correct,
    psnr,
    summary,
    to_list,
)


def constant(*values, channels=3):
    """One 16x32 picture per value."""
    return torch.tensor(values).reshape(-1, 1, 1, 1).expand(-1, channels, 16, 32).contiguous()


def test_psnr_of_a_constant_error_is_20_log10_of_its_inverse():
    assert psnr(constant(0.5, 0.5), constant(0.6, 0.51)).tolist() == pytest.approx([20.0, 40.0], abs=1e-3)
    assert psnr(constant(0.5), constant(0.5)).tolist() == [math.inf]
    assert psnr(constant(1.0), constant(0.0)).tolist() == [0.0]


def test_the_mask_channel_does_not_count():
    sr, hr = constant(0.5, channels=4), constant(0.6, channels=4)
    sr[:, 3] = 0
    found = image_metrics(sr, hr)
    assert found["psnr"].tolist() == pytest.approx([20.0], abs=1e-3)
    assert found["ssim"].tolist() == image_metrics(sr[:, :3], hr[:, :3])["ssim"].tolist()


def test_psnr_is_that_of_the_picture_as_saved_and_the_raw_error_that_of_the_tensor():
    found = image_metrics(constant(1.3), constant(0.9))
    assert found["psnr"].tolist() == pytest.approx([20.0], abs=1e-3)
    assert found["mse_raw"].tolist() == pytest.approx([0.16])
    assert image_metrics(constant(-0.5), constant(0.0))["psnr"].tolist() == [math.inf]


def test_metrics_of_a_picture_do_not_depend_on_its_batch():
    torch.manual_seed(0)
    sr, hr = torch.rand(7, 4, 32, 128) * 1.2 - 0.1, torch.rand(7, 4, 32, 128)
    whole = image_metrics(sr, hr)
    for name, values in whole.items():
        alone = torch.cat([image_metrics(sr[k : k + 1], hr[k : k + 1])[name] for k in range(7)])
        assert torch.equal(values, alone), name


def test_half_precision_is_measured_in_full():
    sr = constant(0.5).bfloat16()
    assert image_metrics(sr, constant(0.6))["psnr"].dtype == torch.float32
    assert image_metrics(sr, constant(0.6))["psnr"].item() == pytest.approx(20.0, abs=1e-3)


def test_batch_psnr_by_hand():
    errors = [0.01, 0.0001, 0.001]  # 20, 40 and 30 dB
    assert batch_psnr(errors, 1) == pytest.approx(30)
    # two in the first batch: -10 log10(0.00505) = 22.967; then 30
    assert batch_psnr(errors, 2) == pytest.approx((22.96709 + 30) / 2, abs=1e-4)
    assert batch_psnr(errors, 48) == pytest.approx(-10 * math.log10(0.0037))
    assert batch_psnr(errors, 48) < np.mean([20, 40, 30])  # not the mean over images
    assert batch_psnr([0.0, 0.01], 1) == math.inf
    assert batch_psnr([0.0, 0.02], 2) == pytest.approx(20)


def test_batch_ssim_by_hand():
    assert batch_ssim([1.0, 0.5, 0.0], 2) == pytest.approx((0.75 + 0) / 2)  # the short batch counts as much
    assert batch_ssim([1.0, 0.5, 0.0], 3) == pytest.approx(0.5)


def test_batch_groups_cover_everything_once():
    for count in (1, 2, 47, 48, 49, 96):
        groups = batch_groups(count, 48)
        assert [k for group in groups for k in range(count)[group]] == list(range(count))
        assert len(groups) == math.ceil(count / 48)


@pytest.mark.parametrize(
    ("reading", "label", "correct"),
    [
        ("hotel", "Hotel", True),
        ("no7", "No.7", True),
        ("no 7!", "NO7", True),
        ("hote1", "Hotel", False),
        ("", "...", True),  # the published rule: both are empty
        ("", "a", False),
        ("a", "", False),
        ("nave", "naïve", True),  # what the published filter removes
    ],
)
def test_correctness_is_that_of_letters_and_digits(reading, label, correct):
    assert is_correct(reading, label) is correct


def test_bootstrap_interval_contains_the_mean_and_shrinks():
    generator = np.random.default_rng(1)
    widths = []
    for count in (25, 100, 400, 1600):
        values = generator.normal(5, 2, count)
        low, high = bootstrap_interval(values.tolist(), 1000)
        assert low < values.mean() < high
        widths.append(high - low)
        assert high - low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(count), rel=0.12)
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize(("hits", "count"), [(500, 1000), (900, 1000), (30, 100)])
def test_bootstrap_of_an_accuracy_is_the_binomial_interval(hits, count):
    values = [1.0] * hits + [0.0] * (count - hits)
    low, high = bootstrap_interval(values, 2000)
    share = hits / count
    half = 1.96 * math.sqrt(share * (1 - share) / count)
    assert (low, high) == pytest.approx((share - half, share + half), abs=0.15 * half + 1 / count)


def test_bootstrap_is_a_function_of_its_arguments():
    values = list(np.random.default_rng(0).random(50))
    np.random.seed(0)
    first = bootstrap_interval(values, 200)
    np.random.seed(1)
    assert bootstrap_interval(values, 200) == first
    assert bootstrap_interval(values, 200, seed=1) != first
    assert bootstrap_interval(values[:-1], 200) != first


def test_bootstrap_of_large_sets_in_blocks_equals_one_of_small_memory():
    values = np.random.default_rng(0).random(500_000)  # 4 resamples in memory at a time
    low, high = bootstrap_interval(values.tolist(), 10)
    assert low < values.mean() < high


def test_bootstrap_of_one_image_and_of_equal_images():
    assert bootstrap_interval([3.0], 100) == (3.0, 3.0)
    assert bootstrap_interval([0.0] * 20, 100) == (0.0, 0.0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("infinite", [1, 5, 19, 20])
def test_infinite_values_make_an_infinite_mean_and_no_nonsense(infinite):
    found = summary([math.inf] * infinite + [20.0] * (20 - infinite), 1000)
    assert found["value"] == math.inf
    assert found["high"] == math.inf
    assert not math.isnan(found["low"])


def test_summary():
    found = summary([1.0, 0.0, 1.0, 1.0], 500)
    assert found["value"] == 0.75
    assert 0 <= found["low"] <= 0.75 <= found["high"] <= 1


def test_to_list_keeps_float32_values():
    assert to_list(torch.tensor([0.1])) == [float(np.float32(0.1))]
