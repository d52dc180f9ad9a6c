"""State tables of published checkpoints: `{key: (shape, kind)}`, in file order."""

import gzip
import json
import sys
from pathlib import Path

import torch

from model import build_model, model_spec

GOLDEN = Path(__file__).parents[1] / "golden"

RTSRN = {
    "rtsrn_mask4_stn_triple": {"STN": True},
    "rtsrn_rgb3_stn_triple": {"STN": True, "mask": False},
    "rtsrn_mask4_nostn_triple": {"STN": False},
    "rtsrn_mask4_stn_notriple": {"STN": True, "triple_clues": False},
}
"""The options each table of RTSRN belongs to."""


Table = tuple[int, dict[str, tuple[tuple[int, ...], str]]]


def table(name: str) -> Table:
    """Number of parameters, and shape and kind ("param" or "buffer") of every key."""
    return _tables("published_states.json.gz")[name]


def zoo_tables() -> dict[str, Table]:
    """The same of the networks of other authors, by our name; computed constants are of kind "constant_buffer"."""
    return _tables("published_zoo.json.gz")


def published_options(name: str) -> dict[str, bool]:
    """The options with which a network of the registry has the keys of its `zoo_tables`."""
    keys = zoo_tables()[name][1]
    four = any(
        len(shape) == 4 and 4 in shape[:2] for shape, _ in keys.values()
    )  # planes that a convolution takes or makes
    found = {"STN": "tps.inverse_kernel" in keys, "mask": four, "published_unused": True}
    return {option: value for option, value in found.items() if option in model_spec(name).options}


def golden_lines(name: str) -> list[str]:
    """`key shape` of every state key of a network with its default options."""
    with torch.device("meta"):
        state = build_model(name).state_dict()
    return [f"{key} {'x'.join(map(str, value.shape)) or '-'}" for key, value in state.items()]


def _tables(file: str) -> dict[str, Table]:
    with gzip.open(GOLDEN / file, "rt") as opened:
        entries = json.load(opened)
    return {
        name: (entry["parameters"], {key: (tuple(shape), kind) for key, shape, kind in entry["keys"]})
        for name, entry in entries.items()
    }


if __name__ == "__main__":  # python -m tests.model.published NAME > tests/golden/NAME.keys
    sys.stdout.write("\n".join(golden_lines(sys.argv[1])) + "\n")
