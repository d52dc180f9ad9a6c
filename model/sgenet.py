"""SGENet: a recogniser reads the LR picture, and what it saw and read modulates every residual block.

Paper: SGENet, ICASSP 2024, https://arxiv.org/abs/2403.13330. Module names follow the published program; alignment and
modulation are those of LEMMA, IJCAI 2023, whose unused parts published checkpoints hold.
The published program lacks its modified SVTR, which gives two tensors. Inferred: they are the pooled features, the only
ones whose shape fits (their 256 channels are then read as the 8 x 32 places of a map of half the size), and the output
of the head. In training that is logits in PaddleOCR's SVTR and probabilities at test; whether the authors kept this is
unknown, so it is an option. Differences: the default gives probabilities in both; unused parts are left out unless
`published_unused`.
"""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from model.blocks.activation import mish
from model.blocks.gru import GruBlock
from model.blocks.skeleton import Skeleton
from model.recognizer.focus_transformer import sinusoids
from model.recognizer.svtr import SVTR
from model.registry import register_model

SIZE_LR = (16, 64)
CELLS = (SIZE_LR[0] // 2) * (SIZE_LR[1] // 2)  # places of a map of half the size, and channels of SVTR's features
HEADS = 4
DROPOUT = 0.1
TEXT_FORMS = ("probabilities", "published", "logits")


class Guided(NamedTuple):
    """What `SGENet.guided` gives.

    Attributes:
        images: (N, C, 32, 128) in (-1, 1).
        text: (N, 25, 37) what the residual blocks were told, class 0 is the CTC blank.
        logits: (N, 25, 37) of the recogniser.
        hint: (N, F, 16, 64) what each pixel was told.
    """

    images: Tensor
    text: Tensor
    logits: Tensor
    hint: Tensor


class SGENet(Skeleton):
    """LR images (N, C, 16, 64) in [0, 1] -> SR images (N, C, 32, 128) in (-1, 1).

    Args:
        srb_nums: number of residual blocks, 2 in the paper; the published program's default is 5.
        stn_align_corners: how the rectifier counts pixels; False is what the published program gets from PyTorch.
        text_form: in which form the blocks get the text: "probabilities", "logits", or "published" (inferred), logits
            in training and else probabilities.
        published_unused: hold every parameter of the published network, the unused ones included.
        **options: those of `Skeleton`.

    Raises:
        ValueError: an argument has no meaning.
    """

    def __init__(
        self,
        *,
        srb_nums: int = 2,
        stn_align_corners: bool = False,
        text_form: Literal["probabilities", "published", "logits"] = "probabilities",
        published_unused: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(srb_nums=srb_nums, stn_align_corners=stn_align_corners, **options)
        if text_form not in TEXT_FORMS:
            raise ValueError(f"text_form={text_form!r}; use {', '.join(TEXT_FORMS)}")
        if self.size_lr != SIZE_LR:
            raise ValueError(f"SR images made from LR images of {self.size_lr}: this network takes {SIZE_LR} (H, W)")
        features = 2 * self.options["hidden_units"]
        if features % HEADS:
            raise ValueError(f"hidden_units {features // 2} must be even: {HEADS} attention heads share twice as many")
        self.options |= {"text_form": text_form}
        self.text_form = text_form
        self.position_prior = SVTR()
        self.position_prior.start_weights()
        self.guidanceGen = Alignment(features, published_unused=published_unused)

    def make_block(self, features: int, number: int) -> nn.Module:
        """A block that is modulated."""
        return ModulatedBlock(features)

    def published_shapes(self) -> dict[str, torch.Size]:
        """State keys of a published checkpoint with these options and their shapes; ours are among them."""
        with torch.device("meta"):
            published = SGENet(**self.options, published_unused=True)
        return {key: value.shape for key, value in published.state_dict().items()}

    def forward(self, images_lr: Tensor) -> Tensor:
        """(N, C, 16, 64) in [0, 1] -> (N, C, 32, 128) in (-1, 1).

        Raises:
            ValueError: the images have another shape.
        """
        return self.guided(images_lr).images

    def guided(self, images_lr: Tensor) -> Guided:
        """Super-resolve, and say what was read: (N, C, 16, 64) in [0, 1].

        The reading has a gradient with respect to the recogniser, not to the images.

        Raises:
            ValueError: the images have another shape.
        """
        self.check_images(images_lr)
        if self.rectifies and self.training:
            images_lr = self.rectify(images_lr)
        guide = self.position_prior
        seen = guide.features(guide.preprocess(images_lr.detach()))
        logits = guide.classify(seen)
        as_logits = self.text_form == "logits" or (self.text_form == "published" and guide.training)
        text = logits if as_logits else logits.softmax(2)
        shallow = self.block1(images_lr)
        hint = self.guidanceGen(shallow, seen, text)
        return Guided(self.reconstruct(shallow, hint), text, logits, hint)

    def check_images(self, images_lr: Tensor) -> None:
        """Also the size, which the modulation fixes.

        Raises:
            ValueError: another shape.
        """
        super().check_images(images_lr)
        if images_lr.shape[2:] != SIZE_LR:
            height, width = images_lr.shape[2:]
            raise ValueError(f"LR images of {height}x{width}: this network takes 16x64 alone; resize them")


@register_model(
    system="semantic",
    paper="https://arxiv.org/abs/2403.13330",
    signature=(r"^guidanceGen\.", r"^position_prior\.backbone\.patch_embed\."),
)
def sgenet(**kwargs: Any) -> SGENet:
    """SGENet with the given options."""
    return SGENet(**kwargs)


class ModulatedBlock(nn.Module):
    """(N, F, 16, 64) and a hint of the same shape -> the same shape: convolutions, modulation, a GRU along H and W."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(features)
        self.gru1 = GruBlock(features, features, pointwise=False)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(features)
        self.gru2 = GruBlock(features, features, pointwise=False)
        self.affine = Modulation(features)
        self.BN = nn.BatchNorm2d(features)

    def forward(self, x: Tensor, hint: Tensor) -> Tensor:
        """Refine `x` as `hint` says."""
        residual = self.bn2(self.conv2(mish(self.bn1(self.conv1(x)))))
        columns = self.gru1(self.affine(residual, hint), columns=True)
        return self.gru2(self.BN(x + columns))


class Modulation(nn.Module):
    """(N, F, 16, 64) and a hint of the same shape -> the same shape: factors per channel and an offset per pixel."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.BN = nn.BatchNorm2d(features)
        self.conv1x1_1, self.conv1x1_2, self.conv1x1_3 = (_mixer(2 * features, features) for _ in range(3))
        self.channel_attn = nn.Sequential(
            nn.Conv2d(features, features, SIZE_LR, groups=features),
            nn.Conv2d(features, features, 1),
            nn.ReLU(),
            nn.Conv2d(features, features, 1),
            nn.ReLU(),
            nn.Conv2d(features, features, 1),
            nn.Sigmoid(),
        )
        self.aggregation = _mixer(features, features)
        self.BN2 = nn.BatchNorm2d(features)

    def forward(self, x: Tensor, hint: Tensor) -> Tensor:
        """Modulate `x`."""
        both = torch.cat([x, self.BN(hint)], dim=1)
        factors = self.channel_attn(self.conv1x1_1(both))
        scaled = self.aggregation(factors * self.conv1x1_2(both))
        return self.BN2(self.conv1x1_3(both) + scaled)


def _mixer(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 1), nn.BatchNorm2d(channels), nn.PReLU(), nn.Conv2d(channels, channels, 1)
    )


class Alignment(nn.Module):
    """What was seen and read, column by column -> what each pixel (N, F, 16, 64) is told.

    Args:
        features: F.
        published_unused: hold the parts of LEMMA's alignment that this one never calls, and the tables of positions.
    """

    def __init__(self, features: int, *, published_unused: bool = False) -> None:
        super().__init__()
        self.text_proj = nn.Linear(37, features, bias=False)
        if published_unused:
            self.vision_pos, self.text_pos = _Positions(1024, features), _Positions(40, features)
        self.text_Encoder = _Stack(2, features, "self_attn", ("norm1", "norm2"))
        self.text_decoder = _Stack(3, features, "multihead_attn", ("norm2", "norm3"))
        self.sematic_decoder = _Stack(3, features, "multihead_attn", ("norm2", "norm3"))
        if published_unused:
            self.select_pos = _Positions(500, features)
            self.attn_conv = _location_attention(features)
            self.DWC = nn.Conv2d(features, features, 3, padding=1)
        self.dropout = nn.Dropout(DROPOUT)
        self.positions: Tensor
        self.register_buffer("positions", sinusoids(CELLS, features), persistent=False)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, shallow: Tensor, seen: Tensor, text: Tensor) -> Tensor:
        """Align.

        Args:
            shallow: (N, F, 16, 64) features of the image.
            seen: (N, 256, 1, 25) what the recogniser saw; its channels count as places.
            text: (N, 25, 37) what it read.
        """
        places = self.dropout(self.positions.expand(len(seen), -1, -1))
        words = self.text_proj(text) + seen.flatten(2).transpose(1, 2) @ places
        words = self.text_Encoder.attend_to_itself(words)
        pixels = shallow.flatten(2).transpose(1, 2)
        keys = self.text_decoder(words, pixels, pixels)
        told = self.sematic_decoder(pixels, keys, words)
        return told.transpose(1, 2).unflatten(2, (shallow.shape[2], shallow.shape[3]))


class _Positions(nn.Module):
    """A table as published checkpoints hold it."""

    def __init__(self, length: int, features: int) -> None:
        super().__init__()
        self.register_buffer("pe", sinusoids(length, features).unsqueeze(1))


def _location_attention(features: int) -> nn.Sequential:
    half = features // 2
    return nn.Sequential(
        nn.Conv2d(1, half, 3, padding=1, bias=False),
        nn.BatchNorm2d(half),
        nn.PReLU(),
        nn.Conv2d(half, features, 3, padding=1, bias=False),
        nn.BatchNorm2d(features),
        nn.PReLU(),
        nn.Conv2d(features, features, 3, padding=1, bias=False),
    )


class _Stack(nn.Module):
    """Layers of attention, (N, P, F) -> (N, P, F)."""

    def __init__(self, count: int, features: int, attention: str, norms: tuple[str, str]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(features, attention, norms) for _ in range(count))

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """All layers look at the same `key` and `value`."""
        for layer in self.layers:
            query = layer(query, key, value)
        return query

    def attend_to_itself(self, x: Tensor) -> Tensor:
        """Each layer looks at what the one before gave."""
        for layer in self.layers:
            x = layer(x, x, x)
        return x


class _Layer(nn.Module):
    """Attention, then a layer in each place, each followed by a norm."""

    def __init__(self, features: int, attention: str, norms: tuple[str, str]) -> None:
        super().__init__()
        self.attention, self.norms = attention, norms
        self.add_module(attention, nn.MultiheadAttention(features, HEADS, dropout=DROPOUT, batch_first=True))
        self.linear1, self.linear2 = nn.Linear(features, features), nn.Linear(features, features)
        for norm in norms:
            self.add_module(norm, nn.LayerNorm(features))
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(N, P, F), (N, Q, F), (N, Q, F) -> (N, P, F)."""
        first, second = (self.get_submodule(norm) for norm in self.norms)
        found, _ = self.get_submodule(self.attention)(query, key, value, need_weights=False)
        x = first(query + self.dropout(found))
        return second(x + self.dropout(self.linear2(self.dropout(self.linear1(x).relu()))))
