"""An evaluation the way published programs do it: the same pictures, strings and scores, and nothing done to save work.

It is what `evaluation.py` compares with; no part of the program. Written from the description of that code: each
recogniser that scores has a run of its own, in which everything is decoded, super-resolved and compared again; LR, HR
and SR are read in each; nothing is frozen, so graphs for gradients are built; the student reads HR, too, for nothing.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measuring import Clock
from dataset.charset import canonical
from dataset.loading import Batch
from interface.evaluation import HR, LR
from interface.systems.clues import Clues, as_clue
from loss.similarity import C1, C2, WINDOW, gaussian_window

RGB = 3
SR = "sr_1"
Read = Callable[[Tensor], list[str]]


@dataclass
class Run:
    """What one run over the data says.

    Attributes:
        readings: by kind of picture, as they are compared.
        psnr, ssim: of each batch.
        correct: how many words are read right, by kind of picture.
    """

    readings: dict[str, list[str]] = field(default_factory=lambda: {LR: [], HR: [], SR: []})
    psnr: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)
    correct: dict[str, int] = field(default_factory=lambda: {LR: 0, HR: 0, SR: 0})


def evaluate(system: Clues, loader: Iterable[Batch], read: Read, clock: Clock) -> Run:
    """One run with one recogniser.

    Args:
        system: straightened, of one stage, in evaluation mode.
        loader: batches.
        read: (N, >=3, H, W) in [0, 1] -> N strings; it measures itself.
        clock: measures parts.
    """
    run, device = Run(), clock.device
    for batch in loader:
        lr, hr = batch.images_lr.to(device), batch.images_hr.to(device)
        sr = super_resolve(system, lr, hr, clock)
        with clock("metrics"):
            run.psnr.append(batch_psnr(sr, hr))
            run.ssim.append(batch_ssim(sr, hr))
        for row, pictures in {SR: sr, LR: lr, HR: hr}.items():
            for text, label in zip(read(pictures), batch.labels, strict=True):
                reading = canonical(text)
                run.readings[row].append(reading)
                run.correct[row] += reading == canonical(label)
    return run


def super_resolve(system: Clues, lr: Tensor, hr: Tensor | None, clock: Clock) -> Tensor:
    """`system.cascade` of one stage, all pictures at once; `hr`, if it is given, is read as well, which nobody uses."""
    student, network = system.student(0), system.network(0)
    with clock("student"):
        prior = student(student.preprocess(lr)).transpose(0, 1).softmax(-1)
        if hr is not None:
            student(student.preprocess(hr))
    with clock("language model"):
        text = network.language_clue(prior).softmax(-1)
    with clock("SR network"):
        sr: Tensor = network(lr, as_clue(prior), as_clue(text))
    return sr


def batch_psnr(sr: Tensor, hr: Tensor) -> float:
    """DB of the mean squared error of a batch, on RGB in 0 ... 255."""
    error = ((sr[:, :RGB] * 255 - hr[:, :RGB] * 255) ** 2).mean()
    return (20 * torch.log10(255.0 / error.sqrt())).item()


def batch_ssim(sr: Tensor, hr: Tensor) -> float:
    """Mean of SSIM under a two-dimensional window, channel by channel."""
    line = gaussian_window().to(sr.device)
    window = torch.outer(line, line).expand(RGB, 1, WINDOW, WINDOW).contiguous()

    def smoothed(images: Tensor) -> Tensor:
        return F.conv2d(images, window, padding=WINDOW // 2, groups=RGB)

    a, b = sr[:, :RGB], hr[:, :RGB]
    mean_a, mean_b = smoothed(a), smoothed(b)
    square_a, square_b = smoothed(a * a) - mean_a**2, smoothed(b * b) - mean_b**2
    covariance = smoothed(a * b) - mean_a * mean_b
    above = (2 * mean_a * mean_b + C1) * (2 * covariance + C2)
    return (above / ((mean_a**2 + mean_b**2 + C1) * (square_a + square_b + C2))).mean().item()
