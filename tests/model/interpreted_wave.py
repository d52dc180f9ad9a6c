"""`TRITON_INTERPRET=1 python -m tests.model.interpreted_wave`: the Triton kernel, on a CPU, against convolutions."""

import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.model.interpreted_gru import largest_difference


def mixer_of(channels, *, columns, device="cpu"):
    size, padding = ((7, 1), (3, 0)) if columns else ((1, 7), (0, 3))
    return nn.Conv2d(2 * channels, channels, size, padding=padding, groups=channels, bias=False, device=device)


def waves_of(*shape, device="cpu"):
    """Amplitudes, phases up to some hundred, and gradients of what is made of them, each channels last."""
    amplitude, phase, upstream = torch.randn(3, *shape, device=device)
    return tuple(x.contiguous(memory_format=torch.channels_last) for x in (amplitude, 100 * phase.relu(), upstream))


def expected(mixer, amplitude, phase, upstream):
    """What the published grouped convolution mixes, in float64, and gradients: of the waves, then of the kernels."""
    leaves = [x.detach().double().requires_grad_() for x in (amplitude, phase, mixer.weight)]
    a, p, weight = leaves
    parts = torch.stack([a * p.cos(), a * p.sin()], dim=2).flatten(1, 2)
    mixed = F.conv2d(parts, weight, padding=mixer.padding, groups=mixer.groups)
    return mixed, *torch.autograd.grad(mixed, leaves, upstream.double())


def found(mixer, amplitude, phase, upstream):
    """The same by the kernel."""
    from model.blocks.wave_triton import mix_waves

    leaves = [x.detach().clone().requires_grad_() for x in (amplitude, phase)]
    mixed = mix_waves(*leaves, mixer)
    return mixed, *torch.autograd.grad(mixed, (*leaves, mixer.weight), upstream.to(mixed.dtype))


def check_precision(channels, height, width, *, columns, dtype, tolerance):
    mixer = mixer_of(channels, columns=columns)
    amplitude, phase, upstream = (x.to(dtype) for x in waves_of(2, channels, height, width))
    ours = found(mixer, amplitude, phase, upstream)
    assert [x.dtype for x in ours] == [dtype, dtype, dtype, torch.float32]
    assert ours[0].is_contiguous(memory_format=torch.channels_last)
    for pair in zip(ours, expected(mixer, amplitude, phase, upstream), strict=True):
        difference = largest_difference([pair[0]], [pair[1]])
        assert difference < tolerance, (channels, height, width, columns, dtype, difference)


def check_one_pixel():
    from model.blocks.wave_triton import mix_waves

    mixer = mixer_of(16, columns=True)
    amplitude, phase, _ = (x.requires_grad_() for x in waves_of(1, 16, 1, 1))
    mixed = mix_waves(amplitude, phase, mixer)
    middle = mixer.weight[:, :, 3, 0]
    seen = amplitude[0, :, 0, 0] * (middle[:, 0] * phase[0, :, 0, 0].cos() + middle[:, 1] * phase[0, :, 0, 0].sin())
    torch.testing.assert_close(mixed[0, :, 0, 0], seen)
    with pytest.raises(NotImplementedError, match="create_graph=True"):
        torch.autograd.grad(mixed.sum(), amplitude, create_graph=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    # Lines that do not fill their programs; two segments of 17 and 16 pixels; channels in three parts.
    check_precision(16, 3, 33, columns=False, dtype=torch.float32, tolerance=1e-5)
    check_precision(48, 5, 2, columns=True, dtype=torch.float32, tolerance=1e-5)
    check_precision(32, 9, 20, columns=True, dtype=torch.float16, tolerance=2e-3)
    check_precision(64, 2, 8, columns=False, dtype=torch.bfloat16, tolerance=1e-2)
    check_one_pixel()
    sys.stdout.write("checked\n")
