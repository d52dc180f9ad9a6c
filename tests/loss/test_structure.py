import pytest
import torch

from loss.structure import hog, local_contour_loss


def ramp(across, down, planes=1):
    """8 x 8 images that grow by `across` per column and by `down` per row."""
    column, row = torch.arange(8.0), torch.arange(8.0).unsqueeze(1)
    return (across * column + down * row).expand(1, planes, 8, 8)


@pytest.mark.parametrize(
    ("across", "down", "direction"),
    # The filters give -8 times the slopes; their angle atan2(across, down) in eighths of a turn, floor, modulo 4.
    [(0.1, 0.05, 1), (0.05, 0.1, 0), (-0.1, 0.05, 2), (-0.05, 0.1, 3), (-0.1, -0.05, 1)],
)
def test_lca_histogram_of_a_ramp(across, down, direction):
    cells = hog(ramp(across, down))
    assert cells.shape == (1, 1, 4, 4, 4)
    expected = torch.zeros(4)
    expected[direction] = 1.0
    torch.testing.assert_close(cells[0, 0, :, 1, 1], expected)


def test_lca_of_two_directions_by_hand():
    # Each inner cell has one vote in one bin of each image: two of four bins differ by 1.
    sr, hr = ramp(0.1, 0.05), ramp(0.05, 0.1)
    difference = (hog(sr) - hog(hr)).abs()[..., 1:3, 1:3]
    assert difference.mean().item() == pytest.approx(0.5)


def test_lca_does_not_depend_on_contrast():
    images = torch.rand(2, 4, 8, 12)
    torch.testing.assert_close(hog(images), hog(0.5 * images), atol=1e-5, rtol=0)


def test_lca_of_a_black_image_is_zero():
    assert hog(torch.zeros(1, 3, 8, 8)).abs().sum() == 0


@pytest.mark.parametrize("planes", [1, 3, 4])
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_lca_gradient_is_finite_on_flat_images(planes, value):
    sr = torch.full((2, planes, 8, 8), value, requires_grad=True)
    local_contour_loss(sr, torch.rand(2, planes, 8, 8)).backward()
    assert torch.isfinite(sr.grad).all()
    assert sr.grad.abs().max() < 10


def test_lca_gradient_is_finite_on_equal_images():
    sr = torch.rand(2, 3, 8, 8, requires_grad=True)
    loss = local_contour_loss(sr, sr.detach().clone())
    loss.backward()
    assert loss.item() == 0.0
    assert torch.isfinite(sr.grad).all()


def test_lca_gradient_is_the_slope_of_the_value():
    torch.manual_seed(0)
    hr = torch.rand(1, 3, 16, 16)
    sr = torch.rand(1, 3, 16, 16, requires_grad=True)
    inner = (..., slice(1, -1), slice(1, -1))  # rounding chooses bins at the mirrored border

    def value(images):
        return (hog(images) - hog(hr))[inner].square().sum()

    (gradient,) = torch.autograd.grad(value(sr), sr)
    step = 1e-3 * gradient / gradient.norm()
    with torch.no_grad():
        slope = (value(sr + step) - value(sr - step)) / 2e-3
    assert slope.item() == pytest.approx(gradient.norm().item(), rel=0.05)


def test_lca_moves_weights_and_the_published_form_does_not():
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 3, 3, padding=1)
    lr, hr = torch.rand(2, 3, 8, 12), torch.rand(2, 3, 8, 12)
    published = local_contour_loss(network(lr), hr, published=True)
    assert not published.requires_grad

    first = local_contour_loss(network(lr), hr)
    torch.testing.assert_close(first.detach(), published)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    for _ in range(20):
        optimizer.zero_grad()
        local_contour_loss(network(lr), hr).backward()
        optimizer.step()
    assert local_contour_loss(network(lr), hr).item() < first.item()


def test_lca_refuses_other_shapes():
    with pytest.raises(ValueError, match="equal shapes"):
        local_contour_loss(torch.rand(1, 4, 8, 8), torch.rand(1, 3, 8, 8))
