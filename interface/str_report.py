"""What the STR protocol says: tables for the screen and `report.md`; `report.json` and a plot for each benchmark.

`report.json` of a benchmark is a report as `interface/report.py` has it, with one split and without PSNR and SSIM, so
`scripts/compare_reports.py --row sr_32x8` compares two of them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from interface.checkpoint import write_atomically, write_text
from interface.evaluation import BICUBIC, LR, averages
from interface.report import to_json
from interface.report_numbers import PLAIN, WEIGHTED, Cell, Report, all_splits, difference_of, lookup, readers
from interface.report_text import facts, visible, warnings_of
from interface.run_folder import free_folder
from interface.str_protocol import PHOTO, SR

NAMES = {LR: "as it is", BICUBIC: "bicubic", SR: "SR"}
GAIN = "SR - bicubic"


@dataclass(frozen=True)
class Line:
    """One line of a table: the photo, then every size; in percent."""

    name: str
    cells: list[Cell]
    signed: bool = False
    kind: str = ""


def sizes_of(report: Report) -> list[str]:
    """`128x32` and so on, in order."""
    return list(report["protocol"]["sizes"])


def kinds_of(report: Report) -> list[str]:
    """What was read at each size."""
    return [kind for kind in NAMES if any(row.startswith(f"{kind}_") for row in report["rows"])]


def lines_of(report: Report, reader: str, source: Report) -> list[Line]:
    """The lines of a benchmark, or of an average of all.

    Args:
        report: the report.
        reader: who read.
        source: the benchmark's entry, or the average.
    """
    sizes, kinds = sizes_of(report), kinds_of(report)
    lines = []
    for kind in kinds:
        photo = lookup(source, "accuracy", PHOTO, reader) if kind == LR else Cell()
        cells = [lookup(source, "accuracy", f"{kind}_{size}", reader) for size in sizes]
        name = f"bicubic x{report['protocol']['scale']}" if kind == BICUBIC else NAMES[kind]
        lines.append(Line(name, [photo, *cells], kind=kind))
    if SR in kinds:
        known = (source.get("difference") or {}).get(reader)
        if known:
            changes = [Cell(*(100 * known[size][key] for key in ("value", "low", "high"))) for size in sizes]
        else:
            before, after = lines[kinds.index(BICUBIC)].cells[1:], lines[kinds.index(SR)].cells[1:]
            changes = [Cell(difference_of(one.value, other.value)) for one, other in zip(after, before, strict=True)]
        lines.append(Line(GAIN, [Cell(), *changes], signed=True))
    return lines


def blocks_of(report: Report, reader: str) -> Iterator[tuple[str, list[Line]]]:
    """Benchmarks with their lines, then both averages if there is more than one."""
    splits = all_splits(report)
    for name, entry in splits.items():
        yield f"{name} ({entry['images']})", lines_of(report, reader, entry)
    if len(splits) > 1:
        means = averages(splits)
        for name, kind in ((PLAIN, "plain"), (WEIGHTED, "weighted")):
            yield name, lines_of(report, reader, means[kind])


def notes_of(report: Report) -> list[str]:
    """What a reader must know before comparing: first the warnings, then counts and photos smaller than a size."""
    warnings: list[str] = warnings_of(report)
    notes: list[str] = []
    for name, entry in all_splits(report).items():
        seen = entry["images"] + entry["skipped"]
        if seen < entry["stored"]:
            warnings.append(f"{name}: only the first {seen} of {entry['stored']} pictures.")
        if entry["count"]:
            (notes if entry["count"]["fits"] else warnings).append(f"{entry['count']['text']}.")
        smaller = ", ".join(f"{count} for {size}" for size, count in entry["smaller"].items() if count)
        if smaller:
            notes.append(f"{name}: photos with a side below a size, which were enlarged to it: {smaller}.")
    return [*(f"WARNING: {text}" for text in warnings), *notes]


def method_of(report: Report) -> list[str]:
    """How the numbers were made, one sentence or two each."""
    protocol = report["protocol"]
    own = ", ".join(f"{name}: {size}" for name, size in protocol["photo size"].items())
    enlarged = ", ".join(f"{size} to {output}" for size, output in protocol["enlarged to"].items())
    made = {
        None: f"No system was evaluated; bicubic pictures are those of one that enlarges x{protocol['scale']}",
        "direct": f"The network took the reduced pictures as they are and enlarged them x{protocol['scale']}",
        "resized": "Every reduced picture was first brought bicubically to the LR size of the network, which costs "
        "detail where it is larger",
    }[protocol["network input"]]
    return [
        "Accuracy in %: the whole word, compared as lower-case letters and digits; no lexicon, no word left out.",
        f"Photos in the size of each recogniser's protocol: {own}.",
        "Reduced by Pillow's bicubic filter to 8 bits, aspect ratio not kept; given to the recogniser as they are, or "
        f"enlarged ({enlarged}). Recognisers resize what they get as they always do.",
        f"{made}. The bicubic pictures are made in one step and have the size of the system's.",
        f"Intervals: 95 % percentile bootstrap over pictures, {protocol['bootstrap_samples']} samples; those of "
        f"{GAIN} are paired. Averages: of benchmarks (plain), of pictures (weighted).",
    ]


def screen_table(report: Report) -> str:
    """Aligned plain text; `75.3 ±4.9` is a value and half the width of its 95 % interval."""
    names = [name for reader in readers(report) for name, _ in blocks_of(report, reader)]
    first = max([len(GAIN) + 2, *map(len, names)]) + 2
    out = []
    for reader in readers(report):
        out.append(f"Accuracy in %, read by {reader}")
        out.append(" " * first + "".join(f"{column:>14}" for column in [PHOTO, *sizes_of(report)]))
        for name, lines in blocks_of(report, reader):
            out.append(name)
            out += [
                f"  {line.name}".ljust(first) + "".join(_screen(cell, line) for cell in line.cells) for line in lines
            ]
        out.append("")
    return visible("\n".join(line.rstrip() for line in [*out, *notes_of(report)]), keep="\n")


def _screen(cell: Cell, line: Line) -> str:
    margin = f"±{(cell.high - cell.low) / 2:.1f}" if cell.low is not None and cell.high is not None else ""
    return f"{_number(cell.value, line):>8} {margin:<5}"


def _number(value: float | None, line: Line) -> str:
    return "" if value is None else f"{value + 0.0:{'+' if line.signed else ''}.1f}"


def _markdown(report: Report, folders: dict[str, Path]) -> str:
    blocks = [f"# Reading photos of words and reduced ones: {report['system']['arch']}"]
    blocks += [f"> {note}" for note in notes_of(report)]
    columns = ["", "", PHOTO, *sizes_of(report)]
    for reader in readers(report):
        blocks.append(f"## Accuracy in %, read by {reader}")
        table = [columns, ["---", "---", *["---:"] * (len(columns) - 2)]]
        for name, lines in blocks_of(report, reader):
            for number, line in enumerate(lines):
                table.append(["" if number else name, line.name, *(_interval(cell, line) for cell in line.cells)])
        blocks.append("\n".join("| " + " | ".join(_plain(text) for text in row) + " |" for row in table))
    blocks += [f"![{_plain(name)}]({folder.name}/accuracy.svg)" for name, folder in folders.items()]
    blocks.append("## Method\n\n" + "\n".join(f"- {note}" for note in method_of(report)))
    for title, pairs in facts(report):
        blocks.append(f"## {title}\n\n" + "\n".join(f"- {_plain(name)}: {_plain(text)}" for name, text in pairs))
    return visible("\n\n".join(blocks), keep="\n") + "\n"


def _interval(cell: Cell, line: Line) -> str:
    text = _number(cell.value, line)
    if cell.low is None or cell.high is None:
        return text
    return f"{text} [{_number(cell.low, line)}, {_number(cell.high, line)}]"


def _plain(text: str) -> str:
    return re.sub(r"([\\`*_<>|#])", r"\\\1", " ".join(str(text).split()))


def write_benchmark(folder: Path, report: Report) -> Path:
    """Write `report.json` and `accuracy.svg` of a report with one benchmark, into a folder named after it in `folder`.

    Returns:
        That folder; nothing that is there is overwritten.
    """
    (name,) = all_splits(report)
    target = free_folder(folder / (re.sub(r"[^\w.-]+", "_", name).strip("._") or "benchmark"))
    text = to_json(report)
    write_atomically(target / "report.json", lambda temporary: write_text(temporary, text + "\n"))
    draw(target / "accuracy.svg", report)
    return target


def write_summary(folder: Path, report: Report, folders: dict[str, Path]) -> Path:
    """Write `report.md` with the tables of all benchmarks.

    Args:
        folder: exists.
        report: all benchmarks.
        folders: where `write_benchmark` wrote them, by name.
    """
    path = folder / "report.md"
    text = _markdown(report, folders)
    write_atomically(path, lambda temporary: write_text(temporary, text))
    return path


def draw(path: Path, report: Report) -> None:
    """Plot accuracy against size, with 95 % intervals: one panel for each recogniser; an SVG file."""
    import matplotlib as mpl  # noqa: PLC0415 - takes half a second, and only this needs it
    from matplotlib.figure import Figure  # noqa: PLC0415

    ((name, entry),) = all_splits(report).items()
    sizes, people = sizes_of(report), readers(report)
    styles = {LR: ("0.6", "s", -0.04), BICUBIC: ("tab:blue", "o", 0.0), SR: ("tab:red", "^", 0.04)}  # beside each other
    with mpl.rc_context({"svg.hashsalt": "accuracy", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(4.5 * len(people), 3.4), layout="constrained")
        for panel, reader in zip(figure.subplots(1, len(people), squeeze=False)[0], people, strict=True):
            photo = lookup(entry, "accuracy", PHOTO, reader).value
            panel.axhline(photo, color="0.3", linestyle=":", label=PHOTO)
            for line in lines_of(report, reader, entry):
                if line.signed:
                    continue
                cells = line.cells[1:]
                values = [cell.value or 0.0 for cell in cells]
                low = [max(0.0, value - (cell.low or 0.0)) for value, cell in zip(values, cells, strict=True)]
                high = [max(0.0, (cell.high or 0.0) - value) for value, cell in zip(values, cells, strict=True)]
                colour, marker, aside = styles[line.kind]
                places = [place + aside for place in range(len(sizes))]
                panel.errorbar(places, values, (low, high), color=colour, marker=marker, label=line.name, capsize=2)
            title = f"{name}, read by {reader}".replace("$", r"\$")  # which would begin a formula
            panel.set(title=title, ylim=(0, 102), xlabel="reduced to", ylabel="accuracy in %")
            panel.set_xticks(range(len(sizes)), sizes)
            panel.grid(axis="y", color="0.9")
            panel.legend(frameon=False, loc="lower left")
        write_atomically(path, lambda temporary: figure.savefig(temporary, format="svg", metadata={"Date": None}))
