"""`TRITON_INTERPRET=1 python -m tests.model.interpreted_gru`: the Triton kernel, on a CPU, against PyTorch's GRU."""

import sys

import pytest
import torch
from torch import nn


def expected(gru, pixels, upstream, *, columns):
    """What PyTorch reads in these (N, H, W, C), and its gradients: of the pixels, then of the parameters."""
    leaf = pixels.detach().clone().requires_grad_()
    lines = leaf.transpose(1, 2) if columns else leaf
    read = gru(lines.flatten(0, 1))[0].unflatten(0, lines.shape[:2])
    read = read.transpose(1, 2) if columns else read
    return read, *torch.autograd.grad(read, (leaf, *gru.parameters()), upstream)


def found(gru, pixels, upstream, *, columns, autocast=None):
    """The same by the kernel."""
    from model.blocks.gru_triton import bidirectional_gru

    leaf = pixels.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    with torch.autocast(pixels.device.type, dtype=autocast, enabled=autocast is not None):
        read = bidirectional_gru(gru, leaf, columns=columns)
    return read, *torch.autograd.grad(read, (leaf, *gru.parameters()), upstream.to(read.dtype))


def largest_difference(ours, theirs):
    """Of all tensors, each relative to its largest element."""
    pairs = zip(ours, theirs, strict=True)
    return max(((a.double() - b.double()).abs().max() / b.double().abs().max()).item() for a, b in pairs)


def check_precision(units, *, columns, autocast, tolerance):
    gru = nn.GRU(6, units, bidirectional=True, batch_first=True)
    # Neither 21 rows nor 15 columns fill their programs, and the pixels have the layout of a map (N, C, H, W).
    pixels, upstream = torch.randn(3, 6, 7, 5).permute(0, 2, 3, 1), torch.randn(3, 7, 5, 2 * units)
    ours = found(gru, pixels, upstream, columns=columns, autocast=autocast)
    assert ours[0].dtype == (autocast or torch.float32) and ours[0].is_contiguous()
    assert all(gradient.dtype == torch.float32 for gradient in ours[1:])
    difference = largest_difference(ours, expected(gru, pixels, upstream, columns=columns))
    assert difference < tolerance, (units, columns, autocast, difference)


def check_one_step():
    from model.blocks.gru_triton import bidirectional_gru

    gru = nn.GRU(6, 16, bidirectional=True, batch_first=True)
    pixels = torch.randn(1, 2, 1, 6, requires_grad=True)
    read = bidirectional_gru(gru, pixels, columns=False)
    torch.testing.assert_close(read, gru(pixels[0])[0][None])
    with pytest.raises(NotImplementedError, match="create_graph=True"):
        torch.autograd.grad(read.sum(), pixels, create_graph=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    check_precision(16, columns=False, autocast=None, tolerance=1e-5)
    check_precision(16, columns=True, autocast=None, tolerance=1e-5)
    # The interpreter takes the bits of bfloat16 numbers for integers when it multiplies matrices.
    check_precision(32, columns=True, autocast=torch.float16, tolerance=2e-3)
    check_one_step()
    sys.stdout.write("checked\n")
