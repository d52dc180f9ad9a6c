"""Weights of a run in a small file for others to use, with what is known about them beside it.

Of a recogniser the file holds the network alone, under the keys of the published files, so that it can stand wherever
weights of that recogniser are asked for. Of a super-resolution system it holds all that was trained, and its options in
the head, so that `--resume FILE` tests it or begins a training with it.

What is trained is rounded to half precision. The rest is kept as it is: statistics of BatchNorm may be beyond its
range, and the constants of a spline beyond its 11 bits.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as serialise
from torch import Tensor

from dataset.charset import STROKES
from interface.checkpoint import file_sha256, load_checkpoint, write_atomically, write_text
from interface.config import load_settings
from interface.exported import FACTS
from interface.resume import BEST, LAST, open_resume
from interface.systems import System, build_system
from interface.systems.recognizers import CHARSET

PREFIX = "network."  # of a recogniser within its system

START, RESUME = "start", "resume"  # events of metrics.jsonl that hold a command


def export_weights(source: Path, target: Path, tested: Mapping[str, float] | None = None, *, which: str = "") -> Path:
    """Write what a checkpoint holds as half-precision safetensors, and `<target>.json` beside it.

    Args:
        source: run folder (its `best.pth`, else `last.pth`) or checkpoint file.
        target: file to write, `.safetensors`.
        tested: results in % that belong to it.
        which: "best" or "last", which of the two of a run folder.

    Returns:
        The json file.

    Raises:
        FileNotFoundError: there is no checkpoint.
        FileExistsError: there is something at `target`.
        ValueError: the checkpoint is damaged, the target has another ending, or the source is a file besides `which`.
    """
    if target.suffix != ".safetensors":
        raise ValueError(f"{target}: weights are written as .safetensors; give the file that ending")
    facts_file = target.with_suffix(".json")
    for path in (target, facts_file):
        if path.exists():
            raise FileExistsError(f"{path} exists; nothing is overwritten: choose another name or remove it")
    source = _checkpoint(source, which)
    state = load_checkpoint(source)
    arch, reads = state["config"].get("arch"), CHARSET in state["system"]
    tensors = _rounded(state["system"], _system(source, arch))
    about: dict[str, Any] = {"arch": arch}
    heading: dict[str, str] | None = None
    if reads:
        characters, name = "".join(map(chr, tensors.pop(CHARSET).tolist())), state["config"]["MODEL"]["charset"]
        about["charset"] = STROKES if name == STROKES else characters
        tensors = {key.removeprefix(PREFIX): value for key, value in tensors.items()}
    else:
        best_step = (state["best"] or {}).get("step")
        chosen = BEST if source.name != LAST and best_step == state["step"] else LAST
        options = {**about, "step": state["step"], "chosen": chosen, "config": state["config"]}
        heading = {FACTS: json.dumps(options, ensure_ascii=False)}
        about["chosen"] = chosen
    target.parent.mkdir(parents=True, exist_ok=True)

    def write(path: Path) -> None:
        path.write_bytes(serialise(tensors, metadata=heading))  # `save_file` makes files that others cannot read

    write_atomically(target, write)
    best, commands = state["best"] or {}, training_commands(source.parent)
    facts: dict[str, Any] = {
        "file": target.name,
        "sha256": file_sha256(target),
        **about,
        "dtype": "float16",
        "step": state["step"],
        "code": state["code"],
        "command": commands[0] if commands else None,
        "continued by": commands[1:],
        "seed": state["config"]["TRAIN"]["seed"],
        "data": state["config"]["TRAIN"]["train_data_dir"],
        "rendered": rendered_part(state["config"]["TRAIN"]),
        "scores": {"validation": best.get("score"), "at step": best.get("step"), "test, %": dict(tested or {})},
        "config": state["config"],
    }
    text = json.dumps(facts, ensure_ascii=False, indent=1) + "\n"
    write_atomically(facts_file, lambda path: write_text(path, text))
    return facts_file


def _system(source: Path, arch: str) -> System:
    """The system that a checkpoint belongs to, with its weights."""
    settings = load_settings(["--go_test", "--arch", arch, "--resume", str(source)])
    resume = open_resume(settings)
    assert resume is not None, "a path is given"
    with torch.random.fork_rng(devices=[]):
        system = build_system(settings.config, training=False, pretrained=False)
    resume.load_system(system)
    return system


def _rounded(state: Mapping[str, Tensor], system: System) -> dict[str, Tensor]:
    trained = {name for name, _ in system.named_parameters()}
    rounded = {
        name: (value.half() if name in trained else value).contiguous().to("cpu") for name, value in state.items()
    }
    beyond = [name for name in trained & set(rounded) if not torch.isfinite(rounded[name]).all()]
    if beyond:
        raise ValueError(f"{beyond[0]} and {len(beyond) - 1} more have values that half precision cannot hold (65,504)")
    return rounded


def rendered_part(train: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a training rendered, by the options of its `TRAIN`; None if nothing, as before there was `--rendered`."""
    options = {name: train.get(name) for name in ("rendered", "word_list", "font_dirs")}
    return {"an epoch": options.pop("rendered"), **options} if options["rendered"] else None


def training_commands(folder: Path) -> list[str]:
    """The commands that made a run, the first one first, as its `metrics.jsonl` has them; none without that file."""
    file = folder / "metrics.jsonl"
    if not file.is_file():
        return []
    commands = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            event = json.loads(line)
        except json.JSONDecodeError:  # cut off when the machine failed
            continue
        if event.get("event") in (START, RESUME) and event.get("command"):
            commands.append(event["command"])
    return commands


def _checkpoint(source: Path, which: str) -> Path:
    if which and source.is_file():
        raise ValueError(f"{source} is a file; --which {which} chooses between the two of a run folder")
    if not source.is_dir():
        return source
    names = {"best": (BEST,), "last": (LAST,)}.get(which, (BEST, LAST))
    return next((source / name for name in names if (source / name).is_file()), source / names[-1])
