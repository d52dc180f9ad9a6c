"""Loops over float32 arrays, which numba compiles for the CPU at hand when they are first called.

Imported by `model/blocks/kernels.py` alone: numba may be missing. All of it stands in one file because numba keeps what
it has compiled for as long as that file is the same. What LLVM makes vectors of by itself is plain Python here; the two
sums of products that must stay in registers are written in LLVM's language. Of fast arithmetic only `contract` is
allowed, the fusion of a product and a sum, so infinities and NaN stay what they are. What becomes of a sequence or a
picture does not depend on those beside it.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from llvmlite import ir
from numba import jit
from numba.core import cgutils, types
from numba.extending import intrinsic

Function = TypeVar("Function", bound=Callable[..., Any])
in_llvm: Any = intrinsic  # by its annotations a caller would have to give the first argument, which the compiler gives

LANES = 16
"""Numbers that the sums of products take at once: a vector of AVX-512, and as many of a narrower kind as that is."""
ROWS = 4
"""Sequences, or pixels, that they take at once: weights are read once for all of them."""
TILE = 8
"""Sequences that take each step together, so that none waits for the last operation of another."""
TAPS = 7
"""Length of the kernels of a wave block."""

_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_ZEROS = ir.Constant(_VECTOR, [0.0] * LANES)

ZERO, ONE, TWO = np.float32(0), np.float32(1), np.float32(2)
ROUND = np.float32(1.5 * 2**23)
"""Added to a small float32 it leaves the nearest whole number, which also stands in the low bits of the sum."""
SIGNIFICAND, BIAS, SIGN = np.int32(23), 127, np.int32(31)  # bits of a float32
LARGEST_POWER = np.float32(43)
"""Of e: the product of two such numbers is finite, and the reciprocal of one more than it is zero to 18 digits."""
BITS_PER_E, LN_2 = np.float32(1 / math.log(2)), np.float32(math.log(2))
E2, E3, E4, E5, E6 = (np.float32(1 / math.factorial(n)) for n in range(2, 7))  # of the Taylor series
S3, S5, S7, S9 = (np.float32((-1) ** (n // 2) / math.factorial(n)) for n in range(3, 10, 2))
C2, C4, C6, C8, C10 = (np.float32((-1) ** (n // 2) / math.factorial(n)) for n in range(2, 11, 2))
QUARTERS = np.float32(2 / math.pi)
HALF_ROOT = np.float32(math.sqrt(0.5))
FAR = np.float32(4096).view(np.int32)
"""The bits of a phase beyond which `cosine_and_sine` is not meant to be used."""
# A quarter of a turn in three parts; whole multiples of the first two, up to some thousands, are exact in float32.
QUARTER_1 = np.float32(round(math.pi / 2 * 2**11) / 2**11)
QUARTER_2 = np.float32(round((math.pi / 2 - float(QUARTER_1)) * 2**23) / 2**23)
QUARTER_3 = np.float32(math.pi / 2 - float(QUARTER_1) - float(QUARTER_2))


def compiled(function: Function) -> Function:
    """`function`, to be compiled at its first call, and kept in a file if there is a place for one."""
    options: dict[str, Any] = {"nopython": True, "nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}
    try:
        return jit(cache=True, **options)(function)
    except RuntimeError:  # neither this folder nor the user's can be written to
        return jit(**options)(function)


def _address(builder: ir.IRBuilder, array: Any, index: Sequence[Any], kind: ir.Type) -> Any:
    """A pointer to an element, from a number for each axis."""
    offset = ir.IntType(64)(0)
    for at, stride in zip(index, cgutils.unpack_tuple(builder, array.strides), strict=True):
        offset = builder.add(offset, builder.mul(stride, at if isinstance(at, ir.Value) else ir.IntType(64)(at)))
    start = builder.bitcast(array.data, ir.IntType(8).as_pointer())
    return builder.bitcast(builder.gep(start, [offset]), kind.as_pointer())


def _load(builder: ir.IRBuilder, array: Any, *index: Any) -> Any:
    """`LANES` elements from there on."""
    return builder.load(_address(builder, array, index, _VECTOR), align=4)


def _store(builder: ir.IRBuilder, value: Any, array: Any, *index: Any) -> None:
    builder.store(value, _address(builder, array, index, _VECTOR), align=4)


def _add_product(builder: ir.IRBuilder, a: Any, b: Any, total: Any) -> Any:
    return builder.fadd(total, builder.fmul(a, b, flags=("contract",)), flags=("contract",))


@in_llvm
def multiply(context: Any, products: Any, states: Any, weights: Any, row: Any, panel: Any) -> Any:
    """Write `states[row : row + ROWS] @ weights[panel]` to columns of `products`, those from `panel * LANES` on.

    Shapes (rows, panels * LANES), (rows, K) and (panels, K, LANES).
    """

    def generate(context: Any, builder: ir.IRBuilder, _: Any, arguments: Any) -> Any:
        arrays = zip((products, states, weights), arguments[:3], strict=True)
        to, left, right = (context.make_array(kind)(context, builder, value) for kind, value in arrays)
        row, panel = arguments[3:]
        rows = [builder.add(row, ir.IntType(64)(number)) for number in range(ROWS)]
        totals = [cgutils.alloca_once_value(builder, _ZEROS) for _ in rows]
        with cgutils.for_range(builder, cgutils.unpack_tuple(builder, right.shape)[1]) as loop:
            weight = _load(builder, right, panel, loop.index, 0)
            for at, total in zip(rows, totals, strict=True):
                state = builder.load(_address(builder, left, (at, loop.index), ir.FloatType()))
                spread = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), state, ir.IntType(32)(0))
                everywhere = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
                spread = builder.shuffle_vector(spread, spread, everywhere)
                builder.store(_add_product(builder, spread, weight, builder.load(total)), total)
        column = builder.mul(panel, ir.IntType(64)(LANES))
        for at, total in zip(rows, totals, strict=True):
            _store(builder, builder.load(total), to, at, column)
        return context.get_dummy_value()

    return types.void(products, states, weights, types.intp, types.intp), generate


@in_llvm
def convolve(context: Any, sums: Any, lines: Any, kernels: Any, start: Any, channel: Any) -> Any:
    """Write `ROWS` sums of the products with both kernels, at each of `LANES` channels.

    `sums[start + i]` is the sum of `lines[part, start + i + tap] * kernels[part, tap]`. Shapes (positions, C),
    (2, positions + TAPS - 1, C) and (2, TAPS, C).
    """

    def generate(context: Any, builder: ir.IRBuilder, _: Any, arguments: Any) -> Any:
        arrays = zip((sums, lines, kernels), arguments[:3], strict=True)
        to, given, weights = (context.make_array(kind)(context, builder, value) for kind, value in arrays)
        start, channel = arguments[3:]
        totals: list[Any] = [_ZEROS] * ROWS
        for part in range(2):
            taps = [_load(builder, weights, part, tap, channel) for tap in range(TAPS)]
            for at in range(ROWS + TAPS - 1):
                value = _load(builder, given, part, builder.add(start, ir.IntType(64)(at)), channel)
                for row in range(max(0, at - TAPS + 1), min(ROWS, at + 1)):
                    totals[row] = _add_product(builder, value, taps[at - row], totals[row])
        for row, total in enumerate(totals):
            _store(builder, total, to, builder.add(start, ir.IntType(64)(row)), channel)
        return context.get_dummy_value()

    return types.void(sums, lines, kernels, types.intp, types.intp), generate


@compiled
def exponential(x: Any) -> Any:
    """e^x to 1.2e-7 of it, with x not beyond `LARGEST_POWER` to either side; NaN stays."""
    x = LARGEST_POWER if x > LARGEST_POWER else x
    x = -LARGEST_POWER if x < -LARGEST_POWER else x
    shifted = x * BITS_PER_E + (ROUND + np.float32(BIAS))
    rest = x - (shifted - (ROUND + np.float32(BIAS))) * LN_2
    power = E6 * rest + E5
    power = power * rest + E4
    power = power * rest + E3
    power = power * rest + E2
    power = (power * rest + ONE) * rest + ONE
    return power * np.int32(np.float32(shifted).view(np.int32) << SIGNIFICAND).view(np.float32)


@compiled
def cosine_and_sine(x: Any) -> Any:
    """Both to 1e-7, for x up to some thousands; NaN stays."""
    shifted = x * QUARTERS + ROUND
    whole = shifted - ROUND
    angle = ((x - whole * QUARTER_1) - whole * QUARTER_2) - whole * QUARTER_3
    square = angle * angle
    sine = ((S9 * square + S7) * square + S5) * square + S3
    sine = sine * square * angle + angle
    cosine = (((C10 * square + C8) * square + C6) * square + C4) * square + C2
    cosine = cosine * square + ONE
    quarter = np.float32(shifted).view(np.int32)
    swapped = (quarter & np.int32(1)) != np.int32(0)
    first, second = (sine, cosine) if swapped else (cosine, sine)
    # Bit 1 of the quarter is the sign of the sine, and that of the next quarter the sign of the cosine.
    first_sign = np.int32(((quarter + np.int32(1)) & np.int32(2)) << np.int32(30))
    second_sign = np.int32((quarter & np.int32(2)) << np.int32(30))
    first = np.int32(np.float32(first).view(np.int32) ^ first_sign).view(np.float32)
    return first, np.int32(np.float32(second).view(np.int32) ^ second_sign).view(np.float32)


@compiled
def gru_step(projected: Any, products: Any, bias: Any, state: Any, out: Any) -> None:
    """The equations of `torch.nn.GRU` for one sequence, (H,), whose new state goes to `state` and to `out`.

    The summands of the gates, reset, update and candidate, are in `projected` (3, H) and in `products`, 3 * H or more.
    """
    size = bias.size
    for j in range(size):
        reset = ONE / (ONE + exponential(-(projected[0, j] + products[j])))
        update = exponential(-(projected[1, j] + products[size + j]))
        candidate = projected[2, j] + reset * (products[2 * size + j] + bias[j])
        power = exponential(-TWO * candidate)
        # (1 - z) * n + z * h with z = 1 / (1 + update) and n = (1 - power) / (1 + power), by a single division
        new = ((ONE - power) * update + state[j] * (ONE + power)) / ((ONE + power) * (ONE + update))
        state[j] = new
        out[j] = new


@compiled
def gru(
    first: int,
    last: int,
    projected: Any,
    weights: Any,
    bias: Any,
    out: Any,
    strides: tuple[int, int, int],
    inner: int,
    steps: int,
) -> None:
    """Read sequences `first` to `last` (exclusive) of pixels in both directions.

    Args:
        first: number of a sequence.
        last: number of a sequence.
        projected: (pixels, 2, 3, H), what each pixel adds to the three gates of both directions.
        weights: (2, panels, H, LANES), of the state; columns beyond 3 * H are zero.
        bias: (2, H), of the state in the candidate.
        out: (pixels, 2, H), written.
        strides: between pixels, from a picture to the next, from a sequence to the next, and from a step to the next.
        inner: sequences of a picture.
        steps: pixels of a sequence.
    """
    size = bias.shape[1]
    states = np.empty((TILE, size), np.float32)
    products = np.empty((TILE, weights.shape[1] * LANES), np.float32)
    for direction in range(2):
        for start in range(first, last, TILE):
            count = min(TILE, last - start)
            states[:] = ZERO
            for step in range(steps):
                at = step if direction == 0 else steps - 1 - step
                for row in range(0, count, ROWS):
                    for panel in range(weights.shape[1]):
                        multiply(products, states, weights[direction], row, panel)
                for row in range(count):
                    picture, sequence = divmod(start + row, inner)
                    pixel = picture * strides[0] + sequence * strides[1] + at * strides[2]
                    gru_step(
                        projected[pixel, direction], products[row], bias[direction], states[row], out[pixel, direction]
                    )


@compiled
def rotate(amplitudes: Any, phases: Any, real: Any, imaginary: Any) -> None:
    """Write the parts of waves; a negative phase counts as zero."""
    largest = np.int32(0)
    for channel in range(phases.size):
        phase = phases[channel]
        phase = ZERO if phase < ZERO else phase
        bits = np.float32(phase).view(np.int32)  # they are ordered as the phases are
        largest = bits if bits > largest else largest
        cosine, sine = cosine_and_sine(phase)
        real[channel] = amplitudes[channel] * cosine
        imaginary[channel] = amplitudes[channel] * sine
    if largest > FAR:
        for channel in range(phases.size):
            far = np.float64(phases[channel])
            far = 0.0 if far < 0.0 else far
            real[channel] = amplitudes[channel] * np.float32(math.cos(far))
            imaginary[channel] = amplitudes[channel] * np.float32(math.sin(far))


@compiled
def mix_line(pixels: Any, start: int, stride: int, at: int, kernels: Any, lines: Any, sums: Any, total: Any) -> None:
    """Mix a row or a column: `pixels[:, at]` are amplitudes and become the sums, `pixels[:, at + 1]` are phases."""
    channels = kernels.shape[2]
    count = lines.shape[1] - TAPS + 1 - (ROWS - 1)
    for position in range(count):
        pixel, place = pixels[start + position * stride], position + TAPS // 2
        rotate(pixel[at], pixel[at + 1], lines[0, place], lines[1, place])
    for position in range(0, count, ROWS):
        for channel in range(0, channels, LANES):
            convolve(sums, lines, kernels, position, channel)
    for position in range(count):
        pixel, summed = pixels[start + position * stride, at], sums[position]
        for channel in range(channels):
            pixel[channel] = summed[channel]
        add(summed, total)


@compiled
def add(values: Any, total: Any) -> None:
    """Add to a total."""
    for at in range(values.size):
        total[at] += values[at]


@compiled
def share_out(mean: Any, inner: Any, inner_bias: Any, outer: Any, outer_bias: Any, hidden: Any, shares: Any) -> None:
    """Shares (3, C) of the three sums in each channel, from the mean (C,) of their sum.

    By weights (M, C) and (C, 3, M) with a GELU between them, and a softmax of the three.
    """
    for unit in range(hidden.size):
        total = inner_bias[unit]
        for channel in range(mean.size):
            total += inner[unit, channel] * mean[channel]
        hidden[unit] = total * np.float32(0.5) * (ONE + np.float32(math.erf(total * HALF_ROOT)))
    for channel in range(mean.size):
        for part in range(3):
            total = outer_bias[channel, part]
            for unit in range(hidden.size):
                total += outer[channel, part, unit] * hidden[unit]
            shares[part, channel] = total
        largest = max(shares[0, channel], shares[1, channel], shares[2, channel])
        whole = ZERO
        for part in range(3):
            shares[part, channel] = exponential(shares[part, channel] - largest)
            whole += shares[part, channel]
        for part in range(3):
            shares[part, channel] /= whole


@compiled
def weigh(waves: Any, shares: Any, out: Any) -> None:
    """Weigh the three sums of a pixel, (5, C) and (3, C) to (C,)."""
    for channel in range(out.size):
        along = waves[0, channel] * shares[0, channel] + waves[2, channel] * shares[1, channel]
        out[channel] = along + waves[4, channel] * shares[2, channel]


@compiled
def mix(
    first: int,
    last: int,
    pixels: Any,
    along_h: Any,
    along_w: Any,
    inner: Any,
    inner_bias: Any,
    outer: Any,
    outer_bias: Any,
    width: int,
    out: Any,
) -> None:
    """Token mixing of pictures `first` to `last` (exclusive), see `model/blocks/wave.py`.

    Args:
        first: number of a picture.
        last: number of a picture.
        pixels: (N, H * W, 5, C), amplitudes and phases for the rows, the same for the columns, and what is across.
            Where the amplitudes were, the sums along rows and columns are written.
        along_h: (2, TAPS, C), real and imaginary kernel of the rows; C is a multiple of LANES.
        along_w: the same of the columns.
        inner: (M, C), with the next three what makes shares of means.
        inner_bias: (M,).
        outer: (C, 3, M).
        outer_bias: (C, 3).
        width: W.
        out: (N, H * W, C), written: the weighted sum of rows, columns and across.
    """
    channels = along_h.shape[2]
    height = pixels.shape[1] // width
    # Zeros at both ends, and as many as the last sums of `convolve` reach beyond.
    row = np.zeros((2, width + TAPS - 1 + ROWS - 1, channels), np.float32)
    column = np.zeros((2, height + TAPS - 1 + ROWS - 1, channels), np.float32)
    sums = np.empty((max(height, width) + ROWS - 1, channels), np.float32)
    total, shares = np.empty(channels, np.float32), np.empty((3, channels), np.float32)
    hidden = np.empty(inner_bias.size, np.float32)
    for picture in range(first, last):
        total[:] = ZERO
        for y in range(height):
            mix_line(pixels[picture], y * width, 1, 0, along_h, row, sums, total)
        for x in range(width):
            mix_line(pixels[picture], x, width, 2, along_w, column, sums, total)
        for pixel in range(height * width):
            add(pixels[picture, pixel, 4], total)
        for channel in range(channels):
            total[channel] /= np.float32(height * width)
        share_out(total, inner, inner_bias, outer, outer_bias, hidden, shares)
        for pixel in range(height * width):
            weigh(pixels[picture, pixel], shares, out[picture, pixel])
