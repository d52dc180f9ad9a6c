import importlib.util
import logging
import os
import pickle
import random
import struct
import subprocess
import sys

import numpy as np
import pytest

from interface.config import ROOT
from interface.confusion import read_confusion
from loss.weighted_ce import confusion_weights

SCRIPT = ROOT / "scripts" / "convert_confusion.py"


def dissimilarity():
    """A table like the published one: symmetric, zero diagonal, 0.02 to 3.46."""
    table = np.triu(np.random.default_rng(0).uniform(0.02, 3.46, (62, 62)), 1)
    return table + table.T


TABLE = dissimilarity()


# Reading.


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("named.npz", lambda file: np.savez(file, dissimilarity=TABLE)),
        ("compressed.npz", lambda file: np.savez_compressed(file, dissimilarity=TABLE)),
        ("one_of_two.npz", lambda file: np.savez(file, other=TABLE + 1, dissimilarity=TABLE)),
        ("single.npz", lambda file: np.savez(file, TABLE)),
        ("bare.npy", lambda file: np.save(file, TABLE)),
        ("columns.npy", lambda file: np.save(file, np.asfortranarray(TABLE))),
        ("big_endian.npy", lambda file: np.save(file, TABLE.astype(">f8"))),
    ],
)
def test_a_table_is_read(tmp_path, caplog, name, write):
    write(tmp_path / name)
    for path in (tmp_path / name, str(tmp_path / name)):
        table = read_confusion(path)
        assert table.dtype == np.float64
        assert (table == TABLE).all()
    assert not caplog.records


def test_numbers_of_other_types_become_float64(tmp_path):
    for dtype in ("f2", "f4", "i4", "u1"):
        np.save(tmp_path / "table.npy", (TABLE * 50).astype(dtype))
        table = read_confusion(tmp_path / "table.npy")
        assert table.dtype == np.float64
        assert (table == (TABLE * 50).astype(dtype)).all()


def changed(row, column, value):
    table = TABLE.copy()
    table[row, column] = value
    return table


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.zeros((3, 3)), r"62x62 was expected, found \(3, 3\)"),
        (np.zeros((37, 37)), r"62x62 was expected, found \(37, 37\)"),
        (np.zeros((62, 62, 1)), r"62x62 was expected, found \(62, 62, 1\)"),
        (np.float64(1), r"62x62 was expected, found \(\)"),
        (changed(3, 5, np.nan), "1 values are negative or not finite, the first is nan in row 3, column 5"),
        (changed(3, 5, np.inf), "the first is inf in row 3, column 5"),
        (changed(61, 0, -0.5), "the first is -0.5 in row 61, column 0 .from 0.; a dissimilarity is 0 or more"),
        (-TABLE, f"{62 * 61} values are negative"),
        (TABLE.astype(complex), "numbers were expected, found complex128"),
        (TABLE.astype(str), "numbers were expected, found <U"),
        (TABLE > 1, "numbers were expected, found bool"),
    ],
)
def test_another_array_is_refused(tmp_path, table, message):
    np.savez(tmp_path / "table.npz", dissimilarity=table)
    with pytest.raises(ValueError, match=rf"table\.npz \(LOSS\.confusion\): .*{message}"):
        read_confusion(tmp_path / "table.npz")


def test_a_missing_file_is_explained(tmp_path):
    for path in (tmp_path / "none.npz", tmp_path):
        with pytest.raises(FileNotFoundError, match=r"\(LOSS\.confusion\); without one all confusions weigh alike"):
            read_confusion(path)


def test_an_npz_without_the_array_lists_what_it_has(tmp_path):
    np.savez(tmp_path / "two.npz", a=TABLE, b=TABLE)
    with pytest.raises(ValueError, match=r"no array 'dissimilarity' \(found: a, b\); .*numpy\.savez"):
        read_confusion(tmp_path / "two.npz")
    np.savez(tmp_path / "none.npz")
    with pytest.raises(ValueError, match="found: none"):
        read_confusion(tmp_path / "none.npz")


class Evil:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_a_pickle_is_refused_with_advice_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for content in (pickle.dumps(TABLE), pickle.dumps(TABLE, 0), pickle.dumps(Evil()), b"", b"text"):
        (tmp_path / "table.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"is no \.npz or \.npy file.*scripts/convert_confusion\.py"):
            read_confusion("table.npz")
    objects = np.full((62, 62), None)
    objects[0, 0] = Evil()
    np.save("objects.npy", objects)
    np.savez("objects.npz", dissimilarity=objects)
    for name in ("objects.npy", "objects.npz"):
        with pytest.raises(ValueError, match="holds Python objects, which could run code") as refused:
            read_confusion(name)
        assert "allow_pickle" not in str(refused.value)  # NumPy advises to switch the check off
    assert not (tmp_path / "executed").exists()


def test_damage_is_a_clear_error_or_without_effect(tmp_path):
    path = tmp_path / "table.npz"
    np.savez_compressed(path, dissimilarity=TABLE)
    whole, numbers = path.read_bytes(), random.Random(0)
    spoiled = [whole[:length] for length in (0, 3, 7, 100, len(whole) // 2, len(whole) - 1)]
    for position in [*range(100), *numbers.sample(range(len(whole)), 100), *range(len(whole) - 100, len(whole))]:
        damaged = bytearray(whole)
        damaged[position] ^= 0x41
        spoiled.append(bytes(damaged))
    for content in spoiled:
        path.write_bytes(content)
        try:
            table = read_confusion(path)
        except ValueError as error:
            assert str(path) in str(error)
        else:  # the zip container has bytes that nobody reads
            assert (table == TABLE).all()


@pytest.mark.parametrize("table", [changed(0, 1, 9.0), changed(4, 4, 1.0), 1 / (1 + TABLE)])
def test_what_looks_like_no_dissimilarity_is_said(tmp_path, caplog, table):
    np.save(tmp_path / "table.npy", table)
    assert (read_confusion(tmp_path / "table.npy") == table).all()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "not symmetric with a zero diagonal" in caplog.text


# Converting.


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("convert_confusion", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def convert(tool, capsys, tmp_path, monkeypatch):
    """Converts a file of this content; gives (exit status, the table that is read back or None, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(content):
        (tmp_path / "confuse.pkl").write_bytes(content)
        (tmp_path / "new" / "confuse.npz").unlink(missing_ok=True)
        status = tool.main(["confuse.pkl", "new/confuse.npz"])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        assert bool(captured.out) == (status == 0)
        assert captured.err or status == 0  # a warning comes with a table as well
        assert not (tmp_path / "executed").exists()
        made = (tmp_path / "new" / "confuse.npz").is_file()
        return status, read_confusion("new/confuse.npz") if made else None, captured.err

    return call


def older(content, protocol):
    """The pickle as NumPy before version 2 writes it."""
    if b"numpy._core." not in content:
        return content
    if protocol < 4:  # names end with a line
        return content.replace(b"numpy._core.", b"numpy.core.")
    assert content[2:3] == b"\x95"  # a frame, whose length would have to be changed: it may as well be left out
    for name in (b"numpy._core.multiarray", b"numpy._core.numeric"):
        length, shorter = struct.pack("<B", len(name)), struct.pack("<B", len(name) - 1)
        content = content.replace(length + name, shorter + name.replace(b"_core", b"core"))
    return content[:2] + content[11:]


ARRAYS = {
    "float64": TABLE,
    "columns": np.asfortranarray(changed(0, 1, 9.0)),
    "float32": TABLE.astype("f4"),
    "float16": TABLE.astype("f2"),
    "big-endian": TABLE.astype(">f8"),
    "int64": (TABLE * 100).astype("i8"),
    "uint8": (TABLE * 70).astype("u1"),
    "part": np.arange(124.0 * 62).reshape(124, 62)[::2],
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_of_every_protocol_are_converted(convert, kind, protocol):
    array = ARRAYS[kind]
    content = pickle.dumps(array, protocol)
    assert (pickle.loads(content) == array).all()
    for version in (content, older(content, protocol)):
        status, table, _ = convert(version)
        assert status == 0
        assert (table == array).all()
        assert (confusion_weights(table) == confusion_weights(np.asarray(array))).all()


def python2(array, *, binary, version="I1\n", order="<"):
    """The bytes that Python 2 and its NumPy write: text and bytes are one type."""

    def text(value):
        if not binary:
            return b"S" + repr(value)[1:].encode() + b"\n"
        return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value

    no = b"\x89" if binary else b"I00\n"
    kind, content = array.dtype.str[1:].encode(), array.tobytes("F" if np.isfortran(array) else "C")
    return b"".join(
        [
            b"\x80\x02" if binary else b"",
            b"cnumpy.core.multiarray\n_reconstruct\np0\n(cnumpy\nndarray\np1\n(I0\ntp2\n",
            text(b"b"),
            b"p3\ntp4\nRp5\n(",
            version.encode(),
            b"(I62\nI62\ntp6\ncnumpy\ndtype\np7\n(",
            text(kind),
            b"p8\nI0\nI1\ntp9\nRp10\n(I3\n",
            text(order.encode()),
            b"p11\nNNNI-1\nI-1\nI0\ntp12\nb",
            b"I01\n" if np.isfortran(array) else no,
            text(content),
            b"p13\ntp14\nb.",
        ]
    )


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("kind", ["float64", "columns", "float32", "big-endian"])
def test_files_of_python_2_are_converted(convert, kind, binary):
    array = ARRAYS[kind]
    content = python2(array, binary=binary, order=">" if kind == "big-endian" else "<")
    assert (pickle.loads(content, encoding="latin1") == array).all()
    status, table, _ = convert(content)
    assert status == 0
    assert (table == array).all()


def test_a_state_without_a_version_is_the_oldest_form(convert):
    content = python2(TABLE, binary=True, version="")
    assert (pickle.loads(content, encoding="latin1") == TABLE).all()
    assert (convert(content)[1] == TABLE).all()


@pytest.mark.parametrize("protocol", range(6))
def test_lists_of_rows_are_converted(convert, protocol):
    for rows in (TABLE.tolist(), tuple(map(tuple, TABLE.tolist()))):
        assert (convert(pickle.dumps(rows, protocol))[1] == TABLE).all()


class Reduce:
    """Pickles as a call of `function` with `arguments`, and then a `state` for its result."""

    def __init__(self, function, arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


def reconstruct():
    return np.zeros(0).__reduce__()[0]


def with_objects():
    array = np.full((62, 62), None)
    array[5, 5] = Evil()
    return array


ATTACKS = {
    "mkdir": Evil,
    "system": lambda: Reduce(os.system, ("mkdir executed",)),
    "eval": lambda: Reduce(eval, ("__import__('os').mkdir('executed')",)),
    "getattr": lambda: Reduce(getattr, (TABLE, "tofile")),
    "in a list": lambda: [[0.0] * 62] * 61 + [[0.0] * 61 + [Evil()]],
    "in an array": with_objects,
    "in a dict": lambda: {"dissimilarity": TABLE, "more": Evil()},
    "as a subtype": lambda: Reduce(reconstruct(), (Evil(), (0,), b"b")),
    "as a subtype itself": lambda: Reduce(reconstruct(), (os.mkdir, ("executed",), b"b")),
    "as a state": lambda: Reduce(reconstruct(), (np.ndarray, (0,), b"b"), (1, (62, 62), Evil(), False, b"")),
    "as a function of ndarray": lambda: Reduce(np.ndarray, (os.mkdir, ("executed",))),
    "as a codec": lambda: Reduce(__import__("_codecs").encode, (Evil(), "latin1")),
    "as a dtype": lambda: Reduce(np.dtype, (Evil(),)),
    "numpy.load": lambda: Reduce(np.load, ("other.pkl", None, True)),
    "numpy.fromfile": lambda: Reduce(np.fromfile, ("/dev/zero",)),
}


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("name", ATTACKS)
def test_code_is_refused_and_not_run(convert, name, protocol):
    status, table, err = convert(pickle.dumps(ATTACKS[name](), protocol))
    assert (status, table) == (2, None)
    assert "confuse.pkl is refused: it asks for" in err
    assert "run code" in err


def test_the_refusal_names_what_was_asked_for(convert):
    assert f"'{os.name}.mkdir'" in convert(pickle.dumps(Evil()))[2]
    assert "'builtins.eval'" in convert(pickle.dumps(ATTACKS["eval"]()))[2]
    assert "'__builtin__.eval'" in convert(pickle.dumps(ATTACKS["eval"](), 2))[2]
    assert r"'os.\x1b[31m'" in convert(b"cos\n\x1b[31m\n.")[2]  # the file does not write to the terminal


@pytest.mark.parametrize(
    "content",
    [
        b"(S'mkdir executed'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'mkdir executed'\no.",  # OBJ
        b"\x80\x02cos\nsystem\nU\x0emkdir executed\x85R.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0emkdir executed\x85R.",  # STACK_GLOBAL
        b"\x80\x04\x8c\x05numpy\x8c\x0ef2py.os.system\x93.",  # a dotted name
        b"cnumpy\nndarray\n(S'name'\nS'x'\ndb.",  # BUILD on a stand-in
        b"cnumpy\nndarray\nN(S'name'\nS'x'\nd\x86b.",
        b"\x80\x02cnumpy\nndarray\n)\x81.",  # NEWOBJ
        b"\x80\x04cnumpy\nndarray\n)}\x92.",  # NEWOBJ_EX
        b"cnumpy\nndarray\n(lR.",
        b"Pexecuted\n.",  # PERSID
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x05\x97.",  # NEXT_BUFFER
        b"cnumpy\ndtype\n.",
        b"cnumpy\ndtype\n(tR.",
        b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.",
    ],
)
def test_handmade_pickles_are_refused(convert, content):
    status, table, err = convert(content)
    assert (status, table) == (2, None)
    assert "confuse.pkl is" in err


def test_a_file_of_ten_bytes_does_not_take_all_memory(convert):
    for content in (b"Nr\xff\xff\xff\xff.", b"Np4294967295\n.", b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f."):
        assert convert(content)[0] == 2
    assert "claims 6442450944 bytes" in convert(b"\x80\x05\x96" + (6 << 30).to_bytes(8, "little") + b".")[2]


def test_a_small_file_of_many_rows_is_not_looked_through(convert):
    rows = [[1.0] * 12_000] * 12_000  # 144 million numbers in 48 kB
    assert "12000 rows of 12000, more than any table has" in convert(pickle.dumps(rows, 2))[2]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (TABLE[:3, :3], r"62x62 was expected, found (3, 3)"),
        (TABLE[:3].tolist(), r"62x62 was expected, found (3, 62)"),
        (TABLE[None], "is no table of rows and columns"),
        (TABLE[0], "is no table of rows and columns"),
        (changed(1, 2, np.nan), "the first is nan in row 1, column 2"),
        (changed(1, 2, -1.0), "the first is -1.0 in row 1, column 2"),
        (TABLE.astype(complex), "other things than plain numbers"),
        (TABLE.astype("U3"), "other things than plain numbers"),
        (np.zeros((62, 62), [("a", "f8")]), "other things than plain numbers"),
        (np.zeros((62, 62), "M8[s]"), "other things than plain numbers"),
        ({"dissimilarity": TABLE}, "it holds a dict, not an array"),
        (5, "it holds a int, not an array"),
        ([1, 2], "not of rows of equal length"),
        ([], r"62x62 was expected, found (0,)"),
        ([[1.0] * 62] * 61 + [[1.0] * 61], "not of rows of equal length"),
        ([["x"] * 62] * 62, "its rows hold other things than numbers"),
        ([[True] * 62] * 62, "its rows hold other things than numbers"),
        (np.full((62, 62), 1.0, object), "other things than plain numbers"),
    ],
)
def test_another_content_is_refused(convert, value, message):
    for protocol in (0, 2, 5):
        status, table, err = convert(pickle.dumps(value, protocol))
        assert (status, table) == (2, None)
        assert message in err


def test_a_damaged_file_is_a_clear_error(convert):
    numbers = random.Random(1)
    for whole in (pickle.dumps(TABLE, 0), pickle.dumps(TABLE, 2), pickle.dumps(TABLE, 5)):
        for length in [*range(0, 200, 9), len(whole) // 2, len(whole) - 1]:
            status, table, err = convert(whole[:length])
            assert (status, table) == (2, None), length
            assert "confuse.pkl is" in err
        for position in [*range(150), *numbers.sample(range(len(whole)), 30)]:
            damaged = bytearray(whole)
            damaged[position] ^= 0x41
            convert(bytes(damaged))  # checks that it does no harm; a wrong digit cannot be noticed


def test_a_huge_file_is_not_read(convert):
    assert "has 1048577 bytes" in convert(b"\x80\x02" + bytes((1 << 20) - 1))[2]


def test_nothing_is_overwritten(tool, tmp_path, capsys):
    (tmp_path / "confuse.pkl").write_bytes(pickle.dumps(TABLE))
    (tmp_path / "confuse.npz").write_text("mine")
    assert tool.main([str(tmp_path / "confuse.pkl"), str(tmp_path / "confuse.npz")]) == 2
    assert "nothing is overwritten" in capsys.readouterr().err
    assert (tmp_path / "confuse.npz").read_text() == "mine"


def test_wrong_names_are_refused(tool, tmp_path, capsys):
    assert tool.main([str(tmp_path / "none.pkl"), str(tmp_path / "a.npz")]) == 2
    assert "no such file" in capsys.readouterr().err
    (tmp_path / "confuse.pkl").write_bytes(pickle.dumps(TABLE))
    assert tool.main([str(tmp_path / "confuse.pkl"), str(tmp_path / "a.npy")]) == 2
    assert "name it so" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["confuse.pkl"]


def test_the_script_works_from_elsewhere(tmp_path):
    (tmp_path / "confuse.pkl").write_bytes(pickle.dumps(TABLE))
    done = subprocess.run(
        [sys.executable, SCRIPT, "confuse.pkl", "confuse.npz"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("wrote confuse.npz")
    assert (read_confusion(tmp_path / "confuse.npz") == TABLE).all()


def test_a_table_that_looks_like_none_is_converted_with_a_warning(convert, caplog):
    assert convert(pickle.dumps(np.ones((62, 62))))[0] == 0
    assert "not symmetric with a zero diagonal" in caplog.text
