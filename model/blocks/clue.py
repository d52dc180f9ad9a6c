"""From text to picture: a text clue becomes a feature map, is attended to, and is fused with one or two others.

Paper: C3-STISR, https://arxiv.org/abs/2204.14044; the interpreter is TPGSR's, https://arxiv.org/abs/2106.15368.
Key names are those of published RTSRN checkpoints. Differences: the interpreter does not return its dummy second
value; the published network holds a third gate but fuses two clues, here the third is optional.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.blocks.convolution import DeformConv2d, WeightNormConv2d


class TextInterpreter(nn.Module):
    """(N, num_classes, 1, T) class probabilities -> (N, out_channels, 25, 8*T + 5) feature map.

    Four transposed convolutions; with T = 26 columns the map is 25 x 213.

    Args:
        num_classes: of the text.
        out_channels: of the map.
        flat: pad so that the map stays one row, (N, out_channels, 1, 8*T - 5): the form of TPGSR's own repository, for
            its network with the trunk of TSRN. Keys and shapes are the same.
    """

    def __init__(self, num_classes: int = 37, out_channels: int = 32, *, flat: bool = False) -> None:
        super().__init__()
        padding = 1 if flat else 0
        self.tconv1 = nn.ConvTranspose2d(num_classes, 512, 3, stride=2, padding=padding, bias=False)
        self.bn1 = nn.BatchNorm2d(512)
        self.tconv2 = nn.ConvTranspose2d(512, 128, 3, stride=2, padding=padding, bias=False)
        self.bn2 = nn.BatchNorm2d(128)
        self.tconv3 = nn.ConvTranspose2d(128, 64, 3, stride=2, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(64)
        self.tconv4 = nn.ConvTranspose2d(64, out_channels, 3, stride=(2, 1), padding=(1, 0) if flat else 1, bias=False)
        self.bn4 = nn.BatchNorm2d(out_channels)

    def forward(self, prior: Tensor) -> Tensor:
        """Draw the text."""
        x = _normalised(self.tconv1, self.bn1, prior).relu()
        x = _normalised(self.tconv2, self.bn2, x).relu()
        x = _normalised(self.tconv3, self.bn3, x).relu()
        return _normalised(self.tconv4, self.bn4, x).relu()


def _normalised(spread: nn.ConvTranspose2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """`norm(spread(x))`; in inference the normalisation is multiplied into the weights, which is a pass less."""
    lower = spread.weight.dtype != torch.float32 or torch.is_autocast_enabled(x.device.type)  # it would round twice
    if norm.training or torch.is_grad_enabled() or lower:
        y: Tensor = norm(spread(x))
        return y
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert isinstance(spread.padding, tuple)
    factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = norm.bias - norm.running_mean * factor
    return F.conv_transpose2d(x, spread.weight * factor[:, None, None], shift, spread.stride, spread.padding)


def interpret(interpreter: nn.Module, clue: Tensor, size: tuple[int, int]) -> Tensor:
    """Make a clue (N, num_classes, 1, T) a map (N, out_channels, *size)."""
    return F.interpolate(interpreter(clue), size, mode="bilinear", align_corners=True)


class ClueAttention(nn.Module):
    """(N, C, H, W) -> (N, C, H, W): enhanced spatial attention with a deformable core, and a channel gate (DSTA).

    The deformable convolution looks at the pooled map, whose size needs H, W of at least 15. Offsets come from a
    second branch on the same map (as published).
    """

    def __init__(self, channels: int = 32, *, reduction: int = 4) -> None:
        super().__init__()
        width = channels // reduction
        self.conv1 = nn.Conv2d(channels, width, 1)
        self.conv_f = nn.Conv2d(width, width, 1)
        self.conv_max = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, stride=2)
        self.conv3 = nn.Conv2d(width, width, 3, padding=1)
        self.conv3_ = nn.Conv2d(width, width, 3, padding=1)
        self.conv4 = nn.Conv2d(width, channels, 1)
        self.dcn = DeformConv2d(width, width, groups=width)
        self.mask = nn.Conv2d(width, 27 * width, 3, padding=1)
        self.down_conv2 = nn.Sequential(nn.Conv2d(width, width, 3, stride=2, padding=1), nn.ReLU())
        self.mask2 = nn.Conv2d(width, 27 * width, 3, padding=1)
        self.conv_du = nn.Sequential(
            nn.Conv2d(width, 2 * width, 1), nn.ReLU(), nn.Conv2d(2 * width, channels, 1), nn.Sigmoid()
        )

    def forward(self, clue: Tensor) -> Tensor:
        """Keep what matters of `clue`."""
        reduced = self.conv1(clue)
        pooled = F.max_pool2d(self.conv2(reduced), 7, stride=3)
        core = self.dcn(pooled, *self.sampling(pooled)).relu()
        channel_gate = self.conv_du(core.mean(dim=(2, 3), keepdim=True))
        core = F.interpolate(core, clue.shape[-2:], mode="bilinear", align_corners=False)
        pixel_gate = self.conv4(core + self.conv_f(reduced)).sigmoid()
        return clue * pixel_gate * channel_gate

    def sampling(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """(N, c, h, w) -> offsets (N, 18*c, h, w) in pixels, modulation (N, 9*c, h, w) in (0, 1)."""
        features = self.conv_max(pooled).relu()
        features = self.conv3_(self.conv3(features).relu()).relu()
        coarse = self.mask2(self.down_conv2(features))
        coarse = F.interpolate(coarse, features.shape[-2:], mode="bilinear", align_corners=False)
        taps = pooled.shape[1] * 9
        offsets, modulation = (self.mask(features) + coarse).split([2 * taps, taps], dim=1)
        return offsets, modulation.sigmoid()


class GatedFusion(nn.Module):
    """Clue maps (N, C, H, W) and an image map of the same shape -> their blend (N, C, H, W), pixel by pixel (Eq. 6).

    Args:
        channels: C.
        clues: how many maps are blended, 2 or 3.
        unused_gate: with two clues, also hold the parameters of the third gate of published checkpoints.
    """

    def __init__(self, channels: int = 32, *, clues: int = 2, unused_gate: bool = False) -> None:
        super().__init__()
        assert clues in (2, 3)
        self.clues = clues
        self.gated1 = _gate(2 * channels)
        self.gated2 = _gate(2 * channels)
        if clues == 3 or unused_gate:
            self.gated3 = _gate(2 * channels)
        mixing = WeightNormConv2d(2 * clues * channels, clues * channels, 1, bias=False)
        self.compress = nn.Sequential(nn.LeakyReLU(0.2), mixing)

    def forward(self, center: Tensor, *clues: Tensor) -> Tensor:
        """Blend the clues by what each says together with the image features `center`."""
        gates = (self.gated1, self.gated2, self.gated3) if self.clues == 3 else (self.gated1, self.gated2)
        seen = [gate(torch.cat([center, clue], dim=1)) for gate, clue in zip(gates, clues, strict=True)]
        shares = self.compress(torch.cat(seen, dim=1)).unflatten(1, (self.clues, -1)).softmax(dim=1).unbind(dim=1)
        first, *others = (clue * share for clue, share in zip(clues, shares, strict=True))
        return sum(others, start=first)


def _gate(channels: int) -> nn.Sequential:
    """1x1 mixing, then depth-wise 3x3 convolutions that look 1, 2, 4 and 8 pixels far."""
    far = [WeightNormConv2d(channels, channels, 3, dilation=dilation, groups=channels) for dilation in (1, 2, 4, 8)]
    return nn.Sequential(WeightNormConv2d(channels, channels, 1, bias=False), nn.ReLU(), *far)
