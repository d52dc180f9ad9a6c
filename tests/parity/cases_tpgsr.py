"""TPGSR, with each of its trunks, and TATT, against the published implementations."""

import torch

from dataset.deform import turned
from loss.image import gradient_profile, squared_error
from loss.semantic import distillation, semantic_loss
from loss.similarity import structure_similarity
from model.blocks.clue import interpret
from model.tatt import TextInterpreter
from tests.parity.cases_zoo import LOSS, MODULE, NETWORK, NORM, TRAIN, before_tanh, gradient_norms, load, network_of
from tests.parity.vectors import Case, assert_close, handles


@handles("zoo/tpgsr_semantic_loss")
def text_prior_distillation(case: Case) -> None:
    student, teacher = case.tensor("pred"), case.tensor("target")
    terms = distillation(student, teacher)
    assert_close(terms["l1"], case.expected("l1"), atol=0, rtol=NETWORK, what="l1")
    assert_close(terms["kl"], case.expected("kl_elementwise_mean"), atol=0, rtol=NETWORK, what="kl")
    assert_close(semantic_loss(student, teacher), case.expected("loss"), atol=0, rtol=NETWORK, what="loss")


@handles("zoo/tpgsr_tsrn")
@torch.no_grad()
def tpgsr(case: Case) -> None:
    network, prior = network_of(case, "tpgsr", STN=True), case.tensor("text_prior")
    drawn = network.infoGen(prior)
    assert_close(drawn[:, ::4], case.expected("info_gen_ch_step4"), atol=MODULE, what="infoGen")
    hint = interpret(network.infoGen, prior, (16, 64))
    assert_close(hint[:, ::8], case.expected("tp_map_ch_step8"), atol=MODULE, what="map")
    assert_close(network(case.tensor("x"), prior), case.expected("sr"), atol=NETWORK, what="sr")


@handles("zoo/tpgsr_tsrn_train_step")
def tpgsr_train_step(case: Case) -> None:
    network = network_of(case, "tpgsr", STN=True, stn_align_corners=False).train()
    network.stn_head.stn_fc2.bias.data.copy_(case.tensor("stn_fc2_bias"))
    sr, hr = network(case.tensor("x"), case.tensor("text_prior")), case.tensor("hr")
    loss = 100 * (squared_error(sr, hr).mean() + 1e-4 * gradient_profile(sr, hr).mean())
    loss.backward()
    assert_close(sr[:, :, ::2, ::2], case.expected("sr_step2"), atol=TRAIN, what="sr")
    assert_close(loss, case.expected("loss_times_100"), atol=0, rtol=LOSS, what="loss")
    norms = gradient_norms(network)
    for name in case.outputs:
        if name.startswith("grad_norm/"):
            assert_close(norms[name.removeprefix("grad_norm/")], case.expected(name), atol=0, rtol=NORM, what=name)
    statistic = network.state_dict()["block2.bn1.running_mean"]
    assert_close(statistic, case.expected("running_mean_after/block2.bn1"), atol=TRAIN, what="running mean")


@handles("zoo/tpgsr_srcnn", "zoo/tpgsr_rdn", "zoo/tpgsr_vdsr")
@torch.no_grad()
def guided_classic(case: Case) -> None:
    network, prior = network_of(case, case.name.removeprefix("zoo/")), case.tensor("text_prior")
    drawn = network.infoGen(prior)
    assert_close(drawn[:, ::8], case.expected("info_gen_ch_step8"), atol=MODULE, what="infoGen")
    assert_close(network(case.tensor("x"), prior), case.expected("sr"), atol=0, rtol=NETWORK, what="sr")


@handles("zoo/tpgsr_srresnet")
@torch.no_grad()
def guided_srresnet(case: Case) -> None:
    network, prior = network_of(case, "tpgsr_srresnet", STN=True), case.tensor("text_prior")
    with before_tanh(network) as seen:
        sr = network(case.tensor("x"), prior)
    drawn = network.infoGen(prior)
    assert_close(drawn[:, ::16], case.expected("info_gen_ch_step16"), atol=MODULE, what="infoGen")
    assert_close(seen[0], case.expected("before_tanh"), atol=0, rtol=NETWORK, what="before tanh")
    assert_close(sr[:, :, ::2, ::2], case.expected("sr_step2"), atol=NETWORK, what="sr")


@handles("zoo/tatt")
@torch.no_grad()
def tatt(case: Case) -> None:
    network, prior = network_of(case, "tatt", STN=True, recurrence="batch"), case.tensor("text_prior")
    images = case.tensor("x")
    drawn, attention = network.infoGen.attend(prior, network.block1(images))
    assert_close(drawn[:, ::8], case.expected("tp_map_ch_step8"), atol=MODULE, what="map")
    assert_close(attention[:, ::16], case.expected("attention_rows_step16"), atol=MODULE, what="attention")
    assert_close(network(images, prior), case.expected("sr"), atol=NETWORK, what="sr")


@handles("zoo/tatt_sft")
@torch.no_grad()
def tatt_sft(case: Case) -> None:
    network = network_of(case, "tatt_sft", STN=True)
    assert_close(network(case.tensor("x"), case.tensor("text_prior")), case.expected("sr"), atol=NETWORK, what="sr")


@handles("zoo/tatt_tp_interpreter")
@torch.no_grad()
def tatt_interpreter(case: Case) -> None:
    interpreter = TextInterpreter(64, (16, 64), recurrence="batch", published_unused=True)
    load(interpreter, case, prefix="infoGen.", constant=("pe.pe",))
    drawn, attention = interpreter.attend(case.tensor("text_prior"), case.tensor("feature"))
    assert_close(drawn[:, ::4], case.expected("tp_map_ch_step4"), atol=MODULE, what="map")
    assert_close(attention[:, ::32], case.expected("attention_rows_step32"), atol=MODULE, what="attention")
    queries = interpreter.queries(2)[::8, 0]
    assert_close(queries, case.expected("query_embedding_sample0_rows_step8"), atol=MODULE, what="queries")


@handles("zoo/tatt_losses")
def tatt_losses(case: Case) -> None:
    """The case also has a similarity of two distorted pictures, which no published training uses."""
    sr, hr, third = case.tensor("sr"), case.tensor("hr"), case.tensor("third")
    arcs, offsets = case.tensor("arc"), case.tensor("rand_offs")
    for name, value in (
        ("image_loss_per_sample", squared_error(sr, hr) + 1e-4 * gradient_profile(sr, hr)),
        ("tri_ssim", structure_similarity(third, sr, hr).mean()),
        ("tri_ssim_3ch", structure_similarity(third[:, :3], sr[:, :3], hr[:, :3]).mean()),
        ("rotated_sr", turned(sr, arcs, offsets)[:, ::3, ::2, ::2]),
        ("rotated_back_sr", turned(sr, -arcs, offsets)[:, ::3, ::2, ::2]),
    ):
        assert_close(value, case.expected(name), atol=0, rtol=NETWORK, what=name)
