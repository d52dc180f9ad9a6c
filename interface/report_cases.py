"""Which images an evaluation report shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from interface.alignment import distance
from interface.report_numbers import Report, all_splits, baseline, difference_of, number, readers, stages

CASE_KINDS = ("helped", "hurt", "worst", "random")


@dataclass(frozen=True)
class Cases:
    """The chosen images of one kind.

    Attributes:
        kind: one of CASE_KINDS.
        total: how many images of the data are of this kind.
        places: (split, position in its per_image lists), best example first.
    """

    kind: str
    total: int
    places: list[tuple[str, int]]


def choose_cases(report: Report, count: int) -> list[Cases]:
    """Choose up to `count` images of each kind, the splits taking turns; no image is shown twice.

    "helped": the baseline (LR) was misread and SR read right, the worst misreadings first. "hurt": the other way round,
    the worst first. "worst": SR misread, by normalised edit distance, ties by PSNR. "random": drawn with a fixed seed.
    The first reader decides. Without readers it is the PSNR gain over bicubic (largest, then most negative) and PSNR.

    Args:
        report: the report; splits without `per_image` lists have no cases.
        count: images per kind, over all splits.
    """
    choose = _rank_by_reading if readers(report) else _rank_by_psnr
    ranked = {name: choose(report, split.get("per_image") or {}) for name, split in all_splits(report).items()}
    chosen: list[Cases] = []
    taken: set[tuple[str, int]] = set()
    for kind in CASE_KINDS:
        turns = []
        for name, lists in ranked.items():
            free = (place for place in lists[kind] if (name, place) not in taken)
            turns += [(turn, name, place) for turn, place in zip(range(count), free, strict=False)]
        turns.sort(key=lambda item: item[0])  # stable: within a turn the splits keep their order
        places = [(name, place) for _, name, place in turns[:count]]
        taken.update(places)
        chosen.append(Cases(kind, sum(len(lists[kind]) for lists in ranked.values()), places))
    return chosen


def _rank_by_reading(report: Report, images: Report) -> dict[str, list[int]]:
    """Positions for each kind of case, best example first."""
    reader = readers(report)[0]
    readings, targets = (images.get("readings") or {}).get(reader) or {}, images.get("target") or []
    result = _result(report)
    after = readings.get(result) or []
    before = readings.get(baseline(report, "accuracy", reader) or "") or []
    quality = _column(images, "psnr", result) or [None] * len(after)
    wrong, wrong_before = (
        {place: distance(targets[place], text) for place, text in enumerate(texts) if text != targets[place]}
        for texts in (after, before)
    )
    worst = sorted(wrong, key=lambda place: (-wrong[place], _ascending(quality[place])))
    repaired = [place for place in wrong_before if place not in wrong]
    return {
        "helped": sorted(repaired, key=lambda place: -wrong_before[place]) if after else [],
        "hurt": [place for place in worst if place not in wrong_before] if before else [],
        "worst": worst,
        "random": _shuffled(report, images),
    }


def _rank_by_psnr(report: Report, images: Report) -> dict[str, list[int]]:
    quality = _column(images, "psnr", _result(report))
    base = _column(images, "psnr", "bicubic")
    pairs = zip(quality, base, strict=True) if base else ()
    gains = {place: gain for place, pair in enumerate(pairs) if (gain := difference_of(*pair)) is not None}
    known = [place for place, value in enumerate(quality) if value is not None]
    return {
        "helped": sorted((place for place in gains if gains[place] > 0), key=lambda place: -gains[place]),
        "hurt": sorted((place for place in gains if gains[place] < 0), key=lambda place: gains[place]),
        "worst": sorted(known, key=lambda place: _ascending(quality[place])),
        "random": _shuffled(report, images),
    }


def _result(report: Report) -> str:
    return stages(report)[-1] if stages(report) else ""


def _column(images: Report, measure: str, row: str) -> list[float | None]:
    return [number(value) for value in (images.get(measure) or {}).get(row) or ()]


def _ascending(value: float | None) -> float:
    return float("inf") if value is None else value


def _shuffled(report: Report, images: Report) -> list[int]:
    size = max(len(images.get(key) or ()) for key in ("index", "label", "target"))
    return np.random.default_rng(0).permutation(size).tolist()
