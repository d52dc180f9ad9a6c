import subprocess
import sys
from collections import OrderedDict
from typing import Any

import pytest
import torch

from interface.checkpoint import CheckpointError, save_checkpoint
from interface.config import ROOT, load_settings, plain, to_yaml
from interface.export import export_published, open_trained, published_contents
from interface.systems import build_system
from model import build_model, list_models, model_spec
from model.recognizer.crnn import CRNN
from tests.interface.helpers import LIGHT, TINY, assert_identical, environment, register_tiny, task
from tests.model.published import RTSRN as VARIANTS
from tests.model.published import table

SCRIPT = ROOT / "scripts" / "export_published.py"
CLUES = [argument for argument in LIGHT if argument != "--no-triple_clues"] + ["--triple_clues"]
FULL = "--arch rtsrn --STN --mask --triple_clues --tpg_pretrained random --device cpu".split()


def scrambled(system: Any, seed: int = 0) -> Any:
    """Every tensor gets other values, also those that a network begins with: zeros, ones, counters."""
    generator = torch.Generator().manual_seed(seed)
    for value in system.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator))
        else:
            value.copy_(torch.randint(1, 1000, value.shape, generator=generator))
    return system


def save_run(folder, arguments, name="best.pth", *, seed=0, system=None):
    """A run folder with one checkpoint of a system, or of one that nobody trained; gives the system."""
    config = load_settings([*arguments, "--batch_size", "7"]).config
    system = system or scrambled(build_system(config, training=False, pretrained=False), seed)
    state = {
        "system": system.to(memory_format=torch.channels_last).trained_state(),
        "optimizers": {},
        "scaler": None,
        "step": 30 + seed,
        "epoch": 4,
        "position": 2,
        "best": {"score": [0.5, 21.0], "step": 20, "rule": "validation PPOCR easy:0"},
        "validated": 20,
        "rng": [],
        "config": plain(config),
    }
    folder.mkdir(exist_ok=True)
    save_checkpoint(folder / name, state)
    (folder / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    return system


def read_back(folder, arguments):
    """The system that this program makes of published files."""
    made = task([*arguments, "--go_test", "--resume", folder])
    made.build_trained_system()
    return made.system


def load(path):
    return torch.load(path, weights_only=True)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# There and back.


@pytest.mark.parametrize("stages", [1, 3])
@pytest.mark.parametrize("shared", ["", "--sr_share", "--tpg_share", "--sr_share --tpg_share"])
def test_what_is_exported_is_read_back_to_the_last_bit(tmp_path, stages, shared):
    arguments = [*LIGHT, "--stu_iter", str(stages), *shared.split()]
    system = save_run(tmp_path / "run", arguments)
    files = export_published(tmp_path / "run", tmp_path / "out")
    models = 1 if "sr" in shared else stages
    assert [path.name for path in files] == [
        *(f"model_best_acc_{index}.pth" for index in range(models)),
        *(f"recognizer_best_acc_{index}.pth" for index in range(stages)),  # published programs keep one for each stage
    ]
    assert names(tmp_path / "out") == sorted(path.name for path in files)
    assert_identical(dict(read_back(tmp_path / "out", arguments).state_dict()), dict(system.state_dict()))
    for index in range(stages):
        student = load(tmp_path / "out" / f"recognizer_best_acc_{index}.pth")
        assert type(student) is OrderedDict
        assert list(student) == list(table("crnn")[1])
        assert_identical(dict(student), dict(system.student(index).state_dict()))


def test_a_shared_student_serves_a_program_that_shares_none(tmp_path):
    arguments = [*LIGHT, "--stu_iter", "2", "--sr_share"]
    system = save_run(tmp_path / "run", [*arguments, "--tpg_share"])
    export_published(tmp_path / "run", tmp_path / "out")
    separate = read_back(tmp_path / "out", arguments)
    assert len(separate.students) == 2
    for student in separate.students:
        assert_identical(dict(student.state_dict()), dict(system.students[0].state_dict()))


def test_published_weights_survive_the_way_through_this_program(tmp_path):
    first = tmp_path / "first"
    first.mkdir()
    published = scrambled(build_model("rtsrn", srb_nums=1, mask=True, published_unused=True))
    torch.save({"state_dict_G": published.state_dict()}, first / "model_best_acc_0.pth")
    student = scrambled(CRNN())
    torch.save(student.state_dict(), first / "recognizer_best_acc_0.pth")

    system = save_run(tmp_path / "run", CLUES, system=read_back(first, CLUES))
    export_published(tmp_path / "run", tmp_path / "out")

    weights = load(tmp_path / "out" / "model_best_acc_0.pth")["state_dict_G"]
    before = published.state_dict()
    used = set(system.networks[0].state_dict())
    assert list(weights) == list(before)
    assert 0 < len(used) < len(before)
    assert_identical({key: weights[key] for key in used}, {key: before[key] for key in used})
    assert {key: value.shape for key, value in weights.items()} == {key: v.shape for key, v in before.items()}
    assert_identical(dict(load(tmp_path / "out" / "recognizer_best_acc_0.pth")), dict(student.state_dict()))


def test_a_checkpoint_file_of_any_name_is_enough(tmp_path):
    arguments = [*LIGHT, "--STN", "--mask", "--srb", "2"]
    system = save_run(tmp_path / "run", arguments)
    (tmp_path / "run" / "best.pth").rename(tmp_path / "mine.pth")  # no config.yaml beside it
    export_published(tmp_path / "mine.pth", tmp_path / "out")
    assert_identical(dict(read_back(tmp_path / "out", arguments).state_dict()), dict(system.state_dict()))


@pytest.mark.parametrize("more", [[], ["--visual_clue"]], ids=["two", "three"])
@pytest.mark.parametrize("name", [name for name in list_models() if model_spec(name).system == "clues"])
def test_every_network_with_clues(tmp_path, name, more):
    arguments = ["--arch", name, "--srb", "1", "--STN", "--tpg_pretrained", "random", "--device", "cpu", *more]
    system = save_run(tmp_path / "run", arguments)
    export_published(tmp_path / "run", tmp_path / "out")
    read = read_back(tmp_path / "out", arguments)
    assert type(read.networks[0]) is type(system.networks[0])
    assert_identical(dict(read.state_dict()), dict(system.state_dict()))


def test_a_network_that_is_whole_gets_its_own_keys(tmp_path, monkeypatch):
    register_tiny(monkeypatch, tmp_path)
    system = save_run(tmp_path / "run", TINY)
    assert [path.name for path in export_published(tmp_path / "run", tmp_path / "out")] == ["model_best_acc_0.pth"]
    whole = load(tmp_path / "out" / "model_best_acc_0.pth")
    assert_identical(dict(whole["state_dict_G"]), dict(system.network.state_dict()))
    assert whole["info"]["arch"] == "tinynet"
    assert_identical(dict(read_back(tmp_path / "out", TINY).state_dict()), dict(system.state_dict()))


# What is in the files.


def test_a_full_size_network_has_the_published_keys_and_shapes(tmp_path):
    save_run(tmp_path / "run", FULL)
    state = torch.random.get_rng_state()
    opened = open_trained(tmp_path / "run")
    before = torch.random.get_rng_state()
    contents = published_contents(*opened)
    assert torch.equal(torch.random.get_rng_state(), before)
    count, keys = table("rtsrn_mask4_stn_triple")
    assert VARIANTS["rtsrn_mask4_stn_triple"] == {"STN": True}
    whole = contents["model_best_acc_0.pth"]
    weights = whole["state_dict_G"]
    assert [(key, tuple(value.shape)) for key, value in weights.items()] == [(k, s) for k, (s, _) in keys.items()]
    assert whole["param_num"] == count == 30_890_500
    own = opened[0].networks[0].state_dict()
    assert_identical({key: weights[key] for key in own}, dict(own))

    torch.random.set_rng_state(state)
    torch.rand(5)
    again = published_contents(*opened)["model_best_acc_0.pth"]["state_dict_G"]
    assert_identical(dict(again), dict(weights))  # the unused parts do not depend on chance
    for key in keys.keys() - own.keys():
        assert torch.isfinite(weights[key]).all(), key


def test_the_dict_around_the_weights(tmp_path):
    save_run(tmp_path / "run", [*LIGHT, "--mask"])
    export_published(tmp_path / "run", tmp_path / "out")
    whole = load(tmp_path / "out" / "model_best_acc_0.pth")
    weights = whole.pop("state_dict_G")
    assert type(weights) is OrderedDict
    assert whole == {
        "info": {
            "arch": "rtsrn",
            "iters": 30,
            "epochs": 4,
            "batch_size": 7,
            "voc_type": "all",
            "up_scale_factor": 2,
        },
        "best_history_res": {},
        "best_model_info": {"accuracy": {}, "psnr": {}, "ssim": {}},
        "param_num": sum(p.numel() for p in build_model("rtsrn", srb_nums=1, triple_clues=False).parameters()),
        "converge": [],
    }
    assert all(value.is_contiguous() for value in weights.values())


# Which checkpoint.


def test_best_is_taken_if_there_is_one(tmp_path, caplog):
    save_run(tmp_path / "run", LIGHT, "last.pth", seed=1)
    export_published(tmp_path / "run", tmp_path / "a")
    assert "has no best.pth, so last.pth is used" in caplog.text
    save_run(tmp_path / "run", LIGHT, "best.pth", seed=2)
    export_published(tmp_path / "run", tmp_path / "b")
    export_published(tmp_path / "run", tmp_path / "c", "last")
    export_published(tmp_path / "run", tmp_path / "d", "best")
    export_published(tmp_path / "run" / "last.pth", tmp_path / "e")
    steps = [load(tmp_path / name / "model_best_acc_0.pth")["info"]["iters"] for name in "abcde"]
    assert steps == [31, 32, 31, 32, 31]


def test_what_cannot_be_exported_is_refused(tmp_path):
    save_run(tmp_path / "run", LIGHT, "last.pth")
    out = tmp_path / "out"
    with pytest.raises(FileNotFoundError, match=r"best\.pth: nothing there"):
        export_published(tmp_path / "run", out, "best")
    with pytest.raises(ValueError, match="--which last chooses between the two"):
        export_published(tmp_path / "run" / "last.pth", out, "last")
    with pytest.raises(FileNotFoundError, match="nothing there"):
        export_published(tmp_path / "none", out, "last")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"no best\.pth or last\.pth|no last\.pth or best\.pth"):
        export_published(tmp_path / "empty", out)
    whole = (tmp_path / "run" / "last.pth").read_bytes()
    (tmp_path / "run" / "last.pth").write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match="cannot be read"):
        export_published(tmp_path / "run", out)
    assert not out.exists()


def test_published_files_are_not_exported_again(tmp_path):
    save_run(tmp_path / "run", LIGHT)
    export_published(tmp_path / "run", tmp_path / "out")
    for source in (tmp_path / "out", tmp_path / "out" / "model_best_acc_0.pth"):
        with pytest.raises(CheckpointError, match="published already"):
            export_published(source, tmp_path / "again")
    assert not (tmp_path / "again").exists()


# Writing.


@pytest.mark.parametrize("name", ["model_best_acc_0.pth", "recognizer_best_acc_0.pth", "model_best_acc_2.pth"])
def test_nothing_is_overwritten_or_mixed(tmp_path, name):
    save_run(tmp_path / "run", LIGHT)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(FileExistsError, match=f"{name}; nothing is overwritten"):
        export_published(tmp_path / "run", tmp_path / "out")
    assert names(tmp_path / "out") == [name]
    assert (tmp_path / "out" / name).read_text() == "mine"


def test_the_run_folder_itself_can_take_them(tmp_path):
    save_run(tmp_path / "run", LIGHT)
    whole = (tmp_path / "run" / "best.pth").read_bytes()
    export_published(tmp_path / "run", tmp_path / "run")
    assert names(tmp_path / "run") == [
        "best.pth",
        "config.yaml",
        "model_best_acc_0.pth",
        "recognizer_best_acc_0.pth",
    ]
    assert (tmp_path / "run" / "best.pth").read_bytes() == whole


@pytest.mark.parametrize("error", [OSError("disk full"), RuntimeError("PytorchStreamWriter failed writing file")])
def test_a_full_disk_leaves_nothing_half_done(tmp_path, monkeypatch, error):
    save_run(tmp_path / "run", LIGHT)
    write = torch.save

    def fail(content, path):
        write(content, path)
        if "recognizer" in path.name:
            raise error

    monkeypatch.setattr(torch, "save", fail)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").touch()
    with pytest.raises(OSError, match=r"recognizer_best_acc_0\.pth cannot be written .*MiB are free"):
        export_published(tmp_path / "run", tmp_path / "out")
    assert names(tmp_path / "out") == ["notes.txt"]


# The script.


@pytest.mark.slow
def test_the_script(tmp_path):
    save_run(tmp_path / "run", [*LIGHT, "--stu_iter", "2", "--sr_share", "--tpg_share"])

    def call(*words):
        return subprocess.run(
            [sys.executable, SCRIPT, *words],
            cwd=tmp_path,
            env={key: value for key, value in environment().items() if key != "PYTHONPATH"},
            capture_output=True,
            text=True,
            check=False,
        )

    done = call("run", "out")
    assert (done.returncode, done.stderr) == (0, "")
    files = ["model_best_acc_0.pth", "recognizer_best_acc_0.pth", "recognizer_best_acc_1.pth"]
    assert done.stdout.splitlines()[:-1] == [f"wrote out/{name}" for name in files]
    assert names(tmp_path / "out") == files
    done = call("run", "out", "--which", "best")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("export_published.py: out holds model_best_acc_0.pth")
