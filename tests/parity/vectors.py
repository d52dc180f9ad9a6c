"""Reference vectors: numbers the published implementations compute, without their code or weights.

A case is one `.npz`: json `keys` ({state key: shape}), json `meta`, and arrays named `in/<name>` and `out/<name>`.
Weights are a function of the key names (`fill_state`), so none are stored.
"""

import json
import os
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.device import DEVICE, EXACT

ROOT = Path(os.environ.get("STISR_VECTORS") or Path(__file__).parents[1] / "vectors")

HANDLERS: dict[str, Callable[["Case"], None]] = {}


def handles(*names: str) -> Callable[[Callable[["Case"], None]], Callable[["Case"], None]]:
    """Register the decorated function as the check of the named cases (`family/case`)."""

    def register(check: Callable[["Case"], None]) -> Callable[["Case"], None]:
        for name in names:
            assert name not in HANDLERS, f"two checks for {name}"
            HANDLERS[name] = check
        return check

    return register


def seeded_image(seed: int, *shape: int) -> np.ndarray:
    """Uniform [0, 1) float32 array, a function of the seed alone."""
    return np.random.RandomState(seed).random_sample(shape).astype(np.float32)


def fill_array(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The float32 value that the reference run gave the parameter or buffer called `key`."""
    normal = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32)
    if key.endswith("running_var"):
        return np.asarray(1 + 0.1 * np.abs(normal), dtype=np.float32)
    if len(shape) <= 1:
        return np.asarray(1 + 0.1 * normal if key.endswith("weight") else 0.02 * normal, dtype=np.float32)
    fan_in = int(np.prod(shape[1:]))
    return np.asarray(normal * min(0.1, 1.0 / np.sqrt(fan_in)), dtype=np.float32)


def apply_rules(key: str, value: np.ndarray, rules: list[list[Any]]) -> np.ndarray:
    """Apply the `[regex, "add" | "mul", scalar]` rules whose regex is found in `key`, in order, in float32."""
    for pattern, operation, scalar in rules:
        if re.search(pattern, key):
            value = value + np.float32(scalar) if operation == "add" else value * np.float32(scalar)
    return value


@dataclass(frozen=True)
class Case:
    """One reference case; arrays are numpy, `tensors` and `state` give torch."""

    name: str
    shapes: dict[str, tuple[int, ...]]
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    meta: dict[str, Any]

    def tensor(self, name: str) -> Tensor:
        """The input called `name` as a tensor."""
        return torch.from_numpy(np.array(self.inputs[name])).to(DEVICE)

    def expected(self, name: str) -> Tensor:
        """The output called `name` as a tensor."""
        return torch.from_numpy(np.array(self.outputs[name])).to(DEVICE)

    def state(self, part: str = "", prefix: str = "", rules: str = "rules") -> dict[str, Tensor]:
        """The reference weights of one part of the case.

        Args:
            part: composite cases name keys `part/key`; the fill uses what follows the slash.
            prefix: start of the keys to take; it is stripped from the result.
            rules: the entry of `meta` with the rules of this part.
        """
        constant = set(self.meta.get("constant_buffers", []))
        state = {}
        for full_key, shape in self.shapes.items():
            if not full_key.startswith(part):
                continue
            key = full_key[len(part) :]
            if not key.startswith(prefix) or key in constant or key.endswith("num_batches_tracked"):
                continue
            override = self.inputs.get(f"state:{key}")
            value = fill_array(key, shape) if override is None else override
            if override is None:
                value = apply_rules(key, value, self.meta.get(rules, []))
                value = value * np.float32(self.meta.get("scale", {}).get(key, 1.0))
                if f"add:{key}" in self.inputs:
                    value = value + self.inputs[f"add:{key}"]
            state[key[len(prefix) :]] = torch.from_numpy(np.array(value, dtype=np.float32))
        return state


def load_case(path: Path) -> Case:
    """Read one `.npz`; a file without `keys` is a plain table of arrays, which become outputs."""
    with np.load(path, allow_pickle=False) as archive:
        meta = json.loads(str(archive["meta"])) if "meta" in archive.files else {}
        shapes = json.loads(str(archive["keys"])) if "keys" in archive.files else {}
        arrays = {name: archive[name] for name in archive.files if name not in ("keys", "meta")}
    inputs = {name[3:]: array for name, array in arrays.items() if name.startswith("in/")}
    outputs = {name.removeprefix("out/"): array for name, array in arrays.items() if not name.startswith("in/")}
    return Case(
        name=f"{path.parent.name}/{path.stem}",
        shapes={key: tuple(shape) for key, shape in shapes.items()},
        inputs=inputs,
        outputs=outputs,
        meta=meta,
    )


def without_dropout(module: nn.Module) -> nn.Module:
    """Set every dropout probability to 0, as the reference runs in training mode did."""
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        if isinstance(part, nn.MultiheadAttention):
            part.dropout = 0.0
    return module


def assert_close(actual: Tensor | float, expected: Tensor, *, atol: float, rtol: float = 0.0, what: str = "") -> None:
    """`|actual - expected| <= atol + rtol * max|expected|`: relative to the array's maximum, as the tolerances are."""
    actual = torch.as_tensor(actual).detach().cpu().double()
    expected = torch.as_tensor(expected).cpu().double()
    assert actual.shape == expected.shape, f"{what}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    limit = (atol + rtol * expected.abs().max().item()) * (1 if EXACT else 10)
    worst = (actual - expected).abs().max().item() if expected.numel() else 0.0
    assert worst <= limit, f"{what}: differs by {worst:.3g}, allowed {limit:.3g}"
