"""SVTR-tiny: rectification, then a transformer whose first half looks only at neighbours; read by CTC.

Paper: SVTR: Scene Text Recognition with a Single Visual Model, IJCAI 2022, https://arxiv.org/abs/2205.00159.
Source: https://github.com/PaddlePaddle/PaddleOCR (rec_svtr_tiny_none_ctc_en), converted by
https://github.com/frotms/PaddleOCR2Pytorch; key names follow the converted file so that it loads. It is the guide of
SGENet (https://arxiv.org/abs/2403.13330), see `SVTR.clue`. Difference: the matrices of the spline are computed in
float64.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.blocks.stn import STNHead, TPSSpatialTransformer
from model.recognizer.crnn import ALPHANUMERIC
from model.recognizer.ctc import ctc_readings, spell
from model.recognizer.gray import check_rgb
from model.recognizer.reading import Reading, check_charset
from model.registry import RECOGNITION, register_model

IMAGE_SIZE, POINTS_SIZE, RECTIFIED_SIZE = (32, 128), (32, 64), (32, 100)  # (H, W)
WINDOW = (7, 11)  # cells, rows and columns, that local attention sees
STAGES = ((64, 2, 3), (128, 4, 6), (256, 8, 3))
"""Features, attention heads and blocks of each stage; a stage has half as many rows of cells as the one before."""
LOCAL_BLOCKS = 6
OUT_FEATURES = 192
INITIAL_DEVIATION = 0.02  # of positions and linear layers


class Clue(NamedTuple):
    """What SVTR tells another network about a picture.

    Attributes:
        features: (N, 256, 1, 25), one vector per 4 columns of the rectified picture.
        text: (N, 25, K) probabilities or logits, class 0 is the CTC blank.
    """

    features: Tensor
    text: Tensor


class SVTR(nn.Module):
    """(N, 3, H, W) RGB in [0, 1], published size 32 x 128 -> (N, 25, K) logits, class 0 is the CTC blank.

    Args:
        charset: the characters of classes 1, 2, ...
        drop_path: in training, the share of samples for which the last block is skipped; it grows from 0 linearly.
        dropout: before the classes, in training.
        align_corners: how the rectifier counts positions, see `torch.nn.functional.grid_sample`.
    """

    def __init__(
        self,
        *,
        charset: str = ALPHANUMERIC,
        drop_path: float = 0.1,
        dropout: float = 0.1,
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        check_charset(charset)
        self.charset = charset
        self.transform = Rectifier(align_corners=align_corners)
        self.backbone = Backbone(drop_path=drop_path, dropout=dropout)
        self.head = Head(len(charset) + 1)

    def start_weights(self) -> None:
        """Random weights to train from, as published: the rectifier starts with straight lines, as it is built."""
        for part in (self.backbone, self.head):
            for module in part.modules():
                if isinstance(module, nn.Linear):
                    nn.init.trunc_normal_(module.weight, std=INITIAL_DEVIATION)
                    nn.init.zeros_(module.bias)
                elif isinstance(module, nn.Conv2d):
                    nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)

    def preprocess(self, images: Tensor) -> Tensor:
        """(N, >=3, H, W) RGB in [0, 1] -> (N, 3, 32, 128), bicubic, unclamped, not normalised: as SGENet feeds it.

        PaddleOCR itself feeds BGR in [-1, 1].

        Raises:
            ValueError: the images have fewer than three channels.
        """
        check_rgb(images)
        if images.shape[2:] == IMAGE_SIZE:
            return images[:, :3]
        return F.interpolate(images[:, :3], IMAGE_SIZE, mode="bicubic", align_corners=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 25, K) logits."""
        return self.classify(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 256, 1, 25).

        Raises:
            ValueError: the images have another number of channels.
        """
        if x.ndim != 4 or x.shape[1] != 3:
            raise ValueError(f"images of shape {tuple(x.shape)}: SVTR takes (N, 3, H, W), see `preprocess`")
        return self.backbone.pool(self.backbone(self.transform(x)))

    def classify(self, features: Tensor) -> Tensor:
        """(N, 256, 1, 25), `features` -> (N, 25, K) logits."""
        return self.head(self.backbone.last(features))

    def clue(self, x: Tensor, *, text: Literal["published", "probabilities", "logits"] = "published") -> Clue:
        """What SGENet is guided by.

        Args:
            x: (N, 3, H, W).
            text: in which form. "published" is what the head of PaddleOCR does: logits in training, else probabilities.

        Raises:
            ValueError: no such form, or the images have another number of channels.
        """
        if text not in ("published", "probabilities", "logits"):
            raise ValueError(f'text={text!r}; use "published", "probabilities" or "logits"')
        features = self.features(x)
        logits = self.classify(features)
        as_logits = text == "logits" or (text == "published" and self.training)
        return Clue(features, logits if as_logits else logits.softmax(2))

    def decode(self, logits: Tensor) -> list[str]:
        """(N, T, K) logits or probabilities -> N strings, greedy: repetitions become one, then blanks are dropped."""
        return spell(logits.argmax(2), self.charset)

    @torch.inference_mode()
    def read(self, images: Tensor) -> list[str]:
        """(N, >=3, H, W) RGB in [0, 1] -> N strings of digits and lower-case letters."""
        return self.decode(self(self.preprocess(images)))

    @torch.inference_mode()
    def read_with_confidence(self, images: Tensor) -> list[Reading]:
        """(N, >=3, H, W) RGB in [0, 1] -> N readings, see `ctc_readings`."""
        return ctc_readings(self(self.preprocess(images)), self.charset)


@register_model(
    system="recognizer_ctc",
    paper="https://arxiv.org/abs/2205.00159",
    signature=r"^backbone\.patch_embed\.",
    task=RECOGNITION,
)
def svtr(**kwargs: Any) -> SVTR:
    """`SVTR`; takes its options."""
    return SVTR(**kwargs)


class Rectifier(nn.Module):
    """(N, 3, H, W) -> (N, 3, 32, 100) float32: lines of text become straight, in training and in evaluation."""

    def __init__(self, *, align_corners: bool) -> None:
        super().__init__()
        self.stn_head = STNHead(3, height=POINTS_SIZE[0])
        self.tps = _TPS(RECTIFIED_SIZE, align_corners=align_corners)

    def forward(self, images: Tensor) -> Tensor:
        """Find the text in a small copy, bend the picture itself."""
        return self.tps(images, self.stn_head(F.interpolate(images, POINTS_SIZE, mode="bilinear", align_corners=True)))


class _TPS(TPSSpatialTransformer):
    """The spline, with constants that no checkpoint holds."""

    def _constant(self, name: str, value: np.ndarray) -> None:
        self.register_buffer(name, torch.from_numpy(value.astype(np.float32)), persistent=False)


class Backbone(nn.Module):
    """(N, 3, 32, 100) -> (N, 50, 256): cells of 2 rows and 25 columns, row by row."""

    def __init__(self, *, drop_path: float, dropout: float) -> None:
        super().__init__()
        self.grids = [(8 >> stage, 25) for stage in range(len(STAGES))]  # (rows, columns) of cells in each stage
        first, last = STAGES[0][0], STAGES[-1][0]
        self.patch_embed = PatchEmbed(first)
        self.pos_embed = nn.Parameter(torch.empty(1, self.grids[0][0] * self.grids[0][1], first))
        nn.init.trunc_normal_(self.pos_embed, std=INITIAL_DEVIATION)
        rates = iter(np.linspace(0, drop_path, sum(count for _, _, count in STAGES)).tolist())
        for stage, (features, heads, count) in enumerate(STAGES, 1):
            self.add_module(f"blocks{stage}", nn.ModuleList(Block(features, heads, next(rates)) for _ in range(count)))
            if stage < len(STAGES):
                self.add_module(f"sub_sample{stage}", SubSample(features, STAGES[stage][0]))
        self.norm = nn.LayerNorm(last, eps=1e-6)
        self.last_conv = nn.Conv2d(last, OUT_FEATURES, 1, bias=False)
        self.dropout = nn.Dropout(dropout)
        for stage, grid in enumerate(self.grids[:2], 1):  # local blocks are in the first two stages
            self.register_buffer(f"near{stage}", neighbourhood(*grid), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Rectified pictures -> cells.

        Raises:
            ValueError: the pictures are not of 32 x 100 pixels.
        """
        if images.shape[1:] != (3, *RECTIFIED_SIZE):
            raise ValueError(f"pictures of shape {tuple(images.shape)}: the backbone takes (N, 3, 32, 100)")
        x = self.patch_embed(images) + self.pos_embed
        number = 0
        for stage, grid in enumerate(self.grids, 1):
            for block in self.get_submodule(f"blocks{stage}").children():
                x = block(x, self.get_buffer(f"near{stage}") if number < LOCAL_BLOCKS else None)
                number += 1
            if stage < len(STAGES):
                x = self.get_submodule(f"sub_sample{stage}")(x, grid)
        return self.norm(x)

    def pool(self, cells: Tensor) -> Tensor:
        """(N, 50, 256) -> (N, 256, 1, 25): the mean of the two rows."""
        return cells.transpose(1, 2).unflatten(2, self.grids[-1]).mean(2, keepdim=True)

    def last(self, pooled: Tensor) -> Tensor:
        """(N, 256, 1, 25) -> (N, 25, 192)."""
        return self.dropout(F.hardswish(self.last_conv(pooled))).squeeze(2).transpose(1, 2)


class Head(nn.Module):
    """(N, 25, 192) -> (N, 25, K) logits."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(OUT_FEATURES, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Classify each column."""
        return self.fc(x)


class PatchEmbed(nn.Module):
    """(N, 3, H, W) -> (N, H / 4 * W / 4, features): one vector per cell of 4 x 4 pixels, row by row."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(_ConvNorm(3, features // 2), _ConvNorm(features // 2, features))

    def forward(self, images: Tensor) -> Tensor:
        """Pictures -> cells."""
        return self.proj(images).flatten(2).transpose(1, 2)


class _ConvNorm(nn.Module):
    """(N, C, H, W) -> (N, C', H / 2, W / 2)."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.norm(self.conv(x)))


class SubSample(nn.Module):
    """(N, P, C) -> (N, P / 2, C'): every second row of cells."""

    def __init__(self, in_features: int, features: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_features, features, 3, stride=(2, 1), padding=1)
        self.norm = nn.LayerNorm(features)

    def forward(self, cells: Tensor, grid: tuple[int, int]) -> Tensor:
        """Merge rows of `grid` cells (rows, columns)."""
        merged = self.conv(cells.transpose(1, 2).unflatten(2, grid))
        return self.norm(merged.flatten(2).transpose(1, 2))


class Block(nn.Module):
    """Transformer block: (N, P, C) -> (N, P, C)."""

    def __init__(self, features: int, heads: int, drop_path: float) -> None:
        from torchvision.ops import stochastic_depth  # noqa: PLC0415 - takes 1.5 s, and only this network needs it

        super().__init__()
        self._drop: Callable[..., Tensor] = stochastic_depth
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(features, eps=1e-6)
        self.mixer = Attention(features, heads)
        self.norm2 = nn.LayerNorm(features, eps=1e-6)
        self.mlp = MLP(features)

    def forward(self, x: Tensor, near: Tensor | None) -> Tensor:
        """Mix cells, then features; `near` (P, P) says which cells see each other, None that all do."""
        x = x + self._drop(self.mixer(self.norm1(x), near), self.drop_path, "row", self.training)
        return x + self._drop(self.mlp(self.norm2(x)), self.drop_path, "row", self.training)


class Attention(nn.Module):
    """Multi-head self-attention: (N, P, C) -> (N, P, C)."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(features, 3 * features)
        self.proj = nn.Linear(features, features)

    def forward(self, x: Tensor, near: Tensor | None) -> Tensor:
        """Each cell takes from the cells it sees."""
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=near)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """C -> 4 C -> C in each cell."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(features, 4 * features)
        self.fc2 = nn.Linear(4 * features, features)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return self.fc2(F.gelu(self.fc1(x)))


def neighbourhood(rows: int, columns: int) -> Tensor:
    """(P, P) bool, P = rows * columns cells, row by row: which cells lie in the `WINDOW` around each one."""
    row, column = (axis.flatten() for axis in torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"))
    near_row = (row.unsqueeze(1) - row).abs() <= WINDOW[0] // 2
    near_column = (column.unsqueeze(1) - column).abs() <= WINDOW[1] // 2
    return near_row & near_column
