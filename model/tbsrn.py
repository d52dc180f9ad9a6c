"""TBSRN: residual blocks in which every pixel attends to all others.

Paper: Scene Text Telescope: Text-Focused Scene Image Super-Resolution, CVPR 2021,
https://openaccess.thecvf.com/content/CVPR2021/html/Chen_Scene_Text_Telescope_Text-Focused_Scene_Image_Super-Resolution_CVPR_2021_paper.html
Source: https://github.com/FudanVI/FudanOCR (scene-text-telescope); module names follow it, so its checkpoints load.
Differences: parts that the published forward never calls are left out unless `published_unused`; the code of the
positions, published for 16x64 pixels alone, fits any size.
"""

from typing import Any

import torch
from torch import Tensor, nn

from model.blocks.activation import mish
from model.blocks.gru import GruBlock
from model.blocks.published import PublishedForm
from model.blocks.skeleton import Skeleton
from model.blocks.transformer import Attention, FeedForward, LayerNorm, sinusoids
from model.registry import register_model

HEADS = 4
DROPOUT = 0.1


def position_codes(height: int, width: int, features: int) -> Tensor:
    """(height * width, features), row-major: the first half tells the column, the second the row."""
    columns = sinusoids(width, features // 2).expand(height, -1, -1)
    rows = sinusoids(height, features // 2)[:, None].expand(-1, width, -1)
    return torch.cat([columns, rows], dim=2).flatten(0, 1)


class FeatureEnhancer(nn.Module):
    """Pixels (N, P, F) and the codes of their places (P, F) -> (N, P, F): one layer of a transformer."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.multihead = Attention(2 * features, HEADS, DROPOUT)
        self.mul_layernorm1 = LayerNorm(2 * features)
        self.pff = FeedForward(2 * features, 2 * features, DROPOUT)
        self.mul_layernorm3 = LayerNorm(2 * features)
        self.linear = nn.Linear(2 * features, features)

    def forward(self, pixels: Tensor, codes: Tensor) -> Tensor:
        """Let every pixel look at all."""
        x = torch.cat([pixels, codes.to(pixels).expand_as(pixels)], dim=2)
        x = self.mul_layernorm1(x + self.multihead.mix(x))
        return self.linear(self.mul_layernorm3(x + self.pff(x)))


class TransformerBlock(nn.Module):
    """Maps (N, F, H, W) and the codes of the places (H * W, F) -> (N, F, H, W)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(features)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(features)
        self.feature_enhancer = FeatureEnhancer(features)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, x: Tensor, codes: Tensor) -> Tensor:
        """Refine `x`."""
        residual = self.bn2(self.conv2(mish(self.bn1(self.conv1(x)))))
        enhanced = self.feature_enhancer(residual.flatten(2).transpose(1, 2), codes)
        return x + enhanced.transpose(1, 2).reshape(x.shape)


class TBSRN(Skeleton, PublishedForm):
    """LR images (N, C, 16, 64) in [0, 1] -> SR images (N, C, 32, 128) in (-1, 1).

    Args:
        mask: published without.
        published_unused: hold every parameter of the published network, the unused ones included.
        **options: those of `Skeleton`; `hidden_units` is even.

    Raises:
        ValueError: an argument has no meaning.
    """

    def __init__(self, *, mask: bool = False, published_unused: bool = False, **options: Any) -> None:
        if options.get("hidden_units", 2) % 2:
            raise ValueError(
                f"hidden_units {options['hidden_units']} must be even: half of the features code the column of a "
                "pixel by sines and cosines, half its row"
            )
        super().__init__(mask=mask, **options)
        codes = position_codes(*self.size_lr, 2 * self.options["hidden_units"])
        self.codes: Tensor
        self.register_buffer("codes", codes, persistent=False)
        if published_unused:
            self._add_unused_modules(2 * self.options["hidden_units"])

    def make_block(self, features: int, number: int) -> nn.Module:
        """The block of the paper (TBSRB)."""
        return TransformerBlock(features)

    def deepen(self, shallow: Tensor, *hints: Tensor) -> Tensor:
        """All residual blocks, which are told where each pixel is."""
        height, width = shallow.shape[2:]
        codes = self.codes
        if (height, width) != self.size_lr:
            codes = position_codes(height, width, shallow.shape[1]).to(codes.device)
        return super().deepen(shallow, codes)

    def _add_unused_modules(self, features: int) -> None:
        self.conv, self.bn = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        for name in self.blocks:
            block = self.get_submodule(name)
            block.gru1, block.gru2 = GruBlock(features, features), GruBlock(features, features)
            block.get_submodule("feature_enhancer.multihead").compress_attention_linear = nn.Linear(HEADS, 1)


@register_model(
    system="plain",
    paper="https://openaccess.thecvf.com/content/CVPR2021/html/"
    "Chen_Scene_Text_Telescope_Text-Focused_Scene_Image_Super-Resolution_CVPR_2021_paper.html",
    source="https://github.com/FudanVI/FudanOCR",
    scores={"CRNN": 48.1, "MORAN": 58.4, "ASTER": 60.1},
    signature=(r"^block2\.feature_enhancer\.", r"!^infoGen\."),
)
def tbsrn(**kwargs: Any) -> TBSRN:
    """TBSRN with the given options."""
    return TBSRN(**kwargs)
