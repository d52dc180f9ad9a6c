"""The whole training step of the published single-stage command, assembled as the program assembles it."""

import re

import torch
from torch import nn

from dataset.loading import Batch
from interface.config import load_settings
from interface.systems.base import ImageLosses, build_network
from interface.systems.clues import Clues
from loss.text_focus import TextFocus
from model.recognizer.crnn import CRNN
from model.recognizer.focus_transformer import FocusTransformer
from tests.device import DEVICE
from tests.parity.vectors import Case, assert_close, handles, without_dropout

PUBLISHED = "--arch rtsrn --STN --mask --triple_clues --text_focus --lca --use_distill --sr_share --stu_iter 1"


def _load(module: nn.Module, state: dict[str, torch.Tensor]) -> nn.Module:
    own = module.state_dict()
    module.load_state_dict({key: state.get(key, value) for key, value in own.items()})
    return module


def _system(case: Case) -> Clues:
    config = load_settings(PUBLISHED.split()).config
    config.LOSS.hyphen, config.LOSS.confusion_columns = "blank", "published"
    config.LOSS.lca_gradient, config.MODEL.student_passes = False, "published"
    network = _load(build_network(config), case.state("sr/"))
    student = _load(CRNN(), case.state("tpg/", rules="rules_tpg"))
    teacher = _load(CRNN(), case.state("tpg/", rules="rules_teacher"))
    recognizer = _load(FocusTransformer(), case.state("rec/", rules="rules_rec"))
    focus = TextFocus(recognizer, dissimilarity=case.inputs["confuse"], column_order="published").to(DEVICE)
    system = Clues(
        networks=[network],
        students=[student],
        stages=1,
        losses=ImageLosses(config.LOSS, focus),
        weights=dict(config.LOSS.weights),
        teacher=teacher,
        config=config,
    )
    without_dropout(system)
    return system.train()


@handles("rtsrn/train_step_1stage")
def check_training_step(case: Case) -> None:
    system = _system(case)
    labels = list(case.meta["labels"])
    assert not [label for label in labels if re.search("[^0-9A-Za-z]", label)] or system.hyphen == "blank"
    batch = Batch(case.tensor("image_hr"), case.tensor("image_lr"), labels, torch.arange(len(labels)))
    pictures = []
    handle = system.networks[0].register_forward_hook(lambda module, inputs, output: pictures.append(output))
    losses = system(batch)
    handle.remove()
    total = torch.stack(list(losses.values())).sum()
    total.backward()

    expected = case.outputs["sr_slice"]
    sr = pictures[0]
    rows, columns = sr.shape[2] // expected.shape[2], sr.shape[3] // expected.shape[3]
    assert_close(sr[:, :, ::rows, ::columns], case.expected("sr_slice"), atol=0, rtol=1e-3, what="sr")
    unweighted = {name: value / system.weights[name] for name, value in losses.items()}
    for ours, name in (("mse", "mse"), ("attention", "attention_l1"), ("recognition", "weighted_ce")):
        assert_close(unweighted[ours], case.expected(name), atol=0, rtol=1e-3, what=name)
    image = sum(losses[name] for name in ("mse", "attention", "recognition", "lca"))
    assert_close(image, case.expected("loss_img_x100"), atol=0, rtol=1e-3, what="image losses")
    assert_close(losses["distill"], case.expected("loss_sem_x100"), atol=0, rtol=1e-3, what="distillation")
    assert_close(losses["ctc_language"], case.expected("loss_ctc"), atol=0, rtol=1e-3, what="CTC")
    assert_close(total, case.expected("loss_total"), atol=0, rtol=1e-3, what="total")
    for part, name in ((system.networks, "sr_grad_norm_before_clip"), (system.students, "tpg_grad_norm")):
        norm = torch.nn.utils.get_total_norm([p.grad for p in part.parameters() if p.grad is not None])
        assert_close(norm, case.expected(name), atol=0, rtol=1e-3, what=name)
    kept = system._kept_priors(batch.images_lr).flatten()
    assert torch.equal(kept, case.expected("drop_vec"))
