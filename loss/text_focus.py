"""Text-focused loss: a recognizer must look at the same places and read the label in the super-resolved image.

Paper: Scene Text Telescope: Text-Focused Scene Image Super-Resolution, CVPR 2021,
https://openaccess.thecvf.com/content/CVPR2021/html/Chen_Scene_Text_Telescope_Text-Focused_Scene_Image_Super-Resolution_CVPR_2021_paper.html
Source: https://github.com/FudanVI/FudanOCR (scene-text-telescope).
Differences: the recognizer is frozen, and the sharp image passes it without gradient; the squared error of the images
is not part of the loss; those of `loss/weighted_ce.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from loss.image import check_same_shape
from loss.weighted_ce import ALPHABET, IGNORED, confusion_weights, weighted_cross_entropy
from model.recognizer.focus_transformer import FocusTransformer

AT_ONCE = 16  # pictures that a CPU reads at a time: the maps of more do not stay in its cache
PUBLISHED_WEIGHTS = {"attention": 10.0, "recognition": 5e-4}

_IDS = {character: index for index, character in enumerate(ALPHABET) if character != "-"}


@dataclass(frozen=True)
class FocusTargets:
    """Labels as a recognizer with teacher forcing needs them."""

    inputs: Tensor  # (N, T) int64: start symbol 0, the characters, zeros
    targets: Tensor  # (N, T) int64: the characters, end symbol 0, then IGNORED
    lengths: Tensor  # (N,) int64 number of characters plus 1

    def __getitem__(self, rows: slice) -> "FocusTargets":
        """Some of the labels, padded as they are."""
        return FocusTargets(self.inputs[rows], self.targets[rows], self.lengths[rows])

    def to(self, device: torch.device | str) -> "FocusTargets":
        """A copy on another device, for which nobody waits."""
        moved = (part.to(device, non_blocking=True) for part in (self.inputs, self.targets, self.lengths))
        return FocusTargets(*moved)


def encode_labels(labels: Sequence[str], length: int = 0) -> FocusTargets:
    """Labels in lower case, without all that is neither digit nor letter, each followed by the end symbol.

    Args:
        labels: N texts; a text without any known character becomes the end symbol alone.
        length: pad to T of at least so many.

    Raises:
        ValueError: no label at all.
    """
    if not labels:
        raise ValueError("a batch without labels has no text loss; give one label per image")
    encoded = [[_IDS[character] for character in label.lower() if character in _IDS] for label in labels]
    longest = max(length, max(len(ids) for ids in encoded) + 1)
    inputs = [[0, *ids] + [0] * (longest - 1 - len(ids)) for ids in encoded]
    targets = [[*ids, 0] + [IGNORED] * (longest - 1 - len(ids)) for ids in encoded]
    return FocusTargets(
        inputs=torch.tensor(inputs),
        targets=torch.tensor(targets),
        lengths=torch.tensor([len(ids) + 1 for ids in encoded]),
    )


def focus_recognizer(state: Mapping[str, Tensor], source: str) -> FocusTransformer:
    """A recogniser for `TextFocus` that the weights in a file fit, the published one or a smaller one.

    Args:
        state: the weights, from which the sizes are taken; they are not loaded.
        source: the file, for messages.

    Raises:
        ValueError: it reads other characters than the labels of this loss have, or its sizes are impossible.
    """
    classes = state.get("generator_word.proj.bias", state.get("generator_word_with_upperword.proj.bias"))
    if classes is not None and len(classes) != len(ALPHABET):
        raise ValueError(
            f"{source} reads {len(classes) - 1} characters, but this loss knows the labels by their {len(_IDS)} digits "
            "and letters in lower case; train one with --charset 36 (one of strokes is for --stroke_focus_pretrained)"
        )
    return FocusTransformer.like(state)


class TextFocus(nn.Module):
    """Attention distance and weighted cross entropy of a frozen recognizer; the published weights are 10 and 5e-4."""

    def __init__(
        self,
        recognizer: FocusTransformer,
        *,
        dissimilarity: np.ndarray | None = None,
        column_order: Literal["corrected", "published"] = "corrected",
    ) -> None:
        """Take over a recognizer with its weights; it is frozen for good.

        Args:
            recognizer: trained network; `preprocess`, `encode` and `decode` of it are used.
            dissimilarity: see `confusion_weights`.
            column_order: see `confusion_weights`.
        """
        super().__init__()
        self.recognizer = recognizer.requires_grad_(False).eval()
        self.log_weights: Tensor
        table = confusion_weights(dissimilarity, column_order=column_order)
        self.register_buffer("log_weights", table.log(), persistent=False)

    def train(self, mode: bool = True) -> "TextFocus":
        """Set the mode of this module; the recognizer stays in evaluation mode."""
        super().train(mode)
        self.recognizer.eval()  # a frozen network must not update its BatchNorm statistics either
        return self

    def read(self, images: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """(N, >=3, H, W) RGB in [0, 1], (N, T) decoder input -> logits (N, T, K), attention (N, heads, T, P)."""
        if images.device.type != "cpu":
            return self.read_at_once(images, inputs)
        parts = [self.read_at_once(*part) for part in zip(images.split(AT_ONCE), inputs.split(AT_ONCE), strict=True)]
        logits, attention = zip(*parts, strict=True)
        return torch.cat(logits), torch.cat(attention)

    def read_at_once(self, images: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """As `read`, all pictures together."""
        return self.recognizer.decode(self.recognizer.encode(self.recognizer.preprocess(images)), inputs)

    @torch.no_grad()
    def attention_targets(self, hr: Tensor, targets: FocusTargets) -> Tensor:
        """Attention of the sharp images; it never changes in training, so it may be computed once and kept.

        A row depends only on the image and the characters before it. To keep the rows of one image for use in any
        batch, encode its label with enough padding: rows beyond its own length enter the loss too.

        Args:
            hr: (N, >=3, H, W) RGB in [0, 1].
            targets: labels of the N images.

        Returns:
            (N, heads, T, P) without gradient.
        """
        return self.read(hr, targets.to(hr.device).inputs)[1]

    def forward(
        self,
        sr: Tensor,
        hr: Tensor | None,
        labels: Sequence[str] | FocusTargets,
        *,
        attention_hr: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Both terms, unweighted.

        Args:
            sr: (N, >=3, H, W) RGB, nominally [0, 1].
            hr: like `sr`; not read, and may be None, if `attention_hr` is given.
            labels: one text per image, or what `encode_labels` made of them.
            attention_hr: kept result of `attention_targets`; rows after the longest label are not used.

        Returns:
            {"attention": mean |difference| over the whole map, padded positions included, as published;
            "recognition": `weighted_cross_entropy` of the super-resolved images}, () float32 each.

        Raises:
            ValueError: neither `hr` nor `attention_hr`, or not one label per image.
        """
        targets = (labels if isinstance(labels, FocusTargets) else encode_labels(labels)).to(sr.device)
        if len(targets.inputs) != len(sr):
            raise ValueError(f"{len(targets.inputs)} labels for {len(sr)} images; give one label per image")
        if attention_hr is None:
            if hr is None:
                raise ValueError("the text-focus loss needs the HR images or their kept attention; both are missing")
            check_same_shape(sr, hr)
            attention_hr = self.attention_targets(hr, targets)
        logits, attention = self.read(sr, targets.inputs)
        wanted = attention_hr[:, :, : attention.shape[2]].detach().float()
        check_same_shape(attention, wanted)
        return {
            "attention": (wanted - attention.float()).abs().mean(),
            "recognition": weighted_cross_entropy(logits, targets.targets, self.log_weights),
        }
