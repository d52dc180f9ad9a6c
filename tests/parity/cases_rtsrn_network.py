"""RTSRN, its modules, its language model and CRNN against the published implementation."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from model.blocks.clue import ClueAttention, GatedFusion, TextInterpreter, interpret
from model.blocks.deform import DeformFuser
from model.blocks.stn import STNHead, TPSSpatialTransformer
from model.blocks.upsample import UpsampleBlock
from model.language.bcn import BCN
from model.recognizer.crnn import CRNN
from model.rtsrn import RTSRN, RecurrentBlock
from tests.device import DEVICE
from tests.parity.vectors import Case, assert_close, handles, seeded_image, without_dropout

MODULE, NETWORK, TRAIN, SLICES, TPS = 1e-5, 1e-4, 1e-3, 5e-3, 1e-3


def load(module: nn.Module, state: dict[str, Tensor], *, constant: tuple[str, ...] = ()) -> nn.Module:
    """Load `state`; only counters and computed constants may be absent, nothing may be left over."""
    result = module.load_state_dict(state, strict=False)
    missing = [key for key in result.missing_keys if not key.endswith("num_batches_tracked") and key not in constant]
    assert not missing and not result.unexpected_keys, (missing, result.unexpected_keys)
    return module.eval()


def network_of(case: Case, part: str = "") -> RTSRN:
    """The full published network when the case holds its unused parts, which it always does."""
    state = case.state(part=part)
    network = RTSRN(
        STN=any(key.startswith("stn_head") for key in state),
        mask=state["block1.0.weight"].shape[1] == 4,
        srb_nums=len({key.split(".")[0] for key in state if ".wave_mlp." in key}),
        hidden_units=state["block1.0.weight"].shape[0] // 2,
        triple_clues="down_conv.weight" in state,
        published_unused=True,
    )
    return load(network, state, constant=network.constant_buffers)


def lean(network: RTSRN) -> RTSRN:
    """The same weights in the network without unused parts."""
    small = RTSRN(**network.options)
    state = network.state_dict()
    small.load_state_dict({key: state[key] for key in small.state_dict()})
    return small.train(network.training)


def cut(full: Tensor, expected: Tensor, case: Case) -> Tensor:
    """The slice of `full` that the case stored: as `meta["slices"]` says, else every k-th entry that fits."""
    for inside in re.findall(r"\[([:\d, ]+)\]", case.meta.get("slices", "")):
        axes = [axis.strip() for axis in inside.split(",")]
        if len(axes) > full.ndim or not all(axis.startswith(":") for axis in axes):
            continue
        strides = [int(axis.lstrip(":") or 1) for axis in axes]
        candidate = full[tuple(slice(None, None, stride) for stride in strides)]
        if candidate.shape == expected.shape:
            return candidate
    assert full.ndim == expected.ndim, (full.shape, expected.shape)
    return full[tuple(slice(None, None, stride(*sizes)) for sizes in zip(full.shape, expected.shape, strict=True))]


def stride(full: int, kept: int) -> int:
    """The smallest k with which `range(0, full, k)` has `kept` entries."""
    return next(k for k in range(1, full + 1) if len(range(0, full, k)) == kept)


def compare(case: Case, name: str, full: Tensor, **tolerance: float) -> None:
    expected = case.expected(name)
    assert_close(cut(full, expected, case), expected, what=name, **tolerance)


@contextmanager
def recorded(**modules: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collect the outputs of modules, by name, while the block runs."""
    seen: dict[str, Tensor] = {}

    def keep(name: str):
        return lambda module, inputs, output: seen.__setitem__(name, output.detach())

    hooks = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    yield seen
    for hook in hooks:
        hook.remove()


@handles("rtsrn/infoGen", "rtsrn/infoGen_ling", "rtsrn/infoGen_visual")
@torch.no_grad()
def text_interpreter(case: Case) -> None:
    state = case.state(prefix=case.meta["prefix"])
    classes, channels = state["tconv1.weight"].shape[0], state["tconv4.weight"].shape[1]
    module = load(TextInterpreter(classes, channels), state)
    out = module(case.tensor("text_emb"))
    assert list(out.shape) == case.outputs["full_shape"].tolist()
    compare(case, "out_slice", out, atol=MODULE)
    (name,) = [name for name in case.outputs if name.startswith("resized_")]
    height, width = map(int, re.findall(r"\d+", name))
    resized = interpret(module, case.tensor("text_emb"), (height, width))
    compare(case, name, resized, atol=MODULE)
    compare(case, "train_out_slice", module.train()(case.tensor("text_emb")), atol=0, rtol=TRAIN)


@handles("rtsrn/dsta_rec", "rtsrn/dsta_ling")
@torch.no_grad()
def clue_attention(case: Case) -> None:
    state = case.state(prefix=case.meta["prefix"])
    channels = state["conv1.weight"].shape[1]
    module = load(ClueAttention(channels), state)
    if "x" in case.inputs:
        clue = case.tensor("x")
    else:
        blocks = seeded_image(case.meta["seeds"]["x"], case.meta["B"], channels, 4, 16)
        clue = 8 * torch.from_numpy(blocks).to(DEVICE).repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    sampled: list[tuple[Tensor, Tensor]] = []
    module.dcn.register_forward_pre_hook(lambda _, inputs: sampled.append(inputs[1:]))
    with recorded(dcn=module.dcn, gate=module.conv_du) as seen:
        out = module(clue)
    assert_close(sampled[0][0], case.expected("offsets"), atol=MODULE, what="offsets")
    assert_close(sampled[0][1], case.expected("mask"), atol=MODULE, what="mask")
    assert_close(seen["dcn"].relu(), case.expected("dcn"), atol=MODULE, what="dcn")
    assert_close(seen["gate"], case.expected("channel_gate"), atol=MODULE, what="channel_gate")
    compare(case, "out_slice", out, atol=MODULE)


@handles("rtsrn/gated_fusion")
@torch.no_grad()
def gated_fusion(case: Case) -> None:
    center, first, second = case.tensor("center"), case.tensor("out1"), case.tensor("out2")
    channels = center.shape[1]
    module = load(GatedFusion(channels, unused_gate=True), case.state(prefix=case.meta["prefix"]))
    with recorded(logits=module.compress) as seen:
        compare(case, "out_slice", module(center, first, second), atol=MODULE)
    share = seen["logits"].unflatten(1, (2, channels)).softmax(dim=1)[:, 0]
    compare(case, "weight1_slice", share, atol=MODULE)


@handles("rtsrn/msrb_block2")
@torch.no_grad()
def recurrent_block(case: Case) -> None:
    x, hint = case.tensor("x"), case.tensor("hint")
    module = load(RecurrentBlock(x.shape[1], hint.shape[1]), case.state(prefix=case.meta["prefix"]))
    with recorded(patm=module.wave_mlp.attn, wave_block=module.wave_mlp, gru1=module.gru1) as seen:
        out = module(x, hint)
    for name, value in (seen | {"out": out}).items():
        compare(case, f"{name}_slice", value, atol=MODULE)
    compare(case, "train_out_slice", module.train()(x, hint), atol=0, rtol=TRAIN)
    norm = module.wave_mlp.norm1
    assert_close(norm.running_mean, case.expected("train_norm1_running_mean"), atol=0, rtol=TRAIN)
    assert_close(norm.running_var, case.expected("train_norm1_running_var"), atol=0, rtol=TRAIN)


@handles("rtsrn/pam_upsample")
@torch.no_grad()
def pixel_adapter(case: Case) -> None:
    x = case.tensor("x")
    module = load(UpsampleBlock(x.shape[1], pam=True), case.state(prefix=case.meta["prefix"]))
    attention = module.pam.output[0]
    with recorded(sgat=attention) as seen:
        before: list[Tensor] = []
        module.pam.register_forward_pre_hook(lambda _, inputs: before.append(inputs[0]))
        compare(case, "out_slice", module(x), atol=MODULE)
        compare(case, "before_pam_slice", before[0], atol=MODULE)
        compare(case, "sgat_slice", seen["sgat"], atol=MODULE)
        compare(case, "pam_only_out", module.pam(case.tensor("pam_x")), atol=MODULE)
        compare(case, "pam_only_sgat", seen["sgat"], atol=MODULE)


@handles("rtsrn/vis_rec_fuser_unused")
@torch.no_grad()
def deform_fuser(case: Case) -> None:
    state = case.state(prefix=case.meta["prefix"])
    out_channels, x = state["deform_conv.weight"].shape[0], case.tensor("x")
    module = load(DeformFuser(x.shape[1], out_channels), state)
    compare(case, "out_slice", module(x), atol=MODULE)


@handles("rtsrn/stn_tps_3ch", "rtsrn/stn_tps_4ch")
@torch.no_grad()
def rectifier(case: Case) -> None:
    images = case.tensor("image")
    head = STNHead(images.shape[1])
    assert_close(head.stn_fc2.bias, case.expected("init_fc2_bias"), atol=1e-7, what="init_fc2_bias")
    state = case.state(prefix=case.meta["prefix"])
    load(head, state)
    assert_close(head.features(images), case.expected("img_feat"), atol=MODULE, what="img_feat")
    points = head(images)
    assert_close(points, case.expected("ctrl_points"), atol=MODULE, what="ctrl_points")

    tps = TPSSpatialTransformer(images.shape[2:]).to(DEVICE)
    assert_close(tps.target_control_points, case.expected("tps_target_control_points"), atol=1e-6)
    (sampled,) = [name for name in case.outputs if name.startswith("tps_target_coordinate_repr")]
    compare(case, sampled, tps.target_coordinate_repr, atol=1e-6)
    inverse = case.expected("tps_inverse_kernel")
    assert_close(tps.inverse_kernel, inverse, atol=5e-3, what="inverse_kernel, ours in float64, theirs in float32")
    assert_close(tps.source_coordinates(points), case.expected("source_coordinate"), atol=1e-4)
    assert_close(tps(images, points), case.expected("rectified"), atol=TPS, what="rectified")
    tps.inverse_kernel.copy_(inverse)  # as a published checkpoint does
    assert_close(tps.source_coordinates(points), case.expected("source_coordinate"), atol=MODULE)
    # A coordinate's last digits times the width in pixels; processors differ in the order of sums.
    assert_close(tps(images, points), case.expected("rectified"), atol=3 * NETWORK, what="rectified, published inverse")
    assert_close(head.train()(images), case.expected("train_ctrl_points"), atol=0, rtol=TRAIN, what="train")


@handles("rtsrn/bcn_lm")
@torch.no_grad()
def language_model(case: Case) -> None:
    tokens = case.tensor("tokens")
    module = BCN(num_classes=tokens.shape[2], length=tokens.shape[1])
    load(module, case.state(prefix=case.meta["prefix"]), constant=module.constant_buffers)
    full = case.tensor("lengths_full")
    assert_close(module(tokens, full), case.expected("logits"), atol=MODULE, what="logits")
    if bool((full == tokens.shape[1]).all()):
        assert_close(module(tokens), case.expected("logits"), atol=MODULE, what="logits without lengths")
    compare(case, "feature_slice", module.features(tokens, full), atol=MODULE)
    assert_close(module(tokens, case.tensor("lengths_short")), case.expected("logits_short"), atol=MODULE)


@handles("rtsrn/crnn")
@torch.no_grad()
def crnn(case: Case) -> None:
    module = load(CRNN(), case.state(prefix=case.meta["prefix"]))
    gray = module.preprocess(case.tensor("image"))
    assert_close(gray, case.expected("gray_32x100"), atol=1e-6, what="gray")
    assert_close(module(gray), case.expected("logits"), atol=MODULE, what="logits")
    assert_close(module.train()(gray), case.expected("train_logits"), atol=0, rtol=TRAIN, what="train_logits")


@handles("framework/crnn_eval")
@torch.no_grad()
def crnn_eval(case: Case) -> None:
    module, images = load(CRNN(), case.state()), case.tensor("image")
    first = case.expected("conv_first8")
    assert_close(module.cnn(images)[:, : first.shape[1]], first, atol=MODULE, what="conv")
    logits = module(images)
    assert_close(logits, case.expected("logits"), atol=MODULE, what="logits")
    assert module.decode(logits) == case.outputs["strings"].tolist()


@handles("framework/crnn_train_forward")
@torch.no_grad()
def crnn_train(case: Case) -> None:
    module = load(CRNN(), case.state()).train()
    assert_close(module(case.tensor("image")), case.expected("logits"), atol=0, rtol=TRAIN, what="logits")
    state = module.state_dict()
    for name in case.outputs:
        if name in state:
            assert_close(state[name], case.expected(name), atol=0, rtol=TRAIN, what=name)


@handles("rtsrn/ctc_decode")
def ctc_decode(case: Case) -> None:
    index = case.tensor("index")
    expected = case.meta["strings_get_string_crnn"]
    module = CRNN()
    assert module.collapse(index) == expected == case.meta["strings_converter"]
    logits = torch.nn.functional.one_hot(index, module.num_classes).float()
    assert module.decode(logits) == expected


@handles("rtsrn/rtsrn_eval_4ch", "rtsrn/rtsrn_eval_3ch")
@torch.no_grad()
def generator_eval(case: Case) -> None:
    published = network_of(case)
    images, prior, linguistic = case.tensor("image"), case.tensor("text_emb"), case.tensor("hint_ling")
    for network in (published, lean(published)):
        modules = {"hint": network.gated, "clue_rec": network.dsta_rec, "clue_ling": network.dsta_ling}
        modules |= {name: module for name, module in network.named_children() if re.fullmatch(r"block\d+", name)}
        with recorded(**modules) as seen:
            seen["sr"] = network(images, prior, linguistic)
        for name, value in list(seen.items()):
            if f"{name}_slice" in case.outputs:
                compare(case, f"{name}_slice", value, atol=NETWORK)
        if "sr_no_text_first_sample" in case.outputs:
            first = len(case.outputs["sr_no_text_first_sample"])
            compare(case, "sr_no_text_first_sample", network(images[:first]), atol=NETWORK)
            compare(case, "sr_no_text_first_sample", network(images)[:first], atol=NETWORK)
        if "sr_no_ling" in case.outputs:
            compare(case, "sr_no_ling", network(images, prior), atol=NETWORK)


@handles("rtsrn/rtsrn_train_4ch")
def generator_train(case: Case) -> None:
    published = without_dropout(network_of(case)).train()
    for network in (lean(published), published):
        without_dropout(network).zero_grad()
        images = case.tensor("image")
        prior, linguistic = case.tensor("text_emb").requires_grad_(), case.tensor("hint_ling").requires_grad_()
        sr = network(images, prior, linguistic)
        uniform = np.random.RandomState(int(case.inputs["loss_weights_seed"])).uniform(-1, 1, tuple(sr.shape))
        loss = 100 * (sr * torch.from_numpy(uniform.astype(np.float32)).to(DEVICE)).mean()
        loss.backward()
        compare(case, "sr_slice", sr, atol=0, rtol=TRAIN)
        # A mean over random signs: near 0, while its terms are of order 100 times the image and as exact as that.
        assert_close(loss, case.expected("loss"), atol=1e-4, rtol=TRAIN, what="loss")
        gradients = {name: value.grad for name, value in network.named_parameters() if value.grad is not None}
        norms = {name: gradient.norm() for name, gradient in gradients.items()}
        assert_close(torch.stack(list(norms.values())).norm(), case.expected("grad_norm_total"), atol=0, rtol=TRAIN)
        named = torch.stack([norms[name] for name in case.meta["grad_norm_keys"]])
        assert_close(named, case.expected("grad_norms"), atol=0, rtol=TRAIN, what="gradient norms")
        assert_close(named / case.expected("grad_norms"), torch.ones_like(named), atol=0.02, what="each of them")
        compare(case, "grad_text_emb_slice", prior.grad, atol=0, rtol=SLICES)
        compare(case, "grad_hint_ling_slice", linguistic.grad, atol=0, rtol=SLICES)
        state = network.state_dict()
        statistics = {
            "block1_bn_stats": "block2.wave_mlp.norm1.running_mean",
            "block7_running_var": f"{network.end}.1.running_var",
        }
        for name, key in statistics.items():
            assert_close(state[key], case.expected(name), atol=0, rtol=TRAIN, what=name)
    silent = {name for name, _ in published.named_parameters()} - set(gradients)
    assert {name.split(".")[0] for name in silent} == set(case.meta["no_grad_top_level"])
    whole = {name for name in case.meta["no_grad_top_level"] if name != "gated"}
    assert {name for name in silent if name.split(".")[0] not in whole} == set(case.meta["no_grad_other_keys"])


@handles("rtsrn/pipeline_eval_2stage")
@torch.no_grad()
def pipeline(case: Case) -> None:
    network = lean(network_of(case, part="sr/"))
    student = load(CRNN(), case.state(part="tpg/", rules="rules_tpg"))
    images = sr = case.tensor("image_lr")
    for stage in range(sum(name.endswith("_sr_slice") for name in case.outputs)):
        probabilities = student(student.preprocess(sr)).softmax(dim=2).transpose(0, 1)
        prior = probabilities.transpose(1, 2)[:, :, None]
        linguistic = network.language_clue(probabilities).softmax(dim=2).transpose(1, 2)[:, :, None]
        sr = network(images, prior, linguistic)
        compare(case, f"stage{stage}_text_emb_slice", prior[:, :, 0], atol=NETWORK)
        compare(case, f"stage{stage}_hint_ling_slice", linguistic[:, :, 0], atol=NETWORK)
        compare(case, f"stage{stage}_sr_slice", sr, atol=NETWORK)
