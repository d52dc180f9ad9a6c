"""A network trained by image losses alone: LR in, SR out."""

from easydict import EasyDict
from torch import Tensor, nn

from dataset.loading import Batch
from interface.inference import in_parts
from interface.systems.base import ImageLosses, Losses, System, build_image_losses, build_network


class Plain(System):
    """One network and the image losses.

    Args:
        network: (N, C, H, W) -> (N, C, s*H, s*W).
        losses: what compares its output with HR.
        weights: factor of each term.
    """

    frozen = ("losses",)

    def __init__(self, network: nn.Module, losses: ImageLosses, weights: dict[str, float]) -> None:
        super().__init__()
        self.network, self.losses, self.weights = network, losses, weights

    @classmethod
    def build(cls, config: EasyDict, *, training: bool, pretrained: bool) -> "Plain":
        """Build the network and its losses.

        Raises:
            ValueError: a term is on that teaches a text prior.
        """
        for flag, on in {"distill": config.LOSS.use_distill, "label": config.LOSS.use_label}.items():
            if training and on:
                raise ValueError(
                    f"--use_{flag} (--loss {flag}) teaches the recogniser whose reading guides a network, but "
                    f"--arch {config.arch} has none; add --no-use_{flag} (a file of --config may have set it), or "
                    "take a network with text clues such as rtsrn"
                )
        losses = build_image_losses(config, training=training)
        return cls(build_network(config), losses, dict(config.LOSS.weights))

    def forward(self, batch: Batch, phase: str = "main") -> Losses:
        """The weighted image losses of one batch."""
        terms = self.losses(self.network(batch.images_lr), self.losses.sharp(batch, self.targets))
        return {name: self.weights[name] * value for name, value in terms.items()}

    def cascade(self, images_lr: Tensor) -> list[Tensor]:
        """One picture."""
        return [in_parts(self.network, images_lr)]

    def called_once(self) -> list[nn.Module]:
        """The network."""
        return [self.network]

    def published_parts(self) -> dict[str, list[nn.Module]]:
        """The network, as `model_best_acc_0.pth` or `model_best.pth`."""
        return {"model_best": [self.network]}
