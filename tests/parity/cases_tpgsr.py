"""TPGSR, with each of its trunks, against the published implementation."""

import torch

from loss.image import gradient_profile, squared_error
from loss.semantic import distillation, semantic_loss
from model.blocks.clue import interpret
from tests.parity.cases_zoo import LOSS, MODULE, NETWORK, NORM, TRAIN, before_tanh, gradient_norms, network_of
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
