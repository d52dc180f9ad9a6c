"""Two reports of the same pictures: is one system better than the other, or was it chance?

Pictures are compared pairwise, so that what makes a picture hard for both falls out: a bootstrap over the differences
gives the interval, McNemar's exact test (https://doi.org/10.1007/BF02295996) the probability for readings.
"""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from interface.bootstrap import bootstrap_interval

LATER = "sr_"  # rows of super-resolved pictures; the last one is the result


class CompareError(ValueError):
    """Two reports that cannot be compared; the message says why."""


@dataclass(frozen=True)
class Difference:
    """B minus A, of one number on one data set.

    Attributes:
        split: the data set.
        measure: "accuracy PPOCR", "character accuracy PPOCR", "psnr" or "ssim".
        a, b: the means; accuracies are shares.
        change: mean of b - a over the pictures; NaN where a picture has no such difference.
        low, high: 95 % interval of the change.
        p: McNemar's two-sided probability of a difference at least as large if both read equally well; None for
            what is no reading.
        only_a, only_b: readings that are right in one report alone.
    """

    split: str
    measure: str
    a: float
    b: float
    change: float
    low: float
    high: float
    p: float | None = None
    only_a: int = 0
    only_b: int = 0


def load_report(path: Path) -> dict[str, Any]:
    """`report.json`, or that of a folder.

    Raises:
        CompareError: there is none, or it lacks what belongs to each picture.
    """
    file = path / "report.json" if path.is_dir() else path
    if not file.is_file():
        inside = sorted(str(found.parent) for found in path.glob("*/report.json"))
        if inside:
            raise CompareError(f"{path} holds a report for each data set; name one: {', '.join(inside)}")
        raise CompareError(
            f"{path} has no report.json; --go_test writes one into the run folder (report-<date>-<time>)"
        )
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
        whole = all("per_image" in split for split in report["splits"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CompareError(f"{file} is no report of this program ({type(error).__name__}: {error})") from error
    if not whole:
        raise CompareError(f"{file} holds no numbers per image, so it cannot be compared pairwise; test again")
    return report


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p: the binomial probability of a split of the disagreements that is at least as uneven."""
    count, fewer = only_a + only_b, min(only_a, only_b)
    tail = ways = 1  # to be right in none, in one, ... of the disagreements
    for number in range(fewer):
        ways = ways * (count - number) // (number + 1)
        tail += ways
    return min(1.0, 2 * tail / 2**count)


def result_row(split: dict[str, Any], row: str) -> str:
    """The row to compare: `row`, or the last super-resolved one.

    Raises:
        CompareError: there is no such row.
    """
    images = split["per_image"]
    rows = list(dict.fromkeys(name for by_row in (*images["readings"].values(), images["psnr"]) for name in by_row))
    results = {int(name.removeprefix(LATER)): name for name in rows if re.fullmatch(rf"{LATER}\d+", name)}
    if row in rows or (results and not row):
        return row or results[max(results)]
    missing = f"no row {row!r}" if row else "no single result to compare, so name a row with --row"
    raise CompareError(f"{missing}; there are {', '.join(rows)}")


def compare(a: dict[str, Any], b: dict[str, Any], *, row: str = "", samples: int = 10_000) -> list[Difference]:
    """All differences between two reports.

    Args:
        a: what `load_report` gave.
        b: the same of the other system.
        row: "bicubic", "sr_1", ...: the pictures to compare; empty: the result of each report.
        samples: of the bootstrap.

    Raises:
        CompareError: they are not about the same pictures.
    """
    names = [name for name in a["splits"] if name in b["splits"]]
    if not names:
        raise CompareError(f"no data set in common: {', '.join(a['splits'])} and {', '.join(b['splits'])}")
    found: list[Difference] = []
    for name in names:
        one, other = a["splits"][name], b["splits"][name]
        if one["fingerprint"] != other["fingerprint"] or one["per_image"]["index"] != other["per_image"]["index"]:
            paths = " and ".join(str(part.get("path")) for part in (one, other))
            raise CompareError(
                f"{name}: the two reports are about other pictures, or prepared them otherwise ({paths}, fingerprints "
                f"{one['fingerprint'][:12]} and {other['fingerprint'][:12]}); test both on the same data"
            )
        row_a, row_b = result_row(one, row), result_row(other, row)
        target = one["per_image"]["target"]
        readings, others = one["per_image"]["readings"], other["per_image"]["readings"]
        for reader in [reader for reader in readings if reader in others]:
            right_a = _right(readings[reader][row_a], target)
            right_b = _right(others[reader][row_b], target)
            only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
            paired = _paired(name, f"accuracy {reader}", right_a, right_b, samples)
            found.append(_with_test(paired, only_a, only_b))
            close, others_close = (split["per_image"].get("character_accuracy") or {} for split in (one, other))
            if reader in close and reader in others_close:  # older reports have none
                values_a, values_b = _numbers(close[reader][row_a]), _numbers(others_close[reader][row_b])
                found.append(_paired(name, f"character accuracy {reader}", values_a, values_b, samples))
        for measure in ("psnr", "ssim"):
            if row_a in one["per_image"][measure] and row_b in other["per_image"][measure]:
                values_a, values_b = one["per_image"][measure][row_a], other["per_image"][measure][row_b]
                found.append(_paired(name, measure, _numbers(values_a), _numbers(values_b), samples))
    return found


def _right(texts: list[str], target: list[str]) -> np.ndarray:
    return np.array([text == wanted for text, wanted in zip(texts, target, strict=True)])


def _numbers(values: list[Any]) -> np.ndarray:
    """Per-image values as the report stores them: an infinite PSNR is the text "inf", what is missing is null."""
    return np.array([math.nan if value is None else float(value) for value in values])


def _paired(split: str, measure: str, a: np.ndarray, b: np.ndarray, samples: int) -> Difference:
    with np.errstate(invalid="ignore"):
        difference = b.astype(np.float64) - a.astype(np.float64)
    difference[np.isinf(a.astype(float)) & np.isinf(b.astype(float))] = 0.0  # both equal their HR
    low, high = bootstrap_interval(difference, samples)
    with np.errstate(invalid="ignore"):
        return Difference(split, measure, float(a.mean()), float(b.mean()), float(difference.mean()), low, high)


def _with_test(found: Difference, only_a: int, only_b: int) -> Difference:
    p = mcnemar(only_a, only_b)
    return Difference(**{**vars(found), "p": p, "only_a": only_a, "only_b": only_b})
