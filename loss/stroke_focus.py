"""Stroke-focused loss: a recognizer that spells strokes must look at the same places in the super-resolved image.

Paper: Text Gestalt: Stroke-Aware Scene Text Image Super-Resolution, AAAI 2022, https://arxiv.org/abs/2112.08171
Source: https://github.com/FudanVI/FudanOCR (text-gestalt); the table of strokes, which is not in it, is that of
https://github.com/jdfxzzy/PEAN, where the loss is used, too.
Differences: those of `loss/text_focus.py`; the selection of samples that are read correctly, which the published code
switches off, is not offered.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from loss.image import check_same_shape
from loss.text_focus import FocusTargets, TextFocus
from loss.weighted_ce import IGNORED
from model.recognizer.focus_transformer import FocusTransformer

PUBLISHED_WEIGHTS = {"attention": 50.0}
STROKE_KINDS = "123456789"  # class 0 starts and ends a text

# Which strokes, of nine kinds, a character is written with, in order.
_LETTERS_AND_DIGITS = """
A341 B299 C8 D29 E2111 F211 G81 H212 I121 J17 K234 L21 M2432 N242 O89 P29 Q894 R294 S89 T12 U7 V43 W2342 X43 Y432 Z131
a68 b28 c8 d82 e81 f61 g87 h26 i52 j57 k234 l2 m66 n6 o89 p29 q82 r26 s89 t17 u7 v43 w2342 x43 y43 z131
089 12 2631 399 4312 5129 6689 713 88989 9897
"""
STROKES = {entry[0]: entry[1:] for entry in _LETTERS_AND_DIGITS.split()}


def strokes_of(label: str, strokes: Mapping[str, str] = STROKES) -> str:
    """A label as the digits of its strokes, case kept; characters that have none are left out."""
    return "".join(strokes.get(character, "") for character in label)


def encode_strokes(labels: Sequence[str], length: int = 0, *, strokes: Mapping[str, str] = STROKES) -> FocusTargets:
    """Labels as strokes, case kept, without characters that have none, each followed by the end symbol.

    Args:
        labels: N texts; a text without any known character becomes the end symbol alone.
        length: pad to T of at least so many.
        strokes: digits 1 to 9 of every character.

    Raises:
        ValueError: no label at all.
    """
    if not labels:
        raise ValueError("a batch without labels has no stroke loss; give one label per image")
    encoded = [[*map(int, strokes_of(label, strokes))] for label in labels]
    longest = max(length, max(len(ids) for ids in encoded) + 1)
    padding = [longest - 1 - len(ids) for ids in encoded]
    return FocusTargets(
        inputs=torch.tensor([[0, *ids] + [0] * missing for ids, missing in zip(encoded, padding, strict=True)]),
        targets=torch.tensor([[*ids, 0] + [IGNORED] * missing for ids, missing in zip(encoded, padding, strict=True)]),
        lengths=torch.tensor([len(ids) + 1 for ids in encoded]),
    )


def count_strokes(label: str) -> int:
    """How many strokes a label is written with."""
    return len(strokes_of(label))


class StrokeTransformer(FocusTransformer):
    """A recogniser that spells strokes, the published one or a smaller one."""

    @classmethod
    def like(cls, state: Mapping[str, Tensor], *, charset: str = STROKE_KINDS) -> "FocusTransformer":
        """A network of the sizes that the tensors of a state dict have, see `FocusTransformer.like`."""
        return super().like(state, charset=charset)


def stroke_recognizer(state: Mapping[str, Tensor], source: str) -> FocusTransformer:
    """A recogniser for `StrokeFocus` that the weights in a file fit; they are not loaded.

    Args:
        state: what `as_focus_state` made of the weights.
        source: the file, for messages.

    Raises:
        ValueError: it reads characters, or its sizes are impossible.
    """
    classes = state.get("generator_word.proj.bias")
    if classes is not None and len(classes) != len(STROKE_KINDS) + 1:
        raise ValueError(
            f"{source} tells {len(classes) - 1} symbols apart, but labels are spelled with {len(STROKE_KINDS)} kinds "
            "of strokes here; it reads characters: give it to --text_focus_pretrained, or another file here, which "
            "--arch focus_transformer_small --charset strokes trains"
        )
    return StrokeTransformer.like(state)


def stroke_transformer() -> FocusTransformer:
    """The published recognizer of strokes with random weights; `as_focus_state` renames the keys of its file."""
    return FocusTransformer(charset=STROKE_KINDS)


def as_focus_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keys of `pretrain_transformer_stroke_decomposition.pth` -> keys of `FocusTransformer`."""
    return {key.replace("_with_upperword.", "."): value for key, value in state.items()}


class StrokeFocus(TextFocus):
    """Attention distance of a frozen recognizer of strokes; the published weight is 50."""

    def __init__(self, recognizer: FocusTransformer) -> None:
        """Take over a recognizer with its weights; it is frozen for good."""
        super().__init__(recognizer)

    def forward(
        self,
        sr: Tensor,
        hr: Tensor | None,
        labels: Sequence[str] | FocusTargets,
        *,
        attention_hr: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The term, unweighted.

        Args:
            sr: (N, >=3, H, W) RGB, nominally [0, 1].
            hr: like `sr`; not read, and may be None, if `attention_hr` is given.
            labels: one text per image, or what `encode_strokes` made of them.
            attention_hr: kept result of `attention_targets`; rows after the longest label are not used.

        Returns:
            {"attention": mean |difference| over the whole map, padded positions included, as published}, () float32.

        Raises:
            ValueError: neither `hr` nor `attention_hr`, or not one label per image.
        """
        targets = (labels if isinstance(labels, FocusTargets) else encode_strokes(labels)).to(sr.device)
        if len(targets.inputs) != len(sr):
            raise ValueError(f"{len(targets.inputs)} labels for {len(sr)} images; give one label per image")
        if attention_hr is None:
            if hr is None:
                raise ValueError("the stroke loss needs the HR images or their kept attention; both are missing")
            check_same_shape(sr, hr)
            attention_hr = self.attention_targets(hr, targets)
        _, attention = self.read(sr, targets.inputs)
        wanted = attention_hr[:, :, : attention.shape[2]].detach().float()
        check_same_shape(attention, wanted)
        return {"attention": (wanted - attention.float()).abs().mean()}
