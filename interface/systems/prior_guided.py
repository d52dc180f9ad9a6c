"""TPGSR's recipe: a recogniser that learns along gives a text prior, which guides the SR network.

Paper: Text Prior Guided Scene Text Image Super-resolution, TIP 2023, https://arxiv.org/abs/2106.15368. In each stage a
student recogniser reads the picture of the stage before (first the LR), its class probabilities guide the SR network,
whose input is always the LR image. Gradients flow back through the whole cascade. With `MODEL.freeze_tpg` the students
stay as they are: what they read in an LR picture is then computed once. `Clues` adds what C3-STISR and RTSRN have more.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch
from easydict import EasyDict
from torch import Tensor, nn

from dataset.charset import encode_ctc
from dataset.deform import turned
from dataset.loading import Batch
from interface import starter
from interface.checkpoint import CheckpointError, content_digest, load_weights, read_weights
from interface.inference import in_parts
from interface.systems.base import ImageLosses, Losses, System, build_image_losses, build_network
from interface.targets import Targets
from loss.ctc import ctc_loss
from loss.semantic import semantic_loss
from loss.similarity import structure_similarity
from model.recognizer.crnn import CRNN

RANDOM = "random"
STUDENTS = "frozen_students"  # key of the trained state
PRIOR_GENERATORS = {"CRNN": CRNN}  # by MODEL.tpg


def as_clue(probabilities: Tensor) -> Tensor:
    """(N, T, K) class probabilities -> (N, K, 1, T), the layout in which networks take a clue."""
    return probabilities.transpose(1, 2).unsqueeze(2)


class PriorGuided(System):
    """Cascade of student recognisers and SR networks.

    Args:
        networks: one SR network for all stages, or one per stage.
        students: one text-prior generator for all stages, or one per stage.
        stages: passes of the cascade.
        losses: what compares a picture with HR.
        weights: factor of each term.
        teacher: the frozen recogniser that reads HR, for distillation; None without it.
        config: the configuration; `LOSS` says which terms are on.
    """

    frozen: tuple[str, ...] = ("losses", "teacher")
    reads: tuple[str, ...] = (
        *("stu_iter", "sr_share", "tpg_share", "tpg", "tpg_pretrained", "freeze_tpg"),
        *("prior_dropout", "detach_prior"),
    )

    def __init__(
        self,
        *,
        networks: list[nn.Module],
        students: list[CRNN],
        stages: int,
        losses: ImageLosses,
        weights: dict[str, float],
        teacher: CRNN | None,
        config: EasyDict,
    ) -> None:
        super().__init__()
        self.networks, self.students = nn.ModuleList(networks), nn.ModuleList(students)
        self.stages, self.losses, self.weights = stages, losses, weights
        self.teacher = teacher.requires_grad_(False) if teacher is not None else None
        self.freeze_tpg, self.tpg_pretrained = config.MODEL.freeze_tpg, config.MODEL.tpg_pretrained
        self.students.requires_grad_(not self.freeze_tpg)
        if self.freeze_tpg:
            self.frozen = (*self.frozen, "students")
        self.use_label, self.use_distill = config.LOSS.use_label, config.LOSS.use_distill
        self.hyphen = config.LOSS.hyphen
        self.prior_dropout, self.detach_prior = config.MODEL.prior_dropout, config.MODEL.detach_prior
        self.largest_arc = math.radians(config.TRAIN.rotate_train)
        self.consistent, self.stage_growth = config.LOSS.tssim_loss, config.LOSS.stage_growth

    @classmethod
    def needs_teacher(cls, config: EasyDict) -> bool:
        """Whether a training compares a reading with that of a frozen recogniser on HR."""
        return config.LOSS.use_distill

    @classmethod
    def build(cls, config: EasyDict, *, training: bool, pretrained: bool) -> "PriorGuided":
        """Build networks, students and, for training, the teacher and the losses' recogniser."""
        model, stages = config.MODEL, config.MODEL.stu_iter
        distill = training and cls.needs_teacher(config)
        known = pretrained or model.freeze_tpg  # no checkpoint holds a frozen student
        state = None
        if (known or distill) and model.tpg_pretrained != RANDOM:
            state = read_weights(
                model.tpg_pretrained,
                option="--tpg_pretrained",
                purpose="the recogniser whose reading guides the SR network",
                remedy=starter.way_out(
                    model.tpg_pretrained,
                    starter.RECOGNIZER,
                    "--tpg_pretrained",
                    "--tpg_pretrained random trains one from nothing (add --use_label, so that it learns to read)",
                ),
            )

        def recognizer(load: bool) -> CRNN:
            built = PRIOR_GENERATORS[model.tpg]()
            if load and state is not None:
                load_weights(built, state, model.tpg_pretrained, hint="--tpg_pretrained takes the weights of a CRNN.")
            return built

        networks = [build_network(config) for _ in range(1 if model.sr_share else stages)]
        return cls(
            networks=networks,
            students=[recognizer(known) for _ in range(1 if model.tpg_share else stages)],
            stages=stages,
            losses=build_image_losses(config, training=training),
            weights=dict(config.LOSS.weights),
            teacher=recognizer(True) if distill else None,
            config=config,
        )

    def train(self, mode: bool = True) -> "PriorGuided":
        """Set the mode; the teacher and frozen students stay in evaluation mode."""
        super().train(mode)
        # A frozen network must not update its BatchNorm statistics either.
        if self.teacher is not None:
            self.teacher.eval()
        if self.freeze_tpg:
            self.students.eval()
            for module in self.students.modules():
                if isinstance(module, nn.LSTM):
                    module.train()  # nothing else to cuDNN, which gives later stages no gradient through it otherwise
        return self

    def params(self, phase: str) -> list[nn.Parameter]:
        """SR networks, then students unless they are frozen."""
        students = [] if self.freeze_tpg else self.students.parameters()
        return [*self.networks.parameters(), *students]

    def trained_state(self) -> dict[str, Tensor]:
        """`state_dict` without the frozen parts; of frozen students a digest, since others would fit as well."""
        state = super().trained_state()
        return {**state, STUDENTS: self._digest()} if self.freeze_tpg else state

    def load_trained_state(self, state: dict[str, Tensor], source: str) -> None:
        """Take over what `trained_state` gave.

        Raises:
            ValueError: keys or shapes differ, or the frozen students are not those of the training.
        """
        if self.freeze_tpg and STUDENTS in state and not torch.equal(state[STUDENTS].cpu(), self._digest()):
            raise CheckpointError(
                f"{source} was trained with another frozen text-prior generator than {self.tpg_pretrained}, which "
                "--tpg_pretrained or a file of --config names; leave that out, or give the file of the training"
            )
        super().load_trained_state({key: value for key, value in state.items() if key != STUDENTS}, source)

    def _digest(self) -> Tensor:
        """(32,) uint8 sha256 of the students' weights."""
        return torch.tensor(list(bytes.fromhex(content_digest(self.students.state_dict()))), dtype=torch.uint8)

    def clip_groups(self, phase: str) -> list[list[nn.Parameter]]:
        """Each SR network by itself, as published; students are not limited."""
        return [list(network.parameters()) for network in self.networks]

    def network(self, stage: int) -> Any:
        """The SR network of a stage."""
        return self.networks[stage % len(self.networks)]

    def student(self, stage: int) -> CRNN:
        """The text-prior generator of a stage."""
        student = self.students[stage % len(self.students)]
        assert isinstance(student, CRNN)
        return student

    def forward(self, batch: Batch, phase: str = "main") -> Losses:
        """All weighted terms of one batch, each summed over the stages."""
        terms: Losses = {}
        level, batch, turn = self._turned(batch)
        teacher_prior = self._teacher_prior(batch)
        sharp = self.losses.sharp(batch, self._targets)
        keep = self._kept_priors(batch.images_lr)
        picture, other = batch.images_lr, level.images_lr
        for stage in range(self.stages):
            picture, text_terms = self.stage(stage, batch, picture, keep, teacher_prior)
            growth = 1 + self.stage_growth * stage
            image_terms = {name: growth * value for name, value in self.losses(picture, sharp).items()}
            stage_terms = {**image_terms, **text_terms}
            if self.consistent:
                other, _ = self.stage(stage, level, other, keep, teacher_prior)
                if stage == self.stages - 1:
                    stage_terms["structure"] = 1 - structure_similarity(turn(other), picture, batch.images_hr).mean()
            for name, value in stage_terms.items():
                weighted = self.weights[name] * value
                terms[name] = terms[name] + weighted if name in terms else weighted
        return terms

    @property
    def _targets(self) -> Targets:
        """A turned picture is another one each time, so nothing of it can be kept."""
        return Targets() if self.largest_arc else self.targets

    def _turned(self, batch: Batch) -> tuple[Batch, Batch, Callable[[Tensor], Tensor]]:
        """The batch with LR turned and turned back, the batch turned, and what turns pictures like that.

        The angles come from PyTorch's generator on the CPU, whose state is in every checkpoint.
        """
        if not self.largest_arc:
            return batch, batch, lambda images: images
        arcs = (2 * torch.rand(len(batch.images_lr)) - 1) * self.largest_arc
        offsets = torch.rand(len(batch.images_lr))
        lr, hr = turned(batch.images_lr, arcs, offsets), turned(batch.images_hr, arcs, offsets)
        level = replace(batch, images_lr=turned(lr, -arcs, offsets))
        return level, replace(batch, images_lr=lr, images_hr=hr), lambda images: turned(images.float(), arcs, offsets)

    def guidance(self, prior: Tensor) -> Tensor:
        """(N, T, K) probabilities -> (N, K, 1, T) for the network; without gradient if `MODEL.detach_prior` says so."""
        return as_clue(prior.detach() if self.detach_prior else prior)

    def stage(
        self, stage: int, batch: Batch, picture: Tensor, keep: Tensor, teacher_prior: Tensor | None
    ) -> tuple[Tensor, Losses]:
        """One stage of the training step.

        Args:
            stage: its number, from 0.
            batch: the training batch.
            picture: (N, C, h, w) of the stage before, which the student reads; in the first stage the LR images.
            keep: (N, 1, 1, 1) 0 or 1: which samples get their prior.
            teacher_prior: (N, T, K) what the teacher reads in HR; None without one.

        Returns:
            SR images (N, C, s*H, s*W), and the unweighted terms of what is read.
        """
        logits = self._logits(self.student(stage), picture, batch.indices if stage == 0 else None)
        prior = logits.softmax(-1)
        picture = self.network(stage)(batch.images_lr, self.guidance(prior) * keep)
        return picture, self._student_terms(logits, prior, batch.labels, teacher_prior)

    def cascade(self, images_lr: Tensor) -> list[Tensor]:
        """One picture per stage."""
        pictures, picture = [], images_lr
        for stage in range(self.stages):
            student, network = self.student(stage), self.network(stage)
            prior = student(student.preprocess(picture)).transpose(0, 1).softmax(-1)
            picture = in_parts(network, images_lr, as_clue(prior), *self._more_clues(network, prior))
            pictures.append(picture)
        return pictures

    def _more_clues(self, network: Any, prior: Tensor) -> list[Tensor]:
        """What else guides the network at test, made of the prior (N, T, K)."""
        return []

    def _student_terms(self, logits: Tensor, prior: Tensor, labels: list[str], teacher_prior: Tensor | None) -> Losses:
        """What the student learns from, besides the gradients of the picture."""
        terms: Losses = {}
        if teacher_prior is not None and self.use_distill:
            terms["distill"] = semantic_loss(prior, teacher_prior)
        if self.use_label:
            terms["ctc_label"] = self._ctc(logits, labels)
        return terms

    def _logits(self, student: CRNN, picture: Tensor, indices: Tensor | None) -> Tensor:
        """(N, T, K) what a student reads; kept by sample number if it is frozen and the picture is LR (`indices`)."""

        def logits(rows: slice) -> Tensor:
            return student(student.preprocess(picture[rows])).transpose(0, 1)

        if self.freeze_tpg and indices is not None:
            return self._targets.get("student_logits", student, indices, logits)
        return logits(slice(None))

    def _teacher_prior(self, batch: Batch) -> Tensor | None:
        """(N, T, K) class probabilities of the sharp pictures."""
        teacher = self.teacher
        if teacher is None:
            return None

        def prior(rows: slice) -> Tensor:
            return teacher(teacher.preprocess(batch.images_hr[rows])).transpose(0, 1).softmax(-1)

        return self._targets.get("teacher_prior", teacher, batch.indices, prior)

    def _kept_priors(self, images: Tensor) -> Tensor:
        """(N, 1, 1, 1) 0 or 1: the first samples of a batch train without text, so the network works without, too.

        The places are fixed because batches are shuffled.
        """
        keep = images.new_ones(len(images), 1, 1, 1)
        keep[: int(len(images) * self.prior_dropout)] = 0
        return keep

    def _ctc(self, logits: Tensor, labels: list[str]) -> Tensor:
        targets = encode_ctc(labels, self.hyphen)
        form: Literal["clean", "published"] = "published" if self.hyphen == "blank" else "clean"
        return ctc_loss(logits, targets.targets, targets.lengths, targets.valid, form=form)

    def called_once(self) -> list[nn.Module]:
        """SR networks and students that learn, unless stages share them or the structure term has them run twice."""
        learning = [self.networks] if self.freeze_tpg else [self.networks, self.students]
        alone = [parts for parts in learning if len(parts) == self.stages and not self.consistent]
        return [part for parts in alone for part in parts]

    def published_parts(self) -> dict[str, list[nn.Module]]:
        """SR networks and students, as in the published run folders."""
        return {"model_best_acc": list(self.networks), "recognizer_best_acc": list(self.students)}
