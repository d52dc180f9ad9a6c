"""Wave-MLP block: tokens are waves whose phases decide how neighbours add up.

Paper: An Image Patch is a Wave, CVPR 2022, https://arxiv.org/abs/2111.12294. Key names are those of published RTSRN
checkpoints. Difference: the published code interleaves the real and imaginary parts into 2C channels for a grouped
convolution; here the same kernels run as two depth-wise convolutions, without building the interleaved map.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.blocks import kernels
from model.blocks.triton_here import kernel_type, translated


class ChannelMLP(nn.Module):
    """(N, in, H, W) -> (N, out, H, W): two 1x1 convolutions with an exact GELU between them."""

    def __init__(self, in_channels: int, hidden_channels: int, out_channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(in_channels, hidden_channels, 1)
        self.fc2 = nn.Conv2d(hidden_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the channels of each pixel."""
        return self.fc2(F.gelu(self.fc1(x)))


class PATM(nn.Module):
    """Phase-aware token mixing, (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc_h = nn.Conv2d(channels, channels, 1, bias=False)
        self.fc_w = nn.Conv2d(channels, channels, 1, bias=False)
        self.fc_c = nn.Conv2d(channels, channels, 1, bias=False)
        self.tfc_h = nn.Conv2d(2 * channels, channels, (1, 7), padding=(0, 3), groups=channels, bias=False)
        self.tfc_w = nn.Conv2d(2 * channels, channels, (7, 1), padding=(3, 0), groups=channels, bias=False)
        self.reweight = ChannelMLP(channels, channels // 4, 3 * channels)
        self.proj = nn.Conv2d(channels, channels, 1)
        self.theta_h_conv = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels), nn.ReLU())
        self.theta_w_conv = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Mix along the rows, along the columns and across channels, and weigh the three."""
        along_h = mix_waves(self.fc_h(x), self.theta_h_conv(x), self.tfc_h)
        along_w = mix_waves(self.fc_w(x), self.theta_w_conv(x), self.tfc_w)
        across = self.fc_c(x)
        share = self.reweight((along_h + along_w + across).mean(dim=(2, 3), keepdim=True))
        share = share.unflatten(1, (-1, 3)).softmax(dim=2)  # (N, C, 3, 1, 1): channel-major, as published
        return self.proj(along_h * share[:, :, 0] + along_w * share[:, :, 1] + across * share[:, :, 2])


def mix_waves(amplitude: Tensor, phase: Tensor, mixer: nn.Conv2d) -> Tensor:
    """Apply `mixer`, whose kernels (C, 2, kh, kw) weigh the real and the imaginary part, to amplitude * e^(i phase)."""
    if (fused := fused_waves(amplitude, phase, columns=mixer.kernel_size[1] == 1)) is not None:
        return fused(amplitude, phase, mixer)
    real, imaginary = mixer.weight.split(1, dim=1)
    channels = amplitude.shape[1]
    mixed = F.conv2d(amplitude * phase.cos(), real, padding=mixer.padding, groups=channels)
    return mixed + F.conv2d(amplitude * phase.sin(), imaginary, padding=mixer.padding, groups=channels)


def fused_waves(amplitude: Tensor, phase: Tensor, *, columns: bool) -> Callable[..., Tensor] | None:
    """`mix_waves` of `wave_triton.py` where it can mix these maps (N, C, H, W), else None."""
    dtype, channels = kernel_type(amplitude), amplitude.shape[1]
    if dtype is None or not dtype == amplitude.dtype == phase.dtype or channels % 16:
        return None
    case = channels, dtype, amplitude.shape[2 if columns else 3]
    without = "Waves are mixed by cuDNN"
    wave_triton = translated("wave_triton", without, amplitude.device, *case, backward=torch.is_grad_enabled())
    return wave_triton.mix_waves if wave_triton else None


class Folded(NamedTuple):
    """Weights of a wave block for `kernels`: the normalisations are parts of the 1x1 convolutions."""

    waves: tuple[Tensor, Tensor]  # (5 * C, C) and (5 * C,): amplitudes and phases of rows and of columns, and `across`
    mixing: tuple[Tensor, ...]  # see `kernels.mix`
    hidden: tuple[Tensor, Tensor]  # (hidden, C) and (hidden,)


class WaveBlock(nn.Module):
    """(N, C, H, W) -> (N, C, H, W): token mixing, then channel mixing, each normalised and residual."""

    def __init__(self, channels: int, *, mlp_ratio: int = 2) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.attn = PATM(channels)
        self.norm2 = nn.BatchNorm2d(channels)
        self.mlp = ChannelMLP(channels, mlp_ratio * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` after both residual steps."""
        if (
            not self.training
            and not torch.is_autocast_enabled("cpu")
            and kernels.usable(x)
            and kernels.mixes(x.shape[1])
        ):
            return self._infer(x)
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def _infer(self, x: Tensor) -> Tensor:
        """The same by fused loops."""
        folded, attn, width = self._fold(), self.attn, x.shape[3]
        pixels = x.permute(0, 2, 3, 1).contiguous().flatten(1, 2)
        out = torch.empty_like(pixels)
        for given, result in kernels.in_parts(pixels, out):
            waves = F.linear(given, *folded.waves).unflatten(2, (5, -1))
            kernels.mix(waves, folded.mixing, width, result)
            middle = F.linear(result, attn.proj.weight.flatten(1), attn.proj.bias).add_(given)
            hidden = F.gelu(F.linear(middle, *folded.hidden))
            torch.add(middle, F.linear(hidden, self.mlp.fc2.weight.flatten(1), self.mlp.fc2.bias), out=result)
        return out.unflatten(1, (-1, width)).permute(0, 3, 1, 2)

    def _fold(self) -> Folded:
        attn, (scale, shift) = self.attn, _affine(self.norm1)
        none = torch.zeros_like(shift)
        parts = [
            (attn.fc_h.weight.flatten(1), none),
            _fold_phase(attn.theta_h_conv),
            (attn.fc_w.weight.flatten(1), none),
            _fold_phase(attn.theta_w_conv),
            (attn.fc_c.weight.flatten(1), none),
        ]
        waves = torch.cat([weight for weight, _ in parts])
        bias = torch.cat([bias for _, bias in parts]) + waves @ shift
        hidden_scale, hidden_shift = _affine(self.norm2)
        hidden = self.mlp.fc1.weight.flatten(1)
        assert self.mlp.fc1.bias is not None
        inner, outer = attn.reweight.fc1, attn.reweight.fc2
        assert inner.bias is not None and outer.bias is not None
        return Folded(
            waves=(waves * scale, bias),
            mixing=(
                *(mixer.weight.flatten(2).permute(1, 2, 0).contiguous() for mixer in (attn.tfc_h, attn.tfc_w)),
                *(inner.weight.flatten(1), inner.bias),
                *(outer.weight.view(-1, 3, inner.out_channels), outer.bias.view(-1, 3)),
            ),
            hidden=(hidden * hidden_scale, self.mlp.fc1.bias + hidden @ hidden_shift),
        )


def _fold_phase(layers: nn.Sequential) -> tuple[Tensor, Tensor]:
    """Weight (C, C) and bias (C,) of a 1x1 convolution and the normalisation behind it."""
    convolution, norm = layers[0], layers[1]
    assert isinstance(convolution, nn.Conv2d) and convolution.bias is not None
    scale, shift = _affine(norm)
    return convolution.weight.flatten(1) * scale[:, None], convolution.bias * scale + shift


def _affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Factor and summand (C,) of a normalisation in evaluation mode."""
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return scale, norm.bias - norm.running_mean * scale
