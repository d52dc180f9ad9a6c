"""MORAN v2: shifts pixels up and down to straighten a word, then spells it with an attention decoder.

Paper: MORAN: A Multi-Object Rectified Attention Network for Scene Text Recognition, Pattern Recognition 2019,
https://arxiv.org/abs/1901.03003. Source: https://github.com/Canjie-Luo/MORAN_v2; key names follow it so that its
`demo.pth`, with which scene-text super-resolution papers score, loads. Differences: the decoder from right to left,
which their scores do not use, runs only when asked for; decoding stops when no text can change any more; what no step
changes is computed once; the offsets are not drawn.

In training (`predict`) two things are random, both drawn from PyTorch's generator for the CPU: whether a picture is
rectified, and which two neighbouring columns share their attention (fractional pickup, in the paper). Differences:
chance decides for each picture, not for each batch, so that every step of every process trains the rectifier; a picture
that is not rectified goes through the same sampling, with shifts of 0; the rectifier begins with small shifts.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.recognizer.attention_decoder import STEPS_PER_LOOK, STEPS_PER_LOOK_ON_GPU
from model.recognizer.crnn import ALPHANUMERIC, HEIGHT, WIDTH, BidirectionalLSTM
from model.recognizer.gray import resized_gray
from model.recognizer.reading import Reading, check_charset
from model.registry import RECOGNITION, register_model

FEATURES = 256  # of a column, of the decoder's state and of a symbol
CHANNELS, BLOCKS = (32, 64, 128, 256, 512), (3, 4, 6, 6, 3)
"""Of each stage of the encoder: channels, and how many residual blocks."""
STRIDES = ((2, 2), (2, 2), (2, 1), (2, 1), (2, 1))
RECTIFIED_SHARE = 0.5
"""How many of the pictures are rectified in training."""
LARGEST_PICKUP = 0.25
"""In training, the most that a column gives its neighbour of its attention; the paper has 1, its program this."""
FIRST_SHIFTS = 0.05
"""Deviation of the rectifier's offsets when training begins, in halves of the height."""

Direction = Literal["left_to_right", "right_to_left"]


class MORAN(nn.Module):
    """(N, 1, H, W) gray in [0, 1], published size 32 x 100 -> (N, L, K) logits; the last class ends a word.

    Args:
        charset: the characters of classes 0, 1, ...
        max_length: symbols after which reading gives up, the end symbol included.
        channels: of the five stages of the encoder.
        blocks: residual blocks of each stage.
        features: of a column, of the decoders' state and of a symbol.
        align_corners: how the rectifier counts positions. The tables of RTSRN were made with False; torch before 1.3,
            with which MORAN was trained, knew only True.

    Raises:
        ValueError: a character is twice in `charset`, or a size is not possible.
    """

    def __init__(
        self,
        *,
        charset: str = ALPHANUMERIC,
        max_length: int = 20,
        channels: Sequence[int] = CHANNELS,
        blocks: Sequence[int] = BLOCKS,
        features: int = FEATURES,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        check_charset(charset)
        if max_length < 1:
            raise ValueError(f"max_length {max_length}: a word has at least its end symbol, so at least 1")
        self.charset = charset
        self.end = len(charset)
        self.max_length = max_length
        self.MORN = Rectifier(align_corners=align_corners)
        self.ASRN = Speller(len(charset) + 1, channels=channels, blocks=blocks, features=features)

    def start_weights(self) -> None:
        """Random weights to train from: those of the published program, but nearly no shifts at first.

        The last layer of the rectifier is normalised: its offsets would be as large as the picture.
        """
        for module in self.ASRN.cnn.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        last = self.MORN.cnn[-1]
        assert isinstance(last, nn.BatchNorm2d)
        nn.init.constant_(last.weight, FIRST_SHIFTS)  # not 0: pooling positive and negative offsets apart ends there

    @property
    def reading_length(self) -> int:
        """Symbols after which reading gives up, the end symbol included."""
        return self.max_length

    def preprocess(self, images: Tensor) -> Tensor:
        """(N, >=3, H, W) RGB in [0, 1] -> (N, 1, 32, 100) gray: bicubic, unclamped, not normalised, as for CRNN.

        MORAN was trained on [-1, 1], but the published scores were made with this.

        Raises:
            ValueError: the images have fewer than three channels.
        """
        return resized_gray(images, (HEIGHT, WIDTH))

    def forward(self, x: Tensor, *, direction: Direction = "left_to_right", all_steps: bool = False) -> Tensor:
        """Spell greedily: every symbol is the most probable one after those before it.

        Args:
            x: (N, 1, H, W) gray, see `preprocess`.
            direction: from which end of the word.
            all_steps: go on after all words have ended. What `decode` makes of the logits is the same.

        Returns:
            (N, L, K) logits; L is `max_length`, or less if all words have ended. Those after a word's end symbol mean
            nothing.

        Raises:
            ValueError: the images are not gray, or the direction is unknown.
        """
        if direction not in ("left_to_right", "right_to_left"):
            raise ValueError(f"unknown direction {direction!r}; known: 'left_to_right', 'right_to_left'")
        decoder = self.ASRN.attentionL2R if direction == "left_to_right" else self.ASRN.attentionR2L
        return decoder(self.encode(x), max_length=self.max_length, end=None if all_steps else self.end)

    def predict(self, x: Tensor, targets: Tensor, backwards: Tensor) -> tuple[Tensor, Tensor]:
        """Predict each symbol of known texts from the picture and the symbols before it (teacher forcing).

        In training mode, pictures are rectified at random, once, and attention is mixed at random.

        Args:
            x: (N, 1, H, W) gray, see `preprocess`.
            targets: (N, L) int64 class ids, after the end symbol any.
            backwards: (N, L) of the same texts from right to left; they end with the end symbol, too.

        Returns:
            Logits (N, L, K) of both.
        """
        self._check(x)
        columns = self.ASRN.encode(self.MORN.rectify_some(x) if self.training else self.MORN(x))
        speller = self.ASRN
        forwards = speller.attentionL2R.predict(columns, targets, pickup=self.training)
        return forwards, speller.attentionR2L.predict(columns, backwards, pickup=self.training)

    def encode(self, x: Tensor) -> Tensor:
        """(N, 1, H, W) -> (N, 25, 256): rectified, one feature vector per 4 columns of pixels."""
        return self.ASRN.encode(self.rectify(x))

    def rectify(self, x: Tensor) -> Tensor:
        """(N, 1, H, W) -> (N, 1, 32, 100) float32: the word stands straight.

        Raises:
            ValueError: the images are not gray.
        """
        self._check(x)
        return self.MORN(x)

    def _check(self, x: Tensor) -> None:
        if x.ndim != 4 or x.shape[1] != 1:
            raise ValueError(f"images of shape {tuple(x.shape)}: MORAN takes (N, 1, H, W) gray, see `preprocess`")

    def decode(self, logits: Tensor) -> list[str]:
        """(N, L, K) -> N strings, up to the first end symbol, in the order of reading: from right to left backwards."""
        return ["".join(self.charset[index] for index in row) for row in self._characters(logits.argmax(2))]

    def _characters(self, ids: Tensor) -> list[list[int]]:
        ended = (ids == self.end).cumsum(1) > 0
        kept = ids.masked_fill(ended, self.end).tolist()
        return [[index for index in row if index < self.end] for row in kept]

    @torch.inference_mode()
    def read(self, images: Tensor) -> list[str]:
        """(N, >=3, H, W) RGB in [0, 1] -> N strings of digits and lower-case letters."""
        return self.decode(self(self.preprocess(images)))

    @torch.inference_mode()
    def read_with_confidence(self, images: Tensor) -> list[Reading]:
        """(N, >=3, H, W) RGB in [0, 1] -> N readings; a text that was given up on has no end symbol to count."""
        logits = self(self.preprocess(images))
        best = logits.double().log_softmax(2).amax(2).tolist()
        readings = []
        for row, chances in zip(self._characters(logits.argmax(2)), best, strict=True):
            text = "".join(self.charset[index] for index in row)
            word = math.exp(sum(chances[: len(row) + 1]))
            readings.append(Reading(text, word, tuple(math.exp(chance) for chance in chances[: len(row)])))
        return readings


@register_model(
    system="recognizer_both_directions",
    paper="https://arxiv.org/abs/1901.03003",
    signature=r"^MORN\.",
    task=RECOGNITION,
)
def moran(**kwargs: Any) -> MORAN:
    """`MORAN`; takes its options."""
    return MORAN(**kwargs)


class Rectifier(nn.Module):
    """(N, 1, H, W) -> (N, 1, 32, 100) float32: every pixel is taken from above or below its place."""

    def __init__(self, *, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.cnn = nn.Sequential(
            nn.MaxPool2d(2),
            *_normalised(1, 64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            *_normalised(64, 128),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            *_normalised(128, 64),
            nn.ReLU(inplace=True),
            *_normalised(64, 16),
            nn.ReLU(inplace=True),
            *_normalised(16, 1),
        )
        rows, columns = torch.meshgrid(torch.linspace(-1, 1, HEIGHT), torch.linspace(-1, 1, WIDTH), indexing="ij")
        self.places: Tensor  # (1, 32, 100, 2), x and y of every pixel in [-1, 1]
        self.register_buffer("places", torch.stack([columns, rows], dim=2).unsqueeze(0), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Rectify, look at the result, and rectify better."""
        shifts = self.shifts(images)
        return self.shift(images, shifts + self.shifts(self.shift(images, shifts)))

    def rectify_some(self, images: Tensor) -> Tensor:
        """`forward` in training: some pictures are rectified, in one pass; the others keep the shape they have."""
        rectified = torch.rand(len(images)) < RECTIFIED_SHARE
        shifts = self.shifts(images) * rectified.to(images).view(-1, 1, 1)
        return self.shift(images, shifts)

    def shifts(self, images: Tensor) -> Tensor:
        """(N, 1, H, W) -> (N, 32, 100): how far below each pixel to look, in halves of the height."""
        offsets = self.cnn(F.interpolate(images, (HEIGHT, WIDTH), mode="bilinear", align_corners=False))
        # Of neighbours, the largest shift down and the largest shift up count, and their sum is taken: (N, 1, 3, 11).
        coarse = F.max_pool2d(offsets.relu(), 2, stride=1) - F.max_pool2d((-offsets).relu(), 2, stride=1)
        return self._sample(coarse, self.places.expand(len(images), -1, -1, -1)).squeeze(1)

    def shift(self, images: Tensor, shifts: Tensor) -> Tensor:
        """(N, 1, H, W), (N, 32, 100) -> (N, 1, 32, 100); outside of the picture is 0."""
        columns, rows = self.places.unbind(3)
        return self._sample(images, torch.stack([columns.expand_as(shifts), rows + shifts], dim=3))

    def _sample(self, images: Tensor, places: Tensor) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):  # 8 bits of mantissa cannot address 100 columns
            return F.grid_sample(images.float(), places.float(), align_corners=self.align_corners)


class Speller(nn.Module):
    """The recogniser: (N, 1, 32, W) -> columns; two decoders read them, one from each end."""

    def __init__(self, num_classes: int, *, channels: Sequence[int], blocks: Sequence[int], features: int) -> None:
        super().__init__()
        if len(channels) != len(STRIDES) or len(blocks) != len(STRIDES) or min(blocks) < 1:
            raise ValueError(
                f"channels {tuple(channels)}, blocks {tuple(blocks)}: give {len(STRIDES)} of each, one per stage, at "
                "least one block"
            )
        self.cnn = nn.Sequential()
        self.cnn.add_module("block0", _normalised(1, channels[0]))
        before = channels[0]
        for number, (width, count, stride) in enumerate(zip(channels, blocks, STRIDES, strict=True), 1):
            stage = [Block(before, width, stride), *(Block(width, width) for _ in range(count - 1))]
            self.cnn.add_module(f"block{number}", nn.Sequential(*stage))
            before = width
        self.rnn = nn.Sequential(
            BidirectionalLSTM(before, features, features), BidirectionalLSTM(features, features, features)
        )
        self.attentionL2R = Decoder(num_classes, features)
        self.attentionR2L = Decoder(num_classes, features)

    def encode(self, images: Tensor) -> Tensor:
        """(N, 1, 32, W) -> (N, W / 4, 256)."""
        return self.rnn(self.cnn(images).squeeze(2).permute(2, 0, 1)).transpose(0, 1)


class Block(nn.Module):
    """Residual block: (N, C, H, W) -> (N, C', H / s, W / s'). Its two convolutions have no activation between them."""

    def __init__(self, in_channels: int, channels: int, stride: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.downsample: nn.Sequential | None = None
        if stride is None:
            self.conv1 = _normalised(in_channels, channels, 1)
        else:
            self.downsample = _normalised(in_channels, channels, 3, stride)
            self.conv1 = _normalised(in_channels, channels, 3, stride)
        self.conv2 = _normalised(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Residual of the two convolutions, rectified."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return (self.conv2(self.conv1(x)) + shortcut).relu_()


class AttentionCell(nn.Module):
    """One step of a decoder: additive attention over columns, then a GRU."""

    def __init__(self, features: int = FEATURES) -> None:
        super().__init__()
        self.i2h = nn.Linear(features, features, bias=False)
        self.h2h = nn.Linear(features, features)
        self.score = nn.Linear(features, 1, bias=False)
        self.rnn = nn.GRUCell(2 * features, features)

    def forward(self, columns: Tensor, keys: Tensor, symbol: Tensor, state: Tensor, *, pickup: bool = False) -> Tensor:
        """Read on.

        Args:
            columns: (N, T, 256).
            keys: (N, T, 256), `i2h` of the columns, which no step changes.
            symbol: (N, 256), what the symbol before is embedded as.
            state: (N, 256).
            pickup: mix the attention at random, see `pick_up`.

        Returns:
            The next state (N, 256).
        """
        attention = self.score((keys + self.h2h(state).unsqueeze(1)).tanh_()).softmax(1)  # (N, T, 1)
        if pickup:
            attention = pick_up(attention)
        context = (attention.transpose(1, 2) @ columns).squeeze(1)
        return self.rnn(torch.cat([context, symbol], dim=1), state)


class Decoder(nn.Module):
    """(N, T, 256) columns -> logits of symbols, one after the other."""

    def __init__(self, num_classes: int, features: int = FEATURES) -> None:
        super().__init__()
        self.attention_cell = AttentionCell(features)
        self.generator = nn.Linear(features, num_classes)
        self.char_embeddings = nn.Parameter(torch.randn(num_classes + 1, features))  # the first stands for the start

    def forward(self, columns: Tensor, *, max_length: int, end: int | None) -> Tensor:
        """Decode greedily, (N, L, K).

        Args:
            columns: (N, T, 256).
            max_length: number of steps.
            end: stop early, soon after all samples had this symbol; None takes all steps.
        """
        keys = self.attention_cell.i2h(columns)
        state = columns.new_zeros(len(columns), columns.shape[2])
        symbol = self.char_embeddings[0].expand_as(state)
        ended = torch.zeros(len(columns), dtype=torch.bool, device=columns.device)
        look = STEPS_PER_LOOK.get(columns.device.type, STEPS_PER_LOOK_ON_GPU)
        logits = []
        for step in range(1, max_length + 1):
            state = self.attention_cell(columns, keys, symbol, state)
            logits.append(self.generator(state))
            best = logits[-1].argmax(1)
            symbol = self.char_embeddings[best + 1]
            if end is not None:
                ended = ended | (best == end)
                if step % look == 0 and bool(ended.all()):
                    break
        return torch.stack(logits, dim=1)

    def predict(self, columns: Tensor, targets: Tensor, *, pickup: bool) -> Tensor:
        """Predict each symbol of known texts: (N, T, 256) and (N, L) class ids -> (N, L, K) logits.

        What stands last in the targets is not looked at.
        """
        keys = self.attention_cell.i2h(columns)
        state = columns.new_zeros(len(columns), columns.shape[2])
        symbols = self.char_embeddings[F.pad(targets[:, :-1] + 1, (1, 0))]
        states = []
        for symbol in symbols.unbind(1):
            state = self.attention_cell(columns, keys, symbol, state, pickup=pickup)
            states.append(state)
        return self.generator(torch.stack(states, dim=1))


def pick_up(attention: Tensor) -> Tensor:
    """Fractional pickup: two neighbouring columns, the same ones of all pictures, give each other of their attention.

    Args:
        attention: (N, T, 1), T at least 2; sums along T stay as they are.
    """
    first = int(torch.randint(attention.shape[1] - 1, ()))
    share = float(torch.rand(())) * LARGEST_PICKUP
    swapped = list(range(attention.shape[1]))
    swapped[first], swapped[first + 1] = first + 1, first
    return attention.lerp(attention[:, swapped], share)


def _normalised(in_channels: int, channels: int, kernel: int = 3, stride: tuple[int, int] = (1, 1)) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, kernel, stride=stride, padding=kernel // 2)
    return nn.Sequential(conv, nn.BatchNorm2d(channels))
