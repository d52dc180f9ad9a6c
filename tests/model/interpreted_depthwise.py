"""`TRITON_INTERPRET=1 python -m tests.model.interpreted_depthwise`: the Triton kernels, on a CPU, against PyTorch's."""

import sys

import pytest
import torch
from torch.nn import functional as F

from tests.model.interpreted_gru import largest_difference


def convolution(channels, *shape, dtype=torch.float32, device="cpu"):
    """A map, kernels, a bias, and the gradient of what comes out."""
    x, upstream = torch.randn(2, shape[0], channels, *shape[1:], device=device).to(dtype)
    x, upstream = (value.contiguous(memory_format=torch.channels_last) for value in (x, upstream))
    return x, torch.randn(channels, 1, 3, 3, device=device), torch.randn(channels, device=device), upstream


def expected(*leaves_and_upstream, dilation):
    """What PyTorch computes in float64, and its gradients: of the map, the kernels and the bias."""
    *leaves, upstream = (value.detach().double().requires_grad_() for value in leaves_and_upstream)
    convolved = F.conv2d(*leaves, padding=dilation, dilation=dilation, groups=leaves[0].shape[1])
    return convolved, *torch.autograd.grad(convolved, leaves, upstream)


def found(*leaves_and_upstream, dilation):
    """The same by the kernels."""
    from model.blocks.depthwise_triton import convolve

    *leaves, upstream = (value.detach().clone().requires_grad_() for value in leaves_and_upstream)
    convolved = convolve(*leaves, dilation)
    return convolved, *torch.autograd.grad(convolved, leaves, upstream)


def check_precision(channels, *shape, dilation, dtype, tolerance):
    values = convolution(channels, *shape, dtype=dtype)
    ours = found(*values, dilation=dilation)
    assert [value.dtype for value in ours] == [dtype, dtype, torch.float32, torch.float32]
    assert ours[0].is_contiguous(memory_format=torch.channels_last)
    for pair in zip(ours, expected(*values, dilation=dilation), strict=True):
        difference = largest_difference([pair[0]], [pair[1]])
        assert difference < tolerance, (channels, shape, dilation, dtype, difference)


def check_second_derivative():
    from model.blocks.depthwise_triton import convolve

    x, kernels, bias, _ = convolution(16, 1, 2, 2)
    convolved = convolve(x.requires_grad_(), kernels, bias, 1)
    with pytest.raises(NotImplementedError, match="create_graph=True"):
        torch.autograd.grad(convolved.sum(), x, create_graph=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    # Two programs for each tap, which are not full; channels in three parts; maps smaller than the reach of the taps.
    check_precision(64, 2, 8, 17, dilation=2, dtype=torch.float32, tolerance=1e-5)
    check_precision(48, 1, 9, 5, dilation=1, dtype=torch.float32, tolerance=1e-5)
    check_precision(16, 1, 3, 9, dilation=8, dtype=torch.bfloat16, tolerance=1e-2)
    check_precision(32, 1, 9, 5, dilation=4, dtype=torch.float16, tolerance=2e-3)
    check_second_derivative()
    sys.stdout.write("checked\n")
