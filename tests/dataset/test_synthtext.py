"""Cutting words out of SynthText; `framework/crop_rule` of the reference vectors has the rule itself."""

import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.synthtext import Box, split_words, without_punctuation, word_box

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "crop_synthtext.py"


def load_script():
    module_spec = importlib.util.spec_from_file_location("crop_synthtext", SCRIPT)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_spec.name] = module
    module_spec.loader.exec_module(module)
    return module


@pytest.fixture
def script():
    return load_script()


def corners(left, top, right, bottom):
    """(2, 4): x and y of the corners of an upright box, clockwise."""
    return np.array([[left, right, right, left], [top, top, bottom, bottom]], dtype=np.float64)


def table(*rows):
    """Two pictures as `scipy.io.loadmat` gives them: (1, n) arrays of objects."""
    result = np.empty((1, len(rows)), dtype=object)
    for number, row in enumerate(rows):
        result[0, number] = row
    return result


@pytest.fixture
def synthtext(tmp_path, monkeypatch):
    """A data set of two pictures and three words; its gt.mat needs no SciPy."""
    folder = tmp_path / "SynthText"
    for name, colour in (("8/ballet_106_109.jpg", "red"), ("9/sea.jpg", "blue")):
        (folder / name).parent.mkdir(parents=True)
        Image.new("RGB", (100, 60), colour).save(folder / name)
    content = {
        "imnames": table(np.array(["8/ballet_106_109.jpg"]), np.array(["9/sea.jpg"])),
        "wordBB": table(
            np.stack([corners(10.5, 5.5, 60.2, 30.1), corners(-4, 40, 20, 70)], axis=2),
            corners(1, 1, 50, 40),  # a single word has no third axis
        ),
        "txt": table(np.array(["It's     ", "\\nfar     ".replace("\\n", "\n")]), np.array(["SEA"])),
    }
    matlab = types.ModuleType("scipy.io")
    matlab.loadmat = lambda path: content
    monkeypatch.setitem(sys.modules, "scipy", types.ModuleType("scipy"))
    monkeypatch.setitem(sys.modules, "scipy.io", matlab)
    (folder / "gt.mat").touch()
    return folder, content


def arguments(folder, out, *more):
    return ["--gt_path", str(folder / "gt.mat"), "--syntxt_path", str(folder), "--out_path", str(out), *more]


def test_box_by_hand():
    slanted = np.array([[10.2, 40.0, 39.5, 9.9], [5.0, 3.7, 20.1, 21.0]])
    assert word_box(slanted, 100, 100) == Box(9, 3, 40, 21)
    beyond = word_box(corners(-3.5, 90.5, 20, 130), 100, 100)
    assert (beyond, beyond.width, beyond.height) == (Box(0, 90, 20, 100), 20, 10)
    assert word_box(corners(120, 5, 130, 9), 100, 100).width < 0


def test_words_by_hand():
    assert split_words(["a  b\nc ", "", "d\n\ne"]) == ["a", "b", "c", "d", "e"]
    assert without_punctuation("[it's/50%]") == "its50"


def test_the_words_are_cut_and_listed(script, synthtext, tmp_path, capsys):
    folder, _ = synthtext
    out = tmp_path / "out"
    assert script.main(arguments(folder, out)) == 0
    lines = (out / "gt.txt").read_text().splitlines()
    assert lines == [
        "syntxt_crop/8/8_ballet_106_109_0_Its.jpg\tIt's",
        "syntxt_crop/8/8_ballet_106_109_1_far.jpg\tfar",
        "syntxt_crop/9/9_sea_0_SEA.jpg\tSEA",
    ]
    sizes = [Image.open(out / line.split("\t")[0]).size for line in lines]
    assert sizes == [(51, 26), (20, 20), (49, 39)]
    assert "wrote 3 words" in capsys.readouterr().out
    assert script.main(arguments(folder, out)) == 2
    assert "--resume" in capsys.readouterr().err


def test_small_words_and_damaged_pictures_are_left_out_and_counted(script, synthtext, tmp_path, capsys):
    folder, content = synthtext
    (folder / "9/sea.jpg").write_bytes(b"no picture")
    assert script.main(arguments(folder, tmp_path / "out", "--smallest", "30", "20")) == 0
    assert "wrote 1 words" in (said := capsys.readouterr().out)
    assert "1 words smaller than --smallest" in said
    assert "1 pictures that cannot be read" in said
    content["txt"][0][0] = np.array(["one"])
    assert script.main(arguments(folder, tmp_path / "none")) == 2
    assert "not one word was taken" in capsys.readouterr().err
    content["imnames"][0][0] = np.array(["../ballet.jpg"])
    content["txt"][0][0] = np.array(["one", "two"])
    assert script.main(arguments(folder, tmp_path / "other")) == 2
    assert "outside of the data set" in capsys.readouterr().err


def test_a_cut_run_goes_on(script, synthtext, tmp_path):
    folder, _ = synthtext
    out = tmp_path / "out"
    assert script.main(arguments(folder, out)) == 0
    (out / "gt.txt").unlink()
    kept = out / "syntxt_crop/8/8_ballet_106_109_0_Its.jpg"
    written = kept.stat().st_mtime_ns
    (out / "syntxt_crop/9/9_sea_0_SEA.jpg").unlink()
    assert script.main(arguments(folder, out, "--resume")) == 0
    assert len((out / "gt.txt").read_text().splitlines()) == 3
    assert kept.stat().st_mtime_ns == written


def test_what_cannot_be_read_is_named(script, synthtext, tmp_path, capsys, monkeypatch):
    folder, content = synthtext
    assert script.main(["--out_path", str(tmp_path / "out"), "--gt_path", str(tmp_path / "no.mat")]) == 2
    assert "no.mat: no such file" in capsys.readouterr().err
    del content["wordBB"]
    assert script.main(arguments(folder, tmp_path / "out")) == 2
    assert "wordBB" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    assert script.main(arguments(folder, tmp_path / "out2")) == 2
    assert "pip install scipy" in capsys.readouterr().err
