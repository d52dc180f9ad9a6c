"""Edit distance of a reading and its target, and which letters are wrong."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Piece:
    """One place of an alignment; `kind` is "same", "wrong" (another letter), "missing" (in the reading) or "extra"."""

    kind: str
    expected: str
    read: str


def align(target: str, reading: str) -> list[Piece]:
    """Align a reading with its target at the least number of edits, from left to right.

    Of equally short alignments the one is taken that pairs letters rather than leaving one out and adding another.
    """
    costs = _costs(target, reading)
    row, column = len(target), len(reading)
    pieces = []
    while row or column:
        here = costs[row][column]
        if row and column and here == costs[row - 1][column - 1] + (target[row - 1] != reading[column - 1]):
            row, column = row - 1, column - 1
            kind = "same" if target[row] == reading[column] else "wrong"
            pieces.append(Piece(kind, target[row], reading[column]))
        elif row and here == costs[row - 1][column] + 1:
            row -= 1
            pieces.append(Piece("missing", target[row], ""))
        else:
            column -= 1
            pieces.append(Piece("extra", "", reading[column]))
    return pieces[::-1]


def distance(target: str, reading: str) -> float:
    """Levenshtein distance over the length of the longer text: 0 for equal texts (two empty ones too), at most 1."""
    if target == reading:
        return 0.0
    return _costs(target, reading)[-1][-1] / max(len(target), len(reading))


def _costs(target: str, reading: str) -> list[list[int]]:
    """costs[i][j]: edits between the first i letters of the target and the first j of the reading."""
    costs = [list(range(len(reading) + 1))]
    for row, expected in enumerate(target, start=1):
        above, line = costs[-1], [row]
        for column, read in enumerate(reading):
            line.append(min(above[column] + (expected != read), above[column + 1] + 1, line[column] + 1))
        costs.append(line)
    return costs
