"""The head of a weights file that `interface.export_weights` wrote of a system: which one it is, and its options.

A `.safetensors` file begins with the size of its head and the head as JSON, where a program may leave texts of its own
(https://github.com/huggingface/safetensors). Nothing here imports torch.
"""

import json
from pathlib import Path
from typing import Any

FACTS = "stisr"  # our text in the head
LARGEST = 1 << 20  # bytes of a head; ours have some ten thousand
# What the facts are: which checkpoint of a run it was, and that run's options.
CONTENT: dict[str, type] = {"arch": str, "step": int, "chosen": str, "config": dict}
SIZES = ("width", "height", "down_sample_scale")


def exported_facts(path: Path) -> dict[str, Any] | None:
    """What the head of a file says of the system in it; None if it is no such file."""
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        head = file.read(size) if size <= LARGEST else b""
    try:
        facts = json.loads(json.loads(head)["__metadata__"][FACTS])
    except (ValueError, KeyError, TypeError):  # of another program, or damaged: reading its tensors will say so
        return None
    whole = isinstance(facts, dict) and all(isinstance(facts.get(name), kind) for name, kind in CONTENT.items())
    return facts if whole and _has_options(facts["config"]) else None


def _has_options(config: dict[str, Any]) -> bool:
    """Whether a configuration says which network it is for."""
    model, train = config.get("MODEL"), config.get("TRAIN")
    return isinstance(model, dict) and isinstance(train, dict) and {*SIZES, "VAL"} <= set(train)
