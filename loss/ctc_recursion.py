"""CTC by the forward-backward recursion, of a whole batch at a time and without waiting for a GPU.

Paper: Connectionist Temporal Classification, ICML 2006, https://doi.org/10.1145/1143844.1143891, equations 6 to 16.
PyTorch's own on a GPU copies lengths to and fro, for which the program has to wait; besides its gradients, on a GPU and
on a CPU, are two other ones than the derivative where a target holds the blank. Here some hundred small operations go
from column to column; the way from the end is that from the beginning with everything reversed, so both are one.
"""

from typing import Any

import torch
from torch import Tensor

BLANK = 0
NEVER = -float("inf")  # logarithm of the probability of what cannot be


def ctc_by_recursion(logits: Tensor, ids: Tensor, lengths: Tensor) -> Tensor:
    """The CTC loss of each sample: minus the logarithm of the probability that its target is read.

    Args:
        logits: (N, T, K), class 0 is the blank.
        ids: (N, L) class ids of the targets, L at least 1; what follows a target is not looked at.
        lengths: (N,) int64 ids of each target, on the same device.

    Returns:
        (N,) float32; inf, without a gradient, where T columns are too few for the target.
    """
    with torch.autocast(logits.device.type, enabled=False):  # probabilities become a matrix product
        loss: Tensor = _Recursion.apply(logits.float(), ids, lengths)
    return loss


class _Recursion(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, ids: Tensor, lengths: Tensor) -> Tensor:
        chances = logits.log_softmax(-1)
        places = torch.arange(ids.shape[1], device=ids.device)
        inside = places < lengths[:, None]
        ends = (lengths[:, None] - 1 - places).clamp_min(0)
        both = torch.cat([ids, ids.gather(1, ends)]).where(inside.repeat(2, 1), BLANK)
        states = ids.new_full((len(both), 2 * ids.shape[1] + 1), BLANK)  # blanks before, between and after the ids
        states[:, 1::2] = both
        at_states = torch.cat([chances, chances.flip(1)]).gather(2, states[:, None].expand(-1, logits.shape[1], -1))
        ahead, back = _walk(at_states.transpose(0, 1), states).chunk(2, dim=1)  # each (T, N, S)

        count = torch.arange(states.shape[1], device=ids.device)
        last = 2 * lengths[:, None]
        used = count <= last
        read = ahead[-1].where(used & (count >= last - 1), NEVER).logsumexp(1)
        back = back.flip(0).gather(2, (last - count).clamp_min(0).expand(len(back), -1, -1))
        through = ahead + back - at_states[: len(ids)].transpose(0, 1) - read[:, None]
        through = through.where(used & read.isfinite()[:, None], NEVER).exp().transpose(0, 1)
        classes = (states[: len(ids), :, None] == torch.arange(logits.shape[2], device=ids.device)).float()
        gradient = (chances.exp() - through @ classes).where(read.isfinite()[:, None, None], 0.0)
        ctx.save_for_backward(gradient)
        return -read

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return upstream[:, None, None] * gradient, None, None


def _walk(chances: Tensor, states: Tensor) -> Tensor:
    """Logarithms of the probabilities to have come to each state (T, M, S) after each column, that column included.

    Args:
        chances: (T, M, S) logarithms of the probabilities of the states' classes in each column.
        states: (M, S) their classes.
    """
    edge = 2  # states before the first, where nothing ever is: the shifted views below then have the same size
    skips = torch.zeros_like(chances[0]).masked_fill_(states == states.roll(2, 1), NEVER)
    skips[:, :2] = NEVER
    reached = chances.new_full((*chances.shape[:2], chances.shape[2] + edge), NEVER)
    reached[0, :, edge : edge + 2] = chances[0, :, :2]
    for column in range(1, len(chances)):
        before = reached[column - 1]
        near = torch.logaddexp(before[:, edge:], before[:, 1:-1])
        far = before[:, :-edge] + skips
        torch.add(torch.logaddexp(near, far), chances[column], out=reached[column, :, edge:])
    return reached[:, :, edge:]
