"""Reference cases of the losses: image, distillation, contour, text focus, CTC, and the similarity measures."""

import re

import numpy as np
import pytest
import torch
from torch import Tensor

from dataset.charset import encode_ctc
from loss.ctc import ctc_loss
from loss.image import gradient_magnitude, gradient_profile, squared_error
from loss.semantic import distillation, semantic_loss
from loss.similarity import gaussian_window, mse_rgb, psnr_from_mse, ssim
from loss.structure import hog, local_contour_loss
from loss.text_focus import PUBLISHED_WEIGHTS, TextFocus, encode_labels
from loss.weighted_ce import IGNORED, confusion_weights, weighted_cross_entropy
from model.recognizer.focus_transformer import FocusTransformer
from tests.device import DEVICE, EXACT
from tests.parity.vectors import Case, assert_close, handles, seeded_image

LOSS = 1e-3  # relative to the maximum of the array: losses and gradients
VALUE = 1e-5  # absolute: outputs in evaluation mode


def slice_of(full: Tensor, part: Tensor) -> Tensor:
    """`full` with the steps that give the shape of `part`."""
    steps = [-(-have // want) for have, want in zip(full.shape, part.shape, strict=True)]
    return full[tuple(slice(None, None, step) for step in steps)]


def assert_loss(actual: Tensor, case: Case, name: str) -> None:
    assert_close(actual, case.expected(name), atol=1e-7, rtol=LOSS, what=f"{case.name} {name}")


@handles("rtsrn/image_loss")
def check_image_loss(case: Case) -> None:
    sr, hr = case.tensor("sr"), case.tensor("hr")
    for side, images in (("sr", sr), ("hr", hr)):
        assert_close(gradient_magnitude(images[:, :3]), case.expected(f"gradient_map_{side}"), atol=VALUE)
    assert_close(gradient_profile(sr, hr), case.expected("gradient_profile_per_sample"), atol=VALUE)
    total = 20 * squared_error(sr, hr) + 1e-4 * gradient_profile(sr, hr)  # TSRN's weights
    assert_close(total, case.expected("image_loss_per_sample"), atol=VALUE)
    assert_close(total.mean(), case.expected("image_loss_tpgsr_scalar"), atol=VALUE)


@handles("rtsrn/semantic_loss")
def check_semantic_loss(case: Case) -> None:
    student, teacher = case.tensor("pred_logits").requires_grad_(), case.tensor("gt_logits")
    priors = student.softmax(-1), teacher.softmax(-1)
    terms = distillation(*priors)
    assert_close(terms["l1"], case.expected("l1"), atol=VALUE)
    assert_close(terms["kl"], case.expected("kl"), atol=VALUE)
    total = semantic_loss(*priors)
    assert_close(total, case.expected("total"), atol=VALUE)
    assert_loss(100 * total, case, "total_x100")
    assert_close(semantic_loss(student, teacher, inputs="logits"), case.expected("total"), atol=VALUE)
    # The case does not say of which multiple of the total the gradient is; its outputs hold x1 and x100.
    (gradient,) = torch.autograd.grad(total, student)
    assert_loss(gradient, case, "grad_pred_logits")


def assert_hog_close(actual: Tensor, expected: Tensor) -> None:
    """Strict inside; at the mirrored border rounding chooses between two bins, and not every processor rounds alike."""
    inner = (..., slice(1, -1), slice(1, -1))
    assert_close(actual[inner], expected[inner], atol=VALUE)
    differs = ((actual - expected).abs() > VALUE).any(2)
    assert differs.float().mean() < 0.1


@handles("rtsrn/lca_hog")
def check_lca_hog(case: Case) -> None:
    sr, hr = case.tensor("sr").requires_grad_(), case.tensor("hr")
    assert_hog_close(hog(sr), case.expected("hog_sr"))
    assert_hog_close(hog(hr), case.expected("hog_hr"))
    published = local_contour_loss(sr, hr, published=True)
    assert_close(published, case.expected("l1"), atol=0.0, rtol=1e-2)  # for the same reason
    assert published.requires_grad == bool(case.outputs["requires_grad"])
    assert torch.equal(local_contour_loss(sr, hr), published)


@handles("rtsrn/weighted_ce")
def check_weighted_ce(case: Case) -> None:
    table = confusion_weights(case.inputs["confuse"], column_order="published").to(DEVICE)
    assert_close(table, case.expected("weight_table"), atol=0.0, rtol=1e-6)
    logits = case.tensor("pred").requires_grad_()
    loss = weighted_cross_entropy(logits, case.tensor("gt"), table.log())
    assert_loss(loss, case, "loss")
    (gradient,) = torch.autograd.grad(loss, logits)
    assert_loss(gradient, case, "grad_pred")


def build_text_focus(case: Case) -> TextFocus:
    state = case.state()
    for key in FocusTransformer.unused_published_keys:
        state.pop(key, None)
    recognizer = FocusTransformer()
    recognizer.load_state_dict(state)
    return TextFocus(recognizer, dissimilarity=case.inputs["confuse"], column_order="published").to(DEVICE)


def check_encoding(case: Case) -> None:
    encoded = encode_labels(case.meta["labels"])
    assert encoded.lengths.tolist() == case.outputs["length"].tolist()
    assert encoded.inputs.tolist() == case.outputs["input"].tolist()
    assert encoded.targets[encoded.targets != IGNORED].tolist() == case.outputs["gt"].tolist()


@handles("rtsrn/text_focus_loss")
def check_text_focus(case: Case) -> None:
    check_encoding(case)
    focus = build_text_focus(case)
    targets = encode_labels(case.meta["labels"]).to(DEVICE)
    valid = targets.targets != IGNORED
    sr, hr = case.tensor("sr").requires_grad_(), case.tensor("hr")
    with torch.no_grad():
        features = focus.recognizer.encode(focus.recognizer.preprocess(sr))
        logits_sr, attention_sr = focus.recognizer.decode(features, targets.inputs)
        logits_hr, attention_hr = focus.read(hr, targets.inputs)
    height, width = sr.shape[2] // 4, sr.shape[3] // 4
    features = features.transpose(1, 2).unflatten(2, (height, width))
    for name, full in (
        ("encoder_feature_slice", features),
        ("sr_attention_slice", attention_sr),
        ("hr_attention_slice", attention_hr),
    ):
        expected = case.expected(name)
        assert_close(slice_of(full, expected), expected, atol=VALUE, rtol=VALUE, what=name)
    assert_close(logits_sr[valid], case.expected("sr_pred"), atol=1e-4, what="sr_pred")
    assert_close(logits_hr[valid], case.expected("hr_pred"), atol=1e-4, what="hr_pred")

    terms = focus(sr, hr, case.meta["labels"])
    mse, contour = squared_error(sr, hr).mean(), local_contour_loss(sr, hr, published=True)
    total = mse + sum(PUBLISHED_WEIGHTS[name] * term for name, term in terms.items())
    assert_loss(mse, case, "mse")
    assert_loss(terms["attention"], case, "attention_l1")
    assert_loss(terms["recognition"], case, "weighted_ce")
    assert_loss(total, case, "total")
    assert_loss(total + 0.1 * contour, case, "total_lca")
    assert_loss(mse, case, "total_no_text_focus")
    assert_loss(mse + 0.1 * contour, case, "total_no_text_focus_lca")
    total.backward()
    expected = case.expected("grad_sr_slice")
    assert sr.grad is not None
    assert_close(slice_of(sr.grad, expected), expected, atol=0.0, rtol=LOSS, what="grad_sr_slice")


@handles("rtsrn/ctc_lm_loss", "rtsrn/ctc_hyphen_quirk")
def check_ctc(case: Case) -> None:
    encoded = encode_ctc(case.meta["words"], hyphen="blank")
    assert encoded.targets.tolist() == case.outputs["targets"].tolist()
    assert encoded.lengths.tolist() == case.outputs["target_lengths"].tolist()
    logits = case.tensor("lm_logits").requires_grad_()
    targets, lengths = case.expected("targets"), case.expected("target_lengths")
    assert_loss(ctc_loss(logits, targets, lengths, form="published"), case, "ctc_mean")
    if "loss" not in case.outputs:
        return
    valid = case.expected("weighted_tics")
    assert encoded.valid.tolist() == valid.tolist()
    loss = ctc_loss(logits, targets, lengths, valid, form="published")
    assert_loss(loss, case, "loss")
    (gradient,) = torch.autograd.grad(loss, logits)
    if EXACT:  # elsewhere it is the derivative, which PyTorch's is not where the blank is to be read
        assert_loss(gradient, case, "grad")


def similarity(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """PSNR and SSIM of a batch, as the published evaluation prints them."""
    return psnr_from_mse(mse_rgb(a, b).mean()), ssim(a, b).mean()


@handles("rtsrn/psnr_ssim")
def check_similarity(case: Case) -> None:
    psnr_value, ssim_value = similarity(case.tensor("a"), case.tensor("b"))
    assert_close(psnr_value, case.expected("psnr"), atol=1e-4)
    assert_close(ssim_value, case.expected("ssim"), atol=VALUE)


def stored_pair(case: Case, name: str) -> tuple[Tensor, Tensor]:
    sr = torch.from_numpy(case.inputs[f"sr_f16_{name}"].astype(np.float32))
    hr = torch.from_numpy(case.inputs[f"hr_u8_{name}"].astype(np.float32) / np.float32(255))
    return sr.to(DEVICE), hr.to(DEVICE)


def recipe_pair(hr_seed: int, noise_seed: int, strength: float, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    hr = seeded_image(hr_seed, *shape)
    sr = hr + np.float32(strength) * (seeded_image(noise_seed, *shape) - np.float32(0.5))
    return torch.from_numpy(sr).to(DEVICE), torch.from_numpy(hr).to(DEVICE)


def assert_similarity(case: Case, values: tuple[Tensor, Tensor], name: str, prefix: str = "") -> None:
    for measure, value, atol in zip(("psnr", "ssim"), values, (1e-3, VALUE), strict=True):
        key = f"{prefix}{measure}_{name}"
        assert_close(value, case.expected(key), atol=atol, what=key)


@handles("framework/psnr_ssim")
def check_similarity_of_evaluation(case: Case) -> None:
    for name in sorted(key.removeprefix("sr_f16_") for key in case.inputs if key.startswith("sr_f16_")):
        sr, hr = stored_pair(case, name)
        assert_similarity(case, similarity(sr, hr), name)
        assert_similarity(case, (psnr_from_mse(mse_rgb(sr, hr)), ssim(sr, hr)), f"per_image_{name}")
        if f"weight_{name}" in case.inputs:
            weight = case.tensor(f"weight_{name}")
            assert_similarity(case, similarity(sr * weight, hr * weight), name, "weighted_")

    shape = tuple(int(size) for size in re.findall(r"B,(\d+),(\d+),(\d+)", case.meta["recipe"])[0])
    strength = float(re.findall(r"hr \+ ([\d.]+)\*", case.meta["recipe"])[0])
    for recipe in case.meta["recipes"]:
        pair = recipe_pair(recipe["hr_seed"], recipe["noise_seed"], strength, (recipe["B"], *shape))
        assert_similarity(case, similarity(*pair), f"recipe_{recipe['B']}")
        same = similarity(pair[1], pair[1])
        assert same[0].item() == case.outputs["psnr_identical"] == float("inf")
        assert_close(same[1], case.expected("ssim_identical"), atol=VALUE)
    assert_close(torch.outer(gaussian_window(), gaussian_window()), case.expected("ssim_window"), atol=1e-8)
    check_split_average(case, shape)


def check_split_average(case: Case, shape: tuple[int, ...]) -> None:
    recipe = case.meta["split"]
    sizes = [int(size) for size in re.findall(r"sizes \[([\d, ]+)\]", recipe)[0].split(",")]
    hr_seed, noise_seed = (int(seed) for seed in re.findall(r"seeded_image\((\d+)\+k", recipe))
    start, step = (float(number) for number in re.findall(r"\(([\d.]+)\+([\d.]+)\*k\)", recipe)[0])
    values = []
    for k, size in enumerate(sizes):
        pair = recipe_pair(hr_seed + k, noise_seed + k, start + step * k, (size, *shape))
        values.append([value.item() for value in similarity(*pair)])
    psnr_value, ssim_value = np.mean(values, axis=0)
    assert psnr_value == pytest.approx(float(case.outputs["split_psnr_avg"]), abs=1e-4)
    assert ssim_value == pytest.approx(float(case.outputs["split_ssim_avg"]), abs=1e-5)
