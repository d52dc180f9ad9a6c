"""The table of `LOSS.confusion`: how much each two characters differ to the eye.

It is an `.npz` file with the array `dissimilarity`: 62x62 numbers, finite and not negative, symmetric with a zero
diagonal; rows and columns are digits, upper-case and lower-case letters. Small means that two characters look alike. A
`.npy` file with the bare array will do as well. `rec_pth/confuse.npz` comes along, made of the shapes of characters by
`scripts/make_confusion.py`; `scripts/convert_confusion.py` makes one of a published `confuse.pkl`.
"""

import io
import logging
import string
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

log = logging.getLogger(__name__)

ARRAY = "dissimilarity"
SIZE = len(string.digits) + len(string.ascii_letters)
LARGEST = 1 << 20  # bytes; the table takes 31 kB


def read_confusion(path: str | Path) -> np.ndarray:
    """The table in an `.npz` or `.npy` file; nothing in it is executed.

    An `.npz` file that holds one array only may give it any name.

    Returns:
        (62, 62) float64, finite and not negative.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else.
    """
    source = f"{path} (LOSS.confusion)"
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"no confusion table {source}; without one all confusions weigh alike, and "
            "python scripts/make_confusion.py --out FILE.npz makes one"
        )
    with Path(path).open("rb") as file:
        start = file.read(6)
        if start[:2] != b"PK" and start != b"\x93NUMPY":
            raise ValueError(
                f"{source} is no .npz or .npy file: it begins with {start!r}. A pickle, such as the published "
                "confuse.pkl, is not opened, because it can run code; convert it: "
                "python scripts/convert_confusion.py confuse.pkl confuse.npz"
            )
        file.seek(0)
        if unpacked_size(file) > LARGEST:
            raise ValueError(f"{source} is too large for a table of {SIZE}x{SIZE} numbers")
        return check_confusion(_load(file, source), source)


def unpacked_size(file: BinaryIO) -> int:
    """Bytes of what a file holds; a small archive may hold a large array. 0 if that cannot be said."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        pass  # a bare array, or damaged: reading it will say so
    file.seek(0)
    return size


def _load(file: BinaryIO, source: str) -> object:
    try:
        loaded = np.load(file, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            return loaded
        name = ARRAY if ARRAY in loaded.files else loaded.files[0] if len(loaded.files) == 1 else None
        if name is not None:
            return loaded[name]
    except Exception as error:  # NumPy, zipfile and zlib have a dozen kinds for a damaged file
        if "allow_pickle" in str(error):  # NumPy advises to switch the check off
            raise ValueError(f"{source} holds Python objects, which could run code; numbers were expected") from error
        raise ValueError(f"{source} is damaged or incomplete ({type(error).__name__}); copy it again") from error
    found = ", ".join(loaded.files[:5]) or "none"
    raise ValueError(f"{source} has no array {ARRAY!r} (found: {found}); save one with numpy.savez(..., {ARRAY}=table)")


def check_confusion(table: object, source: str) -> np.ndarray:
    """`table` as (62, 62) float64, once it is known to be a table of dissimilarities.

    Args:
        table: an array of numbers.
        source: where it comes from, for messages.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(table, np.ndarray) or table.shape != (SIZE, SIZE):
        found = table.shape if isinstance(table, np.ndarray) else f"a {type(table).__name__}"
        raise ValueError(f"{source}: a table of {SIZE}x{SIZE} was expected, found {found}")
    if table.dtype.kind not in "fiu":
        raise ValueError(f"{source}: numbers were expected, found {table.dtype}")
    numbers = table.astype(np.float64)
    wrong = ~np.isfinite(numbers) | (numbers < 0)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(
            f"{source}: {np.count_nonzero(wrong)} values are negative or not finite, the first is "
            f"{numbers[row, column]} in row {row}, column {column} (from 0); a dissimilarity is 0 or more"
        )
    if numbers.diagonal().any() or (numbers != numbers.T).any():
        log.warning("%s: not symmetric with a zero diagonal; is it a dissimilarity (small = look alike)?", source)
    return numbers
