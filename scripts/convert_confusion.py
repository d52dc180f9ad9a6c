"""Convert a published `confuse.pkl` into the table that `LOSS.confusion` takes.

    python scripts/convert_confusion.py confuse.pkl rec_pth/confuse_published.npz

A pickle is a small program: reading it the usual way runs what it says. Here it may only name what the pickle of a
NumPy array names, and even those are not called: the calls are noted, and the table is rebuilt from the notes (type,
shape, bytes). Every other name is refused. Files of Python 2 and 3, of any NumPy and any pickle protocol will do, and a
pickled list of 62 lists of 62 numbers.
"""

# ruff: noqa: PLC0415 - imports that take long wait for the arguments: --help is instant

import argparse
import io
import pickle
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

ROOT = Path(__file__).resolve().parent.parent
LARGEST = 1 << 20  # bytes; a table of 62x62 takes 31 kB, in the wordiest protocol 100 kB
RECONSTRUCT, FROM_BUFFER, DTYPE, NDARRAY, ENCODE = "_reconstruct", "_frombuffer", "dtype", "ndarray", "encode"
ALLOWED = {("numpy", NDARRAY), ("numpy", DTYPE), ("_codecs", ENCODE)}
for core in ("numpy.core", "numpy._core"):  # before and since NumPy 2
    ALLOWED |= {(f"{core}.multiarray", RECONSTRUCT), (f"{core}.numeric", FROM_BUFFER)}
DTYPES = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"}


class Refused(ValueError):
    """The file is not what it should be; the message says in which way."""


class Call:
    """A call that the pickle asks for, noted and not made."""

    def __init__(self, function: str, arguments: tuple[Any, ...]) -> None:
        self.function, self.arguments = function, arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state  # what the pickle wants its result to be told


class Name:
    """Stands for one of the `ALLOWED` names."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *arguments: Any) -> Call:
        """Note the call."""
        return Call(self.name, arguments)

    def __setstate__(self, state: Any) -> None:
        raise Refused(f"it wants to change {self.name}, which no pickled array does; it is not opened")


class Notes(pickle._Unpickler):
    """Reads a pickle without executing anything in it.

    This is the unpickler in Python: to the one in C, ten bytes can be an order to take all memory.
    """

    def find_class(self, module: str, name: str) -> Name:
        """The stand-in for an allowed name.

        Raises:
            Refused: another name.
        """
        if (module, name) not in ALLOWED:
            asked = f"{module}.{name}"[:100]
            raise Refused(f"it asks for {asked!r}, which no pickled array needs and which could run code")
        return Name(name)

    def load_bytearray8(self) -> None:
        """Python's own reserves whatever length the file claims before it looks at the rest of the file.

        Raises:
            Refused: it is longer than any table.
        """
        length = int.from_bytes(self.read(8), "little")
        if length > LARGEST:
            raise Refused(f"it claims {length} bytes, more than any table has")
        self.append(bytearray(self.read(length)))

    dispatch = pickle._Unpickler.dispatch | {pickle.BYTEARRAY8[0]: load_bytearray8}


def read_pickle(path: Path) -> "np.ndarray":
    """The array of numbers in a pickle, of any shape that it says.

    Raises:
        FileNotFoundError: there is no such file.
        Refused: it is damaged, or holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    if path.stat().st_size > LARGEST:
        raise Refused(f"{path} has {path.stat().st_size} bytes; the table has fewer than {LARGEST}")
    try:
        # Python 2 had one type for text and bytes; Latin-1 keeps each byte apart.
        return rebuild(Notes(io.BytesIO(path.read_bytes()), encoding="latin1").load())
    except Refused as error:
        raise Refused(f"{path} is refused: {error}") from error
    except Exception as error:  # a damaged pickle may raise anything, says Python's documentation
        raise Refused(f"{path} is damaged or no pickle ({type(error).__name__}); copy it again") from error


def rebuild(loaded: Any) -> "np.ndarray":
    """The array that noted calls, or lists of numbers, describe.

    Raises:
        Refused: they describe something else.
    """
    import numpy as np

    if isinstance(loaded, list | tuple):
        return from_rows(loaded)
    if not isinstance(loaded, Call):
        raise Refused(f"it holds a {type(loaded).__name__}, not an array")
    state = loaded.state
    # The first entry of a state is its version; the oldest files have none.
    if loaded.function == RECONSTRUCT and isinstance(state, tuple) and len(state) in (4, 5):
        shape, kind, by_columns, data = state[-4:]
    elif loaded.function == FROM_BUFFER and len(loaded.arguments) == 4 and loaded.arguments[3] in ("C", "F"):
        data, kind, shape, order = loaded.arguments
        by_columns = order == "F"
    else:
        raise Refused(f"its call of {loaded.function} describes no array of numbers")
    dtype, content = np.dtype(dtype_name(kind)), content_of(data)
    if not isinstance(shape, tuple) or len(shape) != 2 or any(type(side) is not int or side < 1 for side in shape):
        raise Refused("its array is no table of rows and columns")
    if shape[0] * shape[1] * dtype.itemsize != len(content):
        raise Refused(f"its array has {len(content)} bytes, which do not fill its shape; copy it again")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if by_columns else "C")


def dtype_name(kind: Any) -> str:
    """`<f8` and the like of a noted `dtype`.

    Raises:
        Refused: it is none of plain numbers.
    """
    if isinstance(kind, Call) and kind.function == DTYPE and kind.arguments and isinstance(kind.state, tuple):
        name = kind.arguments[0]
        order = next((entry for entry in kind.state[:2] if isinstance(entry, str)), None)
        if isinstance(name, str) and name in DTYPES and order in ("<", ">", "|"):
            return f"{order}{name}"
        raise Refused("its array holds other things than plain numbers")
    raise Refused("the type of its array is not described as NumPy does")


def content_of(data: Any) -> bytes:
    """The bytes of an array, in each of the forms that pickles have for them.

    Raises:
        Refused: they are something else, such as a list of objects.
    """
    if isinstance(data, Call) and data.function == ENCODE and data.arguments[1:] == ("latin1",):
        data = data.arguments[0]  # how Python 3 writes bytes in protocols that have none
    if isinstance(data, str):
        return data.encode("latin1")
    if isinstance(data, bytes | bytearray):
        return bytes(data)
    raise Refused(f"the content of its array is a {type(data).__name__}, not bytes")


def from_rows(rows: list[Any] | tuple[Any, ...]) -> "np.ndarray":
    """A table of rows of numbers.

    Raises:
        Refused: they are something else.
    """
    import numpy as np

    if not all(isinstance(row, list | tuple) and row and len(row) == len(rows[0]) for row in rows):
        raise Refused(f"it holds a {type(rows).__name__}, but not of rows of equal length")
    if rows and len(rows) * len(rows[0]) > LARGEST // 8:  # one row can stand in a small file many times
        raise Refused(f"it holds {len(rows)} rows of {len(rows[0])}, more than any table has")
    if not all(type(number) in (int, float) for row in rows for number in row):
        raise Refused("its rows hold other things than numbers")
    return np.array(rows, dtype=np.float64)


def write_new(path: Path, table: "np.ndarray") -> None:
    """Write the `.npz` file.

    Raises:
        FileExistsError: the file is there.
    """
    import numpy as np

    from interface.confusion import ARRAY

    content = io.BytesIO()
    np.savez(content, **{ARRAY: table})
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("xb") as file:
            file.write(content.getvalue())
    except FileExistsError as error:
        raise FileExistsError(f"{path} exists; nothing is overwritten: choose another name or remove it") from error


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="convert_confusion.py", description=__doc__, formatter_class=raw)
    parser.add_argument("source", type=Path, metavar="IN.pkl", help="the pickled table; it is not executed")
    parser.add_argument("out", type=Path, metavar="OUT.npz", help="file to write; nothing is overwritten")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Convert; returns the exit status."""
    args = parse(argv)
    sys.path.insert(0, str(ROOT))  # run as a file: the packages lie one folder up
    from interface.confusion import check_confusion

    try:
        if args.out.suffix != ".npz":
            raise ValueError(f"{args.out}: the table is written as .npz; name it so")
        write_new(args.out, check_confusion(read_pickle(args.source), str(args.source)))
    except (ValueError, OSError) as error:
        print(f"convert_confusion.py: {error}", file=sys.stderr)
        return 2
    print(f"wrote {args.out}; use it: --text_focus --confusion {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
