"""TSRN, its parts and its losses, and the classic networks, against the published implementations."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from interface.checkpoint import clean_state, load_weights
from loss.image import absolute_error, charbonnier, gradient_magnitude, gradient_profile, squared_error
from loss.similarity import mse_rgb, psnr_from_mse, ssim
from model import build_model
from model.bicubic import Bicubic
from model.blocks.gru import GruBlock
from model.blocks.residual import RecurrentResidualBlock
from model.blocks.stn import STNHead, TPSSpatialTransformer
from model.blocks.upsample import UpsampleBlock
from tests.device import DEVICE
from tests.parity.vectors import Case, assert_close, handles

MODULE, NETWORK, LOSS = 1e-5, 1e-4, 1e-3
TRAIN, NORM = 2e-3, 1e-2  # the rectifier amplifies rounding
PIXELS = 1e-3  # sampled between neighbours that have nothing in common


def load(module: nn.Module, case: Case, *, prefix: str = "", constant: tuple[str, ...] = ()) -> nn.Module:
    """Load the weights of a case as the program loads a file; only computed constants may be absent."""
    state = clean_state({f"module.{key}": value for key, value in case.state(prefix=prefix).items()}, case.name)
    own = module.state_dict()
    load_weights(module, {**{key: own[key] for key in constant}, **state}, case.name)
    return module.eval()


def network_of(case: Case, name: str, **options: object) -> nn.Module:
    """A network of the registry with the weights of a case."""
    network = build_model(name, **options)
    return load(network, case, constant=getattr(network, "constant_buffers", ()))


@handles("zoo/bicubic")
def bicubic(case: Case) -> None:
    assert_close(Bicubic(published=True)(case.tensor("x")), case.expected("sr"), atol=MODULE)


@handles("zoo/parts_tsrn")
@torch.no_grad()
def parts_of_tsrn(case: Case) -> None:
    x = case.tensor("x")
    channels = x.shape[1]
    block = load(RecurrentResidualBlock(channels), case, prefix="srb.")
    up = load(UpsampleBlock(channels), case, prefix="up.")
    gru = load(GruBlock(channels, channels), case, prefix="gru.")
    assert_close(nn.functional.mish(x[:, ::8]), case.expected("mish"), atol=MODULE, what="mish")
    assert_close(block(x)[:, ::4], case.expected("srb"), atol=MODULE, what="srb")
    assert_close(up(x)[:, ::8], case.expected("upsample"), atol=MODULE, what="upsample")
    assert_close(gru(x)[:, ::4], case.expected("gru_rows"), atol=MODULE, what="gru_rows")
    columns = gru(x.transpose(2, 3)).transpose(2, 3)
    assert_close(columns[:, ::4], case.expected("gru_columns"), atol=MODULE, what="gru_columns")


@handles("zoo/tsrn_textzoom_stn", "zoo/tpgsr_stn", "zoo/tbsrn_stn")
@torch.no_grad()
def rectifier(case: Case) -> None:
    images, points = case.tensor("x"), case.tensor("ctrl")
    head = load(STNHead(images.shape[1], height=images.shape[2]), case, prefix="stn_head.")
    assert_close(head.features(images), case.expected("stn_feat"), atol=MODULE, what="stn_feat")
    assert_close(head(images), case.expected("stn_points"), atol=MODULE, what="stn_points")
    for align_corners in (False, True):
        tps = TPSSpatialTransformer((16, 64), align_corners=align_corners).to(DEVICE)
        tps.inverse_kernel.copy_(case.expected("inverse_kernel"))  # in float32, as a published checkpoint brings it
        name = f"tps_align_corners_{str(align_corners).lower()}"
        assert_close(tps(images, points)[:, :, ::2, ::2], case.expected(name), atol=PIXELS, what=name)
    assert_close(tps.target_control_points, case.expected("target_control_points"), atol=1e-6)
    rows = case.expected("target_coordinate_repr_every_37th_row")
    assert_close(tps.target_coordinate_repr[::37], rows, atol=1e-6)


@handles("zoo/image_losses")
def image_losses(case: Case) -> None:
    sr, hr = case.tensor("sr"), case.tensor("hr")
    mse, gradient = squared_error(sr, hr).mean(), gradient_profile(sr, hr).mean()
    for name, value in (
        ("mse", mse),
        ("l1", absolute_error(sr, hr).mean()),
        ("charbonnier_sum", charbonnier(sr, hr).mean() * sr.numel()),
        ("gradient_map_sr_ch0", gradient_magnitude(sr)[:, 0]),
        ("gradient_prior", gradient),
        ("image_loss_w1_1e-4", mse + 1e-4 * gradient),
        ("image_loss_w20_1e-4", 20 * mse + 1e-4 * gradient),
        ("psnr", psnr_from_mse(mse_rgb(sr, hr).mean())),
        ("ssim", ssim(sr, hr).mean()),
    ):
        assert_close(value, case.expected(name), atol=0, rtol=NETWORK, what=name)


@handles("zoo/tsrn")
@torch.no_grad()
def tsrn(case: Case) -> None:
    network = network_of(case, "tsrn", STN=True)
    images = case.tensor("x")
    assert_close(network.block1(images)[:, ::8], case.expected("block1_ch_step8"), atol=MODULE, what="block1")
    assert_close(network(images), case.expected("sr"), atol=NETWORK, what="sr")


def gradient_norms(network: nn.Module) -> dict[str, Tensor]:
    """The length of each parameter's gradient, those of the rectifier left out."""
    named = network.named_parameters()
    return {key: value.grad.norm() for key, value in named if value.grad is not None and "stn_head" not in key}


@handles("zoo/tsrn_train_step")
def tsrn_train_step(case: Case) -> None:
    network = network_of(case, "tsrn", STN=True, stn_align_corners=False).train()
    network.stn_head.stn_fc2.bias.data.copy_(case.tensor("stn_fc2_bias"))
    sr, hr = network(case.tensor("x")), case.tensor("hr")
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


@handles("zoo/srcnn", "zoo/edsr", "zoo/rdn", "zoo/lapsrn", "zoo/esrgan_rrdb")
@torch.no_grad()
def classic(case: Case) -> None:
    network = network_of(case, case.name.removeprefix("zoo/").removesuffix("_rrdb"))
    assert_close(network(case.tensor("x")), case.expected("sr"), atol=0, rtol=NETWORK, what="sr")


@handles("zoo/pcan")
@torch.no_grad()
def pcan(case: Case) -> None:
    network = network_of(case, "pcan")
    assert_close(network(case.tensor("x")), case.expected("sr"), atol=MODULE, what="sr")


@handles("zoo/srresnet")
@torch.no_grad()
def srresnet(case: Case) -> None:
    network = network_of(case, "srresnet", STN=True, mask=True)
    with before_tanh(network) as seen:
        sr = network(case.tensor("x"))
    assert_close(sr[:, :, ::2, ::2], case.expected("sr_step2"), atol=NETWORK, what="sr")
    assert_close(seen[0], case.expected("before_tanh"), atol=0, rtol=NETWORK, what="before tanh")


@contextmanager
def before_tanh(network: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what a skeleton gives before its tanh, while the block runs."""
    seen: list[Tensor] = []
    hook = network.get_submodule(network.head).register_forward_hook(lambda _, inputs, output: seen.append(output))
    yield seen
    hook.remove()


@handles("zoo/vdsr")
@torch.no_grad()
def vdsr(case: Case) -> None:
    network, images = network_of(case, "vdsr"), case.tensor("x")
    assert_close(network(images)[:, :, ::2, ::2], case.expected("sr_step2"), atol=MODULE, what="sr")
    details = network.details(images.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))
    assert_close(1000 * details, case.expected("residual_times_1000"), atol=0, rtol=LOSS, what="residual")


@handles("zoo/vdsr_tpgsr_variant")
@torch.no_grad()
def vdsr_with_skips(case: Case) -> None:
    network = network_of(case, "vdsr", srb_nums=6, skips=True)
    assert_close(network(case.tensor("x")), case.expected("sr"), atol=NETWORK, what="sr")


@handles("zoo/han")
@torch.no_grad()
def han(case: Case) -> None:
    network = network_of(case, "han")
    for key, weight in network.named_parameters():
        if key.startswith("body.") and weight.ndim == 4:  # as the case asks in words
            weight.mul_(0.25)
    assert_close(network(case.tensor("x")), case.expected("sr"), atol=0, rtol=NETWORK, what="sr")
