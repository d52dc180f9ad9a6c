"""SRResNet: the residual generator of SRGAN.

Paper: https://arxiv.org/abs/1609.04802
Source: https://github.com/WenjiaWang0312/TextZoom, whose key names are kept. As there it has five blocks (the paper:
16) and a tanh at the end. The rectifier is that of Scene Text Telescope: TextZoom's fails on the 16x64 pixels that it
is given.
"""

from typing import Any

from torch import Tensor, nn

from model.blocks.skeleton import Skeleton
from model.blocks.upsample import UpsampleBlock
from model.registry import register_model


class ResidualBlock(nn.Module):
    """(N, F, H, W) -> (N, F, H, W): two convolutions and a skip."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(features)
        self.prelu = nn.PReLU()
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(features)

    def forward(self, x: Tensor) -> Tensor:
        """Refine `x`."""
        return x + self.bn2(self.conv2(self.prelu(self.bn1(self.conv1(x)))))


class SRResNet(Skeleton):
    """LR images (N, C, 16, 64) in [0, 1] -> SR images (N, C, 32, 128) in (-1, 1).

    Args:
        mask: images have a fourth channel, the binary text mask.
        **options: those of `Skeleton`.

    Raises:
        ValueError: an argument has no meaning.
    """

    def __init__(self, *, mask: bool = False, **options: Any) -> None:
        super().__init__(mask=mask, **options)

    def make_block(self, features: int, number: int) -> nn.Module:
        """A block without recurrence."""
        return ResidualBlock(features)

    def make_upsampler(self, features: int) -> nn.Module:
        """With PReLU."""
        return UpsampleBlock(features, prelu=True)


@register_model(
    system="plain",
    paper="https://arxiv.org/abs/1609.04802",
    source="https://github.com/WenjiaWang0312/TextZoom",
    scores={"CRNN": 35.1, "MORAN": 49.9, "ASTER": 53.0},
    signature=(r"^block2\.prelu\.", r"!^infoGen\."),
)
def srresnet(**kwargs: Any) -> SRResNet:
    """SRResNet with the given options."""
    return SRResNet(**kwargs)
