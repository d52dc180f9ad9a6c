"""Layers of networks that infer, in forms that are faster in ONNX Runtime on a CPU; they differ by rounding alone.

Networks are written for PyTorch, which computes kernels in every call, and whose CPU code walks through maps in parts.
In a graph each of these steps is a pass over a map of its own, and each change of the order of axes another one. ONNX
Runtime is fastest at convolutions and products of matrices; so what can be said by them is said by them.
"""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.blocks.attention import LocalAttention, PixelAdapter
from model.blocks.clue import GatedFusion
from model.blocks.convolution import PictureConv2d, WeightNormConv2d
from model.blocks.gru import GruBlock
from model.language.bcn import ClozeDecoder

BLOCK = (4, 8)  # pixels (H, W) that look at their neighbours together


def in_forms(module: Any) -> Any:
    """A copy of a module in evaluation mode, whose parts are in the forms of this file."""
    assert not module.training
    return _replaced(copy.deepcopy(module))


def _replaced(module: nn.Module) -> nn.Module:
    for name, child in list(module.named_children()):
        setattr(module, name, _replaced(child))
    form = FORMS.get(type(module))
    return module if form is None else form(module).eval().requires_grad_(False)


def plain_convolution(convolution: WeightNormConv2d) -> nn.Conv2d:
    """The convolution with the kernels that its lengths and directions make."""
    kernels = torch._weight_norm(convolution.weight_v, convolution.weight_g)
    return _convolution(kernels, convolution.bias, convolution.padding, convolution.dilation, convolution.groups)


def picture_convolution(convolution: PictureConv2d) -> nn.Module:
    """Products with each column of the kernel as channels, then a convolution that adds them up, each moved.

    ONNX Runtime computes a whole block of 16 channels for the three or four of a picture.
    """
    size, channels = convolution.kernel_size[0], convolution.out_channels
    columns = convolution.weight.permute(3, 0, 1, 2).flatten(0, 1).unsqueeze(3)  # (size * out, in, size, 1)
    moves = torch.eye(channels).repeat(1, size).unflatten(1, (size, channels))  # (out, size, out)
    moves = torch.diag_embed(moves.transpose(1, 2)).permute(0, 2, 1, 3).reshape(channels, size * channels, 1, size)
    return nn.Sequential(
        _convolution(columns, None, (size // 2, 0)), _convolution(moves, convolution.bias, (0, size // 2))
    )


def _convolution(kernels: Tensor, bias: Tensor | None, padding: Any, dilation: Any = 1, groups: int = 1) -> nn.Conv2d:
    out_channels, in_channels, *size = kernels.shape
    form = nn.Conv2d(
        in_channels * groups,
        out_channels,
        tuple(size),  # type: ignore[arg-type]
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=bias is not None,
    )
    form.weight = nn.Parameter(kernels.detach().clone())
    if bias is not None:
        form.bias = nn.Parameter(bias.detach().clone())
    return form


class GruForm(nn.Module):
    """`GruBlock`, whose 1x1 convolution is a part of what the GRU multiplies its input with; time comes first."""

    def __init__(self, block: GruBlock) -> None:
        super().__init__()
        old, mixing = block.gru, block.conv1
        channels = mixing.in_channels if isinstance(mixing, nn.Conv2d) else old.input_size
        self.gru = nn.GRU(channels, old.hidden_size, bidirectional=True)
        state = {name: value.detach() for name, value in old.named_parameters()}
        if isinstance(mixing, nn.Conv2d):
            assert mixing.bias is not None
            for end in ("l0", "l0_reverse"):
                weight = state[f"weight_ih_{end}"]
                state[f"weight_ih_{end}"] = weight @ mixing.weight.flatten(1)
                state[f"bias_ih_{end}"] = state[f"bias_ih_{end}"] + weight @ mixing.bias
        self.gru.load_state_dict(state)

    def forward(self, x: Tensor, *, columns: bool = False) -> Tensor:
        """As `GruBlock`."""
        cells = x.permute(2, 0, 3, 1) if columns else x.permute(3, 0, 2, 1)  # (T, N, B, C)
        read = self.gru(cells.flatten(1, 2))[0].unflatten(1, cells.shape[1:3])
        return read.permute(1, 3, 0, 2) if columns else read.permute(1, 3, 2, 0)


class LocalAttentionForm(nn.Module):
    """`LocalAttention` by blocks of pixels: products of matrices with all pixels around a block, and a mask."""

    def __init__(self, attention: LocalAttention) -> None:
        super().__init__()
        query, key, value = attention.trans.weight.detach().flatten(1).chunk(3)
        self.query = nn.Parameter(query / math.sqrt(query.shape[1]))
        self.key, self.value = nn.Parameter(key.clone()), nn.Parameter(value.clone())
        self.plain = attention

    def forward(self, x: Tensor) -> Tensor:
        """As `LocalAttention`."""
        size = (int(x.shape[2]), int(x.shape[3]))
        if any(side % block for side, block in zip(size, BLOCK, strict=True)):
            return self.plain(x)
        own, around, beside = _blocks(size)
        pixels = x.flatten(2).transpose(1, 2)  # (N, H*W, C)
        query = F.linear(pixels.index_select(1, own.flatten()), self.query).unflatten(1, own.shape)
        key, value = (
            F.pad(F.linear(pixels, mixing).unflatten(1, size), (0, 0, 1, 1, 1, 1))
            .flatten(1, 2)
            .index_select(1, around.flatten())
            .unflatten(1, around.shape)
            for mixing in (self.key, self.value)
        )
        shares = (query @ key.mT + beside).softmax(-1)  # (N, blocks, pixels, pixels around)
        mixed = (shares @ value).flatten(1, 2).index_select(1, own.flatten().argsort())
        return mixed.transpose(1, 2).unflatten(2, size)


def _blocks(size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """For each block its pixels (B, P) and those around, of the map with a frame, (B, Q); and (P, Q) 0 or -inf."""
    (height, width), (rows, columns) = size, BLOCK
    own = torch.arange(height * width).reshape(height // rows, rows, width // columns, columns)
    framed = torch.arange((height + 2) * (width + 2)).reshape(height + 2, width + 2)
    around = framed.unfold(0, rows + 2, rows).unfold(1, columns + 2, columns)
    down = torch.arange(rows + 2) - torch.arange(rows)[:, None]  # from 0 to 2 for a neighbour
    along = torch.arange(columns + 2) - torch.arange(columns)[:, None]
    near = _within(down)[:, None, :, None] & _within(along)[None, :, None, :]
    beside = torch.zeros(near.shape).masked_fill(~near, -torch.inf).flatten(2).flatten(0, 1)
    return own.transpose(1, 2).flatten(2).flatten(0, 1), around.flatten(2).flatten(0, 1), beside


def _within(offset: Tensor) -> Tensor:
    return (offset >= 0) & (offset <= 2)


class PixelAdapterForm(nn.Module):
    """`PixelAdapter` without a choice between two ways to blend."""

    def __init__(self, adapter: PixelAdapter) -> None:
        super().__init__()
        self.gama, self.output = adapter.gama, adapter.output

    def forward(self, x: Tensor) -> Tensor:
        """As `PixelAdapter`."""
        return x + self.gama * (self.output(x) - x)


class TwoCluesForm(nn.Module):
    """`GatedFusion` of two clues, whose shares add up to one: a sigmoid instead of a softmax over two maps."""

    def __init__(self, fusion: GatedFusion) -> None:
        super().__init__()
        self.gated1, self.gated2, self.compress = fusion.gated1, fusion.gated2, fusion.compress

    def forward(self, center: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """As `GatedFusion`."""
        seen = [self.gated1(torch.cat([center, first], dim=1)), self.gated2(torch.cat([center, second], dim=1))]
        one, other = self.compress(torch.cat(seen, dim=1)).chunk(2, dim=1)
        return second + (one - other).sigmoid() * (first - second)


class ClozeForm(nn.Module):
    """`ClozeDecoder` on maps (N, width, 1, T): its products with weights are 1x1 convolutions."""

    def __init__(self, decoder: ClozeDecoder) -> None:
        super().__init__()
        self.layers = nn.ModuleList(map(ClozeLayerForm, decoder.layers))

    def forward(self, query: Tensor, memory: Tensor, hidden: Tensor, padding: Tensor | None) -> Tensor:
        """As `ClozeDecoder`."""
        if padding is not None:
            hidden = hidden | padding[:, None, None]
        never = torch.zeros(hidden.shape).masked_fill(hidden, -torch.inf)
        found, known = (tokens.permute(1, 2, 0).unsqueeze(2) for tokens in (query, memory))
        for layer in self.layers:
            found = layer(found, known, never)
        return found.squeeze(2).permute(2, 0, 1)


class ClozeLayerForm(nn.Module):
    """A layer of `ClozeForm`."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        attention = layer.multihead_attn
        self.heads = attention.num_heads
        weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
        scale = (attention.embed_dim // self.heads) ** -0.5
        self.query = _pointwise(scale * weights[0], scale * biases[0])
        self.key, self.value = _pointwise(weights[1], biases[1]), _pointwise(weights[2], biases[2])
        self.out = _pointwise(attention.out_proj.weight, attention.out_proj.bias)
        self.wide = _pointwise(layer.linear1.weight, layer.linear1.bias)
        self.narrow = _pointwise(layer.linear2.weight, layer.linear2.bias)
        self.norm2, self.norm3 = layer.norm2, layer.norm3

    def forward(self, query: Tensor, memory: Tensor, never: Tensor) -> Tensor:
        """(N, width, 1, T) twice, and (T, T) or (N, 1, T, T) 0 or -inf -> (N, width, 1, T)."""
        asked, key, value = (
            part.squeeze(2).unflatten(1, (self.heads, -1))  # (N, heads, width / heads, T)
            for part in (self.query(query), self.key(memory), self.value(memory))
        )
        shares = (asked.mT @ key + never).softmax(-1)
        seen = self.out((value @ shares.mT).flatten(1, 2).unsqueeze(2))
        query = _normalised(self.norm2, query + seen)
        return _normalised(self.norm3, query + self.narrow(self.wide(query).relu()))


def _pointwise(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    return _convolution(weight[:, :, None, None], bias, 0)


def _normalised(norm: nn.Module, x: Tensor) -> Tensor:
    normalised: Tensor = norm(x.transpose(1, 3)).transpose(1, 3)
    return normalised


def _fusion(fusion: GatedFusion) -> nn.Module:
    return TwoCluesForm(fusion) if fusion.clues == 2 else fusion


FORMS: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    WeightNormConv2d: plain_convolution,
    PictureConv2d: picture_convolution,
    GruBlock: GruForm,
    LocalAttention: LocalAttentionForm,
    PixelAdapter: PixelAdapterForm,
    GatedFusion: _fusion,
    ClozeDecoder: ClozeForm,
}
