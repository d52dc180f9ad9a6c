"""RTSRN and its training step the way published programs take it: the same maths, and nothing done to save work.

It is what `run.py` compares with; no part of the program. Written from the description of that code: the recognisers
are never frozen, so gradients of all their weights are computed and thrown away; what does not change is computed in
every step; characters are weighed, and strings decoded, one by one; neighbourhoods are unfolded into memory.
"""

import math
import types
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dataset.charset import CTC_ALPHABET
from dataset.loading import Batch
from interface.systems.base import Losses
from interface.systems.clues import Clues, as_clue
from loss.semantic import semantic_loss
from loss.text_focus import encode_labels
from loss.weighted_ce import IGNORED
from model.blocks.attention import LocalAttention
from model.blocks.convolution import PictureConv2d, WeightNormConv2d
from model.blocks.upsample import UpsampleBlock
from model.blocks.wave import PATM

Network = TypeVar("Network", bound=nn.Module)


class Clock(Protocol):
    """Measures named parts."""

    def __call__(self, part: str) -> AbstractContextManager[None]:
        """Time what is done inside."""
        ...


def make_straightforward(system: Clues, clock: Clock) -> "StraightforwardClues":
    """Turn a system, in place, into one that computes the same the long way."""
    straighten(system.requires_grad_(True))
    system.__class__ = StraightforwardClues
    assert isinstance(system, StraightforwardClues)
    system.clock = clock
    return system


def straighten(module: Network) -> Network:
    """Let a network, or all networks of a system, compute the same the long way; changed in place, and returned."""
    module.to(memory_format=torch.contiguous_format)
    slower: dict[type[nn.Module], Any] = {
        LocalAttention: unfolded,
        PATM: interleaved,
        UpsampleBlock: long_mish,
        WeightNormConv2d: dilated,
        PictureConv2d: nn.Conv2d.forward,
    }
    for part in module.modules():
        if type(part) in slower:
            part.forward = types.MethodType(slower[type(part)], part)  # type: ignore[method-assign]
    return module


class StraightforwardClues(Clues):
    """`Clues` without its savings; `make_straightforward` makes one."""

    clock: Clock

    def forward(self, batch: Batch, phase: str = "main") -> Losses:
        """As `Clues.forward` with `student_passes: published`."""
        terms: Losses = {}
        keep = self._kept_priors(batch.images_lr)
        picture = batch.images_lr
        for stage in range(self.stages):
            student, network = self.student(stage), self.network(stage)
            stage_terms: Losses = {}
            with self.clock("student"):
                reading = self._quiet_reading(student, picture)
                logits = student(student.preprocess(picture)).transpose(0, 1)
                prior = logits.softmax(-1)
            if self.teacher is not None:
                with self.clock("teacher"):
                    wanted = self.teacher(self.teacher.preprocess(batch.images_hr)).transpose(0, 1).softmax(-1).detach()
                stage_terms["distill"] = semantic_loss(prior, wanted)
            if self.use_label:
                stage_terms["ctc_label"] = self._ctc(logits, batch.labels)
            with self.clock("language model"):
                text = network.language_clue(reading)
                stage_terms["ctc_language"] = self._ctc(text, batch.labels)
            with self.clock("strings"):  # decoded for a display that is never shown
                for decoded in (logits, text):
                    read_one_by_one(decoded)
            with self.clock("SR network"):
                picture = network(batch.images_lr, as_clue(prior) * keep, as_clue(text.softmax(-1)) * keep)
            stage_terms |= self._image_terms(picture, batch)
            for name, value in stage_terms.items():
                terms[name] = terms.get(name, 0) + self.weights[name] * value
        return terms

    def _image_terms(self, sr: Tensor, batch: Batch) -> Losses:
        focus, hr = self.losses.text_focus, batch.images_hr
        self.losses.text_focus = None
        try:
            with self.clock("image losses"):
                terms = self.losses(sr, self.losses.sharp(batch, self.targets))
        finally:
            self.losses.text_focus = focus
        if focus is None:
            return terms
        targets = encode_labels(batch.labels).to(sr.device)
        with self.clock("text focus, HR"):
            _, attention_hr = focus.read_at_once(hr, targets.inputs)
        with self.clock("text focus, SR"):
            logits, attention = focus.read_at_once(sr, targets.inputs)
        terms["attention"] = (attention_hr - attention).abs().mean()
        with self.clock("character weights"):
            terms["recognition"] = weigh_one_by_one(logits, targets.targets, focus.log_weights.exp())
        return terms


def weigh_one_by_one(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """`loss.weighted_ce.weighted_cross_entropy`, a character at a time."""
    known = targets != IGNORED
    losses = [
        -(weights[true, true] * row[true].exp() / (weights[true] * row.exp()).sum()).log()
        for row, true in zip(logits[known], targets[known].tolist(), strict=True)
    ]
    return torch.stack(losses).mean()


def read_one_by_one(logits: Tensor) -> list[str]:
    """(N, T, K) -> texts, a column at a time."""
    texts = []
    for columns in logits.argmax(-1):
        text, before = "", 0
        for column in columns:
            if column not in (0, before):
                text += CTC_ALPHABET[int(column)]
            before = column
        texts.append(text)
    return texts


def unfolded(self: LocalAttention, x: Tensor) -> Tensor:
    """`LocalAttention.forward` on copies of all neighbourhoods."""
    n, c, h, w = x.shape
    query, key, value = self.trans(x).chunk(3, dim=1)
    key, value = (F.unfold(part, 3, padding=1).view(n, c, 9, h, w) for part in (key, value))
    logits = torch.einsum("nchw,nckhw->nkhw", query, key) / math.sqrt(c)
    return torch.einsum("nkhw,nckhw->nchw", self.dropout(logits.softmax(dim=1)), value)


def interleaved(self: PATM, x: Tensor) -> Tensor:
    """`PATM.forward` on maps of twice the channels, real and imaginary parts in turn."""

    def waves(amplitude: Tensor, phase: Tensor) -> Tensor:
        return torch.stack([amplitude * phase.cos(), amplitude * phase.sin()], dim=2).flatten(1, 2)

    along_h = self.tfc_h(waves(self.fc_h(x), self.theta_h_conv(x)))
    along_w = self.tfc_w(waves(self.fc_w(x), self.theta_w_conv(x)))
    across = self.fc_c(x)
    share = self.reweight((along_h + along_w + across).mean(dim=(2, 3), keepdim=True)).unflatten(1, (-1, 3)).softmax(2)
    return self.proj(along_h * share[:, :, 0] + along_w * share[:, :, 1] + across * share[:, :, 2])


def long_mish(self: UpsampleBlock, x: Tensor) -> Tensor:
    """`UpsampleBlock.forward` with the formula of mish written out."""
    x = F.pixel_shuffle(self.conv(x), self.scale)
    return self.pam(x * F.softplus(x).tanh())


def dilated(self: WeightNormConv2d, x: Tensor) -> Tensor:
    """`WeightNormConv2d.forward` by one convolution, whatever its dilation."""
    length = torch.linalg.vector_norm(self.weight_v, dim=(1, 2, 3), keepdim=True)
    kernels = self.weight_v * (self.weight_g / length)
    return F.conv2d(x, kernels, self.bias, padding=self.padding, dilation=self.dilation, groups=self.groups)
