"""The contract of a recipe, and the image losses that all of them share."""

import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from easydict import EasyDict
from torch import Tensor, nn

from dataset.loading import Batch
from interface import starter
from interface.checkpoint import load_weights, read_weights
from interface.config import ROOT
from interface.confusion import read_confusion
from interface.targets import Targets
from loss.image import PIXEL_ERRORS, gradient_profile, smallest
from loss.similarity import ssim
from loss.stroke_focus import StrokeFocus, as_focus_state, encode_strokes, stroke_recognizer
from loss.structure import local_contour_loss
from loss.text_focus import FocusTargets, TextFocus, encode_labels, focus_recognizer
from model import build_model, model_spec
from model.blocks.folding import fold_batch_norms
from model.recognizer.focus_transformer import READ_SIZE, FocusTransformer

Losses = dict[str, Tensor]

log = logging.getLogger(__name__)

STABLE_SHARE = 0.7  # of the pictures of a batch, whose errors count with `LOSS.training_stablize`


class System(nn.Module):
    """Networks, teachers and losses of one method; knows no optimizer, device, file or log.

    Attributes:
        phases: one optimizer each; adversarial recipes have two.
        frozen: names of sub-modules that are never trained; they are left out of checkpoints.
        reads: keys of `MODEL` that the recipe itself reads, beside those that become options of the network.
        method: of the networks that a training step calls; what `--compile` translates.
        stages: how many pictures `cascade` returns.
        weights: factor of each loss term, so that logs can give terms unweighted as well.
        targets: where values of frozen networks come from: computed anew, or kept.
    """

    phases: tuple[str, ...] = ("main",)
    frozen: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    method: str = "forward"
    stages: int = 1
    weights: dict[str, float]
    targets: Targets = Targets()

    @classmethod
    def build(cls, config: EasyDict, *, training: bool, pretrained: bool) -> "System":
        """Build the system from a configuration; see `interface.systems.build_system`."""
        raise NotImplementedError

    def params(self, phase: str) -> list[nn.Parameter]:
        """What the optimizer of a phase trains."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def rate_groups(self, phase: str) -> list[tuple[list[nn.Parameter], float]]:
        """`params` in groups, each with its learning rate as a share of that of the run."""
        return [(self.params(phase), 1.0)]

    def clip_groups(self, phase: str) -> list[list[nn.Parameter]]:
        """Parameters whose joint gradient norm is limited, group by group."""
        return [self.params(phase)]

    def forward(self, batch: Batch, phase: str = "main") -> Losses:
        """The training step: {term: weighted scalar}; their sum is what is minimised."""
        raise NotImplementedError

    def cascade(self, images_lr: Tensor) -> list[Tensor]:
        """(N, C, H, W) in [0, 1] -> one (N, C, s*H, s*W) picture per stage, not clamped; the last is the result."""
        raise NotImplementedError

    def super_resolve(self, images_lr: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] -> (N, C, s*H, s*W), nominally in [0, 1], not clamped. No labels, no HR."""
        return self.cascade(images_lr)[-1]

    def published_parts(self) -> dict[str, list[nn.Module]]:
        """Modules by the stem of the published file that holds them, one per stage: `{"model_best_acc": [...]}`."""
        raise NotImplementedError

    def called_once(self) -> list[nn.Module]:
        """Networks whose forward pass a training step takes exactly once, with tensors alone, for one tensor.

        That is in training mode and with gradients; whatever else they do does not count. On a GPU they are recorded.
        """
        return []

    def trained_state(self) -> dict[str, Tensor]:
        """`state_dict` without the frozen parts: what a checkpoint holds."""
        return {key: value for key, value in self.state_dict().items() if key.split(".")[0] not in self.frozen}

    def load_trained_state(self, state: dict[str, Tensor], source: str) -> None:
        """Take over what `trained_state` gave.

        Raises:
            ValueError: keys or shapes differ; it names them and `source`.
        """
        frozen = {key: value for key, value in self.state_dict().items() if key.split(".")[0] in self.frozen}
        load_weights(self, {**state, **frozen}, source)


def network_options(config: EasyDict) -> dict[str, Any]:
    """The options of the configuration that this network's builder takes."""
    offered = {
        "scale_factor": config.TRAIN.down_sample_scale,
        "width": config.TRAIN.width,
        "height": config.TRAIN.height,
        "mask": config.MODEL.mask,
        "STN": config.MODEL.STN,
        "srb_nums": config.MODEL.srb,
        "hidden_units": config.MODEL.hd_u,
        "triple_clues": config.MODEL.triple_clues,
        "visual_clue": config.MODEL.visual_clue,
        "flat_prior": config.MODEL.flat_prior,
        "recurrence": config.MODEL.recurrence,
        "stn_align_corners": config.MODEL.stn_align_corners,
        "text_form": config.MODEL.text_form,
    }
    taken = model_spec(config.arch).options
    return {name: value for name, value in offered.items() if name in taken}


def unused_network_options(config: EasyDict) -> set[str]:
    """Keys of `MODEL` that become options of some networks, but that this network's builder does not take."""
    same = ("STN", "triple_clues", "visual_clue", "flat_prior", "recurrence", "stn_align_corners", "text_form")
    options = {"srb": "srb_nums", "hd_u": "hidden_units"} | {key: key for key in same}
    taken = model_spec(config.arch).options
    return {key for key, option in options.items() if option not in taken}


def build_network(config: EasyDict) -> nn.Module:
    """A fresh network of `config.arch`."""
    return build_model(config.arch, **network_options(config))


@dataclass(frozen=True)
class Sharp:
    """What a picture is compared with, the same in all stages of a cascade.

    Attributes:
        images: (N, C, H, W) HR pictures.
        text: their labels as the text-focus recogniser takes them; None without it.
        attention: (N, heads, T, P) where that recogniser looks in the HR pictures.
        strokes: as `text`, for the recogniser of strokes.
        stroke_attention: as `attention`, of that recogniser.
    """

    images: Tensor
    text: FocusTargets | None = None
    attention: Tensor | None = None
    strokes: FocusTargets | None = None
    stroke_attention: Tensor | None = None


class ImageLosses(nn.Module):
    """The terms that compare a super-resolved picture with its HR: those that the configuration switches on.

    Args:
        config: `config.LOSS`.
        text_focus: the loss behind `LOSS.text_focus`, None when that is off.
        stroke_focus: the loss behind `LOSS.stroke_focus`, None when that is off.
    """

    def __init__(self, config: EasyDict, text_focus: TextFocus | None, stroke_focus: StrokeFocus | None = None) -> None:
        super().__init__()
        self.config = config
        self.text_focus, self.stroke_focus = text_focus, stroke_focus

    def sharp(self, batch: Batch, targets: Targets) -> Sharp:
        """The HR side of a batch."""
        seen: dict[str, Any] = {}
        if self.text_focus is not None:
            # A kept value must serve in any batch, so it has rows for the longest label of all.
            text, padded = encode_labels(batch.labels), encode_labels(batch.labels, targets.longest + 1)
            seen["attention"] = self._looked("attention", self.text_focus, batch, targets, (text, padded))
            seen["text"] = text.to(batch.images_hr.device)
        if self.stroke_focus is not None:
            text, padded = encode_strokes(batch.labels), encode_strokes(batch.labels, targets.longest_strokes + 1)
            seen["stroke_attention"] = self._looked(
                "stroke_attention", self.stroke_focus, batch, targets, (text, padded)
            )
            seen["strokes"] = text.to(batch.images_hr.device)
        return Sharp(batch.images_hr, **seen)

    def forward(self, sr: Tensor, sharp: Sharp) -> Losses:
        """(N, C, H, W) pictures and what they should be -> {term: unweighted scalar}."""
        hr = sharp.images
        # Losses are sums over thousands of pixels: they are taken in float32 whatever precision the network ran in.
        with torch.autocast(sr.device.type, enabled=False):
            sr = sr.float()
            errors = {}
            if self.config.pixel in PIXEL_ERRORS:  # else "none"
                errors[self.config.pixel] = PIXEL_ERRORS[self.config.pixel](sr, hr)
            if self.config.gradient:
                errors["gradient"] = gradient_profile(sr, hr)
            if self.config.training_stablize:
                totals = torch.stack([self.config.weights[name] * error for name, error in errors.items()]).sum(0)
                kept = smallest(totals, STABLE_SHARE)
                errors = {name: error * kept for name, error in errors.items()}
            losses = {name: error.mean() for name, error in errors.items()}
            if self.config.ssim_loss:
                losses["ssim"] = 1 - ssim(sr, hr).mean()
            if self.config.lca:
                losses["lca"] = local_contour_loss(sr, hr, published=not self.config.lca_gradient)
        with self._precision(sr):
            if self.text_focus is not None and sharp.text is not None:
                losses |= self.text_focus(sr, None, sharp.text, attention_hr=sharp.attention)
            if self.stroke_focus is not None and sharp.strokes is not None:
                terms = self.stroke_focus(sr, None, sharp.strokes, attention_hr=sharp.stroke_attention)
                losses["stroke"] = terms["attention"]
        return losses

    def _precision(self, images: Tensor) -> AbstractContextManager[None]:
        """The arithmetic of the recognisers."""
        if self.config.precision == "same":
            return nullcontext()
        return torch.autocast(images.device.type, dtype=torch.bfloat16)

    def _looked(
        self, name: str, focus: TextFocus, batch: Batch, targets: Targets, labels: tuple[FocusTargets, FocusTargets]
    ) -> Tensor:
        """(N, heads, T, P) where a loss's recogniser looks in HR, for `labels` as they are and padded to be kept."""
        text, padded = labels

        def attention(rows: slice) -> Tensor:
            with self._precision(batch.images_hr):
                return focus.attention_targets(batch.images_hr[rows], (text if rows == slice(None) else padded)[rows])

        return targets.get(name, focus.recognizer, batch.indices, attention)


def build_image_losses(config: EasyDict, *, training: bool) -> ImageLosses:
    """`ImageLosses` of a configuration, with the frozen recognisers that they need in a training.

    Raises:
        FileNotFoundError: its weights or the confusion table are missing.
        ValueError: the weights are those of another network, or read other characters.
    """
    loss = config.LOSS
    text_focus = build_text_focus(loss) if training and loss.text_focus else None
    return ImageLosses(loss, text_focus, build_stroke_focus(loss) if training and loss.stroke_focus else None)


def build_text_focus(loss: EasyDict) -> TextFocus:
    """The loss behind `LOSS.text_focus`; errors as for `build_image_losses`."""
    state = read_weights(
        loss.text_focus_pretrained,
        option="--text_focus_pretrained",
        purpose="the frozen recogniser of --text_focus",
        remedy=starter.way_out(
            loss.text_focus_pretrained, starter.TEXT_FOCUS, "--text_focus_pretrained", "or train without --text_focus"
        ),
    )
    recognizer = focus_recognizer(state, loss.text_focus_pretrained)  # the published one, or a smaller one
    load_weights(recognizer, state, loss.text_focus_pretrained)
    fold(recognizer)
    table = read_confusion(loss.confusion) if loss.confusion else None
    if table is None:
        log.info("no confusion table (LOSS.confusion): --text_focus weighs all confusions of characters alike")
    return TextFocus(recognizer, dissimilarity=table, column_order=loss.confusion_columns)


def fold(recognizer: FocusTransformer) -> None:
    """Make its normalisations, each a pass over a map in every step, a part of its convolutions."""
    recognizer.eval()
    fold_batch_norms(recognizer.encoder, lambda: recognizer.encode(torch.zeros(1, 1, *READ_SIZE)))


def build_stroke_focus(loss: EasyDict) -> StrokeFocus:
    """The loss behind `LOSS.stroke_focus`; errors as for `build_image_losses`."""
    path, flag = loss.stroke_focus_pretrained, "--stroke_focus_pretrained"
    remedy = (
        "python main.py --arch focus_transformer_small --charset strokes --rendered 200000 --vis_dir strokes makes "
        "ckpt/strokes/focus_transformer_small.safetensors, which this flag takes; or train without "
        "--stroke_loss: --text_focus looks at characters instead, and a recogniser for that comes along"
    )
    if (ROOT / starter.STROKE_FOCUS).is_file():
        remedy = starter.way_out(path, starter.STROKE_FOCUS, flag, "or train without --stroke_loss")
    purpose = "the frozen recogniser of strokes of --stroke_loss"
    state = as_focus_state(read_weights(path, option=flag, purpose=purpose, remedy=remedy))
    recognizer = stroke_recognizer(state, path)
    load_weights(recognizer, state, path)
    fold(recognizer)
    return StrokeFocus(recognizer)
