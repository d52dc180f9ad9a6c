"""ABINet's vision and language models: what stands in a picture, and where each of its characters is.

Paper: Read Like Humans, CVPR 2021, https://arxiv.org/abs/2103.06495
Source: https://github.com/FangShancheng/ABINet; module names follow it, so that its files of the two models load. They
guide LEMMA (IJCAI 2023, https://arxiv.org/abs/2307.09749). ABINet's fusion of the two, and its rounds of correction,
are no part of that and not built here. Difference: random weights are drawn as PyTorch does by default.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.blocks.post_norm import Stack
from model.language.bcn import BCN, PositionCode
from model.recognizer.gray import check_rgb

CHARSET = "abcdefghijklmnopqrstuvwxyz1234567890"  # classes 1, 2, ... in this order; class 0 ends a word
CLASSES = len(CHARSET) + 1
LENGTH = 26
IMAGE_SIZE = (32, 128)  # (H, W)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
KEY_FEATURES = 64
HEADS = 8
WIDTHS, BLOCKS, HIDDEN = (32, 64, 128, 256, 512), (3, 4, 6, 6, 3), 2048


class Located(NamedTuple):
    """What ABINet says of pictures.

    Attributes:
        maps: (N, 26, 8, 32) where each character is; sums to 1 over the places.
        vision: (N, 26, 37) logits of what was seen.
        language: (N, 26, 37) logits of what was meant.
        lengths: (N,) characters of what was meant, the end included, 2 to 26.
    """

    maps: Tensor
    vision: Tensor
    language: Tensor
    lengths: Tensor


class ABINet(nn.Module):
    """(N, 3, 32, 128), see `preprocess` -> `Located`.

    Args:
        widths: channels of the five stages of the backbone; the last are the features of a place and of a character.
            Below 16, oneDNN of PyTorch 2.15 writes beyond its memory in channels-last.
        blocks: residual blocks in each stage.
        hidden: width of the feed-forward parts.
    """

    charset = CHARSET

    def __init__(
        self,
        *,
        widths: Sequence[int] = WIDTHS,
        blocks: Sequence[int] = BLOCKS,
        hidden: int = HIDDEN,
    ) -> None:
        super().__init__()
        self.vision = Vision(widths=widths, blocks=blocks, hidden=hidden)
        self.language = BCN(num_classes=CLASSES, length=LENGTH, width=widths[-1], heads=HEADS, hidden=hidden)
        self.mean: Tensor
        self.deviation: Tensor
        for name, value in (("mean", MEAN), ("deviation", DEVIATION)):
            self.register_buffer(name, torch.tensor(value).view(3, 1, 1), persistent=False)

    def preprocess(self, images: Tensor) -> Tensor:
        """(N, >=3, H, W) RGB in [0, 1] -> (N, 3, 32, 128), bicubic, unclamped, normalised as ImageNet's pictures.

        Raises:
            ValueError: the images have fewer than three channels.
        """
        check_rgb(images)
        images = images[:, :3]
        if images.shape[2:] != IMAGE_SIZE:
            images = F.interpolate(images, IMAGE_SIZE, mode="bicubic", align_corners=True)
        return (images - self.mean) / self.deviation

    def forward(self, images: Tensor) -> Located:
        """Look, then correct the spelling; the language model sends no gradient to what was seen."""
        maps, seen = self.vision(images)
        meant = self.language(seen.softmax(2), word_lengths(seen))
        return Located(maps, seen, meant, word_lengths(meant))

    def decode(self, logits: Tensor) -> list[str]:
        """(N, 26, 37) logits -> N strings, up to the first end."""
        words = []
        for row in logits.argmax(2).tolist():
            end = row.index(0) if 0 in row else len(row)
            words.append("".join(CHARSET[number - 1] for number in row[:end]))
        return words

    @torch.inference_mode()
    def read(self, images: Tensor) -> list[str]:
        """(N, >=3, H, W) RGB in [0, 1] -> N strings of lower-case letters and digits, as the language model says."""
        return self.decode(self(self.preprocess(images)).language)


def word_lengths(logits: Tensor) -> Tensor:
    """(N, T, K) -> (N,) number of positions up to the first one of class 0, that one included; 2 to T."""
    ends = logits.argmax(2) == 0
    first = ends.int().argmax(1) + 1
    return torch.where(ends.any(1), first, logits.shape[1]).clamp(min=2)


class Vision(nn.Module):
    """(N, 3, 32, 128) -> where each character is, (N, 26, 8, 32), and logits (N, 26, 37); arguments as of `ABINet`."""

    constant_buffers = ("backbone.pos_encoder.pe", "attention.pos_encoder.pe")

    def __init__(self, *, widths: Sequence[int] = WIDTHS, blocks: Sequence[int] = BLOCKS, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.backbone = Backbone(widths, blocks, hidden)
        self.attention = PositionAttention(widths[-1])
        self.cls = nn.Linear(widths[-1], CLASSES)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Look at pictures.

        Raises:
            ValueError: they have another shape.
        """
        if images.shape[1:] != (3, *IMAGE_SIZE):
            raise ValueError(f"images of shape {tuple(images.shape)}: ABINet takes (N, 3, 32, 128), see `preprocess`")
        characters, maps = self.attention(self.backbone(images))
        return maps, self.cls(characters)


class Backbone(nn.Module):
    """(N, 3, 32, 128) -> (N, C, 8, 32): convolutions, then each place looks at all others."""

    def __init__(self, widths: Sequence[int], blocks: Sequence[int], hidden: int) -> None:
        super().__init__()
        self.resnet = ResNet(widths, blocks)
        self.pos_encoder = PositionCode(widths[-1], 8 * 32, dropout=0.1)
        norms = ("norm1", "norm2")
        self.transformer = Stack(3, widths[-1], "self_attn", norms, heads=HEADS, hidden=hidden, dropout=0.1)

    def forward(self, images: Tensor) -> Tensor:
        """Describe each place."""
        maps = self.resnet(images)
        places = self.pos_encoder(maps.flatten(2).permute(2, 0, 1)).transpose(0, 1)
        return self.transformer.attend_to_itself(places).transpose(1, 2).unflatten(2, maps.shape[2:])


class ResNet(nn.Module):
    """(N, 3, H, W) -> (N, C, H / 4, W / 4): five stages, of which the first and the third halve the size."""

    def __init__(self, widths: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        before = widths[0]
        self.conv1 = nn.Conv2d(3, before, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(before)
        self.stages = tuple(f"layer{number}" for number in range(1, len(widths) + 1))
        for stage, width, count, stride in zip(self.stages, widths, blocks, (2, 1, 2, 1, 1), strict=True):
            first = ResidualBlock(before, width, stride)
            self.add_module(stage, nn.Sequential(first, *(ResidualBlock(width, width) for _ in range(count - 1))))
            before = width

    def forward(self, images: Tensor) -> Tensor:
        """Convolve."""
        x = self.bn1(self.conv1(images)).relu()
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        return x


class ResidualBlock(nn.Module):
    """(N, C, H, W) -> (N, C', H / stride, W / stride): a 1x1 and a 3x3 convolution beside a shortcut."""

    def __init__(self, before: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = nn.Sequential()
        if stride != 1 or before != width:
            self.downsample.append(nn.Conv2d(before, width, 1, stride=stride, bias=False))
            self.downsample.append(nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """Refine."""
        residual = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (residual + self.downsample(x)).relu()


class PositionAttention(nn.Module):
    """(N, C, 8, 32) -> characters (N, 26, C) and where each one is, (N, 26, 8, 32): the n-th looks for its place."""

    def __init__(self, features: int) -> None:
        super().__init__()
        inner = KEY_FEATURES
        sizes = ((features, (1, 2)), (inner, (2, 2)), (inner, (2, 2)), (inner, (2, 2)))
        self.k_encoder = nn.Sequential(*(_normed(nn.Conv2d(size, inner, 3, step, 1)) for size, step in sizes))
        ups = [_up(nn.Upsample(scale_factor=2), inner, inner) for _ in range(3)]
        self.k_decoder = nn.Sequential(*ups, _up(nn.Upsample(size=(8, 32)), inner, features))
        self.pos_encoder = PositionCode(features, LENGTH, dropout=0.0)
        self.project = nn.Linear(features, features)

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Look for the characters."""
        keys, smaller = values, []
        for layer in self.k_encoder:
            keys = layer(keys)
            smaller.append(keys)
        *ups, last = self.k_decoder
        for up, skipped in zip(ups, smaller[-2::-1], strict=True):
            keys = up(keys) + skipped
        keys = last(keys).flatten(2)  # (N, C, 256)
        query = self.project(self.pos_encoder.pe.squeeze(1))  # (26, C)
        maps = (query @ keys / math.sqrt(query.shape[1])).softmax(2)
        return maps @ values.flatten(2).transpose(1, 2), maps.unflatten(2, values.shape[2:])


def _normed(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU())


def _up(enlarge: nn.Upsample, channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(enlarge, nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
