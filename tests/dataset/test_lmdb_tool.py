import importlib.util
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.textzoom import TextZoomLMDB
from dataset.transforms import decode_image, synthetic_lr
from tests.dataset.pictures import WORDS, encode, entries_of, word_pair, word_picture, write_entries

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "lmdb_tool.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("lmdb_tool", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["lmdb_tool"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(tool, capsys):
    """Calls the tool; gives (exit status, stdout, stderr)."""

    def call(*words):
        status = tool.main([str(word) for word in words])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return status, captured.out, captured.err

    return call


@pytest.fixture
def crops(tmp_path):
    """HR pictures hr/a.jpg, hr/sub/b c.png and hr/d.png, LR pictures of the same names in lr/."""
    (tmp_path / "hr" / "sub").mkdir(parents=True)
    (tmp_path / "lr" / "sub").mkdir(parents=True)
    for number, name in enumerate(("a.jpg", "sub/b c.png", "d.png")):
        image = word_picture(number)
        image.save(tmp_path / "hr" / name)
        image.resize((image.width // 2, image.height // 2)).save(tmp_path / "lr" / name)
    (tmp_path / "gt.txt").write_text("a.jpg\tHotel\nsub/b c.png\tOPEN now\nd.png\tcafé\n", encoding="utf-8")
    return tmp_path


def labels_of(path, **kwargs):
    data = TextZoomLMDB(path, **kwargs)
    return [data.raw(index).label for index in range(len(data))]


# ------------------------------------------------------------------------------------------- command line


def test_help_is_fast_and_a_call_from_elsewhere_works(tmp_path, tiny_pairs):
    code = (
        f"import runpy, sys; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
        "except SystemExit as error: assert error.code == 0\n"
        "assert not {'torch', 'lmdb', 'PIL', 'numpy'} & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    result = subprocess.run(
        [sys.executable, SCRIPT, "show", tiny_pairs, "--count", "1"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.split() == ["1", "'Hotel'", "HR", "76x24", "LR", "38x12"]


@pytest.mark.parametrize(
    "words",
    [[], ["build", "out"], ["build", "out", "--hr_only", "--degrade", "easy"], ["build", "out", "--degrade", "worst"]],
)
def test_wrong_command_lines_are_refused(tool, words, capsys):
    with pytest.raises(SystemExit) as caught:
        tool.main(words)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------- build


def test_pairs_are_stored_as_they_are(run, crops):
    status, out, err = run(
        "build", crops / "set", "--images", crops / "hr", "--gt", crops / "gt.txt", "--lr_dir", crops / "lr"
    )
    assert (status, err) == (0, "")
    assert out == f"wrote {crops / 'set'}: 3 samples\n"
    data = TextZoomLMDB(crops / "set")
    assert labels_of(crops / "set") == ["Hotel", "OPEN now", "café"]
    for index, name in enumerate(("a.jpg", "sub/b c.png", "d.png")):
        raw = data.raw(index)
        assert raw.hr == (crops / "hr" / name).read_bytes()
        assert raw.lr == (crops / "lr" / name).read_bytes()


def test_hr_only(run, crops):
    assert run("build", crops / "set", "--images", crops / "hr", "--gt", crops / "gt.txt", "--hr_only")[0] == 0
    assert TextZoomLMDB(crops / "set", synthetic=True).raw(0).lr is None


def test_bicubic_lr_is_what_syn_makes(run, crops):
    assert (
        run("build", crops / "set", "--images", crops / "hr", "--gt", crops / "gt.txt", "--degrade", "bicubic")[0] == 0
    )
    data = TextZoomLMDB(crops / "set")
    for index in range(3):
        hr, lr = data.images(data.raw(index))
        assert (np.asarray(lr) == np.asarray(synthetic_lr(hr))).all()


def test_degraded_lr_depends_on_seed_and_line_only(run, crops):
    def fingerprint(name, how, *more):
        where = ["--images", crops / "hr", "--gt", crops / "gt.txt"]
        assert run("build", crops / name, *where, "--degrade", how, *more)[0] == 0
        return TextZoomLMDB(crops / name).fingerprint()

    first = fingerprint("a", "mixed")
    assert fingerprint("b", "mixed", "--seed", 0) == first
    assert (
        len(
            {
                first,
                *(fingerprint(how, how) for how in ("easy", "medium", "hard")),
                fingerprint("c", "mixed", "--seed", 1),
            }
        )
        == 5
    )
    before = TextZoomLMDB(crops / "a").raw(2).lr
    (crops / "hr" / "a.jpg").unlink()  # what follows does not change
    fingerprint("d", "mixed")
    assert TextZoomLMDB(crops / "d").raw(1).lr == before


def test_lr_pictures_may_have_another_format(run, crops):
    for file in (crops / "lr" / "a.jpg", crops / "lr" / "d.png"):
        Image.open(file).save(file.with_suffix(".bmp"))
        file.unlink()
    (crops / "lr" / "d.x.png").write_bytes(b"another name")
    assert (
        run("build", crops / "set", "--images", crops / "hr", "--gt", crops / "gt.txt", "--lr_dir", crops / "lr")[0]
        == 0
    )
    assert TextZoomLMDB(crops / "set").raw(0).lr == (crops / "lr" / "a.bmp").read_bytes()


def test_a_wrong_list_names_the_line_and_nothing_is_written(run, crops):
    (crops / "gt.txt").write_bytes(b"a.jpg\tHotel\nd.png\n")
    status, out, err = run("build", crops / "set", "--images", crops / "hr", "--gt", crops / "gt.txt", "--hr_only")
    assert (status, out) == (2, "")
    assert err.startswith(f"lmdb_tool.py: {crops / 'gt.txt'}:2: 'd.png' has no label; expected `path<TAB>label`")
    assert not list(crops.glob("set*"))


def test_labels_are_stored_as_they_are(run, crops):
    (crops / "gt.txt").write_bytes('a.jpg\tone\u2028two\x0bthree \r\nd.png, "x"\r\n'.encode())
    assert run("build", crops / "set", "--images", crops / "hr", "--gt", crops / "gt.txt", "--hr_only")[0] == 0
    assert labels_of(crops / "set", synthetic=True) == ["one\u2028two\x0bthree ", "x"]


def spoil(crops):
    """Six lines of which only one can be used."""
    (crops / "hr" / "broken.png").write_bytes(b"no picture")
    (crops / "hr" / "no_lr.png").write_bytes(encode(word_picture(3)))
    (crops / "lr" / "d.png").write_bytes(b"")
    lines = ["a.jpg\tHotel", "sub/b c.png\t ", "gone.png\tx", "broken.png\tx", "no_lr.png\tx", "d.png\tx"]
    (crops / "gt.txt").write_text("\n".join(lines), encoding="utf-8")
    return ["build", crops / "set", "--images", crops / "hr", "--gt", crops / "gt.txt", "--lr_dir", crops / "lr"]


def test_what_cannot_be_used_is_named_and_counted(run, crops):
    status, out, err = run(*spoil(crops))
    assert status == 0
    assert out == (
        f"wrote {crops / 'set'}: 1 samples, 5 left out (empty label: 1, no such file: 1, undecodable picture: 2, "
        "no LR picture of that name: 1)\n"
    )
    named = [
        r"gt.txt:2 sub/b c.png: empty label",
        r"gt.txt:3 \S+hr/gone.png: no such file",
        r"gt.txt:4 \S+hr/broken.png: undecodable picture \(not in a picture format",
        r"gt.txt:5 \S+lr/no_lr.png: no LR picture of that name",
        r"gt.txt:6 \S+lr/d.png: undecodable picture",
    ]
    for line, pattern in zip(err.splitlines(), named, strict=True):
        assert re.match(rf"skipped: \S+{pattern}", line)
    assert labels_of(crops / "set") == ["Hotel"]


def test_strict_writes_nothing(run, crops):
    status, out, err = run(*spoil(crops), "--strict")
    assert (status, out) == (2, "")
    assert "5 left out" in err
    assert "--strict" in err
    assert not list(crops.glob("set*"))


def test_a_list_without_a_usable_line_is_an_error(run, crops):
    (crops / "gt.txt").write_text("gone.png\tx\n", encoding="utf-8")
    status, _, err = run("build", crops / "set", "--images", crops / "hr", "--gt", crops / "gt.txt", "--hr_only")
    assert status == 2
    assert "no such file" in err
    assert "no sample was added" in err


def test_pictures_too_small_to_degrade_are_left_out(run, crops):
    Image.new("RGB", (1, 9)).save(crops / "hr" / "d.png")
    status, out, err = run(
        "build", crops / "set", "--images", crops / "hr", "--gt", crops / "gt.txt", "--degrade", "easy"
    )
    assert (status, labels_of(crops / "set")) == (0, ["Hotel", "OPEN now"])
    assert "LR cannot be made: 1" in out
    assert "at least 2x2" in err


def test_paths_may_be_relative_to_the_list(run, crops):
    (crops / "list.txt").write_text("hr/a.jpg Hotel\n", encoding="utf-8")
    assert run("build", crops / "a", "--gt", crops / "list.txt", "--hr_only")[0] == 0
    assert run("build", crops / "b", "--images", crops / "lr", "--gt", crops / "list.txt", "--hr_only")[0] == 0
    (crops / "hr" / "labels.txt").write_text("a.jpg Hotel\n", encoding="utf-8")
    assert run("build", crops / "c", "--images", crops / "hr", "--gt", "labels.txt", "--lr_dir", crops / "lr")[0] == 0
    assert labels_of(crops / "a", synthetic=True) == labels_of(crops / "b", synthetic=True) == labels_of(crops / "c")


def test_an_absolute_path_is_not_its_own_lr(run, crops):
    (crops / "gt.txt").write_text(f"{crops / 'hr' / 'a.jpg'}\tHotel\n", encoding="utf-8")
    assert (
        run("build", crops / "set", "--images", crops / "hr", "--gt", crops / "gt.txt", "--lr_dir", crops / "lr")[0]
        == 0
    )
    assert TextZoomLMDB(crops / "set").raw(0).lr == (crops / "lr" / "a.jpg").read_bytes()
    Image.new("RGB", (40, 20)).save(crops / "elsewhere.png")
    (crops / "gt.txt").write_text(f"{(crops / 'elsewhere.png').resolve()}\tx\n", encoding="utf-8")
    words = ["--images", crops / "hr", "--gt", crops / "gt.txt", "--lr_dir", crops / "lr"]
    status, _, err = run("build", crops / "other", *words)
    assert status == 2
    assert "no LR picture of that name" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--images", "nowhere", "--hr_only"], "--images nowhere: no such folder"),
        (["--images", "hr", "--gt", "nothing.txt", "--hr_only"], "--gt nothing.txt: no such file"),
        (["--images", "hr", "--lr_dir", "nowhere"], "--lr_dir nowhere: no such folder"),
        (["--images", "hr", "--hr_only", "--seed", "3"], "--seed has no effect"),
        (["--images", "hr", "--degrade", "bicubic", "--seed", "3"], "--seed has no effect"),
        (["--images", "hr", "--degrade", "easy", "--seed", "-1"], "--seed -1: must be 0 or more"),
    ],
)
def test_wrong_options_say_so(run, crops, monkeypatch, words, message):
    monkeypatch.chdir(crops)
    status, out, err = run("build", "set", *words)
    assert (status, out) == (2, "")
    assert err.startswith("lmdb_tool.py: ")
    assert message in err
    assert not Path("set").exists()


def test_nothing_is_overwritten(run, crops, tiny_pairs):
    before = (tiny_pairs / "data.mdb").read_bytes()
    for words in (
        ["build", tiny_pairs, "--images", crops / "hr", "--gt", crops / "gt.txt", "--hr_only"],
        ["export", tiny_pairs, crops],
    ):
        status, _, err = run(*words)
        assert status == 2
        assert "nothing is overwritten" in err
    assert (tiny_pairs / "data.mdb").read_bytes() == before


# ------------------------------------------------------------------------------------------- check


def test_a_sound_set_is_described(run, tiny_pairs):
    status, out, err = run("check", tiny_pairs)
    assert (status, err) == (0, "")
    for pattern in (
        r"TextZoom pairs \(image_hr-, image_lr-\), num-samples 12",
        r"HR pictures +12; width 28 to 210 \(median \d+\), height 24 to 32",
        r"HR / LR +width 2 to 2 \(median 2\), height 2 to 2",
        r"label length +1: 1, 3: 2, 4: 3, 5: 2, 6: 2, 9: 1, 16: 1",
        r"voc digit +12 labels lose characters .*; 8 become empty: samples 1, 2, 3, 6, 7, 9, 10, 12",
        r"voc all +keeps every character",
        r"duplicates +0 HR pictures",
        rf"fingerprint +{TextZoomLMDB(tiny_pairs).fingerprint()}",
        r"wrong +nothing",
    ):
        assert re.search(pattern, out), pattern


def test_everything_wrong_is_named_by_number(run, tmp_path):
    entries = entries_of(word_pair(number) for number in range(8))
    del entries["image_lr-000000002"]
    entries["image_hr-000000003"] = b"garbage"
    entries["label-000000004"] = b"\xff"
    entries["image_hr-000000006"] = entries["image_hr-000000005"]
    entries["label-000000007"] = "naïve".encode()
    entries["num-samples"] = b"7"
    status, out, _ = run("check", write_entries(tmp_path / "set", entries))
    assert status == 1
    assert re.findall(r"(?<=\n    ).*", out) == [
        "1 samples lie beyond num-samples = 7: 8",
        "sample 2: image_lr-000000002 is missing",
        "sample 3: image_hr-000000003 cannot be decoded: not in a picture format that Pillow knows",
        "sample 4: label-000000004 is not UTF-8 (invalid start byte)",
    ]
    assert "duplicates     1 HR pictures (5 = 6)" in out
    assert "voc all        1 labels lose characters ('ï'x1); 0 become empty" in out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num-samples": b"6"}, "sample 6: label-000000006 is missing"),
        ({"num-samples": b"6"}, "training and testing refuse it: .*last sample lacks"),
        ({"num-samples": None}, "num-samples is missing; the highest number of a key is 4"),
        ({"num-samples": b"x"}, "num-samples is b'x', not a number; the highest number of a key is 4"),
    ],
)
def test_sets_that_cannot_be_opened_are_examined_all_the_same(run, tmp_path, change, message):
    entries = {**entries_of(word_pair(number) for number in range(4)), **change}
    path = write_entries(tmp_path / "set", {key: value for key, value in entries.items() if value is not None})
    status, out, _ = run("check", path)
    assert status == 1
    assert re.search(message, out)
    assert "HR pictures    4;" in out


def test_str_format_is_recognised(run, tmp_path):
    entries = {
        key.replace("image_hr", "image"): value
        for key, value in entries_of((word_pair(n)[0], None, "x") for n in range(3)).items()
    }
    status, out, _ = run("check", write_entries(tmp_path / "set", entries))
    assert status == 0
    assert "STR format (image-, no image_lr-); can be used with --syn, num-samples 3" in out


def test_broken_files_do_not_stop_the_others(run, tmp_path, tiny_pairs):
    whole = (tiny_pairs / "data.mdb").read_bytes()
    for name, data in (("cut", whole[:-4096]), ("garbage", b"x" * 9999)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.mdb").write_bytes(data)
    other = write_entries(tmp_path / "other", {"feature": b"1"})
    status, out, _ = run("check", tmp_path / "cut", tmp_path / "garbage", other, tiny_pairs)
    assert status == 1
    for pattern in ("truncated", "cannot be opened as an LMDB", "keys found: feature", "wrong +nothing"):
        assert re.search(pattern, out)


def test_pictures_shared_by_two_sets_are_counted(run, tmp_path, tiny_pairs):
    other = write_entries(tmp_path / "other", entries_of(word_pair(number) for number in (10, 11, 12)))
    status, out, _ = run("check", tiny_pairs, other)
    assert status == 0
    assert f"shared         2 HR pictures are in {tiny_pairs}, too" in out


def test_check_of_nothing_is_a_user_error(run, tiny_dir):
    status, out, err = run("check", tiny_dir / "train", tiny_dir / "test")
    assert (status, out) == (2, "")
    assert f"{tiny_dir / 'test'}: no LMDB there" in err


# ------------------------------------------------------------------------------------------- show


def test_show_lists_and_draws(run, tiny_pairs, tmp_path):
    sheet = tmp_path / "new" / "sheet.png"
    status, out, _ = run("show", tiny_pairs, "--start", 11, "--count", 9, "--sheet", sheet)
    assert status == 0
    assert [line.split()[:2] for line in out.splitlines()[:2]] == [["11", f"'{WORDS[10]}'"], ["12", f"'{WORDS[11]}'"]]
    assert out.splitlines()[2] == f"wrote {sheet}"
    pixels = np.asarray(Image.open(sheet))
    assert pixels.shape == (2 * 68, 2 * 260 + 320, 3)
    hr = decode_image(word_pair(10)[0]).resize((256, 64), Image.Resampling.BICUBIC)
    assert (pixels[:64, :256] == np.asarray(hr)).all()
    assert pixels[:64, 520:].min() < 100  # something is written beside it


def test_show_passes_over_what_cannot_be_read_and_escapes_labels(run, tmp_path):
    samples = [(*word_pair(0)[:2], "小\x1b吃"), word_pair(1), word_pair(2)]
    path = write_entries(tmp_path / "set", {**entries_of(samples), "image_lr-000000002": b"garbage"})
    status, out, _ = run("show", path, "--sheet", tmp_path / "sheet.png")
    assert status == 0
    assert "'小\\x1b吃'" in out
    assert "2  cannot be read: its LR picture (7 bytes) cannot be decoded" in out
    assert Image.open(tmp_path / "sheet.png").height == 2 * 68


def test_show_says_when_lr_is_made(run, tmp_path):
    path = write_entries(tmp_path / "set", entries_of((word_pair(n)[0], None, "x") for n in range(2)))
    assert run("show", path)[1].count("(made from HR)") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--start", 13], "has samples 1 to 12"),
        (["--start", 0], "has samples 1 to 12"),
        (["--count", 0], "count is at least 1"),
    ],
)
def test_show_refuses_what_is_not_there(run, tiny_pairs, words, message):
    status, _, err = run("show", tiny_pairs, *words)
    assert status == 2
    assert message in err


@pytest.mark.parametrize("command", [["show"], ["export"]])
def test_a_missing_set_is_a_user_error(run, tmp_path, command):
    status, _, err = run(*command, tmp_path / "nowhere", *([tmp_path / "out"] if command == ["export"] else []))
    assert status == 2
    assert "nothing there" in err
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------- export


def test_export_and_build_give_the_same_set_again(run, tmp_path):
    labels = ["Two words ", "naïve", '"x"', "a,b", "小吃\u2028", "#", "\\"]
    samples = [(*word_pair(number)[:2], label) for number, label in enumerate(labels)]
    samples.append((encode(word_picture(9), "WEBP"), encode(word_picture(9), "JPEG"), "last"))
    path, files = write_entries(tmp_path / "set", entries_of(samples)), tmp_path / "files"
    status, out, err = run("export", path, files)
    assert (status, out, err) == (0, f"wrote {files}: 8 samples\n", "")
    assert sorted(child.name for child in files.iterdir()) == ["gt.txt", "images_hr", "images_lr"]
    assert (files / "images_hr" / "000000008.webp").read_bytes() == samples[7][0]
    words = ["--images", files / "images_hr", "--gt", files / "gt.txt", "--lr_dir", files / "images_lr", "--strict"]
    assert run("build", tmp_path / "again", *words)[0] == 0
    assert TextZoomLMDB(tmp_path / "again").fingerprint() == TextZoomLMDB(path).fingerprint()


def test_export_of_hr_only_sets(run, tmp_path):
    path = write_entries(tmp_path / "set", entries_of((word_pair(n)[0], None, WORDS[n]) for n in range(3)))
    assert run("export", path, tmp_path / "files")[0] == 0
    assert not (tmp_path / "files" / "images_lr").exists()
    words = ["--images", tmp_path / "files" / "images_hr", "--gt", tmp_path / "files" / "gt.txt", "--hr_only"]
    assert run("build", tmp_path / "again", *words)[0] == 0
    again, first = (TextZoomLMDB(tmp_path / name, synthetic=True).fingerprint() for name in ("again", "set"))
    assert again == first


def test_export_names_what_it_leaves_out(run, tmp_path):
    samples = [word_pair(0), (*word_pair(1)[:2], "two\nlines"), word_pair(2)]
    path = write_entries(tmp_path / "set", {**entries_of(samples), "image_lr-000000001": b"garbage"})
    status, _, err = run("export", path, tmp_path / "files", "--strict")
    assert status == 2
    assert "nothing is written" in err
    assert [child.name for child in tmp_path.iterdir()] == ["set"]
    status, out, err = run("export", path, tmp_path / "files")
    assert (status, out) == (
        0,
        f"wrote {tmp_path / 'files'}: 1 samples, 2 left out (cannot be read: 1, label of several lines: 1)\n",
    )
    assert "sample 1: cannot be read (its LR picture" in err
    assert "sample 2: label of several lines ('two\\nlines')" in err
    assert (tmp_path / "files" / "gt.txt").read_text() == f"000000003.jpg\t{WORDS[2]}\n"


def test_suffixes_follow_the_content(tool):
    for picture_format, suffix in {"PNG": ".png", "JPEG": ".jpg", "BMP": ".bmp", "GIF": ".gif", "TIFF": ".tif"}.items():
        data = encode(word_picture(0), picture_format)
        assert tool.suffix_of(data) == suffix
        assert Image.open(io.BytesIO(data)).format == picture_format


def test_a_sheet_of_an_unknown_format_is_refused(run, tiny_pairs, tmp_path):
    status, _, err = run("show", tiny_pairs, "--sheet", tmp_path / "sheet.xyz")
    assert status == 2
    assert "name a .png file" in err
