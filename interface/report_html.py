"""The page of an evaluation report: one HTML file without script and without anything to load.

The mark-up is also well-formed XML. Every text that comes from data goes through `_text`.
"""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from interface.alignment import align
from interface.report_cases import Cases
from interface.report_numbers import (
    PLAIN,
    WEIGHTED,
    Cell,
    Report,
    Row,
    Table,
    all_rows,
    all_splits,
    baseline,
    number,
    readers,
    row_name,
    stages,
)
from interface.report_text import averages_note, facts, headlines, method_notes, visible, warnings_of
from interface.visualize import enlarge, png_bytes

EN_DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
DEFINITIONS = (
    "PSNR and SSIM are given in two definitions, which must not be compared with each other: the mean over images does "
    "not depend on batches; the published one is computed per batch of unclamped images."
)
PAGE = Path(__file__).parent / "templates" / "report.html"

Shown = Mapping[tuple[str, int], Mapping[str, np.ndarray]]


def render(report: Report, found: list[Table], chosen: list[Cases], shown: Shown) -> str:
    """Write the page.

    Args:
        report: the report.
        found: its tables.
        chosen: its cases, by kind.
        shown: for (split, position) of the cases, the uint8 (H, W, 3) picture of each row; missing ones are left out.
    """
    title = f"Evaluation of {(report.get('system') or {}).get('arch', 'a system')}"
    accuracy = [table for table in found if table.measure == "accuracy"]
    characters = [table for table in found if table.measure == "character_accuracy"]
    quality = [table for table in found if not table.reader]
    cards = [_cases(report, kind, shown) for kind in chosen if kind.places]
    sections = [
        ("accuracy", "Reading accuracy", [_accuracy(report, table) for table in accuracy]),
        ("characters", "Character accuracy", [_table(table) for table in characters]),
        ("quality", "Image quality", [_quiet(DEFINITIONS), *map(_table, quality)] if quality else []),
        ("cases", "Cases", [_legend(report), *cards] if cards else []),
        ("evaluated", "What was evaluated", [_facts(report)]),
        ("method", "Method", ["<ul>", *(f"<li>{_text(note)}</li>" for note in method_notes(report)), "</ul>"]),
    ]
    sections = [section for section in sections if section[2]]
    body = [_top(report, title, found, sections)]
    for name, heading, parts in sections:
        note = averages_note(report) if name in ("accuracy", "characters", "quality") else ""
        end = [_quiet(note)] if note else []
        body.append(f'<section id="{name}">\n<h2>{heading}</h2>\n' + "\n".join([*parts, *end]) + "\n</section>")
    return Template(PAGE.read_text(encoding="utf-8")).substitute(title=_text(title), body="\n".join(body))


def _text(value: Any) -> str:
    """Escape a text for element content and for quoted attributes; control characters become visible symbols."""
    return html.escape(visible(str(value)))


def _quiet(text: str) -> str:
    return f'<p class="quiet small">{_text(text)}</p>'


def _top(report: Report, title: str, found: list[Table], sections: list[tuple[str, str, list[str]]]) -> str:
    system, splits = report.get("system") or {}, all_splits(report)
    count = len(stages(report))
    images = sum(int(split.get("images") or 0) for split in splits.values())
    parts = [
        f"{count} stage{'s' if count > 1 else ''}" if count else "",
        f"step {system['step']}" if system.get("step") is not None else "",
        f"{images} images in {len(splits)} split{'s' if len(splits) != 1 else ''}",
        f"read by {', '.join(readers(report))}" if readers(report) else "no reader",
        str(report.get("created") or "")[:10],
    ]
    lines = ["<header>", f"<h1>{_text(title)}</h1>", f'<p class="quiet">{_text(" · ".join(filter(None, parts)))}</p>']
    lines += [
        f'<p class="warning" role="note"><strong>Warning.</strong> {_text(text)}</p>' for text in warnings_of(report)
    ]
    lines += [f'<p class="headline">{_text(text)}</p>' for text in headlines(report, found)]
    links = "".join(f'<li><a href="#{name}">{heading}</a></li>' for name, heading, _ in sections)
    return "\n".join([*lines, f'<nav aria-label="Sections"><ul>{links}</ul></nav>', "</header>"])


def _facts(report: Report) -> str:
    groups = []
    for heading, pairs in facts(report):
        items = "".join(f"<dt>{_text(name)}</dt><dd>{_text(text)}</dd>" for name, text in pairs)
        groups.append(f"<div><h3>{_text(heading)}</h3>\n<dl>{items}</dl></div>")
    return '<div class="facts">\n' + "\n".join(groups) + "\n</div>"


# --- numbers -------------------------------------------------------------------------------------------------------


def _table(table: Table) -> str:
    header = "".join(f'<th scope="col"{_column_class(name)}>{_text(name)}</th>' for name in table.columns)
    lines = [
        f'<div class="scroll" role="region" tabindex="0" aria-label="{_text(table.title)}">',
        f"<table>\n<caption><h3>{_text(table.title)}</h3></caption>",
        f'<thead><tr><th scope="col"><span class="hidden">image</span></th>{header}</tr></thead>\n<tbody>',
    ]
    for row in table.rows:
        cells = "".join(
            f"<td{_column_class(name)}>{_cell(table, row, cell)}</td>"
            for name, cell in zip(table.columns, row.cells, strict=True)
        )
        name = _minus(row.name) if row.kind == "difference" else row.name
        lines.append(f'<tr class="{row.kind}"><th scope="row">{_text(name)}</th>{cells}</tr>')
    return "\n".join([*lines, "</tbody></table>\n</div>"])


def _column_class(name: str) -> str:
    return ' class="average"' if name in (PLAIN, WEIGHTED) else ""


def _cell(table: Table, row: Row, cell: Cell) -> str:
    signed = row.kind == "difference"
    if cell.value is None:
        return f'{EN_DASH}<span class="hidden"> not measured</span>'
    text = _minus(table.text(cell.value, signed=signed).replace("inf", "∞"))
    if cell.low is None or cell.high is None:
        return text
    ends = [_minus(table.text(end, signed=signed).replace("inf", "∞")) for end in (cell.low, cell.high)]
    interval = (" to " if signed else EN_DASH).join(ends)
    return f'{text}<small><span class="hidden">95 % interval </span>{interval}</small>'


def _minus(text: str) -> str:
    return text.replace("-", MINUS)


def _accuracy(report: Report, table: Table) -> str:
    charts = [_chart(report, table, column) for column in range(len(all_splits(report)))]
    return "\n".join([_table(table), '<div class="charts">', *charts, "</div>"])


def _chart(report: Report, table: Table, column: int) -> str:
    """Horizontal bars from 0 to 100 % for one split, with the interval as a whisker; a dashed bar is the HR ceiling."""
    names = {row_name(row, report): row for row in all_rows(report)}
    rows = [row for row in table.rows if row.kind != "difference" and row.cells[column].value is not None]
    left, width, step, top = 58, 240, 26, 4
    bottom = top + step * len(rows)
    marks = [
        f'<line class="grid" x1="{x:g}" y1="{top}" x2="{x:g}" y2="{bottom}" />'
        f'<text class="tick middle" x="{x:g}" y="{bottom + 13}">{tick}</text>'
        for tick in (0, 25, 50, 75, 100)
        for x in [left + width * tick / 100]
    ]
    said = []
    for place, row in enumerate(rows):
        cell, y = row.cells[column], top + step * place
        kind = "result" if row.kind == "result" else "hr" if names.get(row.name) == "hr" else ""
        length = width * (cell.value or 0) / 100
        marks.append(f'<rect class="bar {kind}" x="{left}" y="{y + 5}" width="{length:.1f}" height="16" />')
        if cell.low is not None and cell.high is not None:
            low, high, middle = left + width * cell.low / 100, left + width * cell.high / 100, y + 13
            path = f"M{low:.1f} {middle - 4}v8M{low:.1f} {middle}H{high:.1f}M{high:.1f} {middle - 4}v8"
            marks.append(f'<path class="whisker" d="{path}" />')
        marks.append(f'<text x="0" y="{y + 17}">{_text(row.name)}</text>')
        marks.append(f'<text class="value" x="340" y="{y + 17}">{table.text(cell.value)}</text>')
        said.append(f"{row.name} {table.text(cell.value)} %")
    split = table.columns[column]
    label = _text(f"{table.title} on {split}: {', '.join(said)}")
    picture = f'<svg role="img" aria-label="{label}" viewBox="0 0 342 {bottom + 18}">' + "".join(marks) + "</svg>"
    return f"<figure><figcaption>{_text(split)}</figcaption>\n{picture}</figure>"


# --- cases ---------------------------------------------------------------------------------------------------------


def _legend(report: Report) -> str:
    if not readers(report):
        return _quiet("LR is shown enlarged without smoothing.")
    return (
        '<p class="quiet small">Under each picture stands what was read in it: '
        f"{_marked('abc', 'abd')} wrong letter, {_marked('abc', 'abcd')} letter too many, "
        f"{_marked('abc', 'ab')} letter missing. LR is shown enlarged without smoothing.</p>"
    )


def _cases(report: Report, kind: Cases, shown: Shown) -> str:
    heading, explanation = _kind_texts(report)[kind.kind]
    cards = "\n".join(
        _card(report, split, position, shown.get((split, position), {})) for split, position in kind.places
    )
    count = f"{len(kind.places)} of {kind.total}"
    return (
        f'<h3>{_text(heading)} <span class="quiet">({count})</span></h3>\n'
        f'{_quiet(explanation)}\n<div class="cards">\n{cards}\n</div>'
    )


def _kind_texts(report: Report) -> dict[str, tuple[str, str]]:
    names = stages(report)
    result = row_name(names[-1], report) if names else "SR"
    who = next(iter(readers(report)), None)
    random = ("Drawn at random", f"A fair sample, the same number from each split, whatever {result} did to it.")
    if who is None:
        return {
            "helped": (f"Where {result} helped most", f"Largest gain of {result} over bicubic in PSNR."),
            "hurt": (f"Where {result} hurt", f"{result} is further from HR than bicubic, largest loss of PSNR first."),
            "worst": ("Worst results", f"Lowest PSNR of {result}."),
            "random": random,
        }
    base = row_name(baseline(report, "accuracy", who) or "lr", report)
    return {
        "helped": (
            f"Where {result} helped most",
            f"{who} misread {base} and reads {result} right; worst misreadings first.",
        ),
        "hurt": (f"Where {result} hurt", f"{who} read {base} right and misreads {result}; worst misreadings first."),
        "worst": ("Worst results", f"Readings of {result} by {who} that are furthest from the label."),
        "random": random,
    }


def _card(report: Report, split: str, position: int, pictures: Mapping[str, np.ndarray]) -> str:
    images = all_splits(report)[split].get("per_image") or {}
    label, target, index = (_at(images.get(key), position) for key in ("label", "target", "index"))
    label = target if label is None else label
    where = f"{split}, image {position if index is None else index}"
    if target is not None and target != str(label).lower():
        where += f", compared as {target}" if target else ", compared as the empty text"
    readings = images.get("readings") or {}
    rows = [
        row
        for row in all_rows(report)
        if row in pictures
        or (not pictures and any(_at(readings[who].get(row), position) is not None for who in readings))
    ]
    figures = "\n".join(_figure(report, images, position, row, pictures) for row in rows)
    return (
        f'<article class="card"><h4><bdi class="label">{_text(label) if label else "(empty label)"}</bdi>'
        f'<bdi class="quiet">{_text(where)}</bdi></h4>\n<div class="strips">\n{figures}\n</div></article>'
    )


def _figure(report: Report, images: Report, position: int, row: str, pictures: Mapping[str, np.ndarray]) -> str:
    name = row_name(row, report)
    lines = [f'<figure class="{"result" if row in stages(report)[-1:] else "plain"}">']
    if row in pictures:
        label = _at(images.get("label"), position)
        lines.append(_image(row, f"{name} picture of {label!r}", pictures))
    quality = number(_at((images.get("psnr") or {}).get(row), position))
    decibel = "" if quality is None else f"<span>{'∞' if math.isinf(quality) else f'{quality:.2f}'} dB</span>"
    lines.append(f'<figcaption><div class="row"><b>{_text(name)}</b>{decibel}</div>')
    target = str(_at(images.get("target"), position) or "")
    known = readers(report)
    for who in known:
        reading = _at(((images.get("readings") or {}).get(who) or {}).get(row), position)
        if reading is None:
            continue
        right = reading == target
        kind, said, sign = ("right", "right:", "✓") if right else ("false", "misread:", "✗")
        whose = f'<span class="who">{_text(who)}</span>' if len(known) > 1 else ""
        text = f'<bdi class="text">{_marked(target, reading)}</bdi>'
        lines.append(
            f'<div class="reading"><span class="{kind}" role="img" aria-label="{said}">{sign}</span>{text}{whose}</div>'
        )
    return "".join([*lines, "</figcaption></figure>"])


def _image(row: str, alt: str, pictures: Mapping[str, np.ndarray]) -> str:
    """A picture as a data address; LR is enlarged to the size of the others, each pixel to a block."""
    image = pictures[row]
    height, width = (max(picture.shape[axis] for picture in pictures.values()) for axis in (0, 1))
    if row == "lr":
        image = enlarge(image, height=height, width=width, pixelated=True)
    data = base64.b64encode(png_bytes(image)).decode("ascii")
    pixels = ' class="pixels"' if row == "lr" else ""
    size = f'width="{image.shape[1]}" height="{image.shape[0]}"'
    return f'<img{pixels} alt="{_text(alt)}" {size} src="data:image/png;base64,{data}" />'


def _marked(target: str, reading: str) -> str:
    """Write a reading with its faults marked: by colour, by line style, and in words when pointed at."""
    if not target and not reading:
        return '<span class="quiet">(nothing)</span>'
    parts = []
    for piece in align(target, reading):
        if piece.kind == "same":
            parts.append(_text(piece.read))
            continue
        note = {"wrong": f"instead of {piece.expected}", "extra": "too many", "missing": f"{piece.expected} is missing"}
        shown = _text(piece.read) if piece.read else "_"
        parts.append(f'<mark class="{piece.kind}" title="{_text(note[piece.kind])}">{shown}</mark>')
    return "".join(parts)


def _at(values: Any, position: int) -> Any:
    return values[position] if values and position < len(values) else None
