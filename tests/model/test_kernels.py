"""Fused loops against the operations of PyTorch that they stand for."""

import math
import sys

import pytest
import torch
from torch import nn

from model.blocks import kernels
from model.blocks.gru import GruBlock
from model.blocks.wave import WaveBlock

fused = pytest.mark.skipif(kernels._loops() is None, reason="numba is not installed")


def random_block(block):
    """In evaluation mode, with weights and statistics that are not those of the start."""
    torch.manual_seed(0)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return block.eval().requires_grad_(False)


@torch.no_grad()
def plain(function, *inputs, **options):
    """The result by PyTorch's operations: they serve where a gradient or a counter of operations might be wanted."""
    return function(*inputs, **options)


@fused
@pytest.mark.parametrize(
    ("channels", "size", "shape", "pointwise"),
    [
        (96, 64, (3, 96, 16, 64), True),
        (10, 10, (2, 10, 5, 7), False),
        (4, 6, (1, 4, 1, 9), True),
        (2, 2, (2, 2, 1, 1), True),
    ],
)
@pytest.mark.parametrize("columns", [False, True])
def test_a_gru_reads_as_that_of_pytorch(channels, size, shape, pointwise, columns):
    block = random_block(GruBlock(channels, size, pointwise=pointwise))
    x = torch.randn(shape)
    expected = plain(block, x, columns=columns)
    with torch.inference_mode():
        assert kernels.usable(x)
        torch.testing.assert_close(block(x, columns=columns), expected, atol=1e-6, rtol=0)
        together = x.contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(block(together, columns=columns), expected, atol=1e-6, rtol=0)


@fused
def test_a_gru_saturates_and_passes_on_what_is_no_number():
    block = random_block(GruBlock(4, 4, pointwise=False))
    x = 1e4 * torch.randn(3, 4, 2, 5)
    x[1, 2, 0, 3] = math.nan
    x[2] = 3e38
    expected = plain(block, x)
    assert expected[1].isnan().any() and not expected[0].isnan().any()
    with torch.inference_mode():
        torch.testing.assert_close(block(x), expected, atol=1e-6, rtol=0, equal_nan=True)


@fused
def test_a_gru_under_autocast_reads_in_float32_what_the_convolution_gives():
    block = random_block(GruBlock(6, 4))
    x = torch.randn(2, 6, 3, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = plain(block, x)
        with torch.inference_mode():
            assert torch.equal(block(x), expected)
    assert expected.dtype == torch.bfloat16


@fused
@pytest.mark.parametrize("shape", [(2, 64, 16, 64), (3, 16, 5, 9), (1, 32, 1, 2), (1, 16, 4, 1)])
def test_a_wave_block_mixes_as_the_operations_of_pytorch(shape):
    block = random_block(WaveBlock(shape[1]))
    x = torch.randn(shape)
    expected = plain(block, x)
    with torch.inference_mode():
        torch.testing.assert_close(block(x), expected, atol=2e-6, rtol=0)


@fused
def test_waves_of_any_phase_are_turned():
    """By hand: the kernels take the pixel itself alone, so each sum is amplitude * (2 cos + 3 sin)."""
    kernel = torch.zeros(2, 7, 16)
    kernel[0, 3], kernel[1, 3] = 2, 3
    bias = torch.tensor([0.5, 0.25, 0.25]).log().expand(16, 3).contiguous()  # the shares
    weights = kernel, kernel, torch.zeros(4, 16), torch.zeros(4), torch.zeros(16, 3, 4), bias
    phases = [0.0, -1.0, math.pi / 2, 3.0, 100.5, 4095.75, 4097.25, 1e6, 1e20, math.inf, math.nan]
    pixels = torch.full((1, len(phases), 5, 16), 5.0)
    pixels[0, :, 1] = pixels[0, :, 3] = torch.tensor(phases)[:, None]
    finite, out = pixels[:, :9].clone(), torch.empty(1, 9, 16)
    kernels.mix(finite, weights, 3, out)
    exact = torch.tensor(phases[:9]).double().clamp(min=0)
    expected = (5 * (2 * exact.cos() + 3 * exact.sin())).float()[:, None].expand(-1, 16)
    torch.testing.assert_close(finite[0, :, 0], expected, atol=5e-6, rtol=0)
    torch.testing.assert_close(finite[0, :, 2], expected, atol=5e-6, rtol=0)
    torch.testing.assert_close(out[0], 0.75 * expected + 0.25 * 5, atol=5e-6, rtol=0)
    strange = pixels[:, 9:].clone()
    kernels.mix(strange, weights, 2, torch.empty(1, 2, 16))
    assert strange[:, :, [0, 2]].isnan().all()


@fused
@pytest.mark.parametrize("block", [GruBlock(16, 16), WaveBlock(16)], ids=["gru", "wave"])
def test_a_picture_becomes_the_same_in_any_batch_and_by_any_number_of_threads(block):
    random_block(block)
    x = torch.randn(11, 16, 6, 10)
    threads = torch.get_num_threads()
    try:
        with torch.inference_mode():
            torch.set_num_threads(1)
            together = block(x)
            for number, alone in enumerate(x.split(1)):
                assert torch.equal(block(alone), together[number : number + 1])
            torch.set_num_threads(3)
            assert torch.equal(block(x), together)
    finally:
        torch.set_num_threads(threads)


def test_only_inference_in_float32_on_a_cpu_is_taken_over():
    x = torch.zeros(1, 2, 3, 4)
    assert not kernels.usable(x)
    with torch.no_grad():
        assert not kernels.usable(x)
    with torch.inference_mode():
        assert kernels.usable(x) == (kernels._loops() is not None)
        assert not kernels.usable(x.double())
        assert not kernels.usable(x.to("meta"))
        assert not kernels.usable(x[:0])


def test_without_numba_all_works(monkeypatch):
    block, x = random_block(nn.Sequential(WaveBlock(16), GruBlock(16, 4))), torch.randn(2, 16, 3, 5)
    expected = plain(block, x)
    monkeypatch.setitem(sys.modules, "model.blocks.compiled", None)  # importing it fails
    kernels._loops.cache_clear()
    try:
        with torch.inference_mode():
            assert not kernels.usable(x)
            torch.testing.assert_close(block(x), expected, atol=1e-6, rtol=0)
    finally:
        kernels._loops.cache_clear()
