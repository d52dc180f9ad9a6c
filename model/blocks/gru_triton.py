"""Bidirectional GRUs over many short sequences on a GPU: one Triton kernel forward, one backward.

A GRU of 32 units reads tens of thousands of sequences of 16 or 64 steps. A program takes a few of them through all
steps in one direction: weights and states stay where it computes, and gates are read and written once.

What the sequences contribute to the gates is one matrix product, which PyTorch does. Biases are added, and their
gradients summed up, by the kernels: for PyTorch that would be one more walk through all gates. The gates follow
https://docs.pytorch.org/docs/stable/generated/torch.nn.GRU.html; backward computes them again, from the stored states.
Arrays have the order of the pixels (N, H, W) whether rows or columns are read, so that neither needs a copy.
Legend: U units of one direction, P programs of one direction, BLOCK sequences of a program.
"""
# ruff: noqa: PLR0917 - kernels and their parts take all they need by position

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from torch.nn import functional

# Sequences of a program, and its warps for 32 units, forward and backward. In lower precision Triton 3.6 divides the
# products of the backward kernel among warps by rows alone, 16 or more each: further warps would repeat work.
SHAPES = {
    torch.float32: ((16, 4), (16, 4)),
    torch.bfloat16: ((16, 2), (32, 2)),
    torch.float16: ((16, 2), (32, 2)),
}
PRECISION = "ieee"  # of matrix products in float32


def bidirectional_gru(gru: nn.GRU, pixels: Tensor, *, columns: bool) -> Tensor:
    """Read every row in both directions, or every column, in the precision of autocast if that is on.

    It has a first derivative only. Another number of steps is another kernel, which takes a second or two to translate.

    Args:
        gru: one bidirectional layer with biases, of 16, 32 or 64 units.
        pixels: (N, H, W, C), of any memory layout; a contiguous one is not copied.
        columns: read along H, else along W.

    Returns:
        (N, H, W, 2U), contiguous.
    """
    weight_ih, weight_hh, bias_ih, bias_hh = zip(*gru.all_weights, strict=True)  # each of two directions
    gates = functional.linear(pixels, torch.cat(weight_ih)).contiguous()
    weight, biases = torch.stack(weight_hh).float(), torch.stack(bias_ih + bias_hh).float()
    return _Recurrence.apply(gates, weight, biases, columns)


def rehearse(device: torch.device, units: int, dtype: torch.dtype, length: int, *, backward: bool) -> None:
    """Translate the kernels and start them on zeros, so that whatever stands against it is known early."""
    with torch.inference_mode(False), torch.set_grad_enabled(backward):
        gates = torch.zeros(1, 1, length, 6 * units, dtype=dtype, device=device, requires_grad=backward)
        weight, biases = torch.zeros(2, 3 * units, units, device=device), torch.zeros(4, 3 * units, device=device)
        read = _Recurrence.apply(gates, weight, biases, False)
        if backward:
            torch.autograd.grad(read, gates, torch.zeros_like(read))


class _Recurrence(torch.autograd.Function):
    """Products of the input (N, H, W, 2*3U) -> states (N, H, W, 2U).

    In float32 `weight` (2, 3U, U) of the state, and `biases` (4, 3U): both directions of the input, then of the state.
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight: Tensor, biases: Tensor, columns: bool) -> Tensor:
        units = weight.shape[2]
        block, warps = SHAPES[gates.dtype][0]
        states = gates.new_empty(*gates.shape[:3], 2 * units)
        walk = _walk(gates, columns)
        with torch.cuda.device_of(gates):
            _forward[triton.cdiv(walk[0], block), 2](
                gates, weight, biases, states, *walk, units, block, PRECISION, **_options(warps, units)
            )
        ctx.save_for_backward(gates, weight, biases, states)
        ctx.columns = columns
        return states

    @staticmethod
    def backward(ctx: Any, d_states: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        if torch.is_grad_enabled():
            raise NotImplementedError(
                "this GRU has no second derivative, which create_graph=True asks for; leave that out or use a CPU"
            )
        gates, weight, biases, states = ctx.saved_tensors
        units = weight.shape[2]
        block, warps = SHAPES[gates.dtype][1]
        walk = _walk(gates, ctx.columns)
        programs = triton.cdiv(walk[0], block)
        d_gates = torch.empty_like(gates)
        # Each program sums up in memory of its own: atomic additions would give other bits each time.
        d_weight, d_sums = weight.new_empty(programs, *weight.shape), biases.new_empty(programs, 2, 4 * units)
        with torch.cuda.device_of(gates):
            _backward[programs, 2](
                gates, weight, biases, states, d_states.contiguous(), d_gates, d_weight, d_sums, *walk,
                units, block, PRECISION, **_options(warps, units),
            )  # fmt: skip
        of_input, new_of_state = d_sums.sum(0).split([3 * units, units], 1)
        of_state = torch.cat([of_input[:, : 2 * units], new_of_state], 1)
        return d_gates, d_weight.sum(0), torch.cat([of_input, of_state]), None


def _options(warps_for_32: int, units: int) -> dict[str, Any]:
    """How a kernel is translated; Triton 3.10 fuses products with sums only if asked."""
    return {"num_warps": warps_for_32 * max(1, units // 32), "enable_fp_fusion": True}


def _walk(gates: Tensor, columns: bool) -> tuple[int, int, int, int, int]:
    """How the kernels walk over (N, H, W, ...).

    Sequences in all, and of a picture; pixels between two sequences, and between two steps; steps of each sequence.
    """
    count, height, width = gates.shape[:3]
    return (count * width, width, 1, width, height) if columns else (count * height, height, width, 1, width)


@triton.jit
def _sequences(sequences, per_picture, between_sequences, LENGTH: tl.constexpr, BLOCK: tl.constexpr):
    """First pixels (BLOCK, 1) of the sequences of this program, and the steps that are left of each.

    Behind the last sequence these are zero.
    """
    number = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None]
    first = number // per_picture * per_picture * LENGTH + number % per_picture * between_sequences
    return first, tl.where(number < sequences, LENGTH, 0)


@triton.jit
def _at(pointer, pixel, width: tl.constexpr, units):
    """Pointers (BLOCK, U), made anew in each step: they would take most of the registers."""
    return pointer + pixel.to(tl.int64) * width + units


@triton.jit
def _load_three(pointers, apart: tl.constexpr, mask):
    """What the reset, the update and the new gate have, which lie `apart` from each other."""
    reset = tl.load(pointers, mask=mask, other=0.0)
    update = tl.load(pointers + apart, mask=mask, other=0.0)
    new = tl.load(pointers + 2 * apart, mask=mask, other=0.0)
    return reset, update, new


@triton.jit
def _load_weights(weight_ptr, type: tl.constexpr, U: tl.constexpr):
    """Matrices (U, U) of this direction, as they lie in memory."""
    units = tl.arange(0, U)
    square = weight_ptr + tl.program_id(1) * 3 * U * U + units[:, None] * U + units[None, :]
    reset, update, new = _load_three(square, U * U, units[:, None] < U)
    return reset.to(type), update.to(type), new.to(type)


@triton.jit
def _load_biases(biases_ptr, U: tl.constexpr):
    """(1, U): of the reset gate, of the update gate, and of the new gate, from the input and from the state."""
    units = tl.arange(0, U)[None, :]
    row = biases_ptr + tl.program_id(1) * 3 * U + units
    reset, update, new = _load_three(row, U, units < U)
    s_reset, s_update, s_new = _load_three(row + 2 * 3 * U, U, units < U)
    return reset + s_reset, update + s_update, new, s_new


@triton.jit
def _open(
    reset, update, new, old, w_reset, w_update, w_new, b_reset, b_update, b_new, b_state, PRECISION: tl.constexpr
):
    """The three gates in float32, and what the old state contributes to the new gate."""
    reset = tl.sigmoid(reset.to(tl.float32) + tl.dot(old, tl.trans(w_reset), input_precision=PRECISION) + b_reset)
    update = tl.sigmoid(update.to(tl.float32) + tl.dot(old, tl.trans(w_update), input_precision=PRECISION) + b_update)
    of_state = tl.dot(old, tl.trans(w_new), input_precision=PRECISION) + b_state
    new = new.to(tl.float32) + b_new + reset * of_state
    return reset, update, 2 * tl.sigmoid(2 * new) - 1, of_state  # tanh, which Triton has not everywhere


@triton.jit(do_not_specialize=["sequences", "per_picture", "between_sequences", "between_steps"])
def _forward(
    gates_ptr, weight_ptr, biases_ptr, states_ptr,
    sequences, per_picture, between_sequences, between_steps,
    LENGTH: tl.constexpr, U: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    direction = tl.program_id(1)
    first, left = _sequences(sequences, per_picture, between_sequences, LENGTH, BLOCK)
    pixel = first + direction * (LENGTH - 1) * between_steps
    step = (1 - 2 * direction) * between_steps
    units = tl.arange(0, U)[None, :]
    gates, states = gates_ptr + direction * 3 * U, states_ptr + direction * U
    type: tl.constexpr = gates_ptr.dtype.element_ty
    w_reset, w_update, w_new = _load_weights(weight_ptr, type, U)
    b_reset, b_update, b_new, b_state = _load_biases(biases_ptr, U)

    state = tl.zeros((BLOCK, U), tl.float32)
    reset, update, new = _load_three(_at(gates, pixel, 6 * U, units), U, left > 0)
    for _ in range(LENGTH):
        later = _load_three(_at(gates, pixel + step, 6 * U, units), U, left > 1)  # of the next step: memory is slow
        reset, update, new, _ = _open(
            reset, update, new, state.to(type), w_reset, w_update, w_new, b_reset, b_update, b_new, b_state, PRECISION
        )
        state = new + update * (state - new)
        tl.store(_at(states, pixel, 2 * U, units), state.to(type), mask=left > 0)
        pixel, left = pixel + step, left - 1
        reset, update, new = later


@triton.jit
def _load_step(gates, states, d_states, pixel, step, left, U: tl.constexpr):
    """Gates of a step, the state before it, and the gradient of the state after it."""
    units = tl.arange(0, U)[None, :]
    reset, update, new = _load_three(_at(gates, pixel, 6 * U, units), U, left > 0)
    old = tl.load(_at(states, pixel + step, 2 * U, units), mask=left > 1, other=0.0)  # the first state is zero
    return reset, update, new, old, tl.load(_at(d_states, pixel, 2 * U, units), mask=left > 0, other=0.0)


@triton.jit
def _store_three(pointers, apart: tl.constexpr, reset, update, new, mask):
    type: tl.constexpr = pointers.dtype.element_ty
    tl.store(pointers, reset.to(type), mask=mask)
    tl.store(pointers + apart, update.to(type), mask=mask)
    tl.store(pointers + 2 * apart, new.to(type), mask=mask)


@triton.jit
def _store_weights(d_weight_ptr, reset, update, new, U: tl.constexpr):
    """Of this program, into (P, 2, 3U, U)."""
    units = tl.arange(0, U)
    number = tl.program_id(0) * 2 + tl.program_id(1)
    square = d_weight_ptr + number * 3 * U * U + units[:, None] * U + units[None, :]
    _store_three(square, U * U, reset, update, new, units[:, None] < U)


@triton.jit
def _store_sums(d_sums_ptr, reset, update, new, state, U: tl.constexpr):
    """Of this program, into (P, 2, 4U)."""
    units = tl.arange(0, U)
    row = d_sums_ptr + (tl.program_id(0) * 2 + tl.program_id(1)) * 4 * U + units
    _store_three(row, U, tl.sum(reset, 0), tl.sum(update, 0), tl.sum(new, 0), units < U)
    tl.store(row + 3 * U, tl.sum(state, 0))


@triton.jit
def _close(d_state, reset, update, new, old, of_state):
    """Gradients of the sums in the three gates, and of what the old state contributes to the new gate."""
    d_new = d_state * (1 - update) * (1 - new * new)
    d_update = d_state * (old - new) * update * (1 - update)
    d_reset = d_new * of_state * reset * (1 - reset)
    return d_reset, d_update, d_new, d_new * reset


@triton.jit(do_not_specialize=["sequences", "per_picture", "between_sequences", "between_steps"])
def _backward(
    gates_ptr, weight_ptr, biases_ptr, states_ptr, d_states_ptr, d_gates_ptr, d_weight_ptr, d_sums_ptr,
    sequences, per_picture, between_sequences, between_steps,
    LENGTH: tl.constexpr, U: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    direction = tl.program_id(1)
    first, left = _sequences(sequences, per_picture, between_sequences, LENGTH, BLOCK)
    pixel = first + (1 - direction) * (LENGTH - 1) * between_steps
    step = (2 * direction - 1) * between_steps  # to the step before
    gates, d_gates = gates_ptr + direction * 3 * U, d_gates_ptr + direction * 3 * U
    states, d_states = states_ptr + direction * U, d_states_ptr + direction * U
    units = tl.arange(0, U)[None, :]
    type: tl.constexpr = gates_ptr.dtype.element_ty
    w_reset, w_update, w_new = _load_weights(weight_ptr, type, U)
    b_reset, b_update, b_new, b_state = _load_biases(biases_ptr, U)

    d_state = tl.zeros((BLOCK, U), tl.float32)
    s_reset, s_update, s_new = tl.zeros((U, U), tl.float32), tl.zeros((U, U), tl.float32), tl.zeros((U, U), tl.float32)
    t_reset, t_update, t_new, t_state = d_state, d_state, d_state, d_state
    loaded = _load_step(gates, states, d_states, pixel, step, left, U)
    for _ in range(LENGTH):
        reset, update, new, old, d_out = loaded
        loaded = _load_step(gates, states, d_states, pixel + step, step, left - 1, U)
        reset, update, new, of_state = _open(
            reset, update, new, old, w_reset, w_update, w_new, b_reset, b_update, b_new, b_state, PRECISION
        )
        d_state += d_out
        d_reset, d_update, d_new, d_of_state = _close(d_state, reset, update, new, old.to(tl.float32), of_state)
        _store_three(_at(d_gates, pixel, 6 * U, units), U, d_reset, d_update, d_new, left > 0)
        pixel, left = pixel + step, left - 1
        t_reset, t_update = t_reset + d_reset, t_update + d_update
        t_new, t_state = t_new + d_new, t_state + d_of_state
        d_state = d_state * update
        # All products in the type of the gates, with sums in float32.
        low_reset, low_update, low_new = d_reset.to(type), d_update.to(type), d_of_state.to(type)
        d_state = tl.dot(low_reset, w_reset, d_state, input_precision=PRECISION)
        d_state = tl.dot(low_update, w_update, d_state, input_precision=PRECISION)
        d_state = tl.dot(low_new, w_new, d_state, input_precision=PRECISION)
        s_reset = tl.dot(tl.trans(low_reset), old, s_reset, input_precision=PRECISION)
        s_update = tl.dot(tl.trans(low_update), old, s_update, input_precision=PRECISION)
        s_new = tl.dot(tl.trans(low_new), old, s_new, input_precision=PRECISION)
    _store_weights(d_weight_ptr, s_reset, s_update, s_new, U)
    _store_sums(d_sums_ptr, t_reset, t_update, t_new, t_state, U)
