"""TATT: a transformer lets every pixel find its characters in the text prior.

Paper: A Text Attention Network for Spatial Deformation Robust Scene Text Image Super-resolution, CVPR 2022,
https://arxiv.org/abs/2203.09388
Source: https://github.com/mjq11302010044/TATT (TSRN_TL_TRANS); module names follow it, so its checkpoints load.
Differences: what is never called (self attention of the decoder, a layer for image features) is left out unless
`published_unused`; the recurrence over the queries runs along the columns of the image, where the published one runs
from sample to sample of the batch, so that a picture depends on its neighbours (`recurrence`).
`tatt_sft` is a variant in the same repository (`tsrn_tl_cascade_sft` there), without a transformer: the
features of the image are scaled and shifted by TPGSR's map of the text, and the result is the hint.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.blocks import clue
from model.blocks.prior import NUM_CLASSES, PriorGuidedSkeleton
from model.blocks.published import PublishedForm
from model.registry import register_model

HEADS, DECODER_LAYERS, DROPOUT = 4, 2, 0.1
LONGEST = 5000  # positions in the table of published checkpoints
RECURRENCES = ("columns", "batch")


class Positions(nn.Module):
    """(T, N, d) -> (T, 1, d): a sine and a cosine code of the position in turn, with dropout in training."""

    constant_buffers = ("pe",)
    pe: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(DROPOUT)
        position = torch.arange(LONGEST, dtype=torch.float32, device="cpu")[:, None]
        rate = (torch.arange(0, features, 2, dtype=torch.float32, device="cpu") * (-9.210340371976184 / features)).exp()
        angle = position * rate
        self.register_buffer("pe", torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[None])

    def forward(self, sequence: Tensor) -> Tensor:
        """The code of as many positions as the sequence has."""
        return self.dropout(self.pe[:, : len(sequence)].transpose(0, 1).expand_as(sequence))


class EncoderLayer(nn.Module):
    """(T, N, d) -> (T, N, d): self attention whose queries and keys know their position, and a feed-forward layer."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(features, HEADS, dropout=DROPOUT)
        self.linear1 = nn.Linear(features, features)
        self.linear2 = nn.Linear(features, features)
        self.norm1, self.norm2 = nn.LayerNorm(features), nn.LayerNorm(features)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, text: Tensor, positions: Tensor) -> Tensor:
        """Let the characters see each other."""
        where = text + positions
        seen, _ = self.self_attn(where, where, text, need_weights=False)
        text = self.norm1(text + self.dropout(seen))
        return self.norm2(text + self.dropout(self.linear2(self.dropout(self.linear1(text).relu()))))


class DecoderLayer(nn.Module):
    """(P, N, d) pixels and (T, N, d) text -> (P, N, d): each pixel attends to the text."""

    def __init__(self, features: int, *, published_unused: bool = False) -> None:
        super().__init__()
        if published_unused:
            self.self_attn = nn.MultiheadAttention(features, HEADS, dropout=DROPOUT)
        self.multihead_attn = nn.MultiheadAttention(features, HEADS, dropout=DROPOUT)
        self.linear1 = nn.Linear(features, features)
        self.linear2 = nn.Linear(features, features)
        if published_unused:
            self.norm1 = nn.LayerNorm(features)
        self.norm2, self.norm3 = nn.LayerNorm(features), nn.LayerNorm(features)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(
        self, pixels: Tensor, text: Tensor, queries: Tensor, positions: Tensor, *, weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The new pixels, and with `weights` where they look, (N, P, T)."""
        seen, attention = self.multihead_attn(pixels + queries, text + positions, text, need_weights=weights)
        pixels = self.norm2(pixels + self.dropout(seen))
        return self.norm3(pixels + self.dropout(self.linear2(self.dropout(self.linear1(pixels).relu())))), attention


class Encoder(nn.Module):
    """The layer of the encoder. Its stack adds the input to what each layer takes, so the only one takes it twice."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([EncoderLayer(features)])

    def forward(self, text: Tensor, positions: Tensor) -> Tensor:
        """Encode."""
        return self.layers[0](2 * text, positions)


class Decoder(nn.Module):
    """Layers whose normalised results are averaged."""

    def __init__(self, features: int, *, published_unused: bool = False) -> None:
        super().__init__()
        layers = (DecoderLayer(features, published_unused=published_unused) for _ in range(DECODER_LAYERS))
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(features)

    def forward(
        self, pixels: Tensor, text: Tensor, queries: Tensor, positions: Tensor, *, weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Decode; the attention is that of the last layer."""
        results, attention = [], None
        for layer in self.layers:
            pixels, attention = layer(pixels, text, queries, positions, weights=weights)
            results.append(self.norm(pixels))
        return torch.stack(results).mean(0), attention


class Transformer(nn.Module):
    """The parts that published keys hold under this name."""

    def __init__(self, features: int, height: int, *, published_unused: bool = False) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(features), Decoder(features, published_unused=published_unused)
        line = features * height
        self.gru_encoding = nn.GRU(line, line // 2, bidirectional=True, batch_first=True)


class TextInterpreter(nn.Module):
    """A text prior (N, 37, 1, T) and image features (N, F, H, W) -> a map (N, F, H, W) (TP interpreter).

    Args:
        features: F.
        size: (H, W).
        recurrence: the code of a pixel comes from a recurrence along "columns", or "batch" as published: over the
            samples of the batch.
        published_unused: hold every parameter of the published interpreter, the unused ones included.
    """

    def __init__(
        self, features: int, size: tuple[int, int], *, recurrence: str, published_unused: bool = False
    ) -> None:
        super().__init__()
        self.size, self.recurrence = size, recurrence
        self.fc_in = nn.Linear(NUM_CLASSES, features)
        if published_unused:
            self.fc_feature_in = nn.Linear(features, features)
        self.activation = nn.PReLU()
        self.transformer = Transformer(features, size[0], published_unused=published_unused)
        self.pe = Positions(features)
        self.init_factor = nn.Embedding(size[0] * size[1], features)

    def forward(self, prior: Tensor, image: Tensor) -> Tensor:
        """Draw the text where the image has it."""
        return self.attend(prior, image, weights=False)[0]

    def attend(self, prior: Tensor, image: Tensor, *, weights: bool = True) -> tuple[Tensor, Tensor | None]:
        """As `forward`; with `weights` also the attention (N, H*W, T), the mean of all heads."""
        text = self.activation(self.fc_in(prior.squeeze(2).permute(2, 0, 1)))  # (T, N, F)
        positions = self.pe(text)
        text = self.transformer.encoder(text, positions)
        queries = self.queries(len(image))
        pixels = image.flatten(2).permute(2, 0, 1)  # (H*W, N, F)
        drawn, attention = self.transformer.decoder(pixels, text, queries, positions, weights=weights)
        return drawn.permute(1, 2, 0).unflatten(2, self.size), attention

    def queries(self, count: int) -> Tensor:
        """(H*W, count, F) codes of the pixels of `count` images."""
        height, width = self.size
        code = self.init_factor.weight.unflatten(0, self.size)  # (H, W, F)
        lines = code.permute(1, 0, 2).flatten(1)  # (W, H*F): one vector per column
        if self.recurrence == "batch":
            columns, _ = self.transformer.gru_encoding(lines[:, None].expand(width, count, lines.shape[1]).contiguous())
        else:
            columns, _ = self.transformer.gru_encoding(lines[None])
            columns = columns.transpose(0, 1).expand(width, count, lines.shape[1])
        return columns.unflatten(2, (height, -1)).permute(2, 0, 1, 3).flatten(0, 1)


class TATT(PriorGuidedSkeleton, PublishedForm):
    """LR images (N, C, 16, 64) in [0, 1] and a text prior (N, 37, 1, 26) -> SR images (N, C, 32, 128) in (-1, 1).

    The sizes are those of the default arguments; the network works at the size it was built for.

    Args:
        recurrence: "columns", or "batch" for published checkpoints, whose results depend on the batch.
        published_unused: hold every parameter of the published network, the unused ones included.
        **options: those of `Skeleton`; twice the hidden units must be a multiple of 4.

    Raises:
        ValueError: an argument has no meaning.
    """

    def __init__(self, *, recurrence: str = "columns", published_unused: bool = False, **options: Any) -> None:
        if recurrence not in RECURRENCES:
            raise ValueError(f"unknown recurrence {recurrence!r}; known: {', '.join(RECURRENCES)}")
        super().__init__(**options)
        self.whole_batches = recurrence == "batch"  # evaluation must not cut a batch, which would be another one
        self.options |= {"recurrence": recurrence}
        features = 2 * self.options["hidden_units"]
        if features % HEADS:
            raise ValueError(f"hidden_units {features // 2} must be even: {HEADS} heads share twice as many features")
        self.infoGen = TextInterpreter(features, self.size_lr, recurrence=recurrence, published_unused=published_unused)

    def check_images(self, images_lr: Tensor) -> None:
        """Also the size, since each pixel has a code of its own.

        Raises:
            ValueError: naming the option that goes with it.
        """
        super().check_images(images_lr)
        if images_lr.shape[2:] != self.size_lr:
            height, width = self.size_lr
            raise ValueError(
                f"LR images of size {tuple(images_lr.shape[2:])}: this network was built for {height}x{width}; resize "
                "them, or build it with another width and height"
            )

    def hint(self, shallow: Tensor, prior: Tensor) -> Tensor:
        """What each pixel finds in the text, (N, F, H, W)."""
        told: Tensor = self.infoGen(prior, shallow)
        return told


@register_model(
    system="prior_guided",
    paper="https://arxiv.org/abs/2203.09388",
    source="https://github.com/mjq11302010044/TATT",
    scores={"CRNN": 52.6, "MORAN": 59.5, "ASTER": 63.6},
    signature=r"^infoGen\.init_factor\.",
    published={"recurrence": "batch", "stn_align_corners": False},
)
def tatt(**kwargs: Any) -> TATT:
    """TATT with the given options."""
    return TATT(**kwargs)


class SpatialModulation(nn.Module):
    """Features (N, F, H, W) and a map of the same shape -> the features, scaled and shifted pixel by pixel (SFT).

    Paper: https://arxiv.org/abs/1804.02815, whose key names these are.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        half = features // 2
        self.SFT_scale_conv0, self.SFT_scale_conv1 = nn.Conv2d(features, half, 1), nn.Conv2d(half, features, 1)
        self.SFT_shift_conv0, self.SFT_shift_conv1 = nn.Conv2d(features, half, 1), nn.Conv2d(half, features, 1)

    def forward(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Modulate `x` by `drawn`."""
        scale = self.SFT_scale_conv1(F.leaky_relu(self.SFT_scale_conv0(drawn), 0.1))
        shift = self.SFT_shift_conv1(F.leaky_relu(self.SFT_shift_conv0(drawn), 0.1))
        return x * (scale + 1) + shift


class TATTSFT(PriorGuidedSkeleton, PublishedForm):
    """LR images (N, C, 16, 64) in [0, 1] and a text prior (N, 37, 1, 26) -> SR images (N, C, 32, 128) in (-1, 1).

    The sizes are those of the default arguments; without STN any size works.

    Args:
        published_unused: hold every parameter of the published network, the unused ones included.
        **options: those of `Skeleton`.

    Raises:
        ValueError: an argument has no meaning.
    """

    def __init__(self, *, published_unused: bool = False, **options: Any) -> None:
        super().__init__(**options)
        if published_unused:
            self.infoGen.sft_layer = SpatialModulation(2 * self.options["hidden_units"])

    def add_hint_modules(self) -> None:
        """What makes a map of the prior, and what modulates the image by it."""
        features = 2 * self.options["hidden_units"]
        self.infoGen = clue.TextInterpreter(NUM_CLASSES, features)
        self.sft_layer = SpatialModulation(features)

    def hint(self, shallow: Tensor, prior: Tensor) -> Tensor:
        """The features, modulated by a map of the text, (N, F, H, W)."""
        drawn = clue.interpret(self.infoGen, prior, (shallow.shape[2], shallow.shape[3]))
        told: Tensor = self.sft_layer(shallow, drawn)
        return told


@register_model(
    system="prior_guided",
    paper="https://arxiv.org/abs/2203.09388",
    source="https://github.com/mjq11302010044/TATT",
    signature=(r"^infoGen\.tconv1\.", r"^sft_layer\."),
    published={"stn_align_corners": False},
)
def tatt_sft(**kwargs: Any) -> TATTSFT:
    """TATT's variant without a transformer, with the given options."""
    return TATTSFT(**kwargs)
