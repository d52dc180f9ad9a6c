"""Lists of labels (gt.txt): one line for each picture, with its path and what it shows.

A line is `path<TAB>label`, `path label`, or ICDAR's `path, "label"`; UTF-8 with or without a byte order mark, LF or
CRLF. Paths are not looked up here. Only the standard library is imported: scripts show these formats in --help.
"""

import re
from dataclasses import dataclass
from pathlib import Path

GT_FORMATS = 'expected `path<TAB>label`, `path label` or `path, "label"`'
# ICDAR's word lists: the label in double quotes, in which quotes and backslashes have a backslash before them.
ICDAR_LINE = re.compile(r'(?P<name>[^\t"]+?),\s*"(?P<label>.*)"\s*')


class ListError(ValueError):
    """A list of labels that cannot be used: the message names the file, the line and what was expected."""


@dataclass(frozen=True)
class Entry:
    """One line of a list of labels: the picture's name, what it shows, and `file:line` for messages."""

    name: str
    label: str
    place: str


def find_list(images: Path | None, gt: Path | None) -> tuple[Path, Path]:
    """(folder of pictures, list of labels) as `--images` and `--gt` name them.

    Args:
        images: None is the folder of the list.
        gt: as it stands, or within `images`; None is gt.txt in `images`, or in the working folder if that is None.

    Raises:
        ListError: one of them is not there.
    """
    if images and not images.is_dir():
        raise ListError(f"--images {images}: no such folder")
    places = [gt or Path("gt.txt")] if images is None else [images / "gt.txt"] if gt is None else [gt, images / gt]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise ListError(f"--gt {gt or places[0]}: no such file; it is the list of labels: {GT_FORMATS}")
    return images or found.parent, found


def parse_line(line: str) -> tuple[str, str] | None:
    """(name, label) of one line, or None if it has no label. After a tab the label is taken as it stands."""
    if "\t" in line:
        name, _, label = line.partition("\t")
        return name.strip(), label
    quoted = ICDAR_LINE.fullmatch(line)
    if quoted:
        return quoted["name"].strip(), re.sub(r'\\(["\\])', r"\1", quoted["label"])
    name, space, label = line.lstrip().partition(" ")
    return (name.removesuffix(","), label.strip()) if space else None


def read_list(gt: Path) -> list[Entry]:
    """All lines of a list of labels, in order; blank ones are passed over. Labels may be empty.

    Raises:
        ListError: not UTF-8, a line is not of one of the formats (names the line), or there is no line at all.
    """
    data = gt.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # error.object, not data: the codec counts its bytes from behind a byte order mark.
        number = error.object.count(b"\n", 0, error.start) + 1
        raise ListError(f"{gt}:{number}: not UTF-8 ({error.reason}); save the list as UTF-8") from None
    entries = []
    for number, ended in enumerate(text.split("\n"), start=1):  # splitlines() would also cut at rare characters
        line = ended.removesuffix("\r")
        if not line.strip():
            continue
        found = parse_line(line)
        if found is None or not found[0]:
            raise ListError(f"{gt}:{number}: {line!r} has no {'label' if found is None else 'path'}; {GT_FORMATS}")
        entries.append(Entry(*found, f"{gt}:{number}"))
    if not entries:
        raise ListError(f"{gt} names no picture; {GT_FORMATS}")
    return entries
