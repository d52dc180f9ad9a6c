"""A recogniser's weights in a small file, with what is known about them beside it.

What is trained is rounded to half precision. The rest is kept as it is: statistics of BatchNorm may be beyond its
range, and the constants of a spline beyond its 11 bits.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from interface.checkpoint import CheckpointError, file_sha256, load_checkpoint, write_atomically, write_text
from interface.resume import BEST, LAST
from interface.systems.recognizers import CHARSET
from model import build_model

PREFIX = "network."


START, RESUME = "start", "resume"  # events of metrics.jsonl that hold a command


def export_weights(source: Path, target: Path, tested: Mapping[str, float] | None = None, *, which: str = "") -> Path:
    """Write the network of a checkpoint as half-precision safetensors, and `<target>.json` beside it.

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
        ValueError: the checkpoint is damaged or no recogniser, the target has another ending, or the source is a file
            besides `which`.
    """
    if target.suffix != ".safetensors":
        raise ValueError(f"{target}: weights are written as .safetensors; give the file that ending")
    facts_file = target.with_suffix(".json")
    for path in (target, facts_file):
        if path.exists():
            raise FileExistsError(f"{path} exists; nothing is overwritten: choose another name or remove it")
    source = _checkpoint(source, which)
    state = load_checkpoint(source)
    if CHARSET not in state["system"]:
        raise CheckpointError(f"{source} holds no recogniser, but the network {state['config'].get('arch')}")
    arch, charset = state["config"]["arch"], "".join(map(chr, state["system"][CHARSET].tolist()))
    with torch.random.fork_rng(devices=[]):
        trained = {name for name, _ in build_model(arch, charset=charset).named_parameters()}
    tensors = {
        name: (value.half() if name in trained else value).contiguous().to("cpu")
        for name, value in _network(state["system"]).items()
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, lambda path: save_file(tensors, path))
    best, commands = state["best"] or {}, training_commands(source.parent)
    facts: dict[str, Any] = {
        "file": target.name,
        "sha256": file_sha256(target),
        "arch": arch,
        "charset": charset,
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
    content = json.dumps(facts, ensure_ascii=False, indent=1) + "\n"
    write_atomically(facts_file, lambda path: write_text(path, content))
    return facts_file


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


def _network(system: Mapping[str, Any]) -> dict[str, Any]:
    return {key.removeprefix(PREFIX): value for key, value in system.items() if key.startswith(PREFIX)}
