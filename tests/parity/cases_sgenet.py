"""SGENet, its parts and its losses against the published implementation."""

import torch

from loss.image import squared_error
from loss.label_positions import encode_positions, position_loss
from loss.text_focus import PUBLISHED_WEIGHTS, TextFocus, encode_labels
from model import build_model
from model.blocks.modulated import ModulatedBlock
from model.recognizer.focus_transformer import FocusTransformer
from model.sgenet import SeenAlignment
from tests.device import DEVICE
from tests.parity.cases_moran_svtr import assert_targets, filled
from tests.parity.cases_moran_svtr import load as load_recogniser
from tests.parity.cases_zoo import load
from tests.parity.vectors import Case, assert_close, handles

NETWORK, LOSS = 1e-4, 1e-3


@handles("zoo/sgenet_guidance")
@torch.no_grad()
def guidance(case: Case) -> None:
    features = case.tensor("feature")
    alignment = SeenAlignment(features.shape[1], published_unused=True)
    constant = tuple(key for key in alignment.state_dict() if key.endswith(".pe"))
    load(alignment, case, prefix="guidanceGen.", constant=constant)
    block = load(ModulatedBlock(features.shape[1]), case, prefix="block2.")
    hint = alignment(features, case.tensor("attn_map"), case.tensor("text_logits"))
    assert_close(hint[:, ::8], case.expected("tp_map_ch_step8"), atol=NETWORK, what="hint")
    assert_close(block.affine(features, hint)[:, ::16], case.expected("affine_ch_step16"), atol=NETWORK, what="affine")
    assert_close(block(features, hint)[:, ::16], case.expected("block2_ch_step16"), atol=NETWORK, what="block")


@handles("zoo/sgenet_srb2", "zoo/sgenet_srb5")
@torch.no_grad()
def sgenet(case: Case) -> None:
    images, blocks = case.tensor("x"), int(case.name[-1])
    for whole in (False, True):  # a published file brings what it never uses
        network = build_model("sgenet", srb_nums=blocks, text_form="published", published_unused=whole)
        constant = tuple(key for key in network.state_dict() if key.endswith(".pe"))
        guided = load(network, case, constant=constant).guided(images)
        seen = network.position_prior.features(network.position_prior.preprocess(images))
        for name, value in (
            ("sr", guided.images),
            ("tp_map_ch_step8", guided.hint[:, ::8]),
            ("text_logits", guided.text),
            ("attn_map_ch_step16", seen[:, ::16]),
        ):
            assert_close(value, case.expected(name), atol=NETWORK, what=name)


@handles("zoo/sgenet_loss")
@torch.no_grad()
def sgenet_loss(case: Case) -> None:
    labels = [str(label) for label in case.inputs["labels"]]
    recognizer = FocusTransformer()
    load_recogniser(recognizer, filled(case))
    sr, hr = case.tensor("sr"), case.tensor("hr")
    assert_targets(case, encode_labels(labels))
    assert encode_positions(labels).tolist() == case.outputs["label_id"].tolist()
    focus = TextFocus(recognizer).to(DEVICE)
    focus.log_weights = case.expected("weight_table").log()  # the case lacks the table of confusions it comes from
    terms = focus(sr, hr, labels)
    mse, finetune = squared_error(sr, hr).mean(), position_loss(case.tensor("text_logits"), labels, published=True)
    total = mse + 0.5 * sum(PUBLISHED_WEIGHTS[name] * term for name, term in terms.items()) + 0.01 * finetune
    named = {f"{name}_loss": term for name, term in terms.items()}
    named |= {"mse": mse, "finetune_loss": finetune, "loss": total, "loss_times_100": 100 * total}
    for name, value in named.items():
        assert_close(value, case.expected(name), atol=0, rtol=LOSS, what=name)
