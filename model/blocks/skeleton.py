"""The skeleton of TSRN, which its successors keep: shallow features, residual blocks, a skip around them, up-sampling.

Paper: Scene Text Image Super-Resolution in the Wild, ECCV 2020, https://arxiv.org/abs/2005.03341; the order of the
parts is that of SRResNet, https://arxiv.org/abs/1609.04802. Module names are those of published checkpoints. As
published: the rectifier works only in training, the output is tanh and is not clamped.
"""

import re
from collections.abc import Iterable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from model.blocks.convolution import PictureConv2d
from model.blocks.pictures import check_planes, doublings, planes
from model.blocks.stn import STNHead, TPSSpatialTransformer
from model.blocks.upsample import UpsampleBlock


class Skeleton(nn.Module):
    """LR images (N, C, 16, 64) in [0, 1] -> SR images (N, C, 32, 128) in (-1, 1).

    The sizes are those of the default arguments; without STN any size works. A subclass says what a residual block is.

    Args:
        scale_factor: enlargement, a power of two.
        width: of the SR image.
        height: of the SR image.
        STN: rectify the image in training.
        mask: images have a fourth channel, the binary text mask.
        srb_nums: number of residual blocks.
        hidden_units: half the number of features.
        stn_align_corners: how the rectifier counts pixels, see `TPSSpatialTransformer`.
        stn_height: height at which the rectifier looks at the image, 16 or 32.

    Raises:
        ValueError: an argument has no meaning.
    """

    def __init__(
        self,
        *,
        scale_factor: int = 2,
        width: int = 128,
        height: int = 32,
        STN: bool = False,
        mask: bool = True,
        srb_nums: int = 5,
        hidden_units: int = 32,
        stn_align_corners: bool = True,
        stn_height: int = 16,
    ) -> None:
        super().__init__()
        self.options: dict[str, Any] = {
            "scale_factor": scale_factor,
            "width": width,
            "height": height,
            "STN": STN,
            "mask": mask,
            "srb_nums": srb_nums,
            "hidden_units": hidden_units,
            "stn_align_corners": stn_align_corners,
            "stn_height": stn_height,
        }
        _check_sizes(**self.options)
        self.in_channels = planes(mask)
        self.size_lr = (height // scale_factor, width // scale_factor)
        self.rectifies = STN
        features = 2 * hidden_units
        self.block1 = nn.Sequential(nn.Conv2d(self.in_channels, features, 9, padding=4), nn.PReLU())
        self.blocks = tuple(f"block{number}" for number in range(2, srb_nums + 2))
        self.end, self.head = f"block{srb_nums + 2}", f"block{srb_nums + 3}"
        for number, name in enumerate(self.blocks):
            self.add_module(name, self.make_block(features, number))
        self.add_hint_modules()
        self.add_module(self.end, self.make_end(features))
        ups = [self.make_upsampler(features) for _ in range(doublings(scale_factor))]
        self.add_module(self.head, nn.Sequential(*ups, PictureConv2d(features, self.in_channels, 9, padding=4)))
        if STN:
            self.tps = TPSSpatialTransformer(self.size_lr, align_corners=stn_align_corners)
            self.stn_head = STNHead(self.in_channels, height=stn_height)

    def make_block(self, features: int, number: int) -> nn.Module:
        """A residual block: maps (N, F, H, W), and hints if the network has some -> (N, F, H, W); counted from 0."""
        raise NotImplementedError

    def make_upsampler(self, features: int) -> nn.Module:
        """(N, F, H, W) -> (N, F, 2*H, 2*W)."""
        return UpsampleBlock(features)

    def make_end(self, features: int) -> nn.Module:
        """What follows the residual blocks, within the skip."""
        return nn.Sequential(nn.Conv2d(features, features, 3, padding=1), nn.BatchNorm2d(features))

    def add_hint_modules(self) -> None:
        """Parts that published checkpoints hold between the residual blocks and the end: keys keep their order."""

    def forward(self, images_lr: Tensor) -> Tensor:
        """Super-resolve.

        Args:
            images_lr: (N, C, H, W) in [0, 1].

        Returns:
            (N, C, s*H, s*W) in (-1, 1).

        Raises:
            ValueError: the images have a shape this network cannot use.
        """
        return self.reconstruct(self.shallow(images_lr))

    def shallow(self, images_lr: Tensor) -> Tensor:
        """(N, C, H, W) -> first features (N, F, H, W), in training of the rectified image.

        Raises:
            ValueError: the images have a shape this network cannot use.
        """
        self.check_images(images_lr)
        if self.rectifies and self.training:
            images_lr = self.rectify(images_lr)
        return self.block1(images_lr)

    def reconstruct(self, shallow: Tensor, *hints: Tensor) -> Tensor:
        """First features (N, F, H, W), and what the residual blocks are told -> SR images (N, C, s*H, s*W)."""
        deep = self.get_submodule(self.end)(self.deepen(shallow, *hints))
        return self.get_submodule(self.head)(shallow + deep).tanh()

    def deepen(self, shallow: Tensor, *hints: Tensor) -> Tensor:
        """First features (N, F, H, W) -> what `make_end` takes: all residual blocks."""
        deep = shallow
        for block in self.blocks:
            deep = self.get_submodule(block)(deep, *hints)
        return deep

    def rectify(self, images_lr: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W) with curved text bent straight."""
        size = (self.options["stn_height"], 64)
        if images_lr.shape[2:] != size:  # TSRN enlarges the image, and reads the rectified one from that
            images_lr = F.interpolate(images_lr, size, mode="bilinear", align_corners=True)
        return self.tps(images_lr, self.stn_head(images_lr))

    @property
    def constant_buffers(self) -> tuple[str, ...]:
        """State keys of computed matrices that no training changes."""
        return tuple(
            f"{name}.{buffer}"
            for name, module in self.named_modules()
            if name and hasattr(module, "constant_buffers")
            for buffer in module.constant_buffers
        )

    def check_images(self, images_lr: Tensor) -> None:
        """Refuse images of a shape that this network cannot use.

        Raises:
            ValueError: naming the option that goes with it.
        """
        check_planes(images_lr, self.in_channels)
        if self.rectifies and images_lr.shape[2:] != self.size_lr:
            height, width = self.size_lr
            raise ValueError(
                f"LR images of size {tuple(images_lr.shape[2:])}: with STN=True they must be {height}x{width}; "
                "resize them or build the network without STN"
            )


def residual_blocks(keys: Iterable[str]) -> int:
    """How many residual blocks a skeleton with these state keys has; 0 if the keys are not those of one."""
    numbers = [int(found[1]) for key in keys if (found := re.match(r"block(\d+)\.", key))]
    return max(0, max(numbers, default=0) - 3)


def _check_sizes(
    *, scale_factor: int, width: int, height: int, srb_nums: int, hidden_units: int, STN: bool, **_: Any
) -> None:
    doublings(scale_factor)
    if width % scale_factor or height % scale_factor:
        raise ValueError(f"an SR image of {height}x{width} is no multiple of scale_factor {scale_factor}")
    if STN and (height // scale_factor, width // scale_factor) != (16, 64):
        raise ValueError(
            f"STN=True takes LR images of 16x64, but {height}x{width} with scale_factor {scale_factor} makes "
            f"{height // scale_factor}x{width // scale_factor}; use STN=False or another size"
        )
    if srb_nums < 1:
        raise ValueError(f"srb_nums {srb_nums} must be at least 1; the papers use 5")
    if hidden_units < 2:
        raise ValueError(f"hidden_units {hidden_units} must be at least 2; the papers use 32")
