"""What an evaluation report says in words: result sentences, warnings, what was evaluated, how it was measured."""

from __future__ import annotations

import json
import re
from typing import Any

from interface.report_numbers import Cell, Report, Table, all_splits, lookup, readers

BLIND = 5.0  # % of HR pictures; a recogniser that reads fewer has not learned to

LABELS = {
    "arch": "architecture",
    "weights_sha256": "SHA-256 of the weights",
    "on": "chosen on",
    "code": "code version",
    "pillow": "Pillow",
    "python": "Python",
    "torch": "PyTorch",
}


def headlines(report: Report, found: list[Table]) -> list[str]:
    """Say the result in one sentence per reader, or about PSNR where nobody read.

    Args:
        report: the report.
        found: its `tables`.
    """
    splits = list(all_splits(report))
    where = f"on {splits[0]}" if len(splits) == 1 else f"plain mean of {len(splits)} splits"
    column = 0 if len(splits) == 1 else len(splits)
    read = [table for table in found if table.measure == "accuracy"]
    told = read or [table for table in found if table.measure == "psnr"]
    return [sentence for table in told if (sentence := _headline(table, column, where))]


def _headline(table: Table, column: int, where: str) -> str:
    result, difference = table.row("result"), table.row("difference")
    if result is None or result.cells[column].value is None:
        return ""
    score = table.text(result.cells[column].value)
    start = f"{table.reader} reads {score} % of the words correctly in" if table.reader else f"PSNR is {score} dB for"
    change = difference.cells[column] if difference else Cell()
    if difference is None or change.value is None:
        return f"{start} {result.name} ({where})."
    unit = "points" if table.reader else table.unit
    sentence = f"{start} {result.name}, {table.text(change.value, signed=True)} {unit} against {difference.against}"
    sentence += f" ({where}"
    if change.low == change.value == change.high == 0:
        return f"{start} {result.name}, as in {difference.against} ({where})."
    if change.low is not None and change.high is not None:
        sentence += f"; 95 % interval {table.text(change.low, signed=True)} to {table.text(change.high, signed=True)}"
        if change.low <= 0 <= change.high:
            return sentence + ": it contains zero, so chance alone could explain the difference)."
    return sentence + ")."


def warnings_of(report: Report) -> list[str]:
    """List what a reader must know before believing a number; empty for a clean evaluation."""
    found = []
    selection = report.get("selection") or {}
    if selection.get("on") == "test":
        found.append(
            "These weights were selected on the test data: by their score on the very images reported here. Published "
            "results are commonly chosen this way; the scores are optimistic. " + str(selection.get("note") or "")
        )
    for name, split in all_splits(report).items():
        if split.get("skipped"):
            found.append(f"{split['skipped']} unreadable images of {name} were skipped; no score counts them.")
    for reader in readers(report):
        known = [lookup(split, "accuracy", "hr", reader).value for split in all_splits(report).values()]
        read = [value for value in known if value is not None]
        if read and max(read) < BLIND:
            found.append(
                f"{reader} reads {max(read):.1f} % of the HR pictures at best: these weights cannot read, so what they "
                "make of SR means nothing."
            )
    found += [_deviation(anchor) for anchor in report.get("anchors") or () if not anchor["fits"]]
    return [text.strip() for text in found]


def _deviation(anchor: Report) -> str:
    published, measured = 100 * anchor["published"], 100 * anchor["measured"]
    more = f"{abs(anchor['pictures']):.0f} pictures {'more' if anchor['pictures'] > 0 else 'fewer'}"
    return (
        f"{anchor['reader']} reads {measured:.2f} % of {anchor['split']}'s {anchor['row'].upper()} pictures, the "
        f"published {published:.2f} %: {more}. No system touches these pictures, so the weights, the data or their "
        "preparation are not the published ones, and no number of this report can be compared with published tables."
    )


def _anchors(report: Report) -> list[tuple[str, str]]:
    """What the sanity anchors say: published numbers of LR and HR pictures against those of this report."""
    lines = []
    for anchor in report.get("anchors") or ():
        text = f"{100 * anchor['measured']:.2f} %, published {100 * anchor['published']:.2f} %"
        text += f" ({anchor['pictures']:+.0f} pictures: {'as published' if anchor['fits'] else 'DIFFERS'})"
        lines.append((f"{anchor['reader']} on {anchor['split']}, {anchor['row'].upper()}", text))
    return lines


def averages_note(report: Report) -> str:
    """Explain the two averages; empty where there is one split."""
    if len(all_splits(report)) < 2:
        return ""
    return (
        "The plain mean counts every split the same, the weighted mean every image. Published tables mix the two; "
        "compare like with like."
    )


def facts(report: Report) -> list[tuple[str, list[tuple[str, str]]]]:
    """List what was evaluated, with what: groups of (name, value), without the empty ones."""
    data = [
        (name, _joined(f"{split.get('images', '?')} images", split.get("path"), _fingerprint(split)))
        for name, split in all_splits(report).items()
    ]
    people = [
        (name, _joined(reader.get("description"), _fingerprint(reader)))
        for name, reader in (report.get("readers") or {}).items()
    ]
    run = [("command", report.get("command")), ("created", report.get("created"))]
    groups = [
        ("System", _pairs(report.get("system"))),
        ("Choice of the weights", _pairs(report.get("selection"))),
        ("Data", data),
        ("Readers", people),
        ("LR and HR against the literature", _anchors(report)),
        ("Run", [(name, str(value)) for name, value in run if value] + _pairs(report.get("environment"))),
    ]
    return [(title, pairs) for title, pairs in groups if pairs]


def method_notes(report: Report) -> list[str]:
    """Say how the numbers were made, one paragraph each."""
    protocol = report.get("protocol") or {}
    samples, batch = protocol.get("bootstrap_samples") or 1000, protocol.get("psnr_batch_size")
    notes = [
        "Accuracy: label and reading are filtered to lower-case letters and digits, then the whole word must be equal. "
        "An empty reading of an empty label counts as right. No image is left out for its label.",
        "Character accuracy: 1 - edit distance over the length of the longer of label and reading, both filtered "
        "likewise; the mean over words.",
        f"Intervals: 95 % percentile bootstrap, {samples} samples drawn over the images of a split. They tell how "
        "much the score depends on which images are in the test, not how much it depends on the training run.",
        "Differences: both rows are scored on the same drawn images (paired), so the interval of a difference is not "
        "the sum of two intervals.",
        "PSNR and SSIM, mean over images: per image on RGB clamped to [0, 1], then averaged; independent of batches.",
        f"PSNR and SSIM, as published: per batch{f' of {batch}' if batch else ''} in the order of the file, not "
        "clamped, then averaged over batches. The PSNR of a batch comes from its pooled error, so it depends on the "
        "batch size; compare it only with numbers made the same way.",
    ]
    rest = [f"{name} = {_value(value)}" for name, value in protocol.items()]
    return [*notes, f"Settings: {', '.join(rest)}."] if rest else notes


def visible(text: str, *, keep: str = "") -> str:
    """Show control characters as symbols (a label must not clear the terminal), except those to keep."""
    return re.sub(
        r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]",
        lambda found: found[0] if found[0] in keep else chr(0x2400 + ord(found[0])) if found[0] < " " else "\ufffd",
        text,
    )


def _joined(*parts: Any) -> str:
    return "; ".join(str(part) for part in parts if part) or "-"


def _fingerprint(source: Report) -> str:
    return f"fingerprint {source['fingerprint']}" if source.get("fingerprint") else ""


def _pairs(group: Report | None) -> list[tuple[str, str]]:
    return [(LABELS.get(name, name.replace("_", " ")), _value(value)) for name, value in (group or {}).items()]


def _value(value: Any) -> str:
    if value is None or value == "":
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
