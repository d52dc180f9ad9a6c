"""PCAN: blocks with a horizontal and a vertical branch, densely connected, and attention along both axes.

Paper: Scene Text Image Super-Resolution via Parallelly Contextual Attention Network, ACM MM 2021, in
https://doi.org/10.1145/3474085
Source: https://github.com/mjq11302010044/TATT, which has the network again; its key names are kept. Its loss has a
further term of weight 5e-7 beside the squared error, the difference of Sobel edges, which is not here.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.blocks.activation import mish
from model.blocks.gru import GruBlock
from model.blocks.skeleton import Skeleton
from model.registry import register_model

REDUCTION = 16  # of the channels within a channel gate
SMALLEST_SIDE = 15  # of an LR image; below it the pooling of the attention has nothing left


class ChannelGate(nn.Module):
    """(N, C, H, W) -> (N, C, H, W): every channel times a share of its own (https://arxiv.org/abs/1709.01507)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = max(1, channels // REDUCTION)
        self.fc = nn.Sequential(
            nn.Linear(channels, width, bias=False), nn.ReLU(), nn.Linear(width, channels, bias=False), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels."""
        return x * self.fc(x.mean(dim=(2, 3)))[:, :, None, None]


class ParallelBlock(nn.Module):
    """(N, in_channels, H, W) -> (N, F, H, W): a GRU along W beside one along H (PCAB)."""

    def __init__(self, in_channels: int, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(features)
        self.conv2_w = nn.Conv2d(features, features, 3, padding=1)
        self.bn2_w = nn.BatchNorm2d(features)
        self.conv2_h = nn.Conv2d(features, features, 3, padding=1)
        self.bn2_h = nn.BatchNorm2d(features)
        self.gru1 = GruBlock(features, features)
        self.gru2 = GruBlock(features, features)
        self.fs = ChannelGate(2 * features)
        self.conv3 = nn.Conv2d(2 * features, features, 3, padding=1)
        self.bn3 = nn.BatchNorm2d(features)
        self.conv_reduce = nn.Conv2d(in_channels, features, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Look along both axes."""
        reduced = self.conv_reduce(x)
        shared = mish(self.bn1(self.conv1(reduced)))
        along_width = self.gru1(reduced + self.bn2_w(self.conv2_w(shared)))
        down = reduced + self.bn2_h(self.conv2_h(shared))
        along_height = self.gru2(down, columns=True)
        both = self.fs(torch.cat([along_height, along_width], dim=1))
        return mish(self.bn3(self.conv3(both)))


class OrthogonalAttention(nn.Module):
    """(N, C, H, W) -> (N, C, H, W): every value times a share that strokes along both axes decide (HOTA).

    One horizontal and one vertical kernel of three taps look 1, 2 and 3 pixels far.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = max(1, channels // 4)
        across, down = nn.Conv2d(width, width, (1, 3)), nn.Conv2d(width, width, (3, 1))
        assert across.bias is not None
        assert down.bias is not None
        self.horizontal_conv_weight, self.horizontal_conv_bias = across.weight, across.bias
        self.vertical_conv_weight, self.vertical_conv_bias = down.weight, down.bias
        self.conv1 = nn.Conv2d(channels, width, 1)
        self.conv_f = nn.Conv2d(width, width, 1)
        self.conv_max = nn.Conv2d(width, width, 3, padding=1)
        self.conv3 = nn.Conv2d(width, width, 3, padding=1)
        self.conv3_ = nn.Conv2d(width, width, 3, padding=1)
        self.conv4 = nn.Conv2d(width, channels, 1)
        self.se = ChannelGate(6 * width)
        self.conv_reduce = nn.Conv2d(6 * width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh every value."""
        reduced = self.conv1(x)
        coarse = F.max_pool2d(self.conv_reduce(self.se(self.strokes(reduced))), 8, stride=4)
        coarse = self.conv3_(self.conv3(self.conv_max(coarse).relu()).relu())
        coarse = F.interpolate(coarse, x.shape[-2:], mode="bilinear", align_corners=False)
        return x * self.conv4(coarse + self.conv_f(reduced)).sigmoid()

    def strokes(self, x: Tensor) -> Tensor:
        """(N, c, H, W) -> (N, 6*c, H/2, W/2): what the two kernels see, the vertical one first."""
        down = (self.vertical_conv_weight, self.vertical_conv_bias)
        across = (self.horizontal_conv_weight, self.horizontal_conv_bias)
        seen = [F.conv2d(x, *down, stride=2, padding=(far, 0), dilation=far) for far in (1, 2, 3)]
        seen += [F.conv2d(x, *across, stride=2, padding=(0, far), dilation=far) for far in (1, 2, 3)]
        return torch.cat(seen, dim=1)


class PCAN(Skeleton):
    """LR images (N, C, 16, 64) in [0, 1] -> SR images (N, C, 32, 128) in (-1, 1).

    Args:
        stn_height: 32: the rectifier looks at the enlarged image, as published; or 16.
        **options: those of `Skeleton`.

    Raises:
        ValueError: an argument has no meaning.
    """

    def __init__(self, *, stn_height: int = 32, **options: Any) -> None:
        super().__init__(stn_height=stn_height, **options)
        features = 2 * self.options["hidden_units"]
        self.spatial_attention = OrthogonalAttention(self.options["srb_nums"] * features)

    def make_block(self, features: int, number: int) -> nn.Module:
        """A block that takes what all before it gave."""
        return ParallelBlock((number + 1) * features, features)

    def make_end(self, features: int) -> nn.Module:
        """It fuses the blocks."""
        fuse = nn.Conv2d(len(self.blocks) * features, features, 3, padding=1)
        return nn.Sequential(fuse, nn.BatchNorm2d(features))

    def deepen(self, shallow: Tensor, *hints: Tensor) -> Tensor:
        """What all blocks gave, weighed."""
        seen = [shallow]
        for block in self.blocks:
            seen.append(self.get_submodule(block)(torch.cat(seen, dim=1)))
        return self.spatial_attention(torch.cat(seen[1:], dim=1))

    def check_images(self, images_lr: Tensor) -> None:
        """Also what the attention needs.

        Raises:
            ValueError: naming the size.
        """
        super().check_images(images_lr)
        if min(images_lr.shape[2:]) < SMALLEST_SIDE:
            size = tuple(images_lr.shape[2:])
            raise ValueError(
                f"LR images of size {size}: this network needs {SMALLEST_SIDE} pixels a side; enlarge them"
            )


@register_model(
    system="plain",
    paper="https://doi.org/10.1145/3474085",
    source="https://github.com/mjq11302010044/TATT",
    scores={"CRNN": 47.4, "MORAN": 58.5, "ASTER": 61.5},
    signature=(r"^spatial_attention\.horizontal_conv_weight$", r"!^infoGen\."),
)
def pcan(**kwargs: Any) -> PCAN:
    """PCAN with the given options."""
    return PCAN(**kwargs)
