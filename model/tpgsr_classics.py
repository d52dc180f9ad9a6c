"""Classic networks, guided by a text prior as TPGSR's is: SRCNN, SRResNet, RDN and VDSR.

Paper: Text Prior Guided Scene Text Image Super-resolution, TIP 2023, https://arxiv.org/abs/2106.15368
Source: https://github.com/mjq11302010044/TPGSR (the classes named *_TL); module names follow it, so its checkpoints
load. Differences: a missing prior works for any batch size; any number of blocks. Without guidance: `model/srcnn.py`
and the files beside it.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.blocks.clue import TextInterpreter, interpret
from model.blocks.pictures import check_depth, check_planes, planes
from model.blocks.prior import NUM_CLASSES, checked_prior
from model.blocks.skeleton import Skeleton
from model.blocks.upsample import UpsampleBlock
from model.rdn import GROWTH, LAYERS, RDN, DenseLayer
from model.registry import register_model

PRIOR_CHANNELS = 32
PAPER, SOURCE = "https://arxiv.org/abs/2106.15368", "https://github.com/mjq11302010044/TPGSR"


class GuidedSRCNN(nn.Module):
    """(N, C, H, W) in [0, 1] and a text prior (N, 37, 1, 26) -> (N, C, s*H, s*W), not clamped.

    Each convolution sees the map of the prior beside what the one before gives.

    Args:
        scale_factor: s.
        mask: C is 4, with the text mask, else 3.

    Raises:
        ValueError: a scale below 1.
    """

    def __init__(self, *, scale_factor: int = 2, mask: bool = True) -> None:
        super().__init__()
        _check_scale(scale_factor)
        self.scale_factor, self.in_channels = scale_factor, planes(mask)
        self.conv1 = nn.Conv2d(self.in_channels + PRIOR_CHANNELS, 64, 9, padding=4)
        self.conv2 = nn.Conv2d(64 + PRIOR_CHANNELS, 32, 1)
        self.conv3 = nn.Conv2d(32 + PRIOR_CHANNELS, self.in_channels, 5, padding=2)
        self.infoGen = TextInterpreter(NUM_CLASSES, PRIOR_CHANNELS)

    def forward(self, images_lr: Tensor, prior: Tensor | None = None) -> Tensor:
        """Super-resolve.

        Raises:
            ValueError: a tensor has a shape this network cannot use.
        """
        check_planes(images_lr, self.in_channels)
        x = F.interpolate(images_lr, scale_factor=self.scale_factor, mode="nearest")
        hint = interpret(self.infoGen, checked_prior(images_lr, prior), (x.shape[2], x.shape[3]))
        x = self.conv1(torch.cat([x, hint], dim=1)).relu()
        x = self.conv2(torch.cat([x, hint], dim=1)).relu()
        return self.conv3(torch.cat([x, hint], dim=1))


class GuidedResidualBlock(nn.Module):
    """(N, F, H, W) and a hint (N, 32, H, W) -> (N, F, H, W): two convolutions, the second sees the hint, and a skip."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(features)
        self.prelu = nn.PReLU()
        self.conv2 = nn.Conv2d(features + PRIOR_CHANNELS, features, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(features)

    def forward(self, x: Tensor, hint: Tensor) -> Tensor:
        """Refine `x` with `hint`."""
        residual = self.prelu(self.bn1(self.conv1(x)))
        return x + self.bn2(self.conv2(torch.cat([residual, hint], dim=1)))


class GuidedSRResNet(Skeleton):
    """LR images (N, C, 16, 64) in [0, 1] and a text prior (N, 37, 1, 26) -> SR images (N, C, 32, 128) in (-1, 1).

    Args:
        **options: those of `Skeleton`.

    Raises:
        ValueError: an argument has no meaning.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.infoGen = TextInterpreter(NUM_CLASSES, PRIOR_CHANNELS)

    def make_block(self, features: int, number: int) -> nn.Module:
        """A block without recurrence that takes the hint."""
        return GuidedResidualBlock(features)

    def make_upsampler(self, features: int) -> nn.Module:
        """With PReLU."""
        return UpsampleBlock(features, prelu=True)

    def forward(self, images_lr: Tensor, prior: Tensor | None = None) -> Tensor:
        """Super-resolve.

        Raises:
            ValueError: a tensor has a shape this network cannot use.
        """
        shallow = self.shallow(images_lr)
        size = (shallow.shape[2], shallow.shape[3])
        return self.reconstruct(shallow, interpret(self.infoGen, checked_prior(images_lr, prior), size))


class GuidedDenseBlock(nn.Module):
    """(N, F, H, W) and a hint (N, 32, H, W) -> (N, F, H, W): dense layers, fused with the hint, and a skip."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.dense_layers = nn.Sequential(*[DenseLayer(features + number * GROWTH) for number in range(LAYERS)])
        self.conv_1x1 = nn.Conv2d(features + LAYERS * GROWTH + PRIOR_CHANNELS, features, 1, bias=False)

    def forward(self, x: Tensor, hint: Tensor) -> Tensor:
        """Refine `x` with `hint`."""
        return x + self.conv_1x1(torch.cat([self.dense_layers(x), hint], dim=1))


class GuidedRDN(RDN):
    """(N, C, H, W) in [0, 1] and a text prior (N, 37, 1, 26) -> (N, C, s*H, s*W), not clamped.

    Args:
        mask: C is 4, with the text mask, else 3.
        **options: those of `RDN`.

    Raises:
        ValueError: an argument has no meaning.
    """

    def __init__(self, *, mask: bool = True, **options: Any) -> None:
        super().__init__(mask=mask, **options)
        self.infoGen = TextInterpreter(NUM_CLASSES, PRIOR_CHANNELS)

    def make_block(self, features: int) -> nn.Module:
        """A block that takes the hint."""
        return GuidedDenseBlock(features)

    def forward(self, images_lr: Tensor, prior: Tensor | None = None) -> Tensor:
        """Super-resolve.

        Raises:
            ValueError: a tensor has a shape this network cannot use.
        """
        check_planes(images_lr, self.in_channels)
        size = (images_lr.shape[2], images_lr.shape[3])
        return self.enlarge(images_lr, interpret(self.infoGen, checked_prior(images_lr, prior), size))


class GuidedConv(nn.Module):
    """(N, F, H, W) and a hint (N, 32, H, W) -> (N, F, H, W): a convolution that sees both, and a skip."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(features + PRIOR_CHANNELS, features, 3, padding=1, bias=False)

    def forward(self, x: Tensor, hint: Tensor) -> Tensor:
        """Refine `x` with `hint`."""
        return x + self.conv(torch.cat([x, hint], dim=1)).relu()


class GuidedVDSR(nn.Module):
    """(N, C, H, W) in [0, 1] and a text prior (N, 37, 1, 26) -> (N, C, s*H, s*W), not clamped.

    Args:
        scale_factor: s.
        mask: C is 4, with the text mask, else 3.
        srb_nums: hidden layers.
        hidden_units: half the number of features.

    Raises:
        ValueError: an argument has no meaning.
    """

    def __init__(self, *, scale_factor: int = 2, mask: bool = True, srb_nums: int = 6, hidden_units: int = 32) -> None:
        super().__init__()
        check_depth(srb_nums, hidden_units)
        _check_scale(scale_factor)
        self.scale_factor, self.in_channels = scale_factor, planes(mask)
        features = 2 * hidden_units
        self.input = nn.Conv2d(self.in_channels, features, 3, padding=1, bias=False)
        self.output = nn.Conv2d(features, self.in_channels, 3, padding=1, bias=False)
        self.infoGen = TextInterpreter(NUM_CLASSES, PRIOR_CHANNELS)
        self.blocks = tuple(f"block{number}" for number in range(1, srb_nums + 1))
        for name in self.blocks:
            self.add_module(name, GuidedConv(features))

    def forward(self, images_lr: Tensor, prior: Tensor | None = None) -> Tensor:
        """Super-resolve.

        Raises:
            ValueError: a tensor has a shape this network cannot use.
        """
        check_planes(images_lr, self.in_channels)
        enlarged = F.interpolate(images_lr, scale_factor=self.scale_factor, mode="nearest")
        size = (enlarged.shape[2], enlarged.shape[3])
        hint = interpret(self.infoGen, checked_prior(images_lr, prior), size)
        x = self.input(enlarged).relu()
        for name in self.blocks:
            x = self.get_submodule(name)(x, hint)
        return enlarged + self.output(x)


def _check_scale(scale_factor: int) -> None:
    if scale_factor < 1:
        raise ValueError(f"scale_factor {scale_factor}: a picture can be enlarged 1, 2, 3, ... times")


@register_model(
    system="prior_guided", paper=PAPER, source=SOURCE, signature=(r"^conv3\.weight$", r"^infoGen\.tconv1\.", r"!^GFF")
)
def tpgsr_srcnn(**kwargs: Any) -> GuidedSRCNN:
    """TPGSR with the trunk of SRCNN."""
    return GuidedSRCNN(**kwargs)


@register_model(
    system="prior_guided",
    paper=PAPER,
    source=SOURCE,
    signature=(r"^block2\.prelu\.", r"^infoGen\.tconv1\."),
    published={"stn_align_corners": False},
)
def tpgsr_srresnet(**kwargs: Any) -> GuidedSRResNet:
    """TPGSR with the trunk of SRResNet."""
    return GuidedSRResNet(**kwargs)


@register_model(system="prior_guided", paper=PAPER, source=SOURCE, signature=(r"^GFF_1x1\.", r"^infoGen\.tconv1\."))
def tpgsr_rdn(**kwargs: Any) -> GuidedRDN:
    """TPGSR with the trunk of RDN."""
    return GuidedRDN(**kwargs)


@register_model(
    system="prior_guided", paper=PAPER, source=SOURCE, signature=(r"^input\.weight$", r"^infoGen\.tconv1\.")
)
def tpgsr_vdsr(**kwargs: Any) -> GuidedVDSR:
    """TPGSR with the trunk of VDSR."""
    return GuidedVDSR(**kwargs)
