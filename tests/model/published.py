"""State tables of published checkpoints: `{key: (shape, kind)}`, in file order."""

import gzip
import json
from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "golden"

RTSRN = {
    "rtsrn_mask4_stn_triple": {"STN": True},
    "rtsrn_rgb3_stn_triple": {"STN": True, "mask": False},
    "rtsrn_mask4_nostn_triple": {"STN": False},
    "rtsrn_mask4_stn_notriple": {"STN": True, "triple_clues": False},
}
"""The options each table of RTSRN belongs to."""


def table(name: str) -> tuple[int, dict[str, tuple[tuple[int, ...], str]]]:
    """Number of parameters, and shape and kind ("param" or "buffer") of every key."""
    with gzip.open(GOLDEN / "published_states.json.gz", "rt") as file:
        entry = json.load(file)[name]
    return entry["parameters"], {key: (tuple(shape), kind) for key, shape, kind in entry["keys"]}
