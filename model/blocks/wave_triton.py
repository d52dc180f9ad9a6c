"""Waves mixed along rows or columns on a GPU: one Triton kernel forward, one backward.

The two depth-wise convolutions of `mix_waves` take little arithmetic, and a map is read and written once for each of
their parts. Here a program walks along a few lines. It takes sine and cosine once for each pixel, and adds its wave
to the seven sums to which it belongs. Backward it keeps the gradients of seven pixels, and sums up those of the taps.

Computed in float32, whatever the type of the maps, which have the order of the pixels (N, H, W, C).
Legend: C channels, PART of them for a program, BLOCK lines of a program, P programs of each part.
"""
# ruff: noqa: PLR0917 - kernels and their parts take all they need by position

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

TAPS = 7
LONGEST = 32  # pixels of a line that a program walks, at most, and three more at both ends
WARPS = 4
OPTIONS = {"num_warps": WARPS, "enable_fp_fusion": True}  # Triton 3.10 fuses products with sums only if asked
# Of a pixel, that a thread holds: it keeps two taps for each, and sums of seven pixels, or 14 sums backward.
CHANNELS_OF_A_THREAD = 4


def mix_waves(amplitude: Tensor, phase: Tensor, mixer: nn.Conv2d) -> Tensor:
    """`mix_waves` of `wave.py`. It has a first derivative only.

    Args:
        amplitude: (N, C, H, W), C a multiple of 16; not copied if its memory format is channels last.
        phase: likewise, of the same type.
        mixer: with kernels (C, 2, 1, 7) or (C, 2, 7, 1), and zeros around the map.

    Returns:
        (N, C, H, W), channels last.
    """
    assert mixer.kernel_size in ((1, TAPS), (TAPS, 1)) and mixer.bias is None
    maps = (x.permute(0, 2, 3, 1).contiguous() for x in (amplitude, phase))
    taps = mixer.weight.flatten(1).t().float().contiguous()
    return _Mixture.apply(*maps, taps, mixer.kernel_size[1] == 1).permute(0, 3, 1, 2)


def rehearse(device: torch.device, channels: int, dtype: torch.dtype, length: int, *, backward: bool) -> None:
    """Translate the kernels and start them on zeros, so that whatever stands against it is known early."""
    with torch.inference_mode(False), torch.set_grad_enabled(backward):
        waves = torch.zeros(1, 1, length, channels, dtype=dtype, device=device, requires_grad=backward)
        mixed = _Mixture.apply(waves, waves, torch.zeros(2 * TAPS, channels, device=device), False)
        if backward:
            torch.autograd.grad(mixed, waves, torch.zeros_like(mixed))


class _Mixture(torch.autograd.Function):
    """Amplitude and phase (N, H, W, C) -> (N, H, W, C), with taps (14, C) in float32: seven real, seven imaginary."""

    @staticmethod
    def forward(ctx: Any, amplitude: Tensor, phase: Tensor, taps: Tensor, columns: bool) -> Tensor:
        mixed = torch.empty_like(amplitude)
        grid, walk, shape = _programs(amplitude, columns)
        with torch.cuda.device_of(amplitude):
            _forward[grid](amplitude, phase, taps, mixed, *walk, *shape, **OPTIONS)
        ctx.save_for_backward(amplitude, phase, taps)
        ctx.columns = columns
        return mixed

    @staticmethod
    def backward(ctx: Any, d_mixed: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        if torch.is_grad_enabled():
            raise NotImplementedError(
                "mixed waves have no second derivative, which create_graph=True asks for; leave that out or use a CPU"
            )
        amplitude, phase, taps = ctx.saved_tensors
        grid, walk, shape = _programs(amplitude, ctx.columns)
        d_amplitude, d_phase = torch.empty_like(amplitude), torch.empty_like(phase)
        # Each program sums up in memory of its own: atomic additions would give other bits each time.
        d_taps = taps.new_empty(grid[0] * grid[1], *taps.shape)
        with torch.cuda.device_of(amplitude):
            _backward[grid](
                amplitude, phase, taps, d_mixed.contiguous(), d_amplitude, d_phase, d_taps, *walk, *shape,
                **OPTIONS,
            )  # fmt: skip
        return d_amplitude, d_phase, d_taps.sum(0), None


def _programs(x: Tensor, columns: bool) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """The grid of programs; how they walk over (N, H, W, C); and what is translated into them.

    The walk: lines in all, and of a picture; pixels between two lines, and between two of a line; length of each line.
    Translated: length of a segment, C, PART and BLOCK.
    """
    count, height, width, channels = x.shape
    lines, between, length = (width, (1, width), height) if columns else (height, (width, 1), width)
    segments = triton.cdiv(length, LONGEST)
    part = min(channels & -channels, 64)  # a power of two
    block = 32 * WARPS * CHANNELS_OF_A_THREAD // part
    grid = triton.cdiv(count * lines, block), segments, channels // part
    return grid, (count * lines, lines, *between, length), (triton.cdiv(length, segments), channels, part, block)


@triton.jit
def _lines(lines, per_picture, between_lines, length, start, BLOCK: tl.constexpr):
    """First pixels (BLOCK, 1) of the lines of this program, and where on them its walk starts.

    Behind the last line that is far before the first pixel.
    """
    number = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None]
    first = number // per_picture * per_picture * length + number % per_picture * between_lines
    return first, tl.where(number < lines, start, -1073741824)


@triton.jit
def _load(pointer, first, position, between_pixels, length, C: tl.constexpr, channels):
    """The pixels (BLOCK, PART) of a position, zero beyond the ends of a line."""
    pixel = (first + position * between_pixels).to(tl.int64)
    return tl.load(pointer + pixel * C + channels, mask=(position >= 0) & (position < length), other=0.0)


@triton.jit
def _store(pointer, first, position, between_pixels, start, length, C: tl.constexpr, channels, values):
    """Write a position, if the segment that begins at `start` has come so far."""
    pixel = (first + position * between_pixels).to(tl.int64)
    there = (position >= start) & (position < length)
    tl.store(pointer + pixel * C + channels, values.to(pointer.dtype.element_ty), mask=there)


@triton.jit
def _load_taps(taps, C: tl.constexpr):
    """Seven (1, PART)."""
    t0, t1, t2, t3 = tl.load(taps), tl.load(taps + C), tl.load(taps + 2 * C), tl.load(taps + 3 * C)
    return t0, t1, t2, t3, tl.load(taps + 4 * C), tl.load(taps + 5 * C), tl.load(taps + 6 * C)


@triton.jit
def _cos_sin(phase):
    """Both at once, to 1e-7 for phases up to 10,000: by the nearest quarter of a turn, and polynomials of the rest.

    Coefficients of sinf and cosf in the Cephes library, https://www.netlib.org/cephes/. Triton's own are one function
    each, with a branch for every size of the number.
    """
    quarters = tl.floor(phase * 0.6366197723675814 + 0.5)
    # Half of pi in three parts, the first two of few bits, so that their products are exact or nearly so.
    rest = phase - quarters * 1.5703125
    rest = rest - quarters * 4.837512969970703125e-4
    rest = rest - quarters * 7.54978995489188216e-8
    square = rest * rest
    sine = ((-1.9515295891e-4 * square + 8.3321608736e-3) * square - 1.6666654611e-1) * square * rest + rest
    cosine = (2.443315711809948e-5 * square - 1.388731625493765e-3) * square + 4.166664568298827e-2
    cosine = cosine * square * square - 0.5 * square + 1.0
    turn = quarters.to(tl.int32) & 3
    odd = (turn & 1) == 1
    cos, sin = tl.where(odd, sine, cosine), tl.where(odd, cosine, sine)
    return tl.where((turn == 1) | (turn == 2), -cos, cos), tl.where(turn >= 2, -sin, sin)


@triton.jit(do_not_specialize=["lines", "per_picture", "between_lines", "between_pixels", "length"])
def _forward(
    amplitude_ptr, phase_ptr, taps_ptr, mixed_ptr,
    lines, per_picture, between_lines, between_pixels, length,
    SEGMENT: tl.constexpr, C: tl.constexpr, PART: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    start = tl.program_id(1) * SEGMENT
    first, position = _lines(lines, per_picture, between_lines, length, start - 3, BLOCK)
    channels = tl.program_id(2) * PART + tl.arange(0, PART)[None, :]
    r0, r1, r2, r3, r4, r5, r6 = _load_taps(taps_ptr + channels, C)
    i0, i1, i2, i3, i4, i5, i6 = _load_taps(taps_ptr + 7 * C + channels, C)

    # Sums of the three pixels before a position, of the pixel there, and of the two after it.
    s0 = tl.zeros((BLOCK, PART), tl.float32)
    s1, s2, s3, s4, s5 = s0, s0, s0, s0, s0
    amplitude = _load(amplitude_ptr, first, position, between_pixels, length, C, channels)
    phase = _load(phase_ptr, first, position, between_pixels, length, C, channels)
    for _ in range(SEGMENT + 6):
        cos, sin = _cos_sin(phase.to(tl.float32))
        real, imaginary = amplitude.to(tl.float32) * cos, amplitude.to(tl.float32) * sin
        # Of the next position, early: memory is slow.
        amplitude = _load(amplitude_ptr, first, position + 1, between_pixels, length, C, channels)
        phase = _load(phase_ptr, first, position + 1, between_pixels, length, C, channels)
        mixed = s0 + r6 * real + i6 * imaginary
        s0 = s1 + r5 * real + i5 * imaginary
        s1 = s2 + r4 * real + i4 * imaginary
        s2 = s3 + r3 * real + i3 * imaginary
        s3 = s4 + r2 * real + i2 * imaginary
        s4 = s5 + r1 * real + i1 * imaginary
        s5 = r0 * real + i0 * imaginary
        _store(mixed_ptr, first, position - 3, between_pixels, start, length, C, channels, mixed)
        position += 1


@triton.jit
def _weigh(g0, g1, g2, g3, g4, g5, g6, t0, t1, t2, t3, t4, t5, t6):
    """What a pixel gets from the sums to which it was added: of the first, which is before it, by the last tap."""
    return g0 * t6 + g1 * t5 + g2 * t4 + g3 * t3 + g4 * t2 + g5 * t1 + g6 * t0


@triton.jit
def _store_taps(d_taps, C: tl.constexpr, t0, t1, t2, t3, t4, t5, t6):
    """The sums of seven (BLOCK, PART) over the lines."""
    tl.store(d_taps, tl.sum(t0, 0))
    tl.store(d_taps + C, tl.sum(t1, 0))
    tl.store(d_taps + 2 * C, tl.sum(t2, 0))
    tl.store(d_taps + 3 * C, tl.sum(t3, 0))
    tl.store(d_taps + 4 * C, tl.sum(t4, 0))
    tl.store(d_taps + 5 * C, tl.sum(t5, 0))
    tl.store(d_taps + 6 * C, tl.sum(t6, 0))


@triton.jit(do_not_specialize=["lines", "per_picture", "between_lines", "between_pixels", "length"])
def _backward(
    amplitude_ptr, phase_ptr, taps_ptr, d_mixed_ptr, d_amplitude_ptr, d_phase_ptr, d_taps_ptr,
    lines, per_picture, between_lines, between_pixels, length,
    SEGMENT: tl.constexpr, C: tl.constexpr, PART: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    start = tl.program_id(1) * SEGMENT
    first, position = _lines(lines, per_picture, between_lines, length, start, BLOCK)
    channels = tl.program_id(2) * PART + tl.arange(0, PART)[None, :]
    r0, r1, r2, r3, r4, r5, r6 = _load_taps(taps_ptr + channels, C)
    i0, i1, i2, i3, i4, i5, i6 = _load_taps(taps_ptr + 7 * C + channels, C)

    # Of the taps; and the gradients of a position, of the three before it, and of the three after it.
    a0 = tl.zeros((BLOCK, PART), tl.float32)
    a1, a2, a3, a4, a5, a6, b0, b1, b2, b3, b4, b5, b6 = a0, a0, a0, a0, a0, a0, a0, a0, a0, a0, a0, a0, a0
    g0 = _load(d_mixed_ptr, first, position - 3, between_pixels, length, C, channels).to(tl.float32)
    g1 = _load(d_mixed_ptr, first, position - 2, between_pixels, length, C, channels).to(tl.float32)
    g2 = _load(d_mixed_ptr, first, position - 1, between_pixels, length, C, channels).to(tl.float32)
    g3 = _load(d_mixed_ptr, first, position, between_pixels, length, C, channels).to(tl.float32)
    g4 = _load(d_mixed_ptr, first, position + 1, between_pixels, length, C, channels).to(tl.float32)
    g5 = _load(d_mixed_ptr, first, position + 2, between_pixels, length, C, channels).to(tl.float32)
    g6 = _load(d_mixed_ptr, first, position + 3, between_pixels, length, C, channels)
    amplitude = _load(amplitude_ptr, first, position, between_pixels, length, C, channels)
    phase = _load(phase_ptr, first, position, between_pixels, length, C, channels)
    for _ in range(SEGMENT):
        cos, sin = _cos_sin(phase.to(tl.float32))
        real, imaginary = amplitude.to(tl.float32) * cos, amplitude.to(tl.float32) * sin
        last = g6.to(tl.float32)
        # Of the next position, early: memory is slow.
        amplitude = _load(amplitude_ptr, first, position + 1, between_pixels, length, C, channels)
        phase = _load(phase_ptr, first, position + 1, between_pixels, length, C, channels)
        g6 = _load(d_mixed_ptr, first, position + 4, between_pixels, length, C, channels)
        d_real = _weigh(g0, g1, g2, g3, g4, g5, last, r0, r1, r2, r3, r4, r5, r6)
        d_imaginary = _weigh(g0, g1, g2, g3, g4, g5, last, i0, i1, i2, i3, i4, i5, i6)
        d_amplitude, d_phase = d_real * cos + d_imaginary * sin, d_imaginary * real - d_real * imaginary
        _store(d_amplitude_ptr, first, position, between_pixels, start, length, C, channels, d_amplitude)
        _store(d_phase_ptr, first, position, between_pixels, start, length, C, channels, d_phase)
        a6, a5, a4, a3 = a6 + real * g0, a5 + real * g1, a4 + real * g2, a3 + real * g3
        a2, a1, a0 = a2 + real * g4, a1 + real * g5, a0 + real * last
        b6, b5, b4, b3 = b6 + imaginary * g0, b5 + imaginary * g1, b4 + imaginary * g2, b3 + imaginary * g3
        b2, b1, b0 = b2 + imaginary * g4, b1 + imaginary * g5, b0 + imaginary * last
        g0, g1, g2, g3, g4, g5 = g1, g2, g3, g4, g5, last
        position += 1

    program = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    row = d_taps_ptr + program * 14 * C + tl.program_id(2) * PART + tl.arange(0, PART)
    _store_taps(row, C, a0, a1, a2, a3, a4, a5, a6)
    _store_taps(row + 7 * C, C, b0, b1, b2, b3, b4, b5, b6)
