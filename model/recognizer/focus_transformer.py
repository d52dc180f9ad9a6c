"""The transformer recognizer whose attention tells a super-resolution network where the characters are.

Paper: Scene Text Telescope: Text-Focused Scene Image Super-Resolution, CVPR 2021,
https://openaccess.thecvf.com/content/CVPR2021/html/Chen_Scene_Text_Telescope_Text-Focused_Scene_Image_Super-Resolution_CVPR_2021_paper.html
Source: https://github.com/FudanVI/FudanOCR (scene-text-telescope); module names follow it so that its
checkpoint loads. Differences: images and text can be encoded apart; logits stay padded instead
of being cut out in a loop; the sizes are arguments; parts that the published forward never uses are not built.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.blocks.transformer import Attention, FeedForward, LayerNorm, Projected, sinusoids
from model.recognizer.attention_decoder import STEPS_PER_LOOK, STEPS_PER_LOOK_ON_GPU
from model.recognizer.crnn import ALPHANUMERIC
from model.recognizer.gray import LUMA, check_rgb, resized_gray
from model.recognizer.reading import Reading, check_charset
from model.registry import RECOGNITION, register_model

READ_LENGTH = 32  # symbols after which reading usually gives up, the end symbol included
READ_SIZE = (32, 128)  # (H, W)
HEAD_FEATURES = 64  # of each attention head of the published network
SMALL_WIDTHS, SMALL_BLOCKS = (32, 64, 128, 128, 192, 192, 256), (1, 1, 1, 1)
"""`widths` and `blocks` of the small network, made here: a sixteenth of the parameters."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (N, C, H, W) -> (N, C', H, W)."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Sequential | None = None  # the published name; it changes channels, not the size
        if channels_in != channels:
            self.downsample = nn.Sequential(nn.Conv2d(channels_in, channels, 3, padding=1), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Residual of the two convolutions, rectified."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return (self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())) + shortcut).relu()


class FeatureExtractor(nn.Module):
    """(N, 1, H, W) -> (N, widths[-1], H / 4, W / 4): a ResNet that keeps the resolution after two poolings."""

    def __init__(self, widths: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, widths[0], 3, padding=1)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.conv2 = nn.Conv2d(widths[0], widths[1], 3, padding=1)
        self.bn2 = nn.BatchNorm2d(widths[1])
        self.pool = nn.MaxPool2d(2)
        for stage, count in enumerate(blocks, 1):
            before, width = widths[stage], widths[stage + 1]
            layer = nn.Sequential(*(BasicBlock(before if i == 0 else width, width) for i in range(count)))
            self.add_module(f"layer{stage}", layer)
            last = stage == len(blocks)
            after = widths[stage + 2] if last else width
            conv, norm = self._names(stage, last=last)
            self.add_module(conv, nn.Conv2d(width, after, 3, padding=1))
            self.add_module(norm, nn.BatchNorm2d(after))
        self.stages = len(blocks)

    @staticmethod
    def _names(stage: int, *, last: bool) -> tuple[str, str]:
        conv = f"layer{stage}_conv2" if last else f"layer{stage}_conv"
        return conv, f"{conv}_bn" if last else f"layer{stage}_bn"

    def forward(self, images: Tensor) -> Tensor:
        """Gray images -> feature map."""
        x = self.pool(self.bn1(self.conv1(images)).relu())
        x = self.pool(self.bn2(self.conv2(x)).relu())
        for stage in range(1, self.stages + 1):
            conv, norm = self._names(stage, last=stage == self.stages)
            x = self.get_submodule(f"layer{stage}")(x)
            x = self.get_submodule(norm)(self.get_submodule(conv)(x)).relu()
        return x


class Encoder(nn.Module):
    """Feature map as a row-major sequence: (N, 1, H, W) -> (N, H / 4 * W / 4, D)."""

    def __init__(self, widths: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        self.cnn = FeatureExtractor(widths, blocks)

    def forward(self, images: Tensor) -> Tensor:
        """Gray images -> one feature vector per cell of 4 x 4 pixels."""
        return self.cnn(images).flatten(2).transpose(1, 2)


class Decoder(nn.Module):
    """One transformer layer: text attends to earlier text, then to the image."""

    def __init__(self, features: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.mask_multihead = Attention(features, heads, dropout)
        self.mul_layernorm1 = LayerNorm(features)
        self.multihead = Attention(features, heads, dropout)
        self.mul_layernorm2 = LayerNorm(features)
        self.pff = FeedForward(features, 2 * features, dropout)
        self.mul_layernorm3 = LayerNorm(features)

    def forward(self, text: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T, D), (N, P, D) -> (N, T, D) and the attention to the image (N, heads, T, P)."""
        mixed, _ = self.mask_multihead(text, text, causal=True)
        return self._look(text + mixed, self.multihead.project(features))

    def step(self, text: Tensor, before: Projected | None, seen: Projected) -> tuple[Tensor, Projected]:
        """`forward` for the next symbol alone, which gives the same as for the whole text.

        Args:
            text: (N, 1, D), the symbol.
            before: keys and values of the symbols before it; None: it is the first.
            seen: keys and values of the image, `multihead.project`.

        Returns:
            (N, 1, D), and `before` for the symbol after it.
        """
        own = self.mask_multihead.project(text)
        if before is not None:
            own = (torch.cat([before[0], own[0]], dim=2), torch.cat([before[1], own[1]], dim=2))
        mixed, _ = self.mask_multihead.look_up(text, own)
        return self._look(text + mixed, seen)[0], own

    def _look(self, text: Tensor, image: Projected) -> tuple[Tensor, Tensor]:
        text = self.mul_layernorm1(text)
        seen, attention = self.multihead.look_up(text, image)
        text = self.mul_layernorm2(text + seen)
        return self.mul_layernorm3(text + self.pff(text)), attention


class Embedding(nn.Module):
    """Class ids -> vectors, scaled by the root of their size."""

    def __init__(self, classes: int, features: int) -> None:
        super().__init__()
        self.lut = nn.Embedding(classes, features)

    def forward(self, ids: Tensor) -> Tensor:
        """(N, T) -> (N, T, D)."""
        return self.lut(ids) * math.sqrt(self.lut.embedding_dim)


class Generator(nn.Module):
    """Vectors -> class logits."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.proj = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, D) -> (N, T, K)."""
        return self.proj(x)


class FocusTransformer(nn.Module):
    """Recognizer with teacher forcing: gray images and the text before each character -> logits and attention.

    The defaults are the published network. A smaller one of the same interface has other `widths`, `blocks`, `heads`.
    """

    end = 0
    """Class of the symbol that ends a text, and stands before its first character."""

    # In the published file, without any effect on its output: never applied, or a constant made here.
    unused_published_keys = (
        "pe.pe",
        "decoder.mask_multihead.compress_attention_linear.weight",
        "decoder.mask_multihead.compress_attention_linear.bias",
        "decoder.multihead.compress_attention_linear.weight",
        "decoder.multihead.compress_attention_linear.bias",
    )

    def __init__(
        self,
        *,
        widths: Sequence[int] = (64, 128, 256, 256, 512, 512, 1024),
        blocks: Sequence[int] = (1, 2, 5, 3),
        heads: int | None = None,
        charset: str = ALPHANUMERIC,
        max_length: int = 512,
        read_length: int = READ_LENGTH,
        dropout: float = 0.1,
    ) -> None:
        """Build the network with random weights.

        Args:
            widths: channels of the two first convolutions, of every stage, and of the encoder's output, which is also
                the size D of the decoder.
            blocks: residual blocks of each stage.
            heads: attention heads of the decoder; they divide D. None: one for every 64 features, as published.
            charset: the characters of classes 1, 2, ...; class 0 is the start and end symbol.
            max_length: longest text, in characters with the end symbol.
            read_length: symbols after which reading gives up, the end symbol included.
            dropout: in the decoder, training mode only.

        Raises:
            ValueError: the sizes don't fit together.
        """
        super().__init__()
        if len(widths) != len(blocks) + 3:
            raise ValueError(
                f"{len(widths)} widths for {len(blocks)} stages of blocks; "
                "give two for the first convolutions, one per stage and one for the output"
            )
        check_charset(charset)
        features = widths[-1]
        heads = max(1, features // HEAD_FEATURES) if heads is None else heads
        if features % 4 or features % heads:
            raise ValueError(f"output width {features} must be a multiple of 4 and of the number of heads, {heads}")
        self.charset, self.read_length = charset, read_length
        classes = len(charset) + 1
        self.embedding_word = Embedding(classes, features // 2)
        self.encoder = Encoder(widths, blocks)
        self.decoder = Decoder(features, heads, dropout)
        self.generator_word = Generator(features, classes)
        self.dropout = nn.Dropout(dropout)
        self.positions: Tensor
        self.register_buffer("positions", sinusoids(max_length, features // 2), persistent=False)
        self.start_weights()

    def start_weights(self) -> None:
        """Random weights to train from, as published."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    @classmethod
    def like(cls, state: Mapping[str, Tensor], *, charset: str = ALPHANUMERIC) -> "FocusTransformer":
        """A network of the sizes that the tensors of a state dict have, with random weights; heads are of 64 features.

        Args:
            state: of a network with heads of 64 features. Where keys are missing, the published sizes are taken, and
                loading the state will say what does not fit.
            charset: the characters of classes 1, 2, ...
        """
        cnn = "encoder.cnn."
        firsts = [f"{cnn}{name}.weight" for name in ("conv1", "conv2")]
        stages = [key for key in state if re.fullmatch(r"encoder\.cnn\.layer\d+_conv2?\.weight", key)]
        stages.sort(key=lambda key: int(re.findall(r"layer(\d+)", key)[0]))
        if not stages or any(key not in state for key in firsts):
            return cls(charset=charset)
        widths = [state[key].shape[0] for key in firsts] + [state[key].shape[1] for key in stages]
        blocks = [len({key.split(".")[3] for key in state if key.startswith(f"{cnn}layer{number}.")})
                  for number in range(1, len(stages) + 1)]  # fmt: skip
        return cls(widths=(*widths, state[stages[-1]].shape[0]), blocks=blocks, charset=charset)

    @property
    def reading_length(self) -> int:
        """Symbols after which reading gives up, the end symbol included."""
        return min(self.read_length, len(self.positions))

    @staticmethod
    def preprocess(images: Tensor) -> Tensor:
        """(N, >=3, H, W) RGB in [0, 1] -> (N, 1, H, W) gray, not normalised; further planes are dropped.

        Raises:
            ValueError: the images have fewer than three channels.
        """
        check_rgb(images)
        # Without `non_blocking` the program would wait for a GPU to take these three numbers.
        weights = torch.tensor(LUMA).to(images.device, images.dtype, non_blocking=True).view(1, 3, 1, 1)
        return (images[:, :3] * weights).sum(1, keepdim=True)

    def encode(self, images: Tensor) -> Tensor:
        """Everything that doesn't depend on the text.

        Args:
            images: (N, 1, H, W) gray in [0, 1], published size 32 x 128; H and W at least 4.

        Returns:
            (N, P, D), P = (H // 4) * (W // 4) cells in row-major order.
        """
        return self.encoder(images)

    def decode(self, features: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Predict each character from the image and the characters before it.

        Args:
            features: (N, P, D) of `encode`.
            ids: (N, T) start symbol 0, then the text without its last symbol; padding may be any class, a position
                sees only what stands before it.

        Returns:
            Logits (N, T, K), padded like `ids`, and attention (N, heads, T, P), rows sum to 1.

        Raises:
            ValueError: the text is longer than `max_length`.
        """
        length = ids.shape[1]
        if length > len(self.positions):
            raise ValueError(
                f"text of {length} symbols, at most {len(self.positions)} are possible; "
                "cut the label or raise max_length"
            )
        text, attention = self.decoder(self._embed(ids, 0), features)
        return self.generator_word(text), attention

    def predict(self, x: Tensor, targets: Tensor) -> Tensor:
        """Predict each symbol of known texts from the picture and the symbols before it (teacher forcing).

        Args:
            x: (N, 1, H, W) gray in [0, 1].
            targets: (N, L) int64 class ids, after the end symbol any.

        Returns:
            Logits (N, L, K).
        """
        return self(x, F.pad(targets[:, :-1], (1, 0), value=self.end))[0]

    def _embed(self, ids: Tensor, first: int) -> Tensor:
        """(N, T) symbols at positions `first`, `first + 1`, ... -> (N, T, D)."""
        embedded = self.embedding_word(ids)
        places = self.dropout(self.positions[first : first + ids.shape[1]].to(embedded.dtype)).expand_as(embedded)
        return torch.cat([embedded, places], dim=-1)

    def forward(self, images: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """`decode(encode(images), ids)`."""
        return self.decode(self.encode(images), ids)

    def spell(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Read without knowing the text: every symbol is the most probable one after those before it.

        Args:
            images: (N, 1, H, W) gray in [0, 1].

        Returns:
            Class ids (N, L) and log-probabilities (N, L); L is at most `reading_length`, less if all words have ended.
            What follows the end symbol 0 of a word means nothing.
        """
        image = self.decoder.multihead.project(self.encode(images))
        symbol = torch.zeros(len(images), 1, dtype=torch.long, device=images.device)
        ended = torch.zeros_like(symbol, dtype=torch.bool)
        look = STEPS_PER_LOOK.get(images.device.type, STEPS_PER_LOOK_ON_GPU)
        before, symbols, chances = None, [], []
        for step in range(self.reading_length):
            text, before = self.decoder.step(self._embed(symbol, step), before, image)
            best = self.generator_word(text).log_softmax(2).max(2)
            symbol = best.indices
            symbols.append(symbol)
            chances.append(best.values)
            ended = ended | (symbol == 0)
            if (step + 1) % look == 0 and bool(ended.all()):
                break
        return torch.cat(symbols, dim=1), torch.cat(chances, dim=1)

    @torch.inference_mode()
    def read(self, images: Tensor) -> list[str]:
        """(N, >=3, H, W) RGB in [0, 1] -> N strings."""
        return [reading.text for reading in self.read_with_confidence(images)]

    @torch.inference_mode()
    def read_with_confidence(self, images: Tensor) -> list[Reading]:
        """(N, >=3, H, W) RGB in [0, 1] -> N readings; a text that was given up on has no end symbol to count.

        Pictures of another size than 32 x 128 are resized to it first (bicubic).
        """
        if not len(images):
            return []
        right_size = images.shape[2:] == READ_SIZE
        ids, chances = self.spell(self.preprocess(images) if right_size else resized_gray(images, READ_SIZE))
        readings = []
        for row, logs in zip(ids.tolist(), chances.double().tolist(), strict=True):
            length = row.index(0) if 0 in row else len(row)
            text = "".join(self.charset[index - 1] for index in row[:length])
            word = math.exp(sum(logs[: length + 1]))
            readings.append(Reading(text, word, tuple(math.exp(chance) for chance in logs[:length])))
        return readings


PAPER = (
    "https://openaccess.thecvf.com/content/CVPR2021/html/"
    "Chen_Scene_Text_Telescope_Text-Focused_Scene_Image_Super-Resolution_CVPR_2021_paper.html"
)


@register_model(
    system="recognizer_attention",
    paper=PAPER,
    signature=(r"^generator_word\.", r"^encoder\.cnn\.layer3\.4\."),
    task=RECOGNITION,
)
def focus_transformer(**kwargs: Any) -> FocusTransformer:
    """`FocusTransformer` of the published sizes; takes its options."""
    return FocusTransformer(**kwargs)


@register_model(
    system="recognizer_attention",
    paper=PAPER,
    signature=(r"^generator_word\.", r"!^encoder\.cnn\.layer3\.1\."),
    task=RECOGNITION,
)
def focus_transformer_small(**kwargs: Any) -> FocusTransformer:
    """A small `FocusTransformer`; takes its options."""
    return FocusTransformer(**{"widths": SMALL_WIDTHS, "blocks": SMALL_BLOCKS, **kwargs})
