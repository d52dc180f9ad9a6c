"""Weights of a run of this program in the files that the published programs read and write.

An SR network goes into `model_best_acc_<i>.pth`, a dict with its state dict and facts about the training; a student
into `recognizer_best_acc_<i>.pth`, a bare state dict. Published networks hold parts that they never use, and their
programs want them in the file. Ours may leave those out; here they get the values they would start a training with.
"""

import logging
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from easydict import EasyDict
from torch import Tensor, nn

from interface.checkpoint import CheckpointError, write_atomically
from interface.config import SUPER_RESOLUTION, Settings, flatten, load_settings
from interface.resume import BEST, LAST, Resume, open_resume
from interface.systems import System, build_system
from interface.systems.base import network_options
from model import build_model, model_spec

MODEL, STUDENT = "model_best_acc_{}.pth", "recognizer_best_acc_{}.pth"
SEED = 0  # of the parts that are never used

log = logging.getLogger(__name__)


def export_published(source: Path, folder: Path, which: str = "") -> list[Path]:
    """Write the networks of a run as published files.

    Args:
        source: a run folder, or a checkpoint file.
        folder: where they go; it may exist.
        which: "best" or "last", which of the two checkpoints of a run folder; empty: the best, else the last.

    Returns:
        The files, SR networks first.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        FileExistsError: the folder holds published files already.
        ValueError: the source is no checkpoint of this program, or damaged, or a file besides `which`.
        OSError: the files cannot be written; those of this call are removed again.
    """
    there = sorted(path.name for pattern in (MODEL, STUDENT) for path in folder.glob(pattern.format("*")))
    if there:
        raise FileExistsError(f"{folder} holds {', '.join(there[:5])}; nothing is overwritten: name another folder")
    system, config, state = open_trained(source, which)
    spec, own = model_spec(config.arch), network_options(config)
    other = [f"{name} = {value}" for name, value in spec.published.items() if own[name] != value]
    if other:
        log.warning("published weights go with %s; this run was trained with other options", " and ".join(other))
    return _write(published_contents(system, config, state), folder)


def open_trained(source: Path, which: str = "") -> tuple[System, EasyDict, dict[str, Any]]:
    """The system of a checkpoint with its weights, its configuration, and the whole checkpoint.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: the source is no checkpoint of this program, or damaged, or a file besides `which`.
    """
    settings, resume = _opened(source, which)
    if resume.state is None:
        raise CheckpointError(f"{source} holds no checkpoint of this program, but weights that are published already")
    return _loaded(settings, resume), settings.config, resume.state


def open_weights(source: Path, which: str = "") -> tuple[System, EasyDict, int | None]:
    """The system of whatever `--resume` takes with its weights, its configuration, and at which step they were taken.

    Raises:
        FileNotFoundError: there is nothing.
        ValueError: it cannot be used, or is a file besides `which`.
    """
    settings, resume = _opened(source, which)
    return _loaded(settings, resume), settings.config, resume.step


def _opened(source: Path, which: str) -> tuple[Settings, Resume]:
    if which and source.is_file():
        raise ValueError(f"{source} is a file; --which {which} chooses between the two of a run folder")
    if which and source.is_dir():
        source /= {"best": BEST, "last": LAST}[which]
    settings = load_settings(["--go_test", "--resume", str(source)])  # a test needs neither data nor starting weights
    if settings.interface != SUPER_RESOLUTION:
        raise ValueError(f"{source} is a run of the recogniser {settings.config.arch}, whose weights lie in its folder")
    resume = open_resume(settings)
    assert isinstance(resume, Resume)
    return settings, resume


def _loaded(settings: Settings, resume: Resume) -> System:
    system = build_system(settings.config, training=False, pretrained=False)
    resume.load_system(system)
    return system


def published_contents(system: System, config: EasyDict, state: Mapping[str, Any]) -> dict[str, Any]:
    """What each published file holds, by its name.

    A shared SR network is written once, which is how published programs look for it; a shared student under every
    stage, because they keep one for each.

    Args:
        system: with trained weights.
        config: of the system.
        state: the checkpoint it comes from.
    """
    contents: dict[str, Any] = {}
    for part, modules in system.published_parts().items():
        if part.startswith("recognizer"):
            for stage in range(system.stages):
                contents[STUDENT.format(stage)] = modules[stage % len(modules)].state_dict()
            continue
        for stage, network in enumerate(modules):
            whole = whole_network(network, config)
            contents[MODEL.format(stage)] = {
                "state_dict_G": whole.state_dict(),
                "info": _facts(config, state),
                # Scores by test set, which our checkpoints do not hold: they are chosen by one number for all.
                "best_history_res": {},
                "best_model_info": {"accuracy": {}, "psnr": {}, "ssim": {}},
                "param_num": sum(parameter.numel() for parameter in whole.parameters()),
                "converge": [],
            }
    return contents


def whole_network(network: nn.Module, config: EasyDict) -> nn.Module:
    """The network itself, or a copy with all parts of the published one if it leaves some out."""
    if "published_unused" not in model_spec(config.arch).options:
        return network
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        whole = build_model(config.arch, **network_options(config), published_unused=True)
    own: dict[str, Tensor] = network.state_dict()
    whole.load_state_dict({**whole.state_dict(), **own})
    return whole


def _facts(config: EasyDict, state: Mapping[str, Any]) -> dict[str, Any]:
    # The options of the checkpoint itself: the run may have gone on with others.
    saved = {**dict(flatten(config)), **dict(flatten(state["config"]))}
    return {
        "arch": config.arch,
        "iters": state["step"],
        "epochs": state["epoch"],
        "batch_size": saved["TRAIN.batch_size"],
        "voc_type": saved["TRAIN.voc_type"],
        "up_scale_factor": config.TRAIN.down_sample_scale,
    }


def _write(contents: Mapping[str, Any], folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    try:
        for name, content in contents.items():
            written.append(folder / name)
            write_atomically(folder / name, partial(torch.save, content))
    except (OSError, RuntimeError) as error:  # PyTorch's writer reports a full disk as RuntimeError
        for path in written:
            path.unlink(missing_ok=True)
        free = shutil.disk_usage(folder).free / 2**20
        raise OSError(f"{written[-1]} cannot be written ({error}); {free:.0f} MiB are free there") from error
    return written
