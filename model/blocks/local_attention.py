"""3x3 local attention for CPUs: image by image, in buffers that stay in the cache, and without autograd's copies.

The whole batch at once writes and reads some 60 maps of the batch's size from main memory. Here one image a thread is
walked through at a time. A map is held as rows of W + 2 pixels whose ends are zero, flattened, so that looking at a
neighbour is a shift by a number: every operation then runs over whole maps. Sums over channels are accumulated channel
by channel for all nine neighbours, which needs no products in memory.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

CHANNELS_AT_ONCE = 32  # of a map of 32x128 in float32: half a MB, which the second-level cache holds twice


def attend(x: Tensor, weight: Tensor, keep: Tensor | None) -> Tensor:
    """Attention of each pixel to the 3x3 pixels around it, in the precision of autocast if that is on.

    It has a first derivative only.

    Args:
        x: (N, C, H, W) on the CPU.
        weight: (3*C, C, 1, 1), of the 1x1 convolution that makes queries, keys and values.
        keep: (N, 9, H, W) float32 or float64, what the attention weights are multiplied by (dropout); it gets no
            gradient.

    Returns:
        (N, C, H, W) with the memory layout of `x`.
    """
    if torch.is_autocast_enabled("cpu"):
        lower = torch.get_autocast_dtype("cpu")
        x, weight = x.to(lower), weight.to(lower)
    mixing = weight.flatten(1)
    with torch.autocast("cpu", enabled=False):
        if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
            return _Attention.apply(x, mixing, keep)
        return _forward(x, mixing, keep)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mixing: Tensor, keep: Tensor | None) -> Tensor:
        memory = _Maps(x).memory(x, len(x))
        ctx.save_for_backward(x, mixing, keep, *memory)
        return _forward(x, mixing, keep, memory)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        if torch.is_grad_enabled():
            raise NotImplementedError(
                "local attention on the CPU has no second derivative, which create_graph=True asks for; "
                "leave that out or use a GPU"
            )
        x, mixing, keep, *memory = ctx.saved_tensors
        with torch.autocast("cpu", enabled=False):
            return *_backward((x, mixing, keep), memory, grad), None


class _Maps:
    """How images lie in memory while they are worked on.

    A padded map is (H + 2) * (W + 2) + 2 numbers: the image, a frame of zeros, and two more, so that all neighbours of
    all rows can be read. A plain one is H * (W + 2): the last two numbers of each row mean nothing.
    """

    def __init__(self, x: Tensor) -> None:
        count, self.channels, self.height, self.width = x.shape
        self.pitch = self.width + 2
        self.length = self.height * self.pitch
        self.padded = (self.height + 2) * self.pitch + 2
        self.shifts = [row * self.pitch + column for row in range(3) for column in range(3)]
        self.work = torch.promote_types(x.dtype, torch.float32)
        at_once = max(1, torch.get_num_threads())
        self.groups = [slice(first, min(first + at_once, count)) for first in range(0, count, at_once)]
        self.largest = min(at_once, count)
        self.scale = self.channels**-0.5

    def chunks(self) -> list[slice]:
        """Cuts the channels."""
        return [slice(first, first + CHANNELS_AT_ONCE) for first in range(0, self.channels, CHANNELS_AT_ONCE)]

    def like(self, x: Tensor) -> Tensor:
        """Zeros (n, C, padded) of the type of `x`, whose channels are as far apart as those of `x`."""
        if x.stride(1) == 1:
            return x.new_zeros(self.largest, self.padded, self.channels).mT
        return x.new_zeros(self.largest, self.channels, self.padded)

    def wide(self, x: Tensor) -> Tensor:
        """Memory (n, 3*C, padded) for a group of images, in the precision of the sums."""
        return x.new_empty(self.largest, 3 * self.channels, self.padded, dtype=self.work)

    def memory(self, x: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Memory for what is made of `count` images: projections (count, 3*C, padded), weights (count, 9, plain)."""
        projected = x.new_empty(count, 3 * self.channels, self.padded)
        return projected, x.new_empty(count, 9, self.length, dtype=self.work)

    def shifted(self, padded: Tensor, shift: int) -> Tensor:
        """(n, K, padded) -> (n, K, plain), the neighbours on one side."""
        return padded[..., shift : shift + self.length]

    def nine(self, padded: Tensor) -> Tensor:
        """(n, padded) -> (n, 3, 3, plain), all neighbours; a view to be read only."""
        size, step = (len(padded), 3, 3, self.length), (padded.stride(0), self.pitch, 1, 1)
        return padded.as_strided(size, step, padded.storage_offset())

    def picture(self, plain: Tensor) -> Tensor:
        """(n, K, plain) -> (n, K, H, W)."""
        return plain.unflatten(-1, (self.height, self.pitch))[..., : self.width]

    def centre(self, padded: Tensor) -> Tensor:
        """(n, K, padded) -> (n, K, plain), the pixels themselves; what means nothing is of the frame."""
        return self.shifted(padded, self.pitch + 1)


def _forward(x: Tensor, mixing: Tensor, keep: Tensor | None, memory: Sequence[Tensor] | None = None) -> Tensor:
    """As `attend`; `memory`, which is that of all images, is filled for the way back."""
    maps, out = _Maps(x), torch.empty_like(x)
    projected, shares = maps.memory(x, maps.largest) if memory is None else memory
    source, wide = maps.like(x), maps.wide(x)
    mixed = wide.new_empty(maps.largest, maps.channels, maps.length)
    for images in maps.groups:
        n = images.stop - images.start
        maps.picture(maps.centre(source[:n])).copy_(x[images])
        rows = slice(n) if memory is None else images
        _project(mixing, source[:n], projected[rows])
        query, key, value = _widened(projected[rows], wide[:n]).chunk(3, dim=1)
        weights = shares[rows]
        _dot(maps, maps.centre(query), key, weights)
        weights.copy_(weights.mul_(maps.scale).softmax(dim=1))
        _mix(maps, _kept(maps, weights, keep, images), value, mixed[:n])
        out[images] = maps.picture(mixed[:n])
    return out


def _backward(
    inputs: tuple[Tensor, Tensor, Tensor | None], memory: Sequence[Tensor], grad: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of the first two of `inputs`, which are those of `_forward`."""
    x, mixing, keep = inputs
    projected, shares = memory
    maps, grad_x, grad_mixing = _Maps(x), torch.empty_like(x), mixing.new_zeros(mixing.shape, dtype=shares.dtype)
    source, grad_source, wide, grad_wide = maps.like(x), maps.like(x), maps.wide(x), maps.wide(x)
    grad_out = wide.new_zeros(maps.largest, maps.channels, maps.length)
    grad_weights = wide.new_empty(maps.largest, 9, maps.length)
    for images in maps.groups:
        n = images.stop - images.start
        query, key, value = _widened(projected[images], wide[:n]).chunk(3, dim=1)
        grad_query, grad_key, grad_value = grad_wide[:n].zero_().chunk(3, dim=1)
        upstream, weights, slope = grad_out[:n], shares[images], grad_weights[:n]
        maps.picture(upstream).copy_(grad[images])
        _dot(maps, upstream, value, slope)
        _spread(maps, _kept(maps, weights, keep, images), upstream, grad_value)
        if keep is not None:
            maps.picture(slope).mul_(keep[images])
        slope.mul_(weights)
        slope.addcmul_(weights, slope.sum(dim=1, keepdim=True), value=-1).mul_(maps.scale)
        _mix(maps, slope, key, maps.centre(grad_query))
        _spread(maps, slope, maps.centre(query), grad_key)
        lower = grad_wide[:n].to(x.dtype)
        _project(mixing.t(), lower, grad_source[:n])
        grad_x[images] = maps.picture(maps.centre(grad_source[:n]))
        maps.picture(maps.centre(source[:n])).copy_(x[images])
        for grad_projected, pixels in zip(lower, source, strict=False):
            grad_mixing += grad_projected @ pixels.t()
    return grad_x, grad_mixing.to(mixing.dtype)


def _project(matrix: Tensor, padded: Tensor, out: Tensor) -> None:
    """Make `out` (n, J, padded) the product of `matrix` (J, K) and each of `padded` (n, K, padded)."""
    for maps, target in zip(padded, out, strict=True):
        if target.stride(0) == 1:  # products that write across the memory are a thousand times slower in bfloat16
            torch.mm(maps.t(), matrix.t(), out=target.t())
        else:
            torch.mm(matrix, maps, out=target)


def _widened(lower: Tensor, wide: Tensor) -> Tensor:
    """`lower` in the precision of the sums, in the memory of `wide` if it has to be converted."""
    return lower if lower.dtype == wide.dtype else wide.copy_(lower)


def _kept(maps: _Maps, weights: Tensor, keep: Tensor | None, images: slice) -> Tensor:
    if keep is None:
        return weights
    kept = weights.clone()
    maps.picture(kept).mul_(keep[images])
    return kept


def _dot(maps: _Maps, plain: Tensor, padded: Tensor, out: Tensor) -> None:
    """Make `out` (n, 9, plain) the scalar products of each pixel of `plain` with its neighbours in `padded`."""
    nine = out.unflatten(1, (3, 3)).zero_()
    for channel in range(maps.channels):
        nine.addcmul_(plain[:, channel, None, None], maps.nine(padded[:, channel]))


def _mix(maps: _Maps, weights: Tensor, padded: Tensor, out: Tensor) -> None:
    """Make `out` (n, C, plain) the sum of the neighbours in `padded` by `weights` (n, 9, plain)."""
    first, *others = weights.split(1, dim=1)
    for channels in maps.chunks():
        mixed = out[:, channels]
        torch.mul(first, maps.shifted(padded[:, channels], 0), out=mixed)
        for weight, shift in zip(others, maps.shifts[1:], strict=True):
            mixed.addcmul_(weight, maps.shifted(padded[:, channels], shift))


def _spread(maps: _Maps, weights: Tensor, plain: Tensor, out: Tensor) -> None:
    """The transpose of `_mix`: add to `out` (n, C, padded) each pixel of `plain`, by `weights`, to its neighbours."""
    for channels in maps.chunks():
        for weight, shift in zip(weights.split(1, dim=1), maps.shifts, strict=True):
            maps.shifted(out[:, channels], shift).addcmul_(weight, plain[:, channels])
