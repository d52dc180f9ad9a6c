"""Recipes of SGENet and LEMMA: image losses and text focus; the recogniser within the network learns along.

Papers: SGENet, ICASSP 2024, https://arxiv.org/abs/2403.13330; LEMMA, IJCAI 2023, https://arxiv.org/abs/2307.09749.
Published are Adam with two rates, halved after 400 epochs, and a gradient limited as a whole. Difference: SGENet's
recogniser learns from the label by CTC, as it was trained, and LEMMA's by the cross entropy of its logits; the
published term, which takes a softmax too many and whose classes may for SGENet even be in another order, is an option.
"""

from typing import Any

from easydict import EasyDict
from torch import Tensor, nn

from dataset.charset import encode_ctc
from dataset.loading import Batch
from interface.checkpoint import load_weights, read_weights
from interface.inference import in_parts
from interface.systems.base import ImageLosses, Losses, System, build_image_losses, build_network
from interface.systems.prior_guided import RANDOM
from loss.ctc import ctc_loss
from loss.label_positions import position_loss

PURPOSE = "the recogniser that guides the SR network"
ALONG = "--tpg_pretrained random trains one along from nothing"


class Semantic(System):
    """A network that holds the recogniser it is guided by.

    Attributes:
        forms: what `LOSS.finetune` may be.

    Args:
        network: SGENet or LEMMA.
        losses: what compares its output with HR.
        weights: factor of each term.
        config: the configuration.
    """

    frozen = ("losses",)
    method = "guided"
    reads = ("tpg_pretrained", "freeze_tpg")
    forms: tuple[str, ...] = ("ctc", "published")

    def __init__(self, network: Any, losses: ImageLosses, weights: dict[str, float], config: EasyDict) -> None:
        super().__init__()
        self.network, self.losses, self.weights = network, losses, weights
        self.loss, self.hyphen = config.LOSS, config.LOSS.hyphen
        self.share = config.TRAIN.lr_position / config.TRAIN.lr
        self.freeze_tpg = config.MODEL.freeze_tpg
        self.guide.requires_grad_(not self.freeze_tpg)

    @property
    def guide(self) -> nn.Module:
        """The recogniser inside of the network."""
        return self.network.get_submodule("position_prior")

    @classmethod
    def build(cls, config: EasyDict, *, training: bool, pretrained: bool) -> "Semantic":
        """Build the network, give its recogniser the weights it begins with, and build the losses."""
        if config.LOSS.use_label and config.LOSS.finetune not in cls.forms:
            raise ValueError(
                f"LOSS.finetune = {config.LOSS.finetune!r} is not for the recogniser of --arch {config.arch}; "
                f"use {' or '.join(cls.forms)}"
            )
        network = build_network(config)
        if pretrained and config.MODEL.tpg_pretrained != RANDOM:
            cls.load_guide(network.get_submodule("position_prior"), config.MODEL)
        losses = build_image_losses(config, training=training)
        return cls(network, losses, dict(config.LOSS.weights), config)

    @classmethod
    def load_guide(cls, guide: nn.Module, model: EasyDict) -> None:
        """Give the recogniser the weights that `config.MODEL` names.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it holds the weights of another network.
        """
        state = read_weights(
            model.tpg_pretrained,
            option="--tpg_pretrained",
            purpose=PURPOSE,
            remedy="python main.py --arch svtr --train_data_dir ... makes one, for --tpg_pretrained "
            f"ckpt/<run>/svtr.safetensors; {ALONG}",
        )
        hint = "--tpg_pretrained names weights of SVTR-tiny with 36 characters and a rectifier."
        load_weights(guide, state, model.tpg_pretrained, hint=hint)

    def train(self, mode: bool = True) -> "Semantic":
        """Set the mode; a frozen recogniser stays in evaluation mode."""
        super().train(mode)
        if self.freeze_tpg:
            self.guide.eval()
        return self

    def rate_groups(self, phase: str) -> list[tuple[list[nn.Parameter], float]]:
        """The SR network at the rate of the run, its recogniser at its own."""
        guides = {id(parameter) for parameter in self.guide.parameters()}
        params = self.params(phase)
        groups = [
            ([parameter for parameter in params if id(parameter) not in guides], 1.0),
            ([parameter for parameter in params if id(parameter) in guides], self.share),
        ]
        return [(members, share) for members, share in groups if members]

    def forward(self, batch: Batch, phase: str = "main") -> Losses:
        """All weighted terms of one batch."""
        guided = self.network.guided(batch.images_lr)
        terms = self.losses(guided.images, self.losses.sharp(batch, self.targets))
        if self.loss.use_label:
            terms |= self.label_terms(guided, batch.labels)
        return {name: self.weights[name] * value for name, value in terms.items()}

    def label_terms(self, guided: Any, labels: list[str]) -> Losses:
        """What the recogniser learns from the labels, given what the network's `guided` returned; unweighted."""
        if self.loss.finetune == "published":
            order = self.loss.finetune_order
            return {"finetune": position_loss(guided.text, labels, order=order, published=True)}
        targets = encode_ctc(labels, self.hyphen)
        return {"ctc_label": ctc_loss(guided.logits, targets.targets, targets.lengths, targets.valid)}

    def cascade(self, images_lr: Tensor) -> list[Tensor]:
        """One picture."""
        return [in_parts(self.network, images_lr)]

    def published_parts(self) -> dict[str, list[nn.Module]]:
        """The network with its recogniser, as `model_best_acc_0.pth`."""
        return {"model_best_acc": [self.network]}


class SemanticAttention(Semantic):
    """LEMMA's: the recogniser has a vision and a language model, and the n-th character in the n-th column."""

    forms = ("positions", "published")

    @classmethod
    def load_guide(cls, guide: nn.Module, model: EasyDict) -> None:
        """Give the vision model the weights of `MODEL.tpg_pretrained`, and the language model those of its own option.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it holds the weights of another network.
        """
        state = read_weights(model.tpg_pretrained, option="--tpg_pretrained", purpose=PURPOSE, remedy=ALONG)
        hint = "--tpg_pretrained names weights of ABINet's vision model with 36 characters."
        load_weights(guide.get_submodule("vision"), state, model.tpg_pretrained, hint=hint)
        if model.tpg_language:
            state = read_weights(
                model.tpg_language,
                option="--tpg_language",
                purpose="the language model of " + PURPOSE,
                remedy='--tpg_language "" trains one along from nothing',
            )
            hint = "--tpg_language names weights of ABINet's language model with 36 characters."
            load_weights(guide.get_submodule("language"), state, model.tpg_language, hint=hint)

    def label_terms(self, guided: Any, labels: list[str]) -> Losses:
        """What was seen and what was meant count alike."""
        order, published = self.loss.finetune_order, self.loss.finetune == "published"
        seen, meant = (
            position_loss(logits, labels, order=order, published=published)
            for logits in (guided.vision, guided.language)
        )
        return {"finetune": seen + meant}
