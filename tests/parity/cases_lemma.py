"""LEMMA, its parts and its losses against the published implementation."""

import torch

from loss.image import squared_error
from loss.label_positions import encode_positions, position_loss
from loss.text_focus import PUBLISHED_WEIGHTS, TextFocus, encode_labels
from model.blocks.modulated import ModulatedBlock
from model.lemma import LocationAlignment
from model.recognizer.focus_transformer import FocusTransformer
from tests.device import DEVICE
from tests.parity.cases_moran_svtr import assert_targets, filled
from tests.parity.cases_moran_svtr import load as load_recogniser
from tests.parity.cases_zoo import load, network_of
from tests.parity.vectors import Case, assert_close, handles

NETWORK, LOSS = 1e-4, 1e-3


@handles("zoo/lemma_guidance")
@torch.no_grad()
def guidance(case: Case) -> None:
    features = case.tensor("feature")
    alignment = load(LocationAlignment(features.shape[1]), case, prefix="guidanceGen.")
    maps, text = case.tensor("attn_map_half").float(), case.tensor("text_logits")
    hint = alignment(features, maps, text, case.tensor("pt_lengths"))
    assert_close(hint[:, ::8], case.expected("tp_map_ch_step8"), atol=NETWORK, what="hint")
    affine = load(ModulatedBlock(features.shape[1]).affine, case, prefix="block2.affine.")
    assert_close(affine(features, hint)[:, ::16], case.expected("affine_ch_step16"), atol=NETWORK, what="affine")


@handles("zoo/lemma")
@torch.no_grad()
def lemma(case: Case) -> None:
    images = case.tensor("x")
    for whole in (False, True):  # a published file brings its tables
        network = network_of(case, "lemma", STN=True, published_unused=whole)
        guided = network.guided(images)
        for name, value in (
            ("sr", guided.images),
            ("attn_map_steps_0_12_25", guided.maps[:, [0, 12, 25]]),
            ("img_logits", guided.vision),
            ("text_logits", guided.language),
            ("tp_map_ch_step8", guided.hint[:, ::8]),
        ):
            assert_close(value, case.expected(name), atol=0, rtol=NETWORK, what=name)
        assert guided.lengths.tolist() == case.outputs["pt_lengths"].tolist()


@handles("zoo/lemma_loss")
@torch.no_grad()
def lemma_loss(case: Case) -> None:
    labels = [str(label) for label in case.inputs["labels"]]
    recognizer = FocusTransformer()
    load_recogniser(recognizer, filled(case))
    sr, hr = case.tensor("sr"), case.tensor("hr")
    assert_targets(case, encode_labels(labels))
    assert encode_positions(labels).tolist() == case.outputs["label_id"].tolist()
    focus = TextFocus(recognizer).to(DEVICE)
    focus.log_weights = case.expected("weight_table").log()  # the case lacks the table of confusions it comes from
    terms = focus(sr, hr, labels)
    mse = squared_error(sr, hr).mean()
    finetune = sum(position_loss(case.tensor(f"{part}_logits"), labels, published=True) for part in ("img", "text"))
    total = mse + 0.5 * sum(PUBLISHED_WEIGHTS[name] * term for name, term in terms.items()) + 0.01 * finetune
    named = {f"{name}_loss": term for name, term in terms.items()}
    named |= {"mse": mse, "finetune_loss": finetune, "loss": total, "loss_times_100": 100 * total}
    for name, value in named.items():
        assert_close(value, case.expected(name), atol=0, rtol=LOSS, what=name)
