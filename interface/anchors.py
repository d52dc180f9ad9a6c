"""Published numbers that an evaluation with the published weights must hit, whatever system is tested.

What the recognisers of the field read in TextZoom's own LR and HR pictures does not depend on super-resolution. If it
differs from the literature, then the weights, the data or the preparation of pictures are others, and no other number
of that report can be compared with published ones.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from interface.readers import Reader

# Test pictures of TextZoom, https://arxiv.org/abs/2005.03341; both are needed to tell it from other data.
TEXTZOOM = {"easy": 1619, "medium": 1411, "hard": 1343}
HANDFUL = 5  # pictures: what other versions of the libraries may read otherwise


@dataclass(frozen=True)
class Published:
    """Accuracies of one recogniser, in % on easy, medium and hard.

    Attributes:
        file: name of the weights' file.
        rows: by kind of picture.
        rounding: what the last digit of these numbers leaves open, in points.
    """

    file: str
    rows: dict[str, tuple[float, float, float]]
    rounding: float


# README table and training log of RTSRN; CRNN with two decimals, from the log.
PUBLISHED = {
    "CRNN": Published("crnn.pth", {"lr": (37.49, 21.40, 21.07), "hr": (76.41, 75.05, 64.56)}, 0.005),
    "MORAN": Published("demo.pth", {"lr": (56.2, 35.9, 28.2), "hr": (91.2, 85.3, 74.2)}, 0.05),
    "ASTER": Published("demo.pth.tar", {"lr": (62.4, 41.3, 31.6), "hr": (94.2, 87.7, 76.2)}, 0.05),
}


@dataclass(frozen=True)
class Anchor:
    """One comparison with the literature.

    Attributes:
        split, reader, row: what was read, by whom.
        published, measured: accuracies as shares.
        pictures: how many more pictures are read right than published.
        fits: the difference is within a handful of pictures and the rounding of the published number.
    """

    split: str
    reader: str
    row: str
    published: float
    measured: float
    pictures: float
    fits: bool


def check_anchors(results: dict[str, dict[str, Any]], readers: Iterable[Reader]) -> list[dict[str, Any]]:
    """Compare what can be compared: splits with names and sizes of TextZoom's, weights with the published file's name.

    Args:
        results: of `Evaluator.run`, by split.
        readers: who read.

    Returns:
        `Anchor`s as dictionaries, for the report; empty for other data or other weights.
    """
    found = []
    claimed = {reader.name: PUBLISHED[reader.name] for reader in readers if _claims_to_be_published(reader)}
    for split, entry in results.items():
        images = entry["images"]
        level = split.rsplit("/", 1)[-1]
        if TEXTZOOM.get(level) != images + entry["skipped"]:
            continue
        place = list(TEXTZOOM).index(level)
        for reader, published in claimed.items():
            allowed = HANDFUL + published.rounding / 100 * images
            measured_rows = entry["accuracy"][reader]
            for row, values in published.rows.items() if published.rows.keys() <= measured_rows.keys() else ():
                expected, measured = values[place] / 100, measured_rows[row]["value"]
                pictures = round((measured - expected) * images, 2)
                anchor = Anchor(split, reader, row, expected, measured, pictures, abs(pictures) <= allowed)
                found.append(asdict(anchor))
    return found


def _claims_to_be_published(reader: Reader) -> bool:
    return reader.name in PUBLISHED and Path(reader.weights).name == PUBLISHED[reader.name].file
