import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import matplotlib.font_manager
import numpy as np
import pytest

from dataset import synthetic
from dataset.rendering import fonts as font_search
from dataset.synthetic import (
    ALPHANUMERIC,
    HR_HEIGHTS,
    HR_MAX_WIDTH,
    Face,
    choose_face,
    drawable,
    find_fonts,
    make_sample,
    photo_pair,
    render_word,
)
from dataset.textzoom import TextZoomLMDB
from dataset.words import random_label

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "make_synthetic.py"
SPLITS = ("train1", "train2", "test/easy", "test/medium", "test/hard")


def script():
    spec = importlib.util.spec_from_file_location("make_synthetic", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_synthetic"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def main():
    return script().main


@pytest.fixture
def bare_machine(monkeypatch):
    monkeypatch.setattr(font_search, "system_fonts", list)
    monkeypatch.setattr(font_search, "bundled_fonts", list)


def digest(sample) -> str:
    return hashlib.sha256(sample.hr.tobytes() + sample.lr.tobytes() + sample.label.encode()).hexdigest()


def test_a_sample_depends_on_seed_and_index_only():
    forward = {index: digest(make_sample(3, index)) for index in range(6)}
    backward = {index: digest(make_sample(3, index)) for index in reversed(range(6))}
    assert forward == backward
    assert len(set(forward.values())) == 6
    assert digest(make_sample(4, 0)) != forward[0]


def test_a_fresh_process_makes_the_same_sample():
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + (
        "import hashlib; from dataset.synthetic import make_sample; s = make_sample(3, 5)\n"
        "print(hashlib.sha256(s.hr.tobytes() + s.lr.tobytes() + s.label.encode()).hexdigest())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == digest(make_sample(3, 5))


def test_severity_changes_lr_only():
    easy, hard = make_sample(1, 2, "easy"), make_sample(1, 2, "hard")
    assert easy.label == hard.label
    assert (easy.hr == hard.hr).all()
    assert (easy.lr != hard.lr).any()


def test_shapes_types_and_labels():
    for index in range(40):
        sample = make_sample(0, index)
        height, width, channels = sample.hr.shape
        assert sample.hr.dtype == sample.lr.dtype == np.uint8
        assert channels == 3
        assert HR_HEIGHTS[0] <= height <= HR_HEIGHTS[1]
        assert width <= HR_MAX_WIDTH
        assert sample.lr.shape == (height // 2, width // 2, 3)
        assert sample.hr.std() > 1, sample.label


def test_labels_are_printable_and_survive_the_filter():
    rng = np.random.default_rng(0)
    labels = [random_label(rng) for _ in range(5000)]
    for label in labels:
        assert label.isascii()
        assert label.isprintable()
        assert " " not in label
        assert ALPHANUMERIC & set(label), label
        assert len(label) <= 32, label
    letters = [label for label in labels if label.isalpha()]
    assert 0.35 < np.mean([label.isupper() for label in letters]) < 0.65
    assert 0.1 < np.mean([label.islower() for label in letters]) < 0.35
    assert 0.05 < np.mean([any(char.isdigit() for char in label) for label in labels]) < 0.25
    assert set("".join(labels)) >= ALPHANUMERIC
    assert len(set(labels)) > 2500


def test_a_machine_without_font_files_renders_every_label(bare_machine):
    fonts = find_fonts()
    assert not [face for face in fonts if Path(face.source).suffix]
    assert any(drawable(face).issuperset(map(chr, range(33, 127))) for face in fonts)
    for index in range(10):
        assert make_sample(0, index, fonts=fonts).hr.std() > 1


def test_without_a_system_font_those_of_matplotlib_are_used(monkeypatch):
    monkeypatch.setattr(matplotlib.font_manager, "findSystemFonts", list)
    assert font_search.system_fonts() == []
    files = [face.source for face in find_fonts() if Path(face.source).suffix]
    assert "DejaVuSans.ttf" in {Path(file).name for file in files}
    assert all(Path(file).is_relative_to(matplotlib.get_data_path()) for file in files)


def test_system_fonts_are_text_fonts_in_one_order(monkeypatch):
    found = ["/f/Zeta.TTF", "/f/NotoEmoji.ttf", "/f/Noto.ttc", "/f/Alpha.otf", "/f/Zeta.TTF", "/f/pdf.afm"]
    monkeypatch.setattr(matplotlib.font_manager, "findSystemFonts", lambda: found)
    assert font_search.system_fonts() == [Path("/f/Alpha.otf"), Path("/f/Zeta.TTF")]


def test_fonts_are_found_late_quietly_and_without_a_home(tmp_path):
    code = (
        "import sys; from dataset import synthetic; assert 'matplotlib' not in sys.modules; synthetic.find_fonts()\n"
        "import logging; assert logging.getLogger('matplotlib').level == logging.NOTSET\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    (tmp_path / "home").write_text("a file, so nothing can be made below it")
    (tmp_path / "temporary").mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MPL", "XDG", "PATH"))}
    folders = {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "temporary"), "PYTHONPATH": str(ROOT)}
    # No PATH either: without fontconfig's own program, whose complaints would be its own.
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=kept | folders, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert list((tmp_path / "temporary").iterdir()) == []


def test_pen_alphabet_has_every_letter_and_digit():
    assert drawable(Face("Penround", "pen:round", 6)) >= ALPHANUMERIC


def test_files_that_are_no_text_fonts_are_never_used(tmp_path, bare_machine):
    (tmp_path / "broken.ttf").write_bytes(b"not a font")
    fonts = find_fonts(tmp_path)
    broken = next(face for face in fonts if "broken" in face.source)
    assert drawable(broken) == frozenset()
    assert choose_face("abc", [broken, Face("Aileron", "pillow")], np.random.default_rng(0)).source == "pillow"


def test_undrawable_and_empty_labels_are_refused(bare_machine):
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"'\\ue123'.*--fonts"):
        render_word("A\ue123", rng, find_fonts())
    with pytest.raises(ValueError, match="label is empty"):
        render_word("", rng, find_fonts())
    with pytest.raises(ValueError, match=r"'worse'.*easy"):
        make_sample(0, 0, "worse")


@pytest.mark.parametrize("size", [(96, 301), (31, 77), (64, 128), (5, 3), (400, 9)])
def test_photo_pair_has_even_sizes_and_bounded_height(size):
    photo = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    hr, lr = photo_pair(photo, np.random.default_rng(0), "medium")
    assert hr.shape[0] <= HR_HEIGHTS[1]
    assert lr.shape == (hr.shape[0] // 2, hr.shape[1] // 2, 3)
    assert hr.shape[0] % 2 == hr.shape[1] % 2 == 0


def fingerprints(out: Path) -> list[str]:
    return [TextZoomLMDB(out / name).fingerprint() for name in SPLITS]


def test_script_writes_every_split_whatever_the_number_of_workers(tmp_path, main):
    arguments = ["--pairs", "12", "--test_pairs", "2", "--seed", "7"]
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path / "two"), *arguments, "--workers", "2"]
    result = subprocess.run(
        [*command, "--sheet", str(tmp_path / "sheet.png")], capture_output=True, text=True, check=True
    )
    assert "train1 10, train2 2, test/easy 2" in result.stdout
    assert result.stderr == ""  # no progress bar outside a terminal
    assert main(["--out", str(tmp_path / "one"), *arguments, "--workers", "1"]) == 0
    assert fingerprints(tmp_path / "two") == fingerprints(tmp_path / "one")
    assert sorted(child.name for child in tmp_path.iterdir()) == [
        "one",
        "sheet.png",
        "two",
    ]  # nothing temporary is left
    assert cv2.imread(str(tmp_path / "sheet.png")).shape[1] > 2000
    assert json.loads((tmp_path / "two" / "source.json").read_text())["seed"] == 7
    data = TextZoomLMDB(tmp_path / "two" / "test" / "hard")
    hr, lr = data.images(data.raw(1))
    assert lr.size == (hr.width // 2, hr.height // 2)


def test_script_overwrites_only_when_told_and_only_its_own(tmp_path, main, capsys):
    out = tmp_path / "set"
    arguments = ["--out", str(out), "--pairs", "2", "--test_pairs", "1", "--workers", "1"]
    assert main(arguments) == 0
    before = fingerprints(out)
    assert main([*arguments, "--seed", "1"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert fingerprints(out) == before
    assert main([*arguments, "--seed", "1", "--overwrite"]) == 0
    assert fingerprints(out) != before
    assert [child.name for child in tmp_path.iterdir()] == ["set"]
    (out / "thesis.tex").write_text("precious")
    assert main([*arguments, "--overwrite"]) == 2
    assert "thesis.tex" in capsys.readouterr().err
    assert (out / "thesis.tex").exists()


def test_a_failing_run_leaves_the_old_data_set(tmp_path, main, monkeypatch, capsys):
    out = tmp_path / "set"
    arguments = ["--out", str(out), "--pairs", "2", "--test_pairs", "1", "--workers", "1"]
    assert main(arguments) == 0
    before = fingerprints(out)

    def fail(*_args, **_kwargs):
        raise ValueError("no light")

    monkeypatch.setattr(synthetic, "make_sample", fail)
    assert main([*arguments, "--overwrite"]) == 2
    assert "no light" in capsys.readouterr().err
    assert fingerprints(out) == before
    assert [child.name for child in tmp_path.iterdir()] == ["set"]


def test_script_renders_the_words_of_a_list(tmp_path, main, capsys):
    file = tmp_path / "words.txt"
    file.write_text("Αθήνα\t3\nταξί\n\ue123\n", encoding="utf-8")  # noqa: RUF001
    arguments = ["--word_list", str(file), "--out", str(tmp_path / "set"), "--pairs", "6", "--test_pairs", "2"]
    assert main([*arguments, "--workers", "1"]) == 0
    sets = [TextZoomLMDB(tmp_path / "set" / name) for name in SPLITS]
    labels = {data.label(index) for data in sets for index in range(len(data))}
    assert labels == {"Αθήνα", "ταξί"}
    assert json.loads((tmp_path / "set" / "source.json").read_text())["word_list"] == str(file)
    assert main([*arguments, "--photos", str(tmp_path), "--out", str(tmp_path / "other")]) == 2
    assert f"--word_list {file} is for words that are rendered" in capsys.readouterr().err


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    (folder / "images").mkdir(parents=True)
    lines = []
    for number in range(8):
        cv2.imwrite(str(folder / "images" / f"{number}.jpg"), make_sample(0, number).hr)
        line = ("images/{0}.jpg Word{0}", "images/{0}.jpg\tWord{0}", 'images/{0}.jpg, "Word{0}"')[number % 3]
        lines.append(line.format(number))
    (folder / "gt.txt").write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    return folder


def test_photos_go_into_one_split_each(tmp_path, photos, main):
    assert main(["--photos", str(photos), "--out", str(tmp_path / "set"), "--workers", "1"]) == 0
    sets = [TextZoomLMDB(tmp_path / "set" / name) for name in SPLITS]
    labels = [data.raw(index).label for data in sets for index in range(len(data))]
    assert sorted(labels) == [f"Word{number}" for number in range(8)]
    assert [len(data) for data in sets] == [4, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("images/1.jpg", "has no label"),
        ("images/1.jpg\t ", "has no label"),
        ('images/1.jpg, ""', "has no label"),
        ("images/nowhere.jpg\tA", "nowhere.jpg is not there"),
        ("gt.txt A", "not a picture"),
    ],
)
def test_a_bad_line_is_named(photos, main, capsys, line, message):
    gt = photos / "gt.txt"
    gt.write_text(gt.read_text().rstrip() + "\n" + line + "\n", encoding="utf-8")
    assert main(["--photos", str(photos), "--out", str(photos.parent / "set"), "--workers", "1"]) == 2
    error = capsys.readouterr().err
    assert f"{gt}:9: " in error
    assert message in error
    assert not (photos.parent / "set").exists()


@pytest.mark.parametrize(
    "arguments",
    [["--word_list", "nowhere.txt"], ["--pairs", "1"], ["--seed", "-1"], ["--fonts", "nowhere"], ["--test_pairs", "0"]],
)
def test_senseless_arguments_are_refused(tmp_path, main, capsys, arguments):
    assert main(["--out", str(tmp_path / "set"), *arguments]) == 2
    assert arguments[1] in capsys.readouterr().err
    assert not (tmp_path / "set").exists()
