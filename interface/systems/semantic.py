"""SGENet's recipe: image losses and text focus; the recogniser within the network learns along, at its own rate.

Paper: SGENet, ICASSP 2024, https://arxiv.org/abs/2403.13330. Published are Adam with two rates, halved after 400
epochs, and a gradient limited as a whole. Difference: the recogniser learns from the label by CTC, as it was trained;
the published term, whose classes may even be in another order than the recogniser's, is an option.
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


class Semantic(System):
    """A network that holds the recogniser it is guided by.

    Args:
        network: SGENet.
        losses: what compares its output with HR.
        weights: factor of each term.
        config: the configuration.
    """

    frozen = ("losses",)
    reads = ("tpg_pretrained", "freeze_tpg")

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
        path, network = config.MODEL.tpg_pretrained, build_network(config)
        if pretrained and path != RANDOM:
            state = read_weights(
                path,
                option="MODEL.tpg_pretrained",
                purpose="the recogniser that guides the SR network",
                remedy="python main.py --arch svtr --train_data_dir ... makes one, for --tpg_pretrained "
                "ckpt/<run>/svtr.safetensors; --tpg_pretrained random trains one along from nothing",
            )
            hint = "--tpg_pretrained names weights of SVTR-tiny with 36 characters and a rectifier."
            load_weights(network.get_submodule("position_prior"), state, path, hint=hint)
        losses = build_image_losses(config, training=training)
        return cls(network, losses, dict(config.LOSS.weights), config)

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
            if self.loss.finetune == "published":
                terms["finetune"] = position_loss(guided.text, batch.labels, order=self.loss.finetune_order)
            else:
                targets = encode_ctc(batch.labels, self.hyphen)
                terms["ctc_label"] = ctc_loss(guided.logits, targets.targets, targets.lengths, targets.valid)
        return {name: self.weights[name] * value for name, value in terms.items()}

    def cascade(self, images_lr: Tensor) -> list[Tensor]:
        """One picture."""
        return [in_parts(self.network, images_lr)]

    def published_parts(self) -> dict[str, list[nn.Module]]:
        """The network with its recogniser, as `model_best_acc_0.pth`."""
        return {"model_best_acc": [self.network]}
