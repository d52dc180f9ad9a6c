"""What the sections of `--doctor` are made of; needs the standard library alone."""

from __future__ import annotations

from dataclasses import dataclass

OK, MISSING, UNUSABLE, OLD = "ok", "missing", "unusable", "too old"
RENDERED = "data/synthetic/train1 data/synthetic/train2"


@dataclass(frozen=True)
class Problem:
    """Something the job needs and does not have, and what to do about it: one of the lines of `remedy`."""

    what: str
    remedy: str


@dataclass(frozen=True)
class Row:
    """A line of a section: its columns, what is to be said below it, and why the job cannot run, if it is that.

    That of a data set has its number of samples, too.
    """

    cells: tuple[str, ...]
    notes: tuple[str, ...] = ()
    problem: Problem | None = None
    samples: int = 0


@dataclass(frozen=True)
class Section:
    """Rows under a title; `footer` is said once below all of them.

    It has none if it was `skipped`, since a package is missing.
    """

    title: str
    rows: list[Row]
    footer: tuple[str, ...] = ()
    skipped: bool = False


def size_of(size: float) -> str:
    """Bytes in GiB, or what is less in MiB or KiB."""
    unit, name = next((pair for pair in ((2**30, "GiB"), (2**20, "MiB")) if size >= pair[0]), (2**10, "KiB"))
    return f"{size / unit:.1f} {name}"
