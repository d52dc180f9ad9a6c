"""Greedy reading of what CTC recognisers put out, with confidences.

CTC: https://www.cs.toronto.edu/~graves/icml_2006.pdf (Graves et al., ICML 2006); its equation 3 is the probability of a
text, the sum over all ways to spread it over the columns.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from model.recognizer.reading import Reading


def repeats(classes: Tensor) -> Tensor:
    """(N, T) -> (N, T) bool: as in the column before."""
    return F.pad(classes[:, 1:] == classes[:, :-1], (1, 0), value=False)


def collapse(classes: Tensor) -> Tensor:
    """(N, T) best class of each column -> (N, T): that class where a character begins, 0 (blank) elsewhere."""
    return classes.masked_fill(repeats(classes), 0)


def spell(classes: Tensor, charset: Sequence[str]) -> list[str]:
    """(N, T) best class of each column -> N texts; class 1 is the first of `charset`, 0 the blank."""
    return ["".join(charset[index - 1] for index in row if index) for row in collapse(classes).tolist()]


def best_classes(scores: Tensor) -> Tensor:
    """(N, T, K) scores -> (N, T) best class of each column."""
    if scores.device.type == "cpu" and scores.dtype == torch.float32:
        return torch.from_numpy(scores.detach().numpy().argmax(2))  # of 18,000 classes ten times faster than PyTorch's
    return scores.argmax(2)


def ctc_readings(scores: Tensor, charset: Sequence[str], *, probabilities: bool = False) -> list[Reading]:
    """Read greedily.

    The confidence of a word is its probability by CTC, over all its alignments; that of a character is the highest
    probability of its class among the columns that it was read from. Of an empty text the confidence is that of reading
    nothing: all columns blank.

    Args:
        scores: (N, T, K) logits; class 0 is the blank.
        charset: the characters of classes 1, 2, ...
        probabilities: the scores went through softmax already.
    """
    if not len(scores):
        return []
    classes = best_classes(scores)
    # Only classes that were read somewhere matter from here on: of 37, or of the 18,000 of a Chinese recogniser.
    read, columns = torch.cat([classes.new_zeros(1), classes.flatten()]).unique(return_inverse=True)
    columns = columns[1:].view_as(classes)
    chances = scores[..., read].double()
    chances = chances.log() if probabilities else chances - scores.double().logsumexp(2, keepdim=True)
    best = chances.gather(2, columns.unsqueeze(2)).squeeze(2)
    repeated = repeats(classes)
    run = (~repeated).cumsum(1) - 1  # number of the run of equal columns each column belongs to
    peaks = best.scatter_reduce(1, run, best, "amax", include_self=False).gather(1, run).exp()
    kept, targets = classes.masked_fill(repeated, 0), columns.masked_fill(repeated, 0)
    spelled = kept > 0
    lengths = torch.full_like(kept[:, 0], kept.shape[1])
    words = F.ctc_loss(chances.transpose(0, 1), targets[spelled], lengths, spelled.sum(1), reduction="none")
    texts = spell(classes, charset)
    return [
        Reading(text, min(word, 1.0), tuple(peak for index, peak in zip(row, sample, strict=True) if index))
        for text, row, word, sample in zip(texts, kept.tolist(), (-words).exp().tolist(), peaks.tolist(), strict=True)
    ]
