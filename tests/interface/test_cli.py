"""The program as a user types it. Sub-processes where a process matters; elsewhere `main()` in this one."""

import json
import sys
from typing import Any

import pytest
import torch

import main as program
from interface.checkpoint import load_checkpoint
from model import list_models, model_spec
from model.recognizer.crnn import CRNN
from tests.dataset.pictures import encode, word_picture, write_entries
from tests.interface.helpers import LIGHT, assert_identical, command_line, run

# One of each recipe: networks of one recipe differ in nothing that a process can show, and all of them go through
# `test_every_network.py`. `sgenet` stands for `lemma`, which is large.
TYPED = ("tsrn", "tpgsr", "rtsrn", "sgenet")


def light(arch):
    return ["--arch", arch, *LIGHT[2:], "--no-text_focus", "--no-use_distill"]


def splits_of(path):
    return json.loads(path.read_text())["splits"]


def succeed(arguments, cwd, launcher=()):
    done = command_line(arguments, cwd=cwd, launcher=launcher)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return done


def quiet(text):
    """No bar in what is no terminal."""
    assert "\r" not in text
    assert "it/s" not in text


def test_every_recipe_is_typed():
    recipes = {model_spec(name).system for name in list_models()} - {"semantic_attention"}
    assert sorted(model_spec(name).system for name in TYPED) == sorted(recipes)


@pytest.mark.slow
@pytest.mark.parametrize("arch", TYPED)
def test_train_test_resume_demo(arch, tmp_path, tiny_dir):
    tests = [tiny_dir / "test" / name for name in ("easy", "medium")]
    data = ["--train_data_dir", tiny_dir / "train", "--test_data_dir", *tests]
    done = succeed([*light(arch), *data, "--steps", "2", "--vis_dir", "mine"], tmp_path)
    folder = tmp_path / "ckpt" / "mine"  # where the user stands, not where the program lies
    quiet(done.stderr)
    assert "step 2/2" in done.stderr
    assert "PPOCR" in done.stdout
    (trained,) = folder.glob("report-*/report.json")

    # The network's own options come from the run; only the machine's are given again.
    machine = ["--device", "cpu", "--workers", "0"]
    test = [*machine, "--go_test", "--resume", "ckpt/mine", "--vis", "--report_dir", "tested"]
    done = succeed(test, tmp_path)
    tested = tmp_path / "tested" / "report.json"
    assert splits_of(tested) == splits_of(trained)
    assert set(splits_of(tested)) == {"easy", "medium"}
    assert {path.name for path in tested.parent.iterdir()} == {"report.json", "report.md", "report.html", "vis"}
    assert len(list((tested.parent / "vis" / "easy").glob("*.png"))) == 4 * 6
    assert "easy" in done.stdout
    assert "medium" in done.stdout

    done = succeed([*machine, "--resume", "ckpt/mine", "--steps", "3"], tmp_path)
    assert load_checkpoint(folder / "last.pth")["step"] == 3
    assert "step 3/3" in done.stderr
    assert "step 2/" not in done.stderr.replace("at step 2", "")

    (tmp_path / "demo").mkdir()
    for number in range(3):
        (tmp_path / "demo" / f"word{number}.png").write_bytes(encode(word_picture(number)))
    (tmp_path / "demo" / "notes.txt").write_text("no picture")
    (tmp_path / "demo" / "broken.png").write_text("no picture either")
    done = succeed([*machine, "--demo", "--resume", "ckpt/mine", "--report_dir", "shown"], tmp_path)
    written = {path.name for path in (tmp_path / "shown").iterdir()}
    assert {"word0_sr.png", "word1_sr.png", "word2_sr.png", "sheet.png", "readings.json"} <= written
    assert "broken.png" in done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["word0.png", "word1.png", "word2.png"]


@pytest.mark.slow
def test_a_baseline_is_tested_and_not_trained(tmp_path, tiny_dir):
    test_sets = ["--test_data_dir", tiny_dir / "test" / "easy"]
    done = succeed(["--arch", "bicubic", "--go_test", "--device", "cpu", "--workers", "0", *test_sets], tmp_path)
    (report,) = tmp_path.glob("ckpt/bicubic/report-*/report.json")
    found = splits_of(report)["easy"]
    assert found["psnr"]["sr_1"] == found["psnr"]["bicubic"]
    assert "PPOCR" in done.stdout
    train = "--arch bicubic --batch_size 2 --device cpu --workers 0 --vis_dir x --train_data_dir".split()
    done = command_line([*train, tiny_dir / "train"], cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "error: --arch bicubic has no parameters to train; evaluate it with --go_test"
    )
    assert not (tmp_path / "ckpt" / "x").exists()


@pytest.mark.slow
def test_a_new_process_goes_on_where_the_old_one_was_cut(tmp_path, tiny_dir, monkeypatch):
    """Bit by bit, with the options of the run taken from the run."""
    monkeypatch.chdir(tmp_path)  # where there are no test sets
    arguments = [*LIGHT, "--train_data_dir", tiny_dir / "train"]
    arguments += ["--test_model", "", "--schedule", "constant", "--val_interval", "100"]
    succeed([*arguments, "--steps", "1", "--vis_dir", "cut"], tmp_path)
    succeed(["--device", "cpu", "--resume", "ckpt/cut", "--steps", "2"], tmp_path)
    whole = run([*arguments, "--steps", "2", "--vis_dir", "whole"])
    one, two = (load_checkpoint(folder / "last.pth") for folder in (whole.folder, tmp_path / "ckpt" / "cut"))
    for key in ("system", "optimizers", "step", "epoch", "position", "rng"):
        assert_identical(one[key], two[key])


@pytest.mark.slow
def test_two_processes_train_and_give_the_numbers_of_one(tmp_path, tiny_dir, monkeypatch):
    monkeypatch.chdir(tmp_path)
    two = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    arguments = [*LIGHT, "--train_data_dir", tiny_dir / "train", "--steps", "2", "--vis_dir", "both"]
    arguments += ["--val_data_dir", tiny_dir / "test" / "easy", "--test_data_dir", tiny_dir / "test" / "medium"]
    done = succeed([*arguments, "--test_model", ""], tmp_path, launcher=two)
    folder = tmp_path / "ckpt" / "both"
    for text in (done.stderr, (folder / "log.txt").read_text()):
        assert text.count("trained 2 steps") == 1  # one of them speaks
    state = load_checkpoint(folder / "last.pth")
    assert len(state["rng"]) == 2
    assert state["step"] == 2
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["start", "train", "validation", "test"]

    tests = [tiny_dir / "test" / "easy", tiny_dir / "train"]
    test = ["--device", "cpu", "--workers", "0", "--go_test", "--resume", folder, "--test_data_dir", *tests]
    test += ["--test_model", "PPOCR"]
    done = succeed([*test, "--report_dir", "two"], tmp_path, launcher=two)
    assert done.stdout.count("PSNR in dB, mean") == 1
    run([*test, "--report_dir", tmp_path / "one"])
    one, again = splits_of(tmp_path / "one" / "report.json"), splits_of(tmp_path / "two" / "report.json")
    assert one == again  # accuracy, PSNR, SSIM, both definitions, intervals, and every image
    assert one["train"]["images"] == 12
    assert one["easy"]["images"] == 6
    # All processes validated the network that the checkpoint holds, BatchNorm statistics included.
    assert lines[2]["easy/psnr/sr_1"] == one["easy"]["psnr"]["sr_1"]["value"]


# Bad input: a message, exit code 2, no traceback.

BAD_WORDS = [
    (["--batch_size", "many"], ["--batch_size", "'many'", "whole number"]),
    (["--batchsize", "4"], ["unknown flag --batchsize", "--batch_size"]),
    (["--rec", "aster"], ["--rec is not offered", "--test_model"]),
    (["--arch", "rtsrm"], ["'rtsrm'", "did you mean rtsrn"]),
    (["--config", "none.yaml"], ["none.yaml"]),
    (["--STN", "--width", "256"], ["--STN", "16x64"]),
]


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "words"), BAD_WORDS)
def test_bad_flags_end_without_a_traceback(tmp_path, arguments, words):
    done = command_line(arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr
    assert not list(tmp_path.iterdir())  # nothing was left behind


def in_folder(name, content=b""):
    def make(folder):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    return make


def weights_of_another_network(folder):
    torch.save({"conv.weight": torch.zeros(3)}, folder / "other.pth")


def damaged_checkpoint(folder):
    (folder / "run").mkdir()
    (folder / "run" / "last.pth").write_bytes(b"PK\x03\x04 cut off")


def truncated_set(folder):
    write_entries(folder / "data", {"num-samples": b"5", "label-000000001": b"a", "image_hr-000000001": b"x"})


def empty_set(folder):
    write_entries(folder / "data", {"num-samples": b"0"})


def hr_only_set(folder):
    picture = encode(word_picture(0))
    write_entries(folder / "data", {"num-samples": b"1", "label-000000001": b"a", "image_hr-000000001": picture})


def damaged_crnn(folder):
    state = CRNN().state_dict()
    state.pop(next(iter(state)))
    torch.save(state, folder / "crnn.pth")


TRAIN = [*LIGHT, "--test_model", "PPOCR"]
BAD_THINGS: dict[str, tuple[Any, list[str], list[str]]] = {
    "config: unknown key": (
        in_folder("m.yaml", b"TRAIN: {batchsize: 4}"),
        ["--config", "m.yaml"],
        ["TRAIN.batchsize is not an option; did you mean TRAIN.batch_size?"],
    ),
    "config: wrong type": (in_folder("m.yaml", b"TRAIN: {lr: fast}"), ["--config", "m.yaml"], ["TRAIN.lr", "'fast'"]),
    "config: no mapping": (in_folder("m.yaml", b"TRAIN: 5"), ["--config", "m.yaml"], ["TRAIN is a section"]),
    "config: no YAML": (in_folder("m.yaml", b"a: [1"), ["--config", "m.yaml"], ["m.yaml cannot be read as YAML"]),
    "data: missing": (None, [*TRAIN, "--train_data_dir", "data"], ["data: nothing there", "TextZoom LMDB"]),
    "data: a file": (in_folder("data"), [*TRAIN, "--train_data_dir", "data"], ["a file of 0 bytes"]),
    "data: not an LMDB": (
        in_folder("data/data.mdb", b"no database" * 1000),
        [*TRAIN, "--train_data_dir", "data"],
        ["not an LMDB"],
    ),
    "data: empty": (empty_set, [*TRAIN, "--train_data_dir", "data"], ["the data set is empty"]),
    "data: truncated": (truncated_set, [*TRAIN, "--train_data_dir", "data"], ["truncated"]),
    "data: HR only": (hr_only_set, [*TRAIN, "--train_data_dir", "data"], ["--syn"]),
    "data: test set missing": (None, ["--arch", "bicubic", "--go_test", "--test_data_dir", "x"], ["x: nothing there"]),
    "data: demo missing": (None, ["--arch", "bicubic", "--demo", "--device", "cpu"], ["--demo_dir", "no such folder"]),
    "weights: resume missing": (None, [*LIGHT, "--resume", "run"], ["--resume run: nothing there"]),
    "weights: damaged": (damaged_checkpoint, [*LIGHT, "--resume", "run"], ["last.pth", "cannot be read"]),
    "weights: of another network": (
        weights_of_another_network,
        [*LIGHT, "--demo", "--resume", "other.pth"],
        ["other.pth does not fit RTSRN", "missing", "left over (1): conv.weight"],
    ),
    "weights: none to test": (None, [*LIGHT, "--demo"], ["random weights", "--resume"]),
    "weights: student missing": (
        None,
        ["--arch", "rtsrn", "--batch_size", "2", "--device", "cpu", "--train_data_dir", "{train}"],
        ["rec_pth/crnn.pth", "--tpg_pretrained random"],
    ),
    "weights: reader missing": (
        None,
        ["--arch", "bicubic", "--go_test", "--test_model", "CRNN", "--device", "cpu", "--test_data_dir", "{train}"],
        ["rec_pth/crnn.pth", "--crnn_pretrained", "PPOCR needs no file"],
    ),
    "weights: student damaged": (
        damaged_crnn,
        [*LIGHT, "--tpg_pretrained", "crnn.pth", "--train_data_dir", "{train}"],
        ["crnn.pth does not fit CRNN", "missing (1)"],
    ),
    "flags: too many images a step": (
        None,
        [*LIGHT, "--batch_size", "99", "--train_data_dir", "{train}"],
        ["lower --batch_size"],
    ),
    "flags: no such device": (
        None,
        [*LIGHT, "--device", "cuda:77", "--train_data_dir", "{train}"],
        ["--device cuda:77", "--device cpu"],
    ),
}


@pytest.mark.parametrize("kind", BAD_THINGS)
def test_bad_input_is_explained(kind, tmp_path, tiny_dir, monkeypatch, capsys):
    make, arguments, words = BAD_THINGS[kind]
    if make is not None:
        make(tmp_path)
    before = set(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py", *(text.format(train=tiny_dir / "train") for text in arguments)])
    assert program.main() == 2
    shown = capsys.readouterr()
    message = shown.err[shown.err.index("error: ") :]
    for word in words:
        assert word in message, message
    assert len(message) < 1500
    assert "Traceback" not in shown.err
    assert not [path for path in tmp_path.rglob("*") if path not in before and path.name != "lock.mdb"]


@pytest.mark.slow
def test_a_missing_weights_file_ends_the_process_without_a_traceback(tmp_path, tiny_dir):
    done = command_line(["--device", "cpu", "--train_data_dir", tiny_dir / "train", "--batch_size", "2"], cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: no weights file rec_pth/crnn.pth (--tpg_pretrained)")
