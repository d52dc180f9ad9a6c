"""ASTER: rectification, a ResNet with two bidirectional LSTMs, and an attention decoder.

Paper: ASTER: An Attentional Scene Text Recognizer with Flexible Rectification, TPAMI 2018,
https://doi.org/10.1109/TPAMI.2018.2848939. Source: https://github.com/ayumiymk/aster.pytorch; key names follow it so
that its `demo.pth.tar`, with which scene-text super-resolution papers score, loads. Differences: the second decoding,
with made-up targets, whose result the published evaluation throws away, is not done; see `attention_decoder` for more.
"""

import string
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.blocks.stn import STNHead, TPSSpatialTransformer
from model.recognizer.attention_decoder import AttentionDecoder, Spelling
from model.recognizer.gray import check_rgb
from model.recognizer.reading import Reading, check_charset
from model.registry import RECOGNITION, register_model

PRINTABLE = string.digits + string.ascii_letters + string.punctuation
SPECIAL = ("end", "padding", "unknown")  # the classes after those of the characters
POINTS_SIZE, RECTIFIED_SIZE = (32, 64), (32, 100)  # (H, W)
STRIDES = ((2, 2), (2, 2), (2, 1), (2, 1), (2, 1))


class ASTER(nn.Module):
    """(N, 3, H, W) RGB in [-1, 1], of any size -> (N, L) class ids of the texts, see `decode`.

    Args:
        charset: the characters of classes 0, 1, ...; then come end, padding and unknown.
        channels: of the five stages of the encoder; the last is even.
        blocks: residual blocks of each stage.
        state_size: features of the decoder's GRU.
        attention_size: of the space in which the decoder compares its state with columns; 1024 in PlugNet.
        max_length: symbols after which reading gives up, end included.
        beam_width: of the beam search; 1 is greedy.
        align_corners: how the rectifier counts positions. The tables of RTSRN were made with False; torch before 1.3,
            with which ASTER was trained, knew only True.

    Raises:
        ValueError: sizes do not fit together, or a character is twice in `charset`.
    """

    def __init__(
        self,
        *,
        charset: str = PRINTABLE,
        channels: Sequence[int] = (32, 64, 128, 256, 512),
        blocks: Sequence[int] = (3, 4, 6, 6, 3),
        state_size: int = 512,
        attention_size: int = 512,
        max_length: int = 100,
        beam_width: int = 5,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        check_charset(charset)
        self.charset = charset
        self.num_classes = len(charset) + len(SPECIAL)
        self.end, self.padding, self.unknown = range(len(charset), self.num_classes)
        if not 1 <= beam_width <= self.num_classes:
            raise ValueError(f"beam_width {beam_width}: must be 1 to {self.num_classes}, the number of classes")
        self.beam_width = beam_width
        self.encoder = Encoder(channels, blocks)
        self.decoder = AttentionDecoder(
            self.num_classes,
            end=self.end,
            in_size=channels[-1],
            state_size=state_size,
            attention_size=attention_size,
            max_length=max_length,
        )
        self.tps = TPSSpatialTransformer(RECTIFIED_SIZE, align_corners=align_corners)
        self.stn_head = STNHead(3, height=POINTS_SIZE[0])

    def start_weights(self) -> None:
        """Random weights to train from: those that it is built with, a rectifier that changes nothing above all.

        The published decoder begins with a deviation of 0.01 and learns with Adadelta. With Adam, a small network that
        begins so has learned none of eight words after 80 steps, and all of them with PyTorch's own weights.
        """

    @property
    def reading_length(self) -> int:
        """Symbols after which reading gives up, the end symbol included."""
        return self.decoder.max_length

    def preprocess(self, images: Tensor) -> Tensor:
        """(N, >=3, H, W) RGB in [0, 1] -> (N, 3, H, W) in [-1, 1], neither resized nor clamped.

        Raises:
            ValueError: the images have fewer than three channels.
        """
        check_rgb(images)
        return images[:, :3] * 2 - 1

    def forward(self, x: Tensor) -> Tensor:
        """Read: (N, 3, H, W) -> (N, L) class ids, L at most `max_length`, filled with `end` after the first one.

        Raises:
            ValueError: the images have another number of channels.
        """
        return self.spell(x).ids

    def spell(self, x: Tensor) -> Spelling:
        """(N, 3, H, W) -> class ids with their probabilities, and the scores of all candidates."""
        return self.decoder.search(self.encode(x), beam_width=self.beam_width)

    def predict(self, x: Tensor, targets: Tensor) -> Tensor:
        """Predict each symbol of known texts from the picture and the symbols before it (teacher forcing).

        Args:
            x: (N, 3, H, W).
            targets: (N, L) int64 class ids, after the end symbol any.

        Returns:
            Logits (N, L, K).
        """
        return self.decoder(self.encode(x), targets)

    def encode(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 25, channels[-1]): rectified, one feature vector per 4 columns of pixels."""
        return self.encoder(self.rectify(x))

    def rectify(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 3, 32, 100) float32: lines of text become straight."""
        return self.tps(x, self.control_points(x))

    def control_points(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 20, 2) positions (x, y) along the upper and the lower edge of the text, in [0, 1].

        Raises:
            ValueError: the images have another number of channels.
        """
        if x.ndim != 4 or x.shape[1] != 3:
            raise ValueError(f"images of shape {tuple(x.shape)}: ASTER takes (N, 3, H, W), see `preprocess`")
        return self.stn_head(F.interpolate(x, POINTS_SIZE, mode="bilinear", align_corners=True))

    def decode(self, ids: Tensor) -> list[str]:
        """(N, L) class ids -> N strings, up to the first end symbol; padding and unknown characters are dropped."""
        ended = (ids == self.end).cumsum(1) > 0
        rows = ids.masked_fill(ended, self.end).tolist()
        return ["".join(self.charset[index] for index in row if index < self.end) for row in rows]

    @torch.inference_mode()
    def read(self, images: Tensor) -> list[str]:
        """(N, >=3, H, W) RGB in [0, 1] -> N strings of any of the characters."""
        return self.decode(self(self.preprocess(images)))

    @torch.inference_mode()
    def read_with_confidence(self, images: Tensor) -> list[Reading]:
        """(N, >=3, H, W) RGB in [0, 1] -> N readings; a text that was given up on has no end symbol to count."""
        spelling = self.spell(self.preprocess(images))
        words = spelling.scores[:, 0].double().exp().tolist()
        symbols = spelling.log_probabilities.double().exp().tolist()
        ids = spelling.ids.tolist()
        texts = self.decode(spelling.ids)
        return [
            Reading(text, word, tuple(p for index, p in zip(row, chances, strict=True) if index < self.end))
            for text, word, row, chances in zip(texts, words, ids, symbols, strict=True)
        ]


@register_model(
    system="recognizer_attention_per_word",
    paper="https://doi.org/10.1109/TPAMI.2018.2848939",
    signature=r"^decoder\.decoder\.attention_unit\.",
    task=RECOGNITION,
)
def aster(**kwargs: Any) -> ASTER:
    """`ASTER`; takes its options."""
    return ASTER(**kwargs)


class Encoder(nn.Module):
    """(N, 3, 32, W) -> (N, W / 4, C): a ResNet that squeezes the height away, then LSTMs along the width."""

    def __init__(self, channels: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        if len(channels) != len(STRIDES) or len(blocks) != len(STRIDES) or channels[-1] % 2 or min(blocks) < 1:
            raise ValueError(
                f"channels {tuple(channels)}, blocks {tuple(blocks)}: give {len(STRIDES)} of each, one per stage; "
                "at least one block, and an even last number of channels, half for each direction of the LSTM"
            )
        self.layer0 = nn.Sequential(_convolution(3, channels[0], 3), nn.BatchNorm2d(channels[0]), nn.ReLU(inplace=True))
        before = channels[0]
        for stage, (width, count, stride) in enumerate(zip(channels, blocks, STRIDES, strict=True), 1):
            layer = [Block(before, width, stride), *(Block(width, width) for _ in range(count - 1))]
            self.add_module(f"layer{stage}", nn.Sequential(*layer))
            before = width
        self.rnn = nn.LSTM(before, before // 2, num_layers=2, bidirectional=True, batch_first=True)

    def forward(self, images: Tensor) -> Tensor:
        """Rectified pictures -> one feature vector per column."""
        return self.columns(self.stages(images)[-1])

    def stages(self, images: Tensor) -> list[Tensor]:
        """The outputs of the five stages; the last is (N, C, 1, W / 4).

        Raises:
            ValueError: the pictures are not 32 pixels high.
        """
        if images.shape[2] != RECTIFIED_SIZE[0]:
            raise ValueError(f"pictures of shape {tuple(images.shape)}: the encoder takes (N, 3, 32, W)")
        x, outputs = self.layer0(images), []
        for stage in range(1, len(STRIDES) + 1):
            x = self.get_submodule(f"layer{stage}")(x)
            outputs.append(x)
        return outputs

    def columns(self, last: Tensor) -> Tensor:
        """(N, C, 1, T), the last of `stages` -> (N, T, C)."""
        return self.rnn(last.squeeze(2).transpose(1, 2))[0]


class Block(nn.Module):
    """Residual block, 1x1 then 3x3: (N, C, H, W) -> (N, C', H / s, W / s')."""

    def __init__(self, in_channels: int, channels: int, stride: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        self.conv1 = _convolution(in_channels, channels, 1, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _convolution(channels, channels, 3)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Sequential | None = None
        if stride != (1, 1) or in_channels != channels:
            shortcut = _convolution(in_channels, channels, 1, stride)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Residual of the two convolutions, rectified."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return (self.bn2(self.conv2(self.bn1(self.conv1(x)).relu_())) + shortcut).relu_()


def _convolution(in_channels: int, channels: int, kernel: int, stride: tuple[int, int] = (1, 1)) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, channels, kernel, stride=stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv
