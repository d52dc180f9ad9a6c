"""Weights of a super-resolution system in a file of their own: `--resume FILE` tests them, or trains on."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from interface.checkpoint import CheckpointError, file_sha256, load_checkpoint
from interface.config import ROOT, ConfigError, load_settings
from interface.export_weights import export_weights
from interface.exported import FACTS, exported_facts
from tests.interface.helpers import (
    LIGHT,
    TINY,
    assert_identical,
    environment,
    register_tiny,
    run,
    shrink_recognisers,
    task,
)


@pytest.fixture
def tiny(tmp_path, monkeypatch, tiny_dir):
    monkeypatch.chdir(tmp_path)
    register_tiny(monkeypatch, tmp_path)
    data = ["--train_data_dir", str(tiny_dir / "train"), "--test_data_dir", str(tiny_dir / "test" / "easy")]
    return [*TINY, *data, "--test_model", "", "--val_interval", "2"]


@pytest.fixture
def frozen(tmp_path, monkeypatch, tiny_dir):
    """Arguments of an RTSRN of one block whose student stays as it is."""
    monkeypatch.chdir(tmp_path)
    weights = shrink_recognisers(monkeypatch, tmp_path)
    data = ["--train_data_dir", str(tiny_dir / "train"), "--test_data_dir", str(tiny_dir / "test" / "easy")]
    arguments = [a for a in LIGHT if a not in ("--tpg_pretrained", "random")]
    return [*arguments, *weights, *data, "--freeze_tpg", "--test_model", "", "--val_interval", "2"]


def test_what_was_trained_is_kept_in_half_precision_and_the_rest_as_it_is(tiny, tmp_path):
    folder = run([*tiny, "--steps", "3", "--vis_dir", "a"]).folder
    facts = json.loads(export_weights(folder, tmp_path / "out" / "w.safetensors", which="last").read_text())
    file = tmp_path / "out" / "w.safetensors"
    assert (facts["sha256"], facts["arch"], facts["step"]) == (file_sha256(file), "tinynet", 3)
    assert (facts["chosen"], facts["data"]) == ("last.pth", facts["config"]["TRAIN"]["train_data_dir"])
    stored, state = load_file(file), load_checkpoint(folder / "last.pth")["system"]
    assert stored.keys() == state.keys()
    assert stored["network.body.0.weight"].dtype == torch.float16
    assert stored["network.body.1.running_var"].dtype == torch.float32
    assert_identical(stored, {key: value.to(stored[key].dtype) for key, value in state.items()})


def test_a_test_of_the_file_needs_no_other_option(tiny, tmp_path, tiny_dir):
    folder = run([*tiny, "--mask", "--steps", "2", "--vis_dir", "a"]).folder
    file = tmp_path / "w.safetensors"
    export_weights(folder, file)
    easy = tiny_dir / "test" / "easy"
    made = run(["--go_test", "--resume", file, "--test_data_dir", easy, "--test_model", "", "--device", "cpu"])
    assert (made.config.arch, made.config.MODEL.mask) == ("tinynet", True)
    report = json.loads(next(tmp_path.glob("ckpt/tinynet/report-*/report.json")).read_text())
    assert report["system"]["step"] == 2
    assert report["system"]["weights_sha256"] == file_sha256(file)
    assert report["selection"]["note"].startswith("Weights were chosen on validation data")
    trained_on = ["--go_test", "--resume", file, "--test_data_dir", tiny_dir / "train", "--test_model", ""]
    run([*trained_on, "--device", "cpu", "--report_dir", "second"])
    assert "was trained on" in json.loads((tmp_path / "second" / "report.json").read_text())["selection"]["note"]


def test_a_training_begins_with_the_file_in_a_folder_of_its_own(tiny, tmp_path):
    folder = run([*tiny, "--mask", "--learning_rate", "0.003", "--steps", "2", "--vis_dir", "a"]).folder
    file = tmp_path / "w.safetensors"
    export_weights(folder, file, which="last")
    made = task([*tiny, "--resume", file, "--steps", "1", "--vis_dir", "b"])
    made.build_training()
    assert (made.step, made.config.MODEL.mask) == (0, True)
    assert made.config.TRAIN.lr != 0.003  # how it was trained does not say how it is trained on
    expected = {key: value.float() for key, value in load_file(file).items() if value.is_floating_point()}
    assert_identical({key: value for key, value in made.system.trained_state().items() if key in expected}, expected)
    assert made.folder.resolve() == tmp_path / "ckpt" / "b"


def test_the_network_of_a_file_is_not_to_be_changed(tiny, tmp_path):
    folder = run([*tiny, "--mask", "--steps", "2", "--vis_dir", "a"]).folder
    export_weights(folder, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"made with MODEL\.mask = True, but False is asked for"):
        task([*tiny, "--no-mask", "--resume", tmp_path / "w.safetensors"])
    with pytest.raises(CheckpointError, match=r"made with arch = tinynet, but rtsrn is asked for"):
        task(["--arch", "rtsrn", *tiny[2:], "--resume", tmp_path / "w.safetensors"])


def test_frozen_students_are_no_part_of_any_file_and_must_be_the_same(frozen, tmp_path):
    folder = run([*frozen, "--steps", "2", "--vis_dir", "a"]).folder
    state = load_checkpoint(folder / "last.pth")["system"]
    assert not [key for key in state if key.startswith("students.")]
    file = tmp_path / "w.safetensors"
    export_weights(folder, file)
    test = [
        "--go_test",
        "--device",
        "cpu",
        "--test_model",
        "",
        "--test_data_dir",
        frozen[frozen.index("--test_data_dir") + 1],
    ]
    made = run([*test, "--resume", file])
    given = torch.load("crnn.pth", weights_only=True)
    assert_identical(dict(made.system.students[0].state_dict()), dict(given))
    torch.save({key: value + 1 for key, value in given.items()}, "other.pth")
    for resume in (file, folder):
        with pytest.raises(CheckpointError, match="another frozen text-prior generator"):
            task([*test, "--resume", resume, "--tpg_pretrained", "other.pth"]).build_trained_system()


def test_resume_with_frozen_students_is_exact(frozen):
    whole = run([*frozen, "--steps", "4", "--vis_dir", "whole"]).folder
    part = run([*frozen, "--steps", "4", "--save_interval", "2", "--vis_dir", "part"]).folder
    cut = run([*frozen, "--steps", "2", "--schedule", "constant", "--vis_dir", "c"]).folder
    straight = run([*frozen, "--steps", "4", "--schedule", "constant", "--vis_dir", "d"]).folder
    run(["--device", "cpu", "--resume", cut, "--steps", "4"])
    for one, other in ((whole, part), (cut, straight)):
        assert_identical(load_checkpoint(one / "last.pth")["system"], load_checkpoint(other / "last.pth")["system"])


@pytest.mark.parametrize(
    "head",
    ["[]", "{}", '{"__metadata__": {"stisr": 3}}', '{"__metadata__": {"stisr": "{}"}}', "no json"],
)
def test_other_files_have_no_facts(tmp_path, head):
    file = tmp_path / "other.safetensors"
    file.write_bytes(len(head).to_bytes(8, "little") + head.encode())
    assert exported_facts(file) is None
    file.write_bytes(b"\xff" * 8 + head.encode())  # a head of 2^64 - 1 bytes
    assert exported_facts(file) is None
    assert exported_facts(tmp_path / "none.safetensors") is None


def test_a_damaged_file_is_refused_with_its_name(tiny, tmp_path):
    folder = run([*tiny, "--steps", "2", "--vis_dir", "a"]).folder
    file = tmp_path / "w.safetensors"
    export_weights(folder, file)
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])
    with pytest.raises(CheckpointError, match=r"w\.safetensors is no safetensors file"):
        task([*tiny, "--resume", file])
    tensors = load_file_bytes(whole, tmp_path)
    with safe_open(tmp_path / "whole.safetensors", framework="pt") as opened:
        metadata = opened.metadata()
    assert json.loads(metadata[FACTS])["arch"] == "tinynet"
    del tensors["network.tail.0.bias"]
    save_file(tensors, file, metadata=metadata)
    with pytest.raises(CheckpointError, match=r"missing \(1\): network\.tail\.0\.bias"):
        task([*tiny, "--resume", file]).build_training()


def load_file_bytes(content, folder):
    (folder / "whole.safetensors").write_bytes(content)
    return load_file(folder / "whole.safetensors")


def test_the_options_of_a_file_are_known_without_pytorch(tiny, tmp_path):
    folder = run([*tiny, "--steps", "2", "--vis_dir", "a"]).folder
    export_weights(folder, tmp_path / "w.safetensors")
    code = (
        "import sys; from pathlib import Path; from interface.exported import exported_facts\n"
        "print(exported_facts(Path(sys.argv[1]))['arch'], 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "w.safetensors")]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["tinynet", "False"]


def test_reports_of_these_files_do_not_lie_beside_them(tiny, tmp_path, tiny_dir):
    folder = run([*tiny, "--steps", "2", "--vis_dir", "a"]).folder
    (tmp_path / "zoo").mkdir()
    export_weights(folder, tmp_path / "zoo" / "w.safetensors")
    easy = tiny_dir / "test" / "easy"
    test = ["--go_test", "--test_data_dir", easy, "--test_model", "", "--device", "cpu"]
    run([*test, "--resume", tmp_path / "zoo" / "w.safetensors"])
    assert sorted(path.name for path in (tmp_path / "zoo").iterdir()) == ["w.json", "w.safetensors"]
    assert len(list((tmp_path / "ckpt" / "tinynet").glob("report-*/report.json"))) == 1


@pytest.mark.parametrize("lost", ["MODEL", "TRAIN", "width"])
def test_a_file_without_the_options_of_its_network_has_no_facts(tiny, tmp_path, lost):
    folder = run([*tiny, "--steps", "2", "--vis_dir", "a"]).folder
    file = tmp_path / "w.safetensors"
    export_weights(folder, file)
    facts = exported_facts(file)
    assert facts is not None
    (facts["config"]["TRAIN"] if lost == "width" else facts["config"]).pop(lost)
    save_file(load_file(file), file, metadata={FACTS: json.dumps(facts)})
    assert exported_facts(file) is None


# Options of frozen students.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--tpg_pretrained random", "keeps a trained recogniser as it is; give its weights with --tpg_pretrained FILE"),
        ("--tpg_pretrained x --use_label", "--use_label teaches the text-prior generator"),
        ("--tpg_pretrained x --use_distill", "--use_distill teaches the text-prior generator"),
    ],
)
def test_frozen_students_must_read_and_learn_nothing(options, message):
    with pytest.raises(ConfigError, match=message):
        load_settings(["--arch", "rtsrn", "--train_data_dir", "x", "--freeze_tpg", *options.split()])
