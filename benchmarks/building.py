"""What is measured: rendered words, and systems of the registry with random weights of the published sizes."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from easydict import EasyDict
from PIL import Image
from torch import Tensor, nn

from dataset.synthetic import make_sample
from dataset.textzoom import TextZoomWriter
from interface.config import load_settings
from interface.listing import GUIDES
from interface.systems import System, build_system
from interface.systems.prior_guided import PRIOR_GENERATORS
from model import build_model, model_spec

CLUES = "--STN --mask --triple_clues".split()  # of the published command
LOSSES = "--gradient --use_distill --text_focus --lca".split()
STRAIGHTFORWARD = ("rtsrn", "c3stisr")
"""Networks that `straightforward.py` knows the long way of; their recipe is that of the published command."""
FOCUS = {"published": "focus_transformer", "small": "focus_transformer_small"}
"""Recognisers behind the text-focus loss, by `--recogniser`."""
STUDENTS = ("clues", "prior_guided")  # recipes with a recogniser beside the SR network
BLEND = 0.3  # of the pixel adapter, which does nothing in a fresh network
SAMPLES = 16  # pictures whose statistics are those of the normalisations


def encoded(image: np.ndarray, kind: str) -> bytes:
    """A picture as a "JPEG" or "PNG" file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return file.getvalue()


def render(folder: Path, count: int) -> None:
    """An LMDB of rendered words."""
    with TextZoomWriter(folder) as writer:
        for index in range(count):
            sample = make_sample(0, index)
            writer.add(hr=encoded(sample.hr, "JPEG"), lr=encoded(sample.lr, "PNG"), label=sample.label)


def training_config(arch: str, options: Sequence[str], folder: Path, recogniser: str) -> EasyDict:
    """The configuration of a training whose recognisers have random weights, which are written to `folder`.

    Args:
        arch: a network for super-resolution.
        options: further flags.
        folder: which is there.
        recogniser: one of `FOCUS`.

    Raises:
        ValueError: the recogniser is the small one, but there is no text-focus loss to use it.
    """
    flags = ["--arch", arch, *([*CLUES, *LOSSES] if arch in STRAIGHTFORWARD else []), *options]
    focus = load_settings([*flags, "--tpg_pretrained", "unused"]).config.LOSS.text_focus
    if recogniser != "published" and not focus:
        raise ValueError(f"--recogniser {recogniser}: --arch {arch} trains without a text-focus loss; leave it out")
    torch.manual_seed(0)
    if focus:
        path = folder / "focus.pth"
        torch.save(build_model(FOCUS[recogniser]).state_dict(), path)
        flags += ["--text_focus_pretrained", str(path)]
    if model_spec(arch).system in STUDENTS:
        path = folder / "student.pth"
        torch.save(PRIOR_GENERATORS["CRNN"]().state_dict(), path)
        flags += ["--tpg_pretrained", str(path)]
    else:
        flags += ["--tpg_pretrained", "random"]
    return load_settings(flags).config


def ready_system(arch: str, pictures: Tensor) -> System:
    """A random system in evaluation mode, on the CPU, all of whose parts count: none of its layers is the identity.

    Args:
        arch: a network for super-resolution.
        pictures: (N, >=4, h, w) in [0, 1], N at least 2; what the normalisations take for usual.
    """
    flags = ["--arch", arch, *(CLUES if arch in STRAIGHTFORWARD else []), "--tpg_pretrained", "random", "--go_test"]
    torch.manual_seed(0)
    config = load_settings(flags).config
    system = build_system(config, training=False, pretrained=False)
    usual = pictures[:SAMPLES, : channels(config)]
    with torch.no_grad():
        for name, parameter in system.named_parameters():
            if name.endswith(".gama"):
                parameter.fill_(BLEND)
        for module in system.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.momentum = 1.0
        system.train().cascade(usual)
    return system.eval().requires_grad_(False)


def channels(config: EasyDict) -> int:
    """Planes of a picture."""
    return 4 if config.MODEL.mask else 3


def networks_of(system: System) -> list[nn.Module]:
    """The SR networks of a system."""
    parts = system.published_parts()
    return [part for name, found in parts.items() if not name.startswith(GUIDES) for part in found]


def guides_of(system: System) -> list[nn.Module]:
    """The recognisers beside its SR networks, which read what they are guided by."""
    parts = system.published_parts()
    return [part for name, found in parts.items() if name.startswith(GUIDES) for part in found]
