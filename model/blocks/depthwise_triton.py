"""Depth-wise 3x3 convolutions on a GPU: a Triton kernel for the map and its gradient, and one for the taps.

They take little arithmetic. Here a map is read nine times, most of them from caches, and written once.
Computed in float32, whatever the type of the map, which has the order of the pixels (N, H, W, C).
Legend: C channels, PART of them for a program, BLOCK pixels of a program at a time, P programs of each part.
"""
# ruff: noqa: PLR0917 - kernels and their parts take all they need by position

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 2048  # values of a program at a time
OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}  # Triton 3.10 fuses products with sums only if asked
TILES = 8  # of a program that sums up the gradients of a tap


def convolve(x: Tensor, kernels: Tensor, bias: Tensor, dilation: int) -> Tensor:
    """A depth-wise convolution that keeps the size. It has a first derivative only.

    Args:
        x: (N, C, H, W), C a multiple of 16; not copied if its memory format is channels last.
        kernels: (C, 1, 3, 3).
        bias: (C,).
        dilation: pixels between two taps.

    Returns:
        (N, C, H, W), channels last.
    """
    taps = torch.cat([kernels.flatten(1), bias[:, None]], 1).t().float().contiguous()
    return _Convolution.apply(x.permute(0, 2, 3, 1).contiguous(), taps, dilation).permute(0, 3, 1, 2)


def rehearse(device: torch.device, channels: int, dtype: torch.dtype, *, backward: bool) -> None:
    """Translate the kernels and start them on zeros, so that whatever stands against it is known early."""
    with torch.inference_mode(False), torch.set_grad_enabled(backward):
        x = torch.zeros(1, 3, 3, channels, dtype=dtype, device=device, requires_grad=backward)
        taps = torch.zeros(10, channels, device=device, requires_grad=backward)
        convolved = _Convolution.apply(x, taps, 2)
        if backward:
            torch.autograd.grad(convolved, (x, taps), torch.zeros_like(convolved))


class _Convolution(torch.autograd.Function):
    """(N, H, W, C) -> (N, H, W, C), with nine taps and a bias, (10, C) in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(x, taps)
        ctx.dilation = dilation
        return _sum_up(x, taps, dilation, transposed=False)

    @staticmethod
    def backward(ctx: Any, d_convolved: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        if torch.is_grad_enabled():
            raise NotImplementedError(
                "this convolution has no second derivative, which create_graph=True asks for; "
                "leave that out or use a CPU"
            )
        x, taps = ctx.saved_tensors
        d_convolved = d_convolved.contiguous()
        d_x = _sum_up(d_convolved, taps, ctx.dilation, transposed=True) if ctx.needs_input_grad[0] else None
        d_taps = _of_taps(x, d_convolved, ctx.dilation) if ctx.needs_input_grad[1] else None
        return d_x, d_taps, None


def _sum_up(x: Tensor, taps: Tensor, dilation: int, *, transposed: bool) -> Tensor:
    """What each pixel gets from those around it; transposed, what it gives to them, without the bias."""
    out = torch.empty_like(x)
    pixels, part, block = _tiles(x)
    grid = triton.cdiv(pixels, block), x.shape[3] // part
    with torch.cuda.device_of(x):
        _convolve[grid](x, taps, out, pixels, *x.shape[1:3], dilation, transposed, x.shape[3], part, block, **OPTIONS)
    return out


def _of_taps(x: Tensor, d_convolved: Tensor, dilation: int) -> Tensor:
    """(10, C), the gradients of the taps and the bias."""
    pixels, part, block = _tiles(x)
    programs = triton.cdiv(pixels, block * TILES)
    # Each program sums up in memory of its own: atomic additions would give other bits each time.
    d_taps = x.new_empty(programs, 10, x.shape[3], dtype=torch.float32)
    with torch.cuda.device_of(x):
        _correlate[programs, 10, x.shape[3] // part](
            x, d_convolved, d_taps, pixels, *x.shape[1:3], dilation, TILES, x.shape[3], part, block, **OPTIONS
        )
    return d_taps.sum(0)


def _tiles(x: Tensor) -> tuple[int, int, int]:
    """The number of pixels of (N, H, W, C), PART and BLOCK."""
    part = min(x.shape[3] & -x.shape[3], 64)  # a power of two
    return x.shape[:3].numel(), part, TILE // part


@triton.jit
def _moved(pixel, tap, pixels, height, width, dilation):
    """Pixels (BLOCK, 1) that lie where a tap of these looks, and which of them there are."""
    down, right = (tap // 3 - 1) * dilation, (tap % 3 - 1) * dilation
    row, column = pixel // width % height + down, pixel % width + right
    there = (pixel < pixels) & (row >= 0) & (row < height) & (column >= 0) & (column < width)
    return pixel + down * width + right, there


@triton.jit(do_not_specialize=["pixels", "height", "width", "dilation"])
def _convolve(
    x_ptr, taps_ptr, out_ptr, pixels, height, width, dilation,
    TRANSPOSED: tl.constexpr, C: tl.constexpr, PART: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None]
    channels = tl.program_id(1) * PART + tl.arange(0, PART)[None, :]
    total = tl.zeros((BLOCK, PART), tl.float32)
    if not TRANSPOSED:
        total += tl.load(taps_ptr + 9 * C + channels)
    for tap in tl.static_range(9):
        source, there = _moved(pixel, tap, pixels, height, width, dilation)
        x = tl.load(x_ptr + source.to(tl.int64) * C + channels, mask=there, other=0.0)
        weight = tl.load(taps_ptr + (8 - tap if TRANSPOSED else tap) * C + channels)
        total += weight * x.to(tl.float32)
    out = out_ptr + pixel.to(tl.int64) * C + channels
    tl.store(out, total.to(out_ptr.dtype.element_ty), mask=pixel < pixels)


@triton.jit(do_not_specialize=["pixels", "height", "width", "dilation"])
def _correlate(
    x_ptr, d_convolved_ptr, d_taps_ptr, pixels, height, width, dilation,
    TILES: tl.constexpr, C: tl.constexpr, PART: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    tap = tl.program_id(1)  # the tenth is the bias, for which the map is one everywhere
    channels = tl.program_id(2) * PART + tl.arange(0, PART)[None, :]
    pixel = tl.program_id(0) * TILES * BLOCK + tl.arange(0, BLOCK)[:, None]
    total = tl.zeros((BLOCK, PART), tl.float32)
    for _ in range(TILES):
        source, there = _moved(pixel, tap, pixels, height, width, dilation)
        x = tl.load(x_ptr + source.to(tl.int64) * C + channels, mask=there, other=0.0)
        d_convolved = tl.load(d_convolved_ptr + pixel.to(tl.int64) * C + channels, mask=pixel < pixels, other=0.0)
        total += d_convolved.to(tl.float32) * tl.where(tap == 9, 1.0, x.to(tl.float32))
        pixel += BLOCK
    row = d_taps_ptr + (tl.program_id(0) * 10 + tap) * C + tl.program_id(2) * PART + tl.arange(0, PART)
    tl.store(row, tl.sum(total, 0))
