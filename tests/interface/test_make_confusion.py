"""`scripts/make_confusion.py`: characters as an LR picture shows them, their table, and the file that comes along."""

import hashlib
import importlib.util
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from dataset.rendering.fonts import Face, bundled_fonts
from dataset.rendering.glyphs import Glyph
from interface.config import ROOT
from interface.confusion import read_confusion
from loss.weighted_ce import ALPHABET, confusion_weights, weighted_cross_entropy

SCRIPT = ROOT / "scripts" / "make_confusion.py"
AILERON = Face("Aileron", "pillow")


def bundled(name):
    """A face of a font file that comes with matplotlib."""
    (file,) = [file for file in bundled_fonts() if file.name == f"{name}.ttf"]
    return Face(name, str(file))


FACES = (AILERON, bundled("DejaVuSans"), bundled("DejaVuSerif"))
NEARER = ["0O 0X", "0O 01", "1l 1m", "Il Iw", "5S 5T", "8B 8J", "2Z 2m", "cC cT", "Ss SM", "Vv Vg", "ce cM", "ou oi"]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("make_confusion", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def table(tool):
    return tool.make_table(FACES)[0]


def block(width, height, *, left=0, bottom=0):
    """A glyph that is a rectangle of ink, `bottom` pixels above the baseline."""
    return Glyph(np.full((height, width), 255, np.uint8), left, -bottom - height, width)


def looks_right(tool, table):
    """What is true of every table, whatever the fonts."""
    assert table.shape == (62, 62)
    assert table.dtype == np.float64
    assert (table == table.T).all()
    assert not table.diagonal().any()
    apart = table[~np.eye(62, dtype=bool)]
    assert apart.min() > 0
    assert apart.mean() == pytest.approx(1.07, abs=1e-4)
    at = {
        character: place
        for place, character in enumerate("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
    }
    for pairs in NEARER:
        near, far = pairs.split()
        assert table[at[near[0]], at[near[1]]] < table[at[far[0]], at[far[1]]], pairs


# Pictures.


@pytest.mark.parametrize(("size", "width", "shift"), [(1, 1, 0), (1, 1, 4), (1.2, 1, -2), (1, 1.25, 6), (0.8, 0.9, 2)])
def test_ink_lies_where_it_belongs_and_is_as_large_and_blurred_as_it_should_be(tool, size, width, shift):
    picture = tool.lr_pictures([block(12, 8, left=5, bottom=4)], size=size, width=width, shifts=(shift,))
    picture = picture.reshape(tool.ROWS, tool.COLUMNS).astype(float)
    ink = picture.sum()
    assert ink == pytest.approx(12 * 8 * size**2 * width / 4**2, rel=0.01)  # an LR pixel is 4 x 4 canvas pixels
    y, x = np.mgrid[: tool.ROWS, : tool.COLUMNS] + 0.5
    middle = [(picture * x).sum() / ink, (picture * y).sum() / ink]
    assert middle == pytest.approx([20 + shift / 4, 20 - (4 + 8 / 2) * size / 4], abs=0.01)  # baseline: the edge at 20
    spread = (picture * (x - middle[0]) ** 2).sum() / ink
    # That of a bar, and of a Gaussian of 1.95 HR pixels, two of which are one of LR.
    assert spread == pytest.approx((12 * size * width / 4) ** 2 / 12 + (1.95 / 2) ** 2, rel=0.02)


# Comparing.


def test_the_same_shape_does_not_differ_wherever_its_ink_begins(tool):
    assert tool.compare([block(10, 20), block(10, 20, left=7)])[0, 1] == pytest.approx(0, abs=1e-6)


def test_a_larger_and_a_wider_shape_differ_by_the_cost_of_it(tool):
    differences = tool.compare([block(20, 20), block(24, 24), block(25, 20)])
    assert differences[0, 1] == pytest.approx(tool.COST * math.log(1.2), abs=0.003)
    assert differences[0, 2] == pytest.approx(tool.COST * math.log(1.25), abs=0.003)


def test_shapes_that_have_no_ink_in_common_differ_by_one(tool):
    assert tool.compare([block(20, 8, bottom=50), block(20, 8, bottom=-20)])[0, 1] == pytest.approx(1, abs=1e-3)


def test_a_shape_and_twice_that_shape_differ_by_a_third(tool, monkeypatch):
    low, high = block(30, 8), block(30, 8, bottom=60)
    both = Glyph(np.concatenate([high.ink, np.zeros((52, 30), np.uint8), low.ink]), 0, -68, 30)
    monkeypatch.setattr(tool, "SIZES", (1.0,))
    monkeypatch.setattr(tool, "WIDTHS", (1.0,))
    # <a, b> = 1, <a, a> = 1, <b, b> = 2: 1 - 2 / 3
    assert tool.compare([low, both])[0, 1] == pytest.approx(1 / 3, abs=0.001)


def test_differences_are_symmetric(tool):
    glyphs = [block(4, 50), block(30, 30), block(12, 44, bottom=-12), block(40, 6, bottom=20)]
    differences = tool.compare(glyphs)
    assert (differences == differences.T).all()
    assert not differences.diagonal().any()
    assert (differences[~np.eye(4, dtype=bool)] > 0.05).all()


# The table.


def test_the_table_has_the_right_form_and_neighbours(tool, table):
    looks_right(tool, table)


def test_the_same_fonts_give_the_same_table_in_any_order(tool, table):
    again, families = tool.make_table(FACES[::-1])
    assert (again == table).all()
    assert families == {"Aileron": 1, "DejaVuSans": 1, "DejaVuSerif": 1}


def constant(monkeypatch, tool, values):
    """Have `compare` find 1 between all characters, but for the first two of a face: the next of `values`."""
    left = iter(values)

    def compare(glyphs):
        differences = 1 - np.eye(len(glyphs))
        differences[0, 1] = differences[1, 0] = next(left)
        return differences

    monkeypatch.setattr(tool, "compare", compare)


def test_a_family_of_many_faces_counts_once(tool, monkeypatch):
    constant(monkeypatch, tool, [1, 3, 5])
    faces = [Face("one", "pillow"), Face("one", AILERON.source, 500), Face("other", "pillow")]
    table, families = tool.make_table(faces)
    assert families == {"one": 2, "other": 1}
    assert table[0, 1] / table[2, 3] == pytest.approx(((1 + 3) / 2 + 5) / 2, rel=1e-3)


def test_a_pair_counts_in_the_faces_that_have_both_characters(tool, monkeypatch):
    constant(monkeypatch, tool, [3, 5])
    table, _ = tool.make_table([AILERON, bundled("cmmi10")])  # which has no digits: its first two are A and B
    assert table[0, 1] / table[2, 3] == pytest.approx(3, rel=1e-3)
    assert table[10, 11] / table[2, 3] == pytest.approx((1 + 5) / 2, rel=1e-3)


def test_fonts_that_lack_characters_or_do_not_tell_them_apart_are_refused(tool):
    with pytest.raises(ValueError, match="no font has all of the 62 digits and letters, 0123456789 are missing"):
        tool.make_table([bundled("cmmi10")])
    with pytest.raises(ValueError, match="I and l look the same in all fonts; name folders with more by --fonts"):
        tool.make_table([Face("Penround", "pen:round", 6)])


# The command.


@pytest.fixture
def make(tool, tmp_path, monkeypatch, capsys):
    """Runs the script in an empty folder with few fonts; gives (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dataset.rendering.fonts.find_fonts", lambda *folders: FACES)

    def make(*arguments):
        status = tool.main(list(arguments))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return make


def test_it_writes_a_table_that_is_read_and_what_it_was_made_from(make, table, tmp_path, caplog):
    status, out, _ = make("--out", "new/confuse.npz")
    assert status == 0
    assert "wrote new/confuse.npz from 3 faces of 3 families" in out
    assert "use it: --text_focus --confusion new/confuse.npz" in out
    assert (read_confusion("new/confuse.npz") == table).all()
    assert not caplog.records
    content = (tmp_path / "new" / "confuse.npz").read_bytes()
    facts = json.loads((tmp_path / "new" / "confuse.json").read_text())
    assert facts["file"] == "confuse.npz"
    assert facts["sha256"] == hashlib.sha256(content).hexdigest()
    assert facts["command"] == "python scripts/make_confusion.py --out new/confuse.npz"
    assert facts["faces"] == 3
    assert make("--out", "again/confuse.npz")[0] == 0
    assert (tmp_path / "again" / "confuse.npz").read_bytes() == content


def test_nothing_is_overwritten(make, tmp_path):
    table, beside = tmp_path / "confuse.npz", tmp_path / "confuse.json"
    for file, content in ((table, "mine"), (beside, '{"file": "confuse.safetensors"}'), (beside, "[]"), (beside, "{")):
        file.write_text(content)
        status, _, err = make("--out", "confuse.npz")
        assert status == 2
        assert err == (
            f"make_confusion.py: {file.name} exists; nothing is overwritten: choose another --out, or remove it\n"
        )
        assert file.read_text() == content
        file.unlink()


def test_what_is_left_of_a_table_that_was_removed_is_replaced(make, tmp_path):
    (tmp_path / "confuse.json").write_text('{"file": "confuse.npz"}')
    assert make("--out", "confuse.npz")[0] == 0
    assert "sha256" in json.loads((tmp_path / "confuse.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "confuse.pkl"], "--out confuse.pkl: the table is written as .npz; name it so"),
        (["--out", "a.npz", "--fonts", "none", "nor"], "--fonts none nor: no such folder"),
    ],
)
def test_wrong_arguments_are_refused(make, tmp_path, arguments, message):
    status, out, err = make(*arguments)
    assert (status, out, err) == (2, "", f"make_confusion.py: {message}\n")
    assert not list(tmp_path.iterdir())


def test_fonts_that_cannot_do_it_are_an_error_without_a_traceback(make, monkeypatch, tmp_path):
    monkeypatch.setattr("dataset.rendering.fonts.find_fonts", lambda *folders: (bundled("cmmi10"),))
    status, _, err = make("--out", "a.npz")
    assert status == 2
    assert "0123456789 are missing" in err
    assert not list(tmp_path.iterdir())


def test_the_script_works_from_elsewhere(tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPT, "--out", "a.npy"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "make_confusion.py: --out a.npy: the table is written as .npz; name it so\n"


# The table that comes along.


@pytest.fixture(scope="module")
def own():
    return read_confusion(ROOT / "rec_pth" / "confuse.npz")


def test_the_table_that_comes_along_is_as_it_should_be(tool, own):
    looks_right(tool, own)
    at = tool.CHARACTERS.index
    front = np.sort(own[np.triu_indices(62, 1)])[60]  # of 1891 pairs
    for pair in ("0O", "0o", "oO", "1l", "1I", "Il", "5S", "2Z", "8B", "sS", "cC", "wW", "vV", "xX", "zZ"):
        assert own[at(pair[0]), at(pair[1])] < front, pair


def test_its_json_belongs_to_it_and_names_no_place_of_a_machine(tool):
    folder = ROOT / "rec_pth"
    text = (folder / "confuse.json").read_text()
    facts = json.loads(text)
    assert facts["sha256"] == hashlib.sha256((folder / "confuse.npz").read_bytes()).hexdigest()
    assert facts["characters"] == tool.CHARACTERS
    assert facts["faces"] == sum(facts["families"].values())
    assert facts["command"] == "python scripts/make_confusion.py --out rec_pth/confuse.npz"
    assert "/home" not in text
    assert "/usr" not in text


def test_with_it_a_likely_mistake_costs_more_than_an_unlikely_one(own):
    target = torch.tensor([ALPHABET.index("o")])

    def cost(wrong, table):
        logits = torch.zeros(1, len(ALPHABET))
        logits[0, ALPHABET.index(wrong)] = 2.0
        return weighted_cross_entropy(logits, target, confusion_weights(table).log()).item()

    assert cost("0", None) == cost("x", None)
    assert cost("0", own) > cost("x", own) + 0.1
