"""CTC of a text prior, or of the language model that repairs one, against the label.

Paper: Connectionist Temporal Classification, ICML 2006, https://doi.org/10.1145/1143844.1143891
Source: the RTSRN / C3-STISR training loops. Differences, unless `form="published"`: blanks inside the target (the
published code gives a hyphen the id of the blank) are removed, a sample whose label has no known character counts
with loss 0 instead of being trained to write a blank, a label too long for the columns counts with 0 instead of inf.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from loss.ctc_recursion import BLANK, ctc_by_recursion


def _without_blanks(targets: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """-> the ids that are not blank, and how many of them each sample has."""
    lengths = lengths.to(targets.device)
    sample = torch.arange(len(lengths), device=targets.device).repeat_interleave(lengths)
    known = targets != BLANK
    return targets[known], torch.bincount(sample[known], minlength=len(lengths))


def ctc_loss(
    logits: Tensor,
    targets: Tensor,
    lengths: Tensor,
    valid: Tensor | None = None,
    *,
    form: Literal["clean", "published"] = "clean",
) -> Tensor:
    """Mean over the batch of the CTC loss per target character.

    Args:
        logits: (N, T, K), batch first; class 0 is the blank.
        targets: (sum of lengths,) class ids of all labels, one after the other, on any device.
        lengths: (N,) number of ids of each sample; any number type and device, best on the CPU (it is read there).
        valid: (N,) 1 where the label has a known character, else 0 (its target is then a placeholder 0). The clean
            form finds this out itself; the published one multiplies the whole batch by the mean of it.
        form: "clean", or "published" to reproduce the printed losses of RTSRN.

    Returns:
        () float32.

    Raises:
        ValueError: the lengths don't add up to the number of targets, or an unknown form.
    """
    lengths = lengths.long()
    if len(lengths) != len(logits) or int(lengths.sum()) != len(targets):
        raise ValueError(
            f"{len(targets)} target ids, lengths {lengths.tolist()}, {len(logits)} samples: "
            "one length per sample is needed, and they must add up to the number of ids"
        )
    if form == "published":
        losses = _per_sample(logits, targets, lengths, zero_infinity=False)
        loss = (losses / lengths.to(logits.device, non_blocking=True).clamp_min(1)).mean()
        return loss if valid is None else loss * valid.to(logits.device, loss.dtype, non_blocking=True).mean()
    if form != "clean":
        raise ValueError(f"unknown form {form!r}; known: 'clean', 'published'")
    targets, lengths = _without_blanks(targets, lengths)
    if not len(targets):
        return logits.float().sum() * 0.0  # keeps the graph: every rank of a distributed run must see a gradient
    losses = _per_sample(logits, targets, lengths, zero_infinity=True)
    lengths = lengths.to(logits.device, non_blocking=True)
    return torch.where(lengths > 0, losses / lengths.clamp_min(1), 0.0).mean()


def _per_sample(logits: Tensor, targets: Tensor, lengths: Tensor, *, zero_infinity: bool) -> Tensor:
    """(N,) losses; where a label is too long for the columns inf, or 0."""
    if logits.device.type != "cpu":
        ids = torch.nn.utils.rnn.pad_sequence(list(targets.split(lengths.tolist())), batch_first=True)
        ids, lengths = (values.to(logits.device, non_blocking=True) for values in (ids, lengths))
        losses = ctc_by_recursion(logits, ids, lengths)
        return losses.where(losses.isfinite(), 0.0) if zero_infinity else losses
    chances, columns = logits.float().log_softmax(-1).transpose(0, 1), torch.full_like(lengths, logits.shape[1])
    targets = targets.to("cpu")
    return F.ctc_loss(chances, targets, columns, lengths, blank=BLANK, reduction="none", zero_infinity=zero_infinity)
