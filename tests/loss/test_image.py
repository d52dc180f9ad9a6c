import math

import pytest
import torch

from loss.image import absolute_error, charbonnier, gradient_magnitude, gradient_profile, smallest, squared_error
from loss.similarity import gaussian_window, mse_rgb, psnr_from_mse, ssim


def dot(planes=3):
    """Black 3 x 3 images whose middle pixel is white."""
    images = torch.zeros(2, planes, 3, 3)
    images[:, :, 1, 1] = 1.0
    return images


def test_gradient_of_a_single_white_pixel():
    half, flat = math.sqrt(0.25 + 1e-6), 1e-3
    expected = [[flat, half, flat], [half, flat, half], [flat, half, flat]]
    torch.testing.assert_close(gradient_magnitude(dot())[0, 0], torch.tensor(expected))


def test_outside_of_the_image_is_black():
    magnitude = gradient_magnitude(torch.ones(1, 1, 3, 3))[0, 0]
    assert magnitude[1, 1].item() == pytest.approx(1e-3)
    assert magnitude[0, 1].item() == pytest.approx(math.sqrt(0.25 + 1e-6))
    assert magnitude[0, 0].item() == pytest.approx(math.sqrt(0.5 + 1e-6))


def test_image_loss_loss_of_a_single_pixel():
    sr, hr = dot(4), torch.zeros(2, 4, 3, 3)
    profile = 4 * (math.sqrt(0.25 + 1e-6) - 1e-3) / 9
    assert gradient_profile(sr, hr).tolist() == pytest.approx([profile] * 2)
    assert squared_error(sr, hr).tolist() == pytest.approx([1 / 9] * 2)


def test_image_loss_the_mask_counts_for_the_error_but_not_for_the_gradient():
    sr, hr = torch.zeros(1, 4, 4, 4), torch.zeros(1, 4, 4, 4)
    sr[:, 3, :, :2] = 1.0
    assert gradient_profile(sr, hr).item() == 0.0
    assert squared_error(sr, hr).item() == pytest.approx(1 / 8)


def test_pixel_errors_by_hand():
    sr, hr = torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 2, 2)
    sr[0, 0, 0] = torch.tensor([0.6, -0.3])  # two of twelve values
    assert absolute_error(sr, hr).tolist() == pytest.approx([0.9 / 12, 0.0])
    big, small = math.sqrt(0.36 + 1e-6), math.sqrt(0.09 + 1e-6)
    assert charbonnier(sr, hr).tolist() == pytest.approx([(big + small + 10 * 1e-3) / 12, 1e-3])


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_image_loss_gradient_is_finite_on_flat_and_equal_images(value):
    sr = torch.full((1, 4, 6, 8), value, requires_grad=True)
    hr = sr.detach().clone()
    (squared_error(sr, hr) + gradient_profile(sr, hr)).sum().backward()
    assert torch.isfinite(sr.grad).all()


def test_image_losses_refuse_what_fits_by_broadcasting_only():
    four, three, one = torch.rand(2, 4, 6, 8), torch.rand(2, 3, 6, 8), torch.rand(1, 3, 6, 8)
    for function in (gradient_profile, squared_error, absolute_error, charbonnier, ssim, mse_rgb):
        with pytest.raises(ValueError, match="equal shapes"):
            function(four, three)
        with pytest.raises(ValueError, match="equal shapes"):
            function(three, one)


def test_the_smallest_errors():
    errors = torch.tensor([5.0, 1.0, 4.0, 2.0, 3.0], requires_grad=True)
    kept = smallest(errors, 0.7)
    assert kept.tolist() == [0.0, 1.0, 0.0, 1.0, 1.0]  # 3 of 3.5
    assert not kept.requires_grad
    assert smallest(errors[:1], 0.7).tolist() == [1.0]


def test_psnr_loss_of_a_constant_error_is_20_log10_of_its_inverse():
    hr = torch.rand(2, 4, 8, 8)
    error = torch.tensor([0.1, 0.01]).view(2, 1, 1, 1)
    assert psnr_from_mse(mse_rgb(hr + error, hr)).tolist() == pytest.approx([20.0, 40.0], abs=1e-3)
    assert psnr_from_mse(mse_rgb(hr, hr)).tolist() == [math.inf, math.inf]


def test_ssim_window_sums_to_one():
    window = gaussian_window()
    assert window.sum().item() == pytest.approx(1.0)
    assert (window[5] / window[2]).item() == pytest.approx(math.exp(9 / (2 * 1.5**2)))


def test_ssim_of_one_pixel():
    a, b, mass = 0.2, 0.6, gaussian_window()[5].item() ** 2  # all but the middle of the window sees the zero padding
    mean_a, mean_b = a * mass, b * mass
    spread = (a * a + b * b) * mass - mean_a**2 - mean_b**2
    covariance = a * b * mass - mean_a * mean_b
    expected = (2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)
    expected /= (mean_a**2 + mean_b**2 + 1e-4) * (spread + 9e-4)
    value = ssim(torch.full((1, 3, 1, 1), a), torch.full((1, 3, 1, 1), b))
    assert value.tolist() == pytest.approx([expected], abs=1e-6)


def test_ssim_is_per_image_symmetric_and_blind_to_the_mask():
    a, b = torch.rand(3, 4, 16, 24), torch.rand(3, 4, 16, 24)
    both = ssim(a, b)
    torch.testing.assert_close(both, ssim(b, a))
    torch.testing.assert_close(both[1:2], ssim(a[1:2], b[1:2]))
    b[:, 3] = 0
    torch.testing.assert_close(both, ssim(a, b))
    torch.testing.assert_close(ssim(a, a), torch.ones(3))


def test_ssim_is_float32_inside_autocast():
    a = torch.full((1, 3, 16, 16), 0.9) + 1e-3 * torch.rand(1, 3, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = ssim(a, a + 1e-3)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, ssim(a, a + 1e-3), rtol=0, atol=0)


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_ssim_gradient_is_finite_on_flat_images(value):
    sr = torch.full((1, 3, 16, 16), value, requires_grad=True)
    (1 - ssim(sr, torch.full_like(sr, 0.5))).sum().backward()
    assert torch.isfinite(sr.grad).all()
