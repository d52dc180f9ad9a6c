"""What `--resume` names: a run of this program, weights exported from one, or weights of a published program."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interface.checkpoint import (
    DIGEST,
    CheckpointError,
    clean_state,
    load_weights,
    published_files,
    read_any,
    verified,
)
from interface.config import (
    FREE,
    SUPER_RESOLUTION,
    Settings,
    arch_file,
    arch_names,
    check,
    coerce,
    flatten,
    get,
    put,
    resumed_config,
    switch_arch,
)
from interface.exported import exported_facts
from interface.systems.base import System, build_network
from model.blocks.skeleton import residual_blocks
from model.registry import identify, model_spec

log = logging.getLogger(__name__)

LAST, BEST = "last.pth", "best.pth"
# Options that decide which tensors a checkpoint holds and what they mean.
SHARING = ("MODEL.sr_share", "MODEL.tpg_share")
IDENTITY = tuple(
    "arch MODEL.charset MODEL.STN MODEL.stn_align_corners MODEL.flat_prior MODEL.recurrence MODEL.mask MODEL.srb "
    "MODEL.hd_u MODEL.triple_clues MODEL.visual_clue MODEL.stu_iter "
    "MODEL.sr_share MODEL.tpg_share MODEL.freeze_tpg TRAIN.width TRAIN.height TRAIN.down_sample_scale".split()
)


@dataclass(frozen=True)
class Resume:
    """An opened `--resume`.

    Attributes:
        path: the checkpoint file, the exported file, or the published folder or file.
        state: the whole checkpoint of a run of this program; else None.
        exported: weights of a system in a file of their own: its facts (`interface.exported`) and "system",
            the tensors.
    """

    path: Path
    state: dict[str, Any] | None
    exported: dict[str, Any] | None = None

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def known(self) -> dict[str, Any] | None:
        """What this program wrote: a checkpoint or exported weights; None for published ones."""
        return self.state or self.exported

    @property
    def step(self) -> int | None:
        """At which the weights were taken; None if the file does not say."""
        return self.known["step"] if self.known is not None else None

    def forget_tensors(self) -> None:
        """Free the memory of what has been taken over; the configuration stays."""
        if self.state is not None:
            self.state["system"] = self.state["optimizers"] = None

    def load_system(self, system: System) -> None:
        """Put the weights into a system.

        Raises:
            CheckpointError: they do not fit.
        """
        if self.known is not None:
            system.load_trained_state(self.known["system"], str(self.path))
            return
        for part, modules in system.published_parts().items():
            students = part.startswith("recognizer")  # of which published runs have one for each stage, shared or not
            if students and getattr(system, "freeze_tpg", False):
                raise CheckpointError(
                    f"{self.path} has text-prior generators of its own, but --freeze_tpg keeps those of "
                    "--tpg_pretrained; leave --freeze_tpg out"
                )
            self._refuse_more(part, system.stages if students else len(modules))
            for module, file in zip(modules, published_files(self.path, part, len(modules)), strict=True):
                load_weights(module, clean_state(read_any(file), str(file)), file)
                log.info("published weights: %s", file)

    def _refuse_more(self, part: str, count: int) -> None:
        """A folder with files of more stages is another cascade, whose last picture is not the one of stage `count`."""
        found = len(list(self.path.glob(f"{part}_[0-9].pth"))) if self.path.is_dir() else 0
        if found > count:
            raise CheckpointError(
                f"{self.path} has {found} files {part}_<i>.pth, but {count} would be read; give the run's --stu_iter, "
                "--sr_share and --tpg_share, or name one file"
            )


def open_resume(settings: Settings) -> Resume | None:
    """Open what `--resume` names and take over the options that its weights were made with.

    A run folder gives `last.pth` to training and `best.pth` to tests and demos.

    Raises:
        FileNotFoundError: there is nothing at that path.
        CheckpointError: it cannot be read, or the flags contradict it.
    """
    name = settings.config.TRAIN.resume
    if not name:
        return None
    resume = _open(settings, name)
    asked = settings.config.MODEL.language_model if "MODEL.language_model" in settings.given else ""
    saved = resume.known["config"]["MODEL"].get("language_model", "") if resume.known is not None else ""
    if asked and asked != saved:
        raise CheckpointError(
            f"--language_model {asked}: a training may begin with it, but {resume.path} has a language model of its "
            "own; leave it out"
        )
    return resume


def _open(settings: Settings, name: str) -> Resume:
    path = Path(name)
    if not path.exists():
        places = {path.parent, Path(settings.config.TRAIN.ckpt_dir)}
        runs = sorted(str(found.parent) for place in places for found in place.glob(f"*/{LAST}"))
        runs += sorted(str(found) for place in {path.parent} for found in place.glob("*.safetensors"))
        raise FileNotFoundError(f"--resume {name}: nothing there; runs found: {', '.join(runs) or 'none'}")
    if path.is_dir():
        order = (LAST, BEST) if settings.verb == "train" else (BEST, LAST)
        own = next((path / file for file in order if (path / file).is_file()), None)
        if own is None and not list(path.glob("model_best*.pth")):
            raise CheckpointError(
                f"--resume {name}: no {LAST} or {BEST} of this program and no published model_best*.pth in this folder"
            )
        if own is not None and own.name != order[0]:
            log.warning("%s has no %s, so %s is used", path, order[0], own.name)
        path = own or path
    if path.is_file():
        facts = exported_facts(path)
        if facts is not None:
            tensors = {
                key: value.float() if value.is_floating_point() else value for key, value in read_any(path).items()
            }
            resume = Resume(path, None, {**facts, "system": tensors})
            _refuse_network(settings, facts["arch"], path)
            _adopt_options(settings, resume)
            return resume
        loaded = read_any(path)
        if isinstance(loaded, dict) and DIGEST in loaded:
            resume = Resume(path, _complete(verified(loaded, path), path))
            _refuse_network(settings, loaded["config"].get("arch"), path)
            _adopt_options(settings, resume)
            return resume
    _recognise(settings, path)
    return Resume(path, None)


def _recognise(settings: Settings, path: Path) -> None:
    """Take the network that published weights belong to: their keys say it, a name may not.

    The published RTSRN program saves that network under whatever --arch was given.
    """
    file = published_files(path, "model_best_acc", 1)[0]
    state = clean_state(read_any(file), str(file))
    asked, found = settings.config.arch, identify(state)
    if found is not None and found != asked and not _may_be(settings, state):
        _refuse_network(settings, found, file)
        log.warning("by its keys %s holds the network %s, so that is used, not --arch %s", file, found, asked)
        switch_arch(settings, found)
    for option, value in model_spec(settings.config.arch).published.items():
        key = f"MODEL.{option}"
        if key not in settings.given and get(settings.config, key) != value:
            log.info("%s = %r, as the published weights in %s need it", key, value, file)
            put(settings.config, key, value)
    _count_blocks(settings, state, file)


def _may_be(settings: Settings, state: Mapping[str, Tensor]) -> bool:
    """Whether the network that is asked for has the same keys and shapes; some networks differ in padding alone."""
    if settings.interface != SUPER_RESOLUTION:
        return False
    try:
        with torch.device("meta"):
            own = build_network(settings.config).to("meta").state_dict()
    except ValueError:  # its options may be those of the network that was found
        return False
    return {key: own[key].shape for key in own} == {key: value.shape for key, value in state.items()}


def _count_blocks(settings: Settings, state: Mapping[str, Tensor], file: Path) -> None:
    """Take the number of residual blocks from published weights: test commands that lack it are published, too."""
    if "srb_nums" not in model_spec(settings.config.arch).options:
        return
    blocks, asked = residual_blocks(state), settings.config.MODEL.srb
    if blocks in (0, asked):
        return
    if "MODEL.srb" in settings.given:
        if settings.verb == "train":
            raise CheckpointError(f"{file} has {blocks} residual blocks, but --srb {asked} is asked for; leave it out")
        log.warning("%s has %d residual blocks, and that counts, not --srb %d", file, blocks, asked)
    settings.config.MODEL.srb = blocks


def _refuse_network(settings: Settings, arch: str, path: Path) -> None:
    """Super-resolution and recognition have different options, so which of the two it is must be known before."""
    if arch in arch_names() and arch_file(arch)[0] != settings.interface:
        raise CheckpointError(f"{path} holds the network {arch}; give --arch {arch}")


# What a checkpoint of a run holds; a digest proves that a file is whole, not that it comes from here.
CONTENT: dict[str, type] = {
    "system": dict,
    "optimizers": dict,
    "step": int,
    "epoch": int,
    "position": int,
    "validated": int,
    "rng": list,
    "config": dict,
}


def _complete(state: dict[str, Any], path: Path) -> dict[str, Any]:
    wrong = [name for name, kind in CONTENT.items() if not isinstance(state.get(name), kind)]
    if wrong or "best" not in state or "scaler" not in state:
        raise CheckpointError(f"{path} is not the state of a run: it lacks {', '.join(wrong) or 'best or scaler'}")
    return state


def _adopt_options(settings: Settings, resume: Resume) -> None:
    """Take the options of the checkpoint: those its tensors depend on always, all others if its YAML is lost.

    A test or demo may name other options on its command line, as the published test commands do: the checkpoint's
    count, and the log says so. Training refuses them.
    """
    assert resume.known is not None
    known = dict(flatten(settings.config))
    saved = dict(flatten(resume.known["config"]))
    whole = resumed_config(settings.config.TRAIN.resume) is None
    one_stage = saved.get("MODEL.stu_iter") == 1
    for key, stored in saved.items():
        if key not in known or known[key] == stored or (key in SHARING and one_stage):
            continue
        value = coerce(key, stored, known[key], str(resume.path))
        if key in settings.given and key.startswith(IDENTITY):
            if settings.verb == "train" or key == "arch":
                raise CheckpointError(
                    f"{resume.path} was made with {key} = {value}, but {known[key]} is asked for; leave it out"
                )
            log.warning("%s is %r in %s, and that counts, not the %r given", key, value, resume.path, known[key])
            put(settings.config, key, value)
        elif key not in settings.given and (key.startswith(IDENTITY) or (whole and not key.startswith(FREE))):
            put(settings.config, key, value)
    check(settings)
