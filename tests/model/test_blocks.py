"""Blocks against plain forms of the same mathematics."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from model.blocks.activation import AT_ONCE, Mish, mish
from model.blocks.attention import LocalAttention, PixelAdapter
from model.blocks.convolution import PictureConv2d, WeightNormConv2d, dilated_depthwise
from model.blocks.folding import fold_batch_norms
from model.blocks.gru import GruBlock
from model.blocks.stn import STNHead, TPSSpatialTransformer
from model.blocks.wave import PATM


@pytest.mark.parametrize(("kernel", "dilation", "groups", "bias"), [(1, 1, 1, False), (3, 4, 6, True)])
def test_weight_norm_is_that_of_torch(kernel, dilation, groups, bias):
    torch.manual_seed(0)
    ours = WeightNormConv2d(6, 12, kernel, dilation=dilation, groups=groups, bias=bias)
    padding = dilation * (kernel // 2)
    plain = nn.Conv2d(6, 12, kernel, padding=padding, dilation=dilation, groups=groups, bias=bias)
    theirs = weight_norm(plain)
    with torch.no_grad():
        ours.weight_g.mul_(1.7)
        theirs.parametrizations.weight.original0.copy_(ours.weight_g)
        theirs.parametrizations.weight.original1.copy_(ours.weight_v)
        if bias:
            theirs.bias.copy_(ours.bias)
    assert list(ours.state_dict()) == ["bias"] * bias + ["weight_g", "weight_v"]
    x = torch.randn(2, 6, 10, 12)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-6, rtol=0)
    ours(x).square().sum().backward()
    theirs(x).square().sum().backward()
    original = theirs.parametrizations.weight
    torch.testing.assert_close(ours.weight_g.grad, original.original0.grad, atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(ours.weight_v.grad, original.original1.grad, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("dilation", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [(16, 64), (20, 42)])
def test_dilated_convolution_has_the_right_gradients_in_any_precision(dilation, size):
    torch.manual_seed(0)
    x, upstream = (torch.randn(2, 64, *size).to(memory_format=torch.channels_last) for _ in range(2))
    kernels, bias = torch.randn(64, 1, 3, 3), torch.randn(64)

    def results(convolve, dtype, autocast=False):
        leaves = [value.to(dtype).requires_grad_() for value in (x, kernels, bias)]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            out = convolve(*leaves)
        return out, *torch.autograd.grad(out, leaves, upstream.to(out.dtype))

    def ours(*leaves):
        return dilated_depthwise(*leaves, dilation)

    def plain(*leaves):
        return F.conv2d(*leaves, padding=dilation, dilation=dilation, groups=64)

    exact = results(plain, torch.double)
    for value, expected in zip(results(ours, torch.double), exact, strict=True):
        torch.testing.assert_close(value, expected)
    for value, expected in zip(results(ours, torch.float32, autocast=True), exact, strict=True):
        assert bool((value - expected).abs().max() < 0.02 * expected.abs().max())


def test_local_attention_equals_its_unfolded_form():
    torch.manual_seed(0)
    module = LocalAttention(8).double().eval()
    x = torch.randn(2, 8, 5, 7, dtype=torch.double)
    query, key, value = module.trans(x).chunk(3, dim=1)
    key, value = (F.unfold(part, 3, padding=1).view(2, 8, 9, 5, 7) for part in (key, value))
    logits = torch.einsum("nchw,nckhw->nkhw", query, key) / math.sqrt(8)
    expected = torch.einsum("nkhw,nckhw->nchw", logits.softmax(dim=1), value)
    torch.testing.assert_close(module(x), expected)


def test_local_attention_drops_weights_in_training_only():
    torch.manual_seed(0)
    module, x = LocalAttention(8), torch.randn(1, 8, 5, 7)
    assert not torch.equal(module(x), module(x))
    module.eval()
    assert torch.equal(module(x), module(x))


def test_pixel_adapter_starts_as_the_identity():
    x = torch.randn(2, 8, 5, 7)
    assert torch.equal(PixelAdapter(8)(x), x)


def test_wave_mixing_equals_its_grouped_form():
    torch.manual_seed(0)
    module = PATM(8).double().eval()
    x = torch.randn(2, 8, 6, 9, dtype=torch.double)

    def grouped(amplitude, phase, mixer):
        waves = torch.stack([amplitude * phase.cos(), amplitude * phase.sin()], dim=2)  # a0 cos, a0 sin, a1 cos, ...
        return mixer(waves.flatten(1, 2))

    along_h = grouped(module.fc_h(x), module.theta_h_conv(x), module.tfc_h)
    along_w = grouped(module.fc_w(x), module.theta_w_conv(x), module.tfc_w)
    parts = torch.stack([along_h, along_w, module.fc_c(x)], dim=2)
    share = module.reweight(parts.sum(dim=2).mean(dim=(2, 3), keepdim=True)).view(2, 8, 3, 1, 1).softmax(dim=2)
    torch.testing.assert_close(module(x), module.proj((parts * share).sum(dim=2)))


def test_points_on_their_targets_leave_the_picture_alone():
    tps = TPSSpatialTransformer((16, 64))
    images = torch.rand(2, 3, 16, 64)
    points = tps.target_control_points.expand(2, -1, -1)
    # float32 leaves 2e-5 of the width in a coordinate, 1e-3 pixel; a pixel of noise is a step of up to 1
    torch.testing.assert_close(tps(images, points), images, atol=1e-3, rtol=0)


def test_a_shift_of_all_points_shifts_the_picture():
    tps = TPSSpatialTransformer((16, 64))
    images = torch.rand(1, 1, 16, 64)
    one_pixel = torch.tensor([1 / 63, 0.0])
    moved = tps(images, tps.target_control_points[None] + one_pixel)
    torch.testing.assert_close(moved[..., :-1], images[..., 1:], atol=5e-3, rtol=0)
    torch.testing.assert_close(moved[..., -1], images[..., -1], atol=5e-3, rtol=0)  # beyond the edge: the edge


def test_without_aligned_corners_the_picture_is_read_up_to_half_a_pixel_further_out():
    tps = TPSSpatialTransformer((16, 64), align_corners=False)
    images = torch.arange(64.0).expand(1, 1, 16, 64)
    row = tps(images, tps.target_control_points[None])[0, 0, 8]
    expected = torch.arange(64.0) * 64 / 63 - 0.5
    torch.testing.assert_close(row[1:-1], expected[1:-1], atol=0.01, rtol=0)
    torch.testing.assert_close(row[[0, -1]], torch.tensor([0.0, 63 / 2]), atol=0.01, rtol=0)  # half of it is padding


def test_the_rectifier_starts_on_straight_lines():
    torch.manual_seed(0)
    points = STNHead(4).eval()(torch.rand(2, 4, 16, 64))
    assert points.shape == (2, 20, 2)
    torch.testing.assert_close(points[0], points[1])
    torch.testing.assert_close(points[0, :, 1], torch.tensor([0.01] * 10 + [0.99] * 10))
    torch.testing.assert_close(points[0, :10, 0], torch.linspace(0.01, 0.99, 10))


@pytest.mark.parametrize("grad", [False, True])
def test_mish_is_that_of_pytorch(grad):
    x = torch.cat([torch.linspace(-120, 120, 4001), torch.tensor([0.0, -0.0, 3e38, 1e-30])]).requires_grad_(grad)
    theirs = x.detach().double().requires_grad_(grad)
    torch.testing.assert_close(mish(x).double(), F.mish(theirs), rtol=1e-6, atol=1e-7)
    if grad:
        mish(x).sum().backward()
        F.mish(theirs).sum().backward()
        torch.testing.assert_close(x.grad.double(), theirs.grad, rtol=1e-5, atol=1e-6)


def test_mish_by_hand():
    # tanh(log(1 + e^0)) = tanh(log 2) = (2 - 1/2) / (2 + 1/2) = 0.6, times x = 0; x = log 2: tanh(log 3) = 0.8
    assert mish(torch.tensor([0.0, math.log(2)])).tolist() == pytest.approx([0.0, 0.8 * math.log(2)])
    assert Mish()(torch.tensor([math.nan])).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_mish_takes_any_layout_and_any_size(dtype):
    torch.manual_seed(0)
    x = torch.randn(3, AT_ONCE // 64, 5, 64).to(dtype)
    for images in (
        x,
        x.contiguous(memory_format=torch.channels_last),
        x.transpose(1, 2),
        x[:, ::2],
        x[:1].expand(3, -1, -1, -1),
    ):
        expected = F.mish(images.double()).to(dtype)
        torch.testing.assert_close(mish(images), expected)
    assert mish(x.contiguous(memory_format=torch.channels_last)).is_contiguous(memory_format=torch.channels_last)
    assert mish(torch.empty(0, 4)).shape == (0, 4)


@pytest.mark.parametrize("bias", [True, False])
def test_a_picture_convolution_is_a_convolution(bias):
    torch.manual_seed(0)
    ours = PictureConv2d(6, 4, 9, padding=4, bias=bias)
    theirs = nn.Conv2d(6, 4, 9, padding=4, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    for shape in ((2, 6, 5, 7), (1, 6, 12, 30)):
        x = torch.randn(shape, requires_grad=True)
        y = x.detach().clone().requires_grad_()
        out, expected = ours(x), theirs(y)
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)
        weights = torch.randn_like(out)
        (out * weights).sum().backward()
        (expected * weights).sum().backward()
        torch.testing.assert_close(x.grad, y.grad, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_a_gru_block_reads_columns_as_rows_of_the_transposed_map(bias):
    torch.manual_seed(0)
    block, x = GruBlock(4, 4, pointwise=bias), torch.randn(2, 4, 3, 5)
    rows = torch.stack(
        [block.gru(block.conv1(x)[0].permute(1, 2, 0))[0], block.gru(block.conv1(x)[1].permute(1, 2, 0))[0]]
    )
    torch.testing.assert_close(block(x), rows.permute(0, 3, 1, 2))
    torch.testing.assert_close(block(x, columns=True), block(x.transpose(2, 3)).transpose(2, 3))
    assert not torch.allclose(block(x, columns=True), block(x))


def test_a_gru_under_autocast_computes_in_float32_and_keeps_the_precision_of_its_input():
    torch.manual_seed(0)
    block = GruBlock(4, 4, pointwise=False)
    x = torch.randn(2, 4, 3, 5).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(
            block(x), block._read(x.permute(0, 2, 3, 1).flatten(0, 1)).unflatten(0, (2, 3)).permute(0, 3, 1, 2)
        )
        assert block(x).dtype == torch.bfloat16
    assert torch.equal(block(x.float()).bfloat16(), torch.autocast("cpu", dtype=torch.bfloat16)(block)(x))


def test_folded_normalisations_change_no_result_and_are_gone():
    torch.manual_seed(0)
    first, second = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)), nn.Conv2d(4, 5, 1)
    network = nn.Sequential(*first, nn.ReLU(), nn.BatchNorm2d(4), second, nn.BatchNorm2d(5))
    images = torch.randn(8, 3, 6, 6)
    network(3 * images + 1)  # statistics
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3)
    expected = network.eval().requires_grad_(False)(images)
    assert fold_batch_norms(network, lambda: network(images[:1])) == 2
    torch.testing.assert_close(network(images), expected)
    assert [type(layer) for layer in network].count(nn.Identity) == 2
    assert isinstance(network[3], nn.BatchNorm2d)  # no convolution before it
    assert not any(parameter.requires_grad for parameter in network.parameters())
