"""LapSRN: a pyramid; each level doubles the picture and adds what it lacks.

Paper: Deep Laplacian Pyramid Networks for Fast and Accurate Super-Resolution, https://arxiv.org/abs/1704.03915
Source: https://github.com/WenjiaWang0312/TextZoom, whose key names are kept. Its checkpoints hold two levels, of which
an enlargement by two uses one; here a network has the levels it needs unless `published_unused`, and those of a file
that it lacks are passed over. Training starts with an enlargement that is bilinear, plane by plane.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.blocks.pictures import check_depth, check_planes, doublings, planes
from model.blocks.published import PublishedForm
from model.registry import register_model

SLOPE = 0.2  # of LeakyReLU
DEPTH = 10  # convolutions of a level
PUBLISHED_LEVELS = 2


class FeatureLevel(nn.Module):
    """(N, F, H, W) -> (N, F, 2*H, 2*W): ten convolutions and a transposed one."""

    def __init__(self, features: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(DEPTH):
            layers += [nn.Conv2d(features, features, 3, padding=1, bias=False), nn.LeakyReLU(SLOPE)]
        up = nn.ConvTranspose2d(features, features, 4, stride=2, padding=1, bias=False)
        self.cov_block = nn.Sequential(*layers, up, nn.LeakyReLU(SLOPE))

    def forward(self, x: Tensor) -> Tensor:
        """Refine and enlarge."""
        return self.cov_block(x)


class LapSRN(nn.Module, PublishedForm):
    """(N, C, H, W) in [0, 1] -> (N, C, s*H, s*W), not clamped.

    Args:
        scale_factor: s, a power of two.
        mask: C is 4, with the text mask, else 3.
        hidden_units: half the number of features.
        published_unused: hold every level of the published network, the unused one included.

    Raises:
        ValueError: an argument has no meaning.
    """

    def __init__(
        self, *, scale_factor: int = 2, mask: bool = False, hidden_units: int = 32, published_unused: bool = False
    ) -> None:
        super().__init__()
        check_depth(1, hidden_units)
        self.options: dict[str, Any] = {"scale_factor": scale_factor, "mask": mask, "hidden_units": hidden_units}
        self.levels, self.in_channels = doublings(scale_factor), planes(mask)
        features = 2 * hidden_units
        self.conv_input = nn.Conv2d(self.in_channels, features, 3, padding=1, bias=False)
        for level in range(1, max(self.levels, PUBLISHED_LEVELS if published_unused else 0) + 1):
            up = nn.ConvTranspose2d(self.in_channels, self.in_channels, 4, stride=2, padding=1, bias=False)
            self.add_module(f"convt_I{level}", up)
            self.add_module(f"convt_R{level}", nn.Conv2d(features, self.in_channels, 3, padding=1, bias=False))
            self.add_module(f"convt_F{level}", nn.Sequential(FeatureLevel(features)))
            start_bilinear(up)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, SLOPE, mode="fan_out", nonlinearity="leaky_relu")

    def forward(self, images_lr: Tensor) -> Tensor:
        """Super-resolve.

        Raises:
            ValueError: the images have another number of planes.
        """
        check_planes(images_lr, self.in_channels)
        picture, features = images_lr, F.leaky_relu(self.conv_input(images_lr), SLOPE)
        for level in range(1, self.levels + 1):
            features = self.get_submodule(f"convt_F{level}")(features)
            enlarged = self.get_submodule(f"convt_I{level}")(picture)
            picture = enlarged + self.get_submodule(f"convt_R{level}")(features)
        return picture


def start_bilinear(up: nn.ConvTranspose2d) -> None:
    """Weights (C, C, 4, 4) with which a transposed convolution enlarges every plane twofold, bilinear."""
    ramp = torch.tensor([0.25, 0.75, 0.75, 0.25])
    kernel = ramp[:, None] * ramp
    with torch.no_grad():
        up.weight.copy_(torch.eye(up.in_channels)[:, :, None, None] * kernel)


@register_model(
    system="plain",
    paper="https://arxiv.org/abs/1704.03915",
    source="https://github.com/WenjiaWang0312/TextZoom",
    signature=r"^convt_F1\.0\.cov_block\.",
)
def lapsrn(**kwargs: Any) -> LapSRN:
    """LapSRN with the given options."""
    return LapSRN(**kwargs)
