"""MORAN, SVTR, what CRNN is fed, and the losses of the recognisers of characters and of strokes."""

import re

import numpy as np
import torch
from torch import Tensor, nn

from interface.checkpoint import clean_state, load_weights
from loss.image import squared_error
from loss.stroke_focus import PUBLISHED_WEIGHTS as STROKE_WEIGHTS
from loss.stroke_focus import STROKES, StrokeFocus, as_focus_state, encode_strokes
from loss.text_focus import PUBLISHED_WEIGHTS, FocusTargets, TextFocus, encode_labels
from loss.weighted_ce import IGNORED, confusion_weights, weighted_cross_entropy
from model.recognizer.aster import PRINTABLE
from model.recognizer.crnn import CRNN
from model.recognizer.focus_transformer import FocusTransformer
from model.recognizer.moran import MORAN
from model.recognizer.svtr import SVTR
from tests.device import DEVICE
from tests.parity.vectors import Case, assert_close, handles

NETWORK = 1e-4  # relative to the maximum of the array
LOSS = 1e-3
PIXELS = 1e-3  # between a spline with the inverse in float64 and in float32, which is the published one


def filled(case: Case) -> dict[str, Tensor]:
    """`Case.state` with the change that `after_fill` of some cases asks for in words."""
    state = case.state()
    if wish := case.meta.get("after_fill"):
        ending, offset, factor = re.findall(r"ending in (\S+).*<- ([\d.]+) \+ ([\d.]+) \* fill_state value", wish)[0]
        for key in state:
            if key.endswith(ending):
                state[key] = float(offset) + float(factor) * state[key]
    return state


def load(module: nn.Module, state: dict[str, Tensor], *, prefix: str = "") -> None:
    """Load as the program loads a file whose keys start with `prefix`."""
    load_weights(module, clean_state({prefix + key: value for key, value in state.items()}, "case"), "case")
    module.eval()


@handles("framework/moran_forward")
@torch.no_grad()
def moran(case: Case) -> None:
    length = case.meta["length"]
    for ending, align_corners in (("", False), ("_align_corners_true", True)):
        module = MORAN(max_length=length, align_corners=align_corners)
        load(module, case.state(), prefix="module.")
        images = case.tensor("image")
        rectified = case.expected(f"rectified{ending}")
        assert_close(module.rectify(images), rectified, atol=0, rtol=NETWORK, what=f"rectified{ending}")
        logits = module(images, all_steps=True)
        expected = case.expected(f"preds_l2r{ending}").unflatten(0, (-1, length))
        assert_close(logits, expected, atol=0, rtol=NETWORK, what=f"preds_l2r{ending}")
        first, second = logits.topk(2).values.unbind(2)
        gap = case.expected(f"min_top2_gap{ending}")
        assert_close((first - second).min(), gap, atol=1e-4, what=f"min_top2_gap{ending}")
        texts = module.decode(expected)
        assert module.decode(logits) == module.decode(module(images)) == texts
        if not ending:
            assert texts == case.outputs["strings"].tolist()
            symbols = np.array([*module.charset, "$"])[logits.argmax(2).cpu().numpy()]
            assert ["".join(row) for row in symbols] == case.outputs["raw_strings"].tolist()
            backwards = module(images, direction="right_to_left", all_steps=True).flatten(0, 1)
            assert_close(backwards, case.expected("preds_r2l"), atol=0, rtol=NETWORK, what="preds_r2l")


@handles("zoo/svtr_tiny")
@torch.no_grad()
def svtr(case: Case) -> None:
    module = SVTR()
    load(module, case.state())
    x = case.tensor("x")
    assert_close(module.transform(x)[..., ::4, ::4], case.expected("rectified_of_x"), atol=PIXELS)
    clue = module.clue(x)
    cells = module.backbone(case.tensor("rectified_input"))
    alone = module.classify(module.backbone.pool(cells))
    patches = module.backbone.patch_embed(case.tensor("rectified_input"))
    for name, value in (
        ("pooled_ch_step8", clue.features[:, ::8]),
        ("probabilities", clue.text),
        ("logits_before_softmax", module(x)),
        ("backbone_only_logits", alone),
        ("backbone_only_features_ch_step16", cells[..., ::16]),
        ("backbone_only_patch_embed_ch_step8", patches[:, ::5, ::8]),
    ):
        assert_close(value, case.expected(name), atol=0, rtol=NETWORK, what=name)
    assert module.decode(clue.text) == module.decode(case.expected("probabilities"))


@handles("zoo/crnn_input")
def recogniser_input(case: Case) -> None:
    for reader in (CRNN(), MORAN()):
        assert_close(reader.preprocess(case.tensor("x")), case.expected("gray32x100"), atol=1e-6)


def assert_targets(case: Case, encoded: FocusTargets) -> None:
    assert encoded.inputs.tolist() == case.outputs["decoder_input"].tolist()
    assert encoded.lengths.tolist() == case.outputs["length"].tolist()
    assert encoded.targets[encoded.targets != IGNORED].tolist() == case.outputs["flat_target"].tolist()


def assert_focus(case: Case, focus: TextFocus, targets: FocusTargets) -> tuple[Tensor, Tensor]:
    """Both recogniser passes of a loss agree; returns their logits, SR and HR, padded."""
    padded = []
    for side in ("sr", "hr"):
        images = case.tensor(side)
        logits, attention = focus.read(images, targets.inputs)
        known = logits[targets.targets != IGNORED]
        assert_close(known, case.expected(f"logits_{side}"), atol=0, rtol=NETWORK, what=f"logits_{side}")
        first = case.expected(f"attention_{side}_head0")
        assert_close(attention[:, 0], first, atol=0, rtol=NETWORK, what=f"attention_{side}_head0")
        padded.append(logits)
    recognizer = focus.recognizer
    cells = recognizer.encode(recognizer.preprocess(case.tensor("sr"))).transpose(1, 2)[:, ::128]
    expected = case.expected("encoder_sr_ch_step128")
    assert_close(cells, expected.flatten(2), atol=0, rtol=NETWORK, what="encoder_sr_ch_step128")
    return padded[0], padded[1]


def assert_loss(case: Case, terms: dict[str, Tensor], weights: dict[str, float]) -> None:
    mse = squared_error(case.tensor("sr"), case.tensor("hr")).mean()
    total = mse + sum(weights[name] * term for name, term in terms.items())
    for name, value in (("mse", mse), ("loss", total), *((f"{name}_loss", term) for name, term in terms.items())):
        assert_close(value, case.expected(name), atol=0, rtol=LOSS, what=name)


@handles("zoo/stt_text_focus_loss")
@torch.no_grad()
def text_focus(case: Case) -> None:
    labels = [str(label) for label in case.inputs["labels"]]
    recognizer = FocusTransformer()
    load(recognizer, filled(case), prefix="module.")
    table = case.inputs["confusion_62x62"]
    focus = TextFocus(recognizer, dissimilarity=table, column_order="published").to(DEVICE)
    assert_close(confusion_weights(table, column_order="published"), case.expected("weight_table"), atol=0, rtol=1e-6)
    targets = encode_labels(labels).to(DEVICE)
    assert_targets(case, targets)
    _, logits_hr = assert_focus(case, focus, targets)
    recognition = weighted_cross_entropy(logits_hr, targets.targets, focus.log_weights)
    assert_close(recognition, case.expected("hr_recognition_loss"), atol=0, rtol=LOSS, what="hr_recognition_loss")
    assert_loss(case, focus(case.tensor("sr"), case.tensor("hr"), labels), PUBLISHED_WEIGHTS)


@handles("zoo/tg_stroke_loss")
@torch.no_grad()
def stroke_focus(case: Case) -> None:
    labels = [str(label) for label in case.inputs["labels"]]
    strokes = dict(str(entry).split() for entry in case.inputs["stroke_dict"])
    assert strokes.pop("$") == "0"  # the end symbol
    assert strokes == STROKES
    state = as_focus_state(filled(case))
    recognizer = FocusTransformer(charset=PRINTABLE[: len(state["generator_word.proj.bias"]) - 1])
    load(recognizer, state, prefix="module.")
    focus = StrokeFocus(recognizer).to(DEVICE)
    targets = encode_strokes(labels).to(DEVICE)
    assert_targets(case, targets)
    for side, logits in zip(("sr", "hr"), assert_focus(case, focus, targets), strict=True):
        inside = torch.arange(1, logits.shape[1], device=DEVICE) < targets.lengths[:, None]
        correct = ((logits[:, :-1].argmax(2) == targets.inputs[:, 1:]) | ~inside).all(1)
        assert correct.tolist() == case.outputs[f"correct_{side}"].tolist(), side
    assert_loss(case, focus(case.tensor("sr"), case.tensor("hr"), labels), STROKE_WEIGHTS)
