"""A recogniser's weights in a small file, with what is known about them beside it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from interface.checkpoint import CheckpointError, file_sha256, load_checkpoint, write_atomically, write_text
from interface.provenance import command
from interface.resume import BEST, LAST
from interface.systems.recognizers import CHARSET

PREFIX = "network."


def export_weights(source: Path, target: Path, tested: Mapping[str, float] | None = None) -> Path:
    """Write the network of a checkpoint as half-precision safetensors, and `<target>.json` beside it.

    Args:
        source: run folder (its `best.pth`, else `last.pth`) or checkpoint file.
        target: file to write, `.safetensors`.
        tested: results in % that belong to it.

    Returns:
        The json file.

    Raises:
        FileNotFoundError: there is no checkpoint.
        FileExistsError: there is something at `target`.
        ValueError: the checkpoint is damaged or no recogniser, or the target has another ending.
    """
    if target.suffix != ".safetensors":
        raise ValueError(f"{target}: weights are written as .safetensors; give the file that ending")
    if target.exists():
        raise FileExistsError(f"{target} exists; nothing is overwritten: choose another name or remove it")
    if source.is_dir():
        source = next((source / name for name in (BEST, LAST) if (source / name).is_file()), source / LAST)
    state = load_checkpoint(source)
    if CHARSET not in state["system"]:
        raise CheckpointError(f"{source} holds no recogniser, but the network {state['config'].get('arch')}")
    half = {key.removeprefix(PREFIX): _half(value) for key, value in state["system"].items() if key.startswith(PREFIX)}
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, lambda path: save_file(half, path))
    best = state["best"] or {}
    facts: dict[str, Any] = {
        "file": target.name,
        "sha256": file_sha256(target),
        "arch": state["config"]["arch"],
        "charset": "".join(map(chr, state["system"][CHARSET].tolist())),
        "dtype": "float16",
        "step": state["step"],
        "code": state["code"],
        "command": command(),
        "seed": state["config"]["TRAIN"]["seed"],
        "data": state["config"]["TRAIN"]["train_data_dir"],
        "scores": {"validation": best.get("score"), "at step": best.get("step"), "test, %": dict(tested or {})},
        "config": state["config"],
    }
    facts_file = target.with_suffix(".json")
    content = json.dumps(facts, ensure_ascii=False, indent=1) + "\n"
    write_atomically(facts_file, lambda path: write_text(path, content))
    return facts_file


def _half(value: Tensor) -> Tensor:
    return (value.half() if value.is_floating_point() else value).contiguous().to(torch.device("cpu"))
