"""RTSRN's and C3-STISR's recipe: beside the text prior, a language model repairs what the recogniser reads.

Paper: C3-STISR, IJCAI 2022, https://arxiv.org/abs/2204.14044. Students, stages and sharing are those of `PriorGuided`.
"""

from typing import Any

import torch
from easydict import EasyDict
from torch import Tensor, nn

from dataset.loading import Batch
from interface.checkpoint import load_weights, read_weights
from interface.systems.base import Losses
from interface.systems.prior_guided import PriorGuided, as_clue
from loss.semantic import semantic_loss
from model.recognizer.crnn import CRNN

DISTILL = "distill"  # LOSS.language: as the C3-STISR paper says; its code, and RTSRN's, use CTC


def _load_language_model(networks: list[nn.Module], path: str) -> None:
    state = read_weights(
        path,
        option="--language_model",
        purpose="the pre-trained language model",
        remedy="leave it out to train one from nothing, or make one: scripts/pretrain_language_model.py",
    )
    for network in networks:
        load_weights(network.get_submodule("lm"), state, path)


class Clues(PriorGuided):
    """Cascade of student recognisers and SR networks that may take a linguistic clue.

    Args:
        config: the configuration.
        **parts: those of `PriorGuided`.
    """

    reads = (*PriorGuided.reads, "language_model", "student_passes")

    def __init__(self, *, config: EasyDict, **parts: Any) -> None:
        super().__init__(config=config, **parts)
        self.linguistic, self.language = config.MODEL.triple_clues, config.LOSS.language
        self.student_passes = config.MODEL.student_passes

    @classmethod
    def needs_teacher(cls, config: EasyDict) -> bool:
        """Also where the language model learns from it."""
        return super().needs_teacher(config) or config.LOSS.language == DISTILL

    @classmethod
    def build(cls, config: EasyDict, *, training: bool, pretrained: bool) -> "Clues":
        """As `PriorGuided.build`, and the language model's weights."""
        system = super().build(config, training=training, pretrained=pretrained)
        assert isinstance(system, Clues)
        if pretrained and config.MODEL.language_model:
            _load_language_model(list(system.networks), config.MODEL.language_model)
        return system

    def stage(
        self, stage: int, batch: Batch, picture: Tensor, keep: Tensor, teacher_prior: Tensor | None
    ) -> tuple[Tensor, Losses]:
        """As in `PriorGuided`, with the linguistic clue and its loss."""
        student, network = self.student(stage), self.network(stage)
        # The published loop reads twice: first without batch statistics, for the language model.
        twice = self.student_passes == "published" and not self.freeze_tpg
        reading = self._quiet_reading(student, picture) if twice else None
        logits = self._logits(student, picture, batch.indices if stage == 0 else None)
        prior = logits.softmax(-1)
        reading = prior if reading is None else reading
        clues, terms = self._linguistic_clue(network, reading, batch.labels, teacher_prior)
        terms |= self._student_terms(logits, prior, batch.labels, teacher_prior)
        clues = None if clues is None else clues * keep
        picture = network(batch.images_lr, self.guidance(prior) * keep, *([] if clues is None else [clues]))
        return picture, terms

    def called_once(self) -> list[nn.Module]:
        """Also the language models of such SR networks."""
        found = super().called_once()
        models = [network.get_submodule("lm") for network in self.networks if self.linguistic and network in found]
        return [*found, *models]

    def _more_clues(self, network: Any, prior: Tensor) -> list[Tensor]:
        return [as_clue(network.language_clue(prior).softmax(-1))] if self.linguistic else []

    @torch.no_grad()
    def _quiet_reading(self, student: CRNN, picture: Tensor) -> Tensor:
        """(N, T, K) probabilities of a pass in evaluation mode, which leaves BatchNorm's statistics alone."""
        student.eval()
        reading = student(student.preprocess(picture)).transpose(0, 1).softmax(-1)
        student.train(self.training)
        return reading

    def _linguistic_clue(
        self, network: Any, reading: Tensor, labels: list[str], teacher_prior: Tensor | None
    ) -> tuple[Tensor | None, Losses]:
        """What the language model makes of the student's reading (N, T, K), and its own loss."""
        if not self.linguistic:
            return None, {}
        logits = network.language_clue(reading.detach())
        text = logits.softmax(-1)
        if self.language == DISTILL:
            assert teacher_prior is not None, "built with the system"
            return as_clue(text), {"distill_language": semantic_loss(text, teacher_prior)}
        return as_clue(text), {"ctc_language": self._ctc(logits, labels)}
