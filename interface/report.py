"""The report of an evaluation: a table for the screen and three files, `report.json`, `report.md` and `report.html`.

`report.json` is the dictionary itself and can be given back to `write_report`. It is strict JSON: an infinite PSNR (two
identical images) is the string "inf", a NaN is null. Readings under `per_image` are as they were compared, that is
filtered like their targets: right means equal. The numbers come from
`interface/report_numbers.py`, the sentences from `report_text.py`, the cases from `report_cases.py`, the page from
`report_html.py` beside it.
"""

from __future__ import annotations

import json
import logging
import math
import re
import unicodedata
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from interface.checkpoint import write_atomically
from interface.report_cases import Cases, choose_cases
from interface.report_html import render
from interface.report_numbers import Cell, Report, Row, Table, all_splits, tables
from interface.report_text import averages_note, facts, headlines, method_notes, visible, warnings_of

Pictures = Callable[[str, list[int]], list[dict[str, np.ndarray]]]

log = logging.getLogger(__name__)


def screen_table(report: Report) -> str:
    """Write the scores as aligned plain text for a terminal.

    One block per measure, one line per row, one column per split and average; `75.3 ±4.9` is a value and half the width
    of its 95 % interval.
    """
    report = _plain(report)
    found = tables(report)
    lines = [f"WARNING: {text}" for text in warnings_of(report)]
    lines += [*headlines(report, found), ""]
    splits = all_splits(report)
    columns = found[0].columns if found else list(splits)
    body = [
        ["", *map(_right, columns)],
        ["images", *(_right(str(split.get("images", "-"))) for split in splits.values())],
    ]
    for table in found:
        body.append([table.title])
        body += [[f"  {row.name}", *(_screen_number(table, row, cell) for cell in row.cells)] for row in table.rows]
    aligned = [line for line in body if len(line) > 1]  # the titles may be longer than the first column
    widths = [max(map(_width, cells)) for cells in zip_longest(*aligned, fillvalue="")]
    for line in body:
        cells = zip(line, widths, strict=False)
        lines.append("  ".join(text + " " * (width - _width(text)) for text, width in cells).rstrip())
    if found:
        lines += ["", f"± is half the width of the 95 % interval. {averages_note(report)}".rstrip()]
    return visible("\n".join(lines).strip("\n"), keep="\n")


def write_report(folder: Path, report: Report, pictures: Pictures | None = None, cases: int = 12) -> dict[str, Path]:
    """Write the three files of a report; the numbers first, so that nothing after them can lose them.

    Args:
        folder: where to write; made if needed, files of the same names are replaced at once.
        report: the report.
        pictures: `pictures(split, positions)` gives, for positions in the per_image lists of a split, one dictionary
            from row ("lr", "bicubic", "sr_1", ..., "hr") to uint8 (H, W, 3) each. Called once per split that has cases.
            None: cases are shown by their texts alone.
        cases: how many cases of each kind to show, over all splits.

    Returns:
        The paths by format: "json", "md", "html".

    Raises:
        ValueError: if `pictures` gives another number of images than asked for.
    """
    report = _plain(report)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {kind: folder / f"report.{kind}" for kind in ("json", "md", "html")}
    _write(paths["json"], to_json(report) + "\n")
    _check_counts(report)
    found = tables(report)
    _write(paths["md"], _markdown(report, found))
    chosen = choose_cases(report, cases)
    _write(paths["html"], render(report, found, chosen, _shown(chosen, pictures) if pictures else {}))
    log.info("report=%s", paths["html"])
    return paths


def _check_counts(report: Report) -> None:
    """Tell if the readings do not give the counts of the tables: then the marks and the intervals are not to trust."""
    for name, split in all_splits(report).items():
        images = split.get("per_image") or {}
        targets = images.get("target") or []
        for reader, rows in (images.get("readings") or {}).items():
            for row, texts in rows.items():
                counted = (((split.get("accuracy") or {}).get(reader) or {}).get(row) or {}).get("correct")
                equal = sum(text == target for text, target in zip(texts, targets, strict=True))
                if counted is not None and counted != equal:
                    log.warning("split=%s reader=%s row=%s correct=%d equal=%d", name, reader, row, counted, equal)


def _shown(chosen: list[Cases], pictures: Pictures) -> dict[tuple[str, int], dict[str, np.ndarray]]:
    """Ask for the pictures of all cases, one question per split."""
    wanted: dict[str, list[int]] = {}
    for name, position in sorted(place for kind in chosen for place in kind.places):
        wanted.setdefault(name, []).append(position)
    shown: dict[tuple[str, int], dict[str, np.ndarray]] = {}
    for name, positions in wanted.items():
        given = pictures(name, positions)
        if len(given) != len(positions):
            raise ValueError(f"pictures({name!r}, ...) gave {len(given)} images for {len(positions)} positions")
        shown.update({(name, position): images for position, images in zip(positions, given, strict=True)})
    return shown


# --- screen --------------------------------------------------------------------------------------------------------


def _screen_number(table: Table, row: Row, cell: Cell) -> str:
    margin = ""
    if cell.low is not None and cell.high is not None and math.isfinite(cell.high - cell.low):
        margin = f"±{table.text((cell.high - cell.low) / 2)}"
    return f"{_right(table.text(cell.value, signed=row.kind == 'difference'))} {margin:<7}"


def _right(text: str) -> str:
    """Put a text flush right in the place of a value, so that points and names line up."""
    return " " * (7 - _width(text)) + text


def _width(text: str) -> int:
    """Columns in a terminal: East Asian characters take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


# --- JSON ----------------------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """Turn numpy and path objects into plain ones, and numbers that JSON does not have into "inf", "-inf" and null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return value


def to_json(report: Report) -> str:
    """The text of `report.json`: strict JSON, with infinite numbers as "inf" and missing ones as null."""
    return _json(_plain(report))


def _json(value: Any, indent: str = "") -> str:
    """Write JSON with one key per line but lists of plain values on one: 10,000 readings are a line, not 10,000.

    Keys stay in the order of the dictionary, because the order of the splits and rows is part of what it says.
    """
    if isinstance(value, dict) and value:
        deeper = indent + "  "
        items = [f"{deeper}{json.dumps(key, ensure_ascii=False)}: {_json(item, deeper)}" for key, item in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _write(path: Path, text: str) -> None:
    # A path name that is not UTF-8 holds lone surrogates; \udcxx is a valid escape in JSON and harmless elsewhere.
    data = text.encode("utf-8", errors="backslashreplace")

    def write(temporary: Path) -> None:
        temporary.write_bytes(data)

    write_atomically(path, write)


# --- Markdown ------------------------------------------------------------------------------------------------------


def _markdown(report: Report, found: list[Table]) -> str:
    blocks = [f"# Evaluation of {_escaped((report.get('system') or {}).get('arch', 'a system'))}"]
    blocks += [f"> **Warning:** {_escaped(text)}" for text in warnings_of(report)]
    blocks += [f"**{_escaped(text)}**" for text in headlines(report, found)]
    for table in found:
        blocks.append(f"## {_escaped(table.title)}")
        blocks.append(_markdown_table(["", *table.columns], [_markdown_row(table, row) for row in table.rows]))
    if note := averages_note(report):
        blocks.append(note)
    blocks.append("## What was evaluated")
    for title, pairs in facts(report):
        blocks.append(f"**{title}**\n\n" + "\n".join(f"- {_escaped(name)}: {_code(text)}" for name, text in pairs))
    blocks.append("## Method\n\n" + "\n".join(f"- {_escaped(note)}" for note in method_notes(report)))
    blocks.append("Cases with pictures and readings are in report.html, all values per image in report.json.")
    return "\n\n".join(blocks) + "\n"


def _markdown_row(table: Table, row: Row) -> list[str]:
    signed = row.kind == "difference"
    texts = []
    for cell in row.cells:
        text = table.text(cell.value, signed=signed)
        text = f"**{text}**" if row.kind == "result" and cell.value is not None else text
        if cell.low is not None and cell.high is not None:
            text += f" [{table.text(cell.low, signed=signed)}, {table.text(cell.high, signed=signed)}]"
        texts.append(text)
    return [row.name, *texts]


def _markdown_table(header: list[str], rows: list[list[str]]) -> str:
    lines = [[_escaped(text) for text in header], ["---", *["---:"] * (len(header) - 1)]]
    lines += [[_escaped(row[0]), *row[1:]] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _escaped(text: Any) -> str:
    """Show text as it is: no markup, no HTML, no table cell, no line of its own."""
    return re.sub(r"([\\`*_<>&\[\]|#~])", r"\\\1", " ".join(visible(str(text)).split()))


def _code(text: str) -> str:
    """Quote text as code, whatever back-ticks are in it."""
    text = " ".join(visible(text).split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}" if text else "-"
