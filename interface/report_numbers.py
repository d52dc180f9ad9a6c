"""What an evaluation report says in numbers: the tables, with paired differences.

`interface/report.py` writes them as text and Markdown, `interface/report_html.py` as a page; neither computes.
The input is the dictionary of `report.json`. Anything in it may be missing: a missing number is an empty `Cell`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from interface.bootstrap import central_interval, redrawn_means

Report = dict[str, Any]
Interval = tuple[float | None, float | None]
NO_INTERVAL: Interval = (None, None)

PLAIN, WEIGHTED = "plain mean", "weighted mean"
UNITS = {
    **dict.fromkeys(("accuracy", "character_accuracy"), ("%", 1)),
    **dict.fromkeys(("psnr", "psnr_batch"), ("dB", 2)),
    **dict.fromkeys(("ssim", "ssim_batch"), ("", 4)),
}


@dataclass(frozen=True)
class Cell:
    """One number of a table and its 95 % interval; None where there is none."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Row:
    """One line of a table; `kind` is "plain", "result" (the last stage of SR) or "difference" (from `against`)."""

    name: str
    cells: list[Cell]
    kind: str = "plain"
    against: str = ""


@dataclass(frozen=True)
class Table:
    """The rows of one measure; the columns are the splits, then the two averages if there is more than one split."""

    measure: str
    title: str
    columns: list[str]
    rows: list[Row]
    reader: str | None = None

    @property
    def unit(self) -> str:
        """Unit of the values: "%", "dB" or nothing."""
        return UNITS[self.measure][0]

    def text(self, value: float | None, *, signed: bool = False) -> str:
        """Write one of its numbers: "75.3", with sign "+75.3", infinite "inf", missing "-"."""
        if value is None:
            return "-"
        if math.isinf(value):
            return "inf" if value > 0 else "-inf"
        decimals = UNITS[self.measure][1]
        rounded = round(value, decimals) + 0.0  # + 0.0 turns -0.0 into 0.0
        return f"{rounded:+.{decimals}f}" if signed else f"{rounded:.{decimals}f}"

    def row(self, kind: str) -> Row | None:
        """Find the row of a kind that occurs once ("result", "difference")."""
        return next((row for row in self.rows if row.kind == kind), None)


def number(value: Any) -> float | None:
    """Read a number of the report: None and NaN are missing, the string "inf" is infinite (JSON has no infinity)."""
    result = math.nan if value is None else float(value)
    return None if math.isnan(result) else result


def difference_of(left: float | None, right: float | None) -> float | None:
    """Subtract; missing if one side is missing or both are infinite."""
    return None if left is None or right is None else number(left - right)


def all_rows(report: Report) -> list[str]:
    """List what was scored, in order: "lr", "bicubic", "sr_1", ..., "hr"."""
    return list(report.get("rows") or ())


def all_splits(report: Report) -> dict[str, Report]:
    """Give the splits by name, in order."""
    return dict(report.get("splits") or {})


def stages(report: Report) -> list[str]:
    """List the rows made by the system, in order; the last one is the result."""
    return [row for row in all_rows(report) if row.startswith("sr_")]


def row_name(row: str, report: Report) -> str:
    """Name a row for people: "lr" -> "LR", "sr_2" -> "SR 2", or "SR" where there is one stage only."""
    if row.startswith("sr_"):
        return "SR" if len(stages(report)) <= 1 else f"SR {row[3:]}"
    return {"lr": "LR", "bicubic": "Bicubic", "hr": "HR"}.get(row, row)


def readers(report: Report) -> list[str]:
    """List the readers that read something, in the order of the report."""
    names = dict.fromkeys(report.get("readers") or {})
    for split in all_splits(report).values():
        names.update(dict.fromkeys(split.get("accuracy") or {}))
    return list(names)


def lookup(where: Report | None, measure: str, row: str, reader: str | None = None) -> Cell:
    """Look up one number of a split or of an average.

    Args:
        where: a split or an average of the report.
        measure: a key of UNITS.
        row: "lr", "bicubic", "sr_1", ..., "hr".
        reader: whose accuracy; None for the other measures.

    Returns:
        The cell in the units of its table: accuracies in percent.
    """
    values = (where or {}).get(measure) or {}
    if reader is not None:
        values = values.get(reader) or {}
    entry = values.get(row)
    if not isinstance(entry, dict):
        entry = {"value": entry}
    scale = 100 if reader is not None else 1
    found = [number(entry.get(key)) for key in ("value", "low", "high")]
    return Cell(*(None if value is None else value * scale for value in found))


def baseline(report: Report, measure: str, reader: str | None = None) -> str | None:
    """Choose what the result is compared with: LR if it has this measure, else bicubic, else nothing."""
    splits = all_splits(report).values()
    for row in ("lr", "bicubic"):
        if row in all_rows(report) and any(lookup(split, measure, row, reader).value is not None for split in splits):
            return row
    return None


def tables(report: Report) -> list[Table]:
    """Build every table that has a number in it: per reader accuracy of words and of characters, then PSNR and SSIM."""
    batch = (report.get("protocol") or {}).get("psnr_batch_size")
    published = "as published (per batch" + (f" of {batch})" if batch else ")")
    found = []
    for reader in readers(report):
        found.append(_table(report, "accuracy", f"Accuracy in %, read by {reader}", reader))
        found.append(_table(report, "character_accuracy", f"Character accuracy in %, read by {reader}", reader))
    for suffix, definition in (("", "mean over images"), ("_batch", published)):
        found.append(_table(report, f"psnr{suffix}", f"PSNR in dB, {definition}"))
        found.append(_table(report, f"ssim{suffix}", f"SSIM, {definition}"))
    return [table for table in found if table.rows]


def _table(report: Report, measure: str, title: str, reader: str | None = None) -> Table:
    splits, average = all_splits(report), report.get("average") or {}
    sources: list[Report | None] = list(splits.values())
    columns = list(splits)
    if len(splits) > 1:
        sources += [average.get("plain"), average.get("weighted")]
        columns += [PLAIN, WEIGHTED]
    result = stages(report)[-1] if stages(report) else None
    lines = {row: [lookup(source, measure, row, reader) for source in sources] for row in all_rows(report)}
    lines = {row: line for row, line in lines.items() if any(cell.value is not None for cell in line)}
    rows = [Row(row_name(row, report), line, "result" if row == result else "plain") for row, line in lines.items()]
    base = baseline(report, measure, reader)
    if result in lines and base in lines and result and base:
        both = zip(lines[result], lines[base], strict=True)
        changes = [difference_of(after.value, before.value) for after, before in both]
        intervals = _intervals(report, measure, reader, result, base)[: len(changes)]
        line = [Cell(change, *interval) for change, interval in zip(changes, intervals, strict=True)]
        name, against = row_name(result, report), row_name(base, report)
        rows.append(Row(f"{name} - {against}", line, "difference", against))
    return Table(measure, title, columns, rows, reader)


def _intervals(report: Report, measure: str, reader: str | None, result: str, base: str) -> list[Interval]:
    """Bootstrap intervals of the mean difference: one per split, then of the plain and of the weighted average.

    Both rows are scored on the same redrawn images, so what an image is worth by itself cancels out. Without the images
    of a split there is no interval for it, nor for the averages.
    """
    protocol = report.get("protocol") or {}
    samples, rng = int(protocol.get("bootstrap_samples") or 1000), np.random.default_rng(0)
    pairs = [_paired(split, measure, reader, result, base) for split in all_splits(report).values()]
    means = [None if pair is None else redrawn_means(pair, samples, rng) for pair in pairs]
    known = [mean for mean in means if mean is not None]
    if len(known) < len(means):
        return [*(NO_INTERVAL if mean is None else central_interval(mean) for mean in means), NO_INTERVAL, NO_INTERVAL]
    sizes = [len(pair) for pair in pairs if pair is not None]
    both = np.mean(known, axis=0), np.average(known, axis=0, weights=sizes)
    return [central_interval(mean) for mean in [*known, *both]]


def _paired(split: Report, measure: str, reader: str | None, result: str, base: str) -> np.ndarray | None:
    """Differences result - base image by image, (N,), in units of the table; None where images are not listed."""
    images = split.get("per_image") or {}
    if measure == "accuracy" and reader is not None:
        readings, targets = (images.get("readings") or {}).get(reader) or {}, images.get("target") or []
        rows = [readings.get(row) or [] for row in (base, result)]
        scores = [[100.0 * (text == target) for text, target in zip(row, targets, strict=True)] for row in rows if row]
    else:
        values = images.get(measure) or {}
        values = values if reader is None else values.get(reader) or {}
        scores = [[number(value) for value in values.get(row) or []] for row in (base, result)]
        if reader is not None:
            scores = [[None if value is None else 100 * value for value in row] for row in scores]
    if len(scores) < 2 or not all(scores):
        return None
    changes = [difference_of(after, before) for before, after in zip(*scores, strict=True)]
    difference = np.array([math.nan if change is None else change for change in changes])
    return difference if np.isfinite(difference).all() else None
