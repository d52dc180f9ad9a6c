import os
import pickle
import random
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from interface.checkpoint import (
    CheckpointError,
    clean_state,
    content_digest,
    load_checkpoint,
    load_weights,
    published_files,
    read_any,
    read_weights,
    save_checkpoint,
    write_atomically,
)
from interface.config import ROOT
from interface.resume import open_resume
from model.recognizer.crnn import CRNN
from model.rtsrn import RTSRN
from tests.interface.helpers import LIGHT, assert_identical, environment, run, task


def state(**more):
    return {
        "system": {"a.weight": torch.arange(6.0).reshape(2, 3), "a.count": torch.tensor(3)},
        "optimizers": {"main": {"state": {0: {"step": torch.tensor(2.0)}}, "param_groups": [{"lr": 0.1}]}},
        "best": None,
        "rng": [1, 23],
        "config": {"TRAIN": {"lr": 0.001, "device": "cpu", "mask": True}},
        **more,
    }


# Digest.


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"b": 1}),
        ({"a": 1}, {"a": "1"}),
        ({"a": 1}, {"a": True}),
        ({"a": 1}, {"a": 1.0}),
        ({"a": None}, {}),
        ({"a": {}}, {"a": []}),
        ([[1], 2], [[1, 2]]),
        ([1, 23], [12, 3]),
        (["1", "2"], ["1'2"]),
        (torch.zeros(2, 3), torch.zeros(3, 2)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
        (torch.zeros(2), torch.tensor([0.0, -0.0])),
        (torch.tensor([1.0]), torch.tensor([1.0 + 2**-23])),
        (torch.zeros(0), torch.zeros(0, 3)),
        (torch.tensor(1), torch.tensor([1])),
        (torch.tensor([True]), torch.tensor([False])),
        (torch.zeros(1, dtype=torch.bfloat16), torch.ones(1, dtype=torch.bfloat16)),
    ],
)
def test_digest_changes_with_every_value(one, other):
    assert content_digest(one) != content_digest(other)
    assert content_digest({"x": [one]}) != content_digest({"x": [other]})


def test_digest_is_about_values_not_memory():
    tensor = torch.randn(2, 3, 4, 5)
    layout = tensor.to(memory_format=torch.channels_last)
    assert content_digest(tensor) == content_digest(layout) == content_digest(nn.Parameter(tensor))
    assert content_digest((1, 2)) == content_digest([1, 2])


# Round trip and damage.


def test_round_trip(tmp_path):
    save_checkpoint(tmp_path / "a.pth", state())
    loaded = load_checkpoint(tmp_path / "a.pth")
    assert loaded.pop("format") == 1
    assert_identical(loaded, state())
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_memory_layout_survives_and_does_not_disturb_the_checksum(tmp_path):
    weight = torch.randn(8, 4, 3, 3).to(memory_format=torch.channels_last)
    save_checkpoint(tmp_path / "a.pth", {"weight": weight})
    assert torch.equal(load_checkpoint(tmp_path / "a.pth")["weight"], weight)


def outcome(path):
    """The error of reading a file, or what is in it; nothing but `CheckpointError` may come."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return load_checkpoint(path)
        except CheckpointError as error:
            return str(error)


def test_a_flipped_byte_is_noticed_or_without_effect(tmp_path):
    path = tmp_path / "a.pth"
    save_checkpoint(path, state())
    whole, good = path.read_bytes(), load_checkpoint(path)
    positions = random.Random(0).sample(range(len(whole)), 400)
    weight = whole.index(torch.arange(6.0).numpy().tobytes())
    for position in [*positions, *range(weight, weight + 24)]:
        damaged = bytearray(whole)
        damaged[position] ^= 0x41
        path.write_bytes(damaged)
        found = outcome(path)
        if isinstance(found, dict):  # the zip container has bytes that nobody reads
            assert_identical(found, good)
            assert not weight <= position < weight + 24
        else:
            assert str(path) in found


def test_a_flipped_byte_in_a_weight_is_called_damage(tmp_path):
    path = tmp_path / "a.pth"
    save_checkpoint(path, state())
    whole = bytearray(path.read_bytes())
    whole[whole.index(torch.arange(6.0).numpy().tobytes()) + 5] ^= 1
    path.write_bytes(whole)
    with pytest.raises(CheckpointError, match="is damaged"):
        load_checkpoint(path)


def test_a_truncated_file_is_refused_wherever_it_is_cut(tmp_path):
    path = tmp_path / "a.pth"
    save_checkpoint(path, state())
    whole = path.read_bytes()
    for length in [0, 1, 2, 3, 4, 30, *range(50, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        found = outcome(path)
        assert isinstance(found, str), length
        assert str(path) in found


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    "content",
    [b"", b"hello world", b"\x89PNG\r\n\x1a\n" + bytes(100), b"PK\x03\x04" + bytes(60), b"\x80\x02", b"\x80\x04]."],
    ids=["empty", "text", "png", "zip", "pickle", "list"],
)
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    assert isinstance(outcome(path), str)


def test_a_missing_file_and_a_folder_are_no_checkpoints(tmp_path):
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(FileNotFoundError, match="no such file"):
            read_any(path)


def test_a_foreign_file_and_another_format_are_refused(tmp_path):
    torch.save({"state_dict_G": {}}, tmp_path / "foreign.pth")
    with pytest.raises(CheckpointError, match="not a checkpoint of this program"):
        load_checkpoint(tmp_path / "foreign.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="not a checkpoint of this program"):
        load_checkpoint(tmp_path / "list.pth")
    save_checkpoint(tmp_path / "new.pth", state(format=2))
    with pytest.raises(CheckpointError, match="checkpoint format 2; this program reads format 1"):
        load_checkpoint(tmp_path / "new.pth")


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_a_file_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Evil()}, "evil.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Evil()))
    torch.save(nn.Linear(2, 2), "model.pth")
    for name in ("evil.pth", "bare.pth", "model.pth"):
        with pytest.raises(CheckpointError, match="state_dict") as refused:
            read_any(tmp_path / name)
        assert "would run code" in str(refused.value)
        assert "weights_only" not in str(refused.value)  # PyTorch advises to switch the check off
        assert "\x1b" not in str(refused.value)
    assert not (tmp_path / "executed").exists()


# Atomic writing.


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.pth"
    path.write_text("old")

    def fail(temporary):
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_makes_no_file_does_not_hide_its_reason(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "missing" / "a.pth", lambda temporary: temporary.touch())


SAVER = """
import os, random, signal, sys, time, torch
from pathlib import Path
from interface.checkpoint import load_checkpoint, save_checkpoint

path, pauses = Path(sys.argv[1]), random.Random(1)

def save_for_ever():
    step = load_checkpoint(path)["step"] if path.exists() else 0
    while True:
        step += 1
        save_checkpoint(path, {"step": step, "weights": torch.full((1 << 19,), float(step))})

for _ in range(10):  # forks of one process, because importing torch takes longer than all saves together
    child = os.fork()
    if not child:
        save_for_ever()
    time.sleep(pauses.uniform(0.05, 0.25))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if path.exists():
        loaded = load_checkpoint(path)
        print(loaded["step"], *loaded["weights"].unique().tolist())
"""


@pytest.mark.slow
def test_killed_ten_times_during_saves_and_always_loadable(tmp_path):
    path = tmp_path / "last.pth"
    done = subprocess.run(
        [sys.executable, "-c", SAVER, str(path)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [[float(number) for number in line.split()] for line in done.stdout.splitlines()]
    assert len(found) >= 8  # once the first save is through there is always something to load
    assert all(step == value for step, value in found)
    assert [step for step, _ in found] == sorted(step for step, _ in found)
    assert found[-1][0] >= 10
    assert {left.name for left in tmp_path.glob("*.pth")} == {"last.pth"}
    save_checkpoint(path, {"step": 0})  # what the killed ones left behind disturbs nobody
    assert load_checkpoint(path)["step"] == 0


# Weights files.


def linear():
    return {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: weights,
        lambda weights: {"state_dict_G": weights, "info": {"arch": "tsrn", "iters": 5}, "param_num": 3, "converge": []},
        lambda weights: {"state_dict": weights, "epoch": 1},
        lambda weights: [weights],
        lambda weights: ({"state_dict": weights},),
        lambda weights: {f"module.{key}": value for key, value in weights.items()},
        lambda weights: {"state_dict_G": {f"module.{key}": value for key, value in weights.items()}},
        lambda weights: {**weights, "total_ops": torch.zeros(1), "total_params": torch.zeros(1)},
    ],
    ids=["bare", "published", "state_dict", "list", "tuple", "module", "both", "counted"],
)
def test_all_wrappings_of_published_weights_are_taken_off(tmp_path, wrap):
    torch.save(wrap(linear()), tmp_path / "a.pth")
    loaded = read_weights(tmp_path / "a.pth", option="X", purpose="Y", remedy="Z")
    assert_identical(loaded, linear())
    load_weights(nn.Linear(3, 2), loaded, "a.pth")


def test_only_the_front_of_a_key_is_taken_off_and_only_counters_are_dropped():
    weights = {"module.module.a": torch.zeros(1), "b.total_ops": torch.zeros(1), "total_opsy": torch.zeros(1)}
    assert set(clean_state(weights, "x")) == {"module.a", "total_opsy"}


@pytest.mark.parametrize("content", [{}, [], {"a": 1}, 5, {"state_dict": {}}, [linear(), linear()]])
def test_a_file_without_weights_is_refused(content):
    with pytest.raises(CheckpointError, match="holds no network weights: found"):
        clean_state(content, "a.pth")


def test_safetensors(tmp_path):
    save_file(linear(), tmp_path / "a.safetensors")
    assert_identical(read_weights(tmp_path / "a.safetensors", option="X", purpose="Y", remedy="Z"), linear())
    (tmp_path / "bad.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(CheckpointError, match=r"bad.safetensors \(X\) is no safetensors file"):
        read_weights(tmp_path / "bad.safetensors", option="X", purpose="Y", remedy="Z")
    (tmp_path / "none.safetensors").touch()
    with pytest.raises(CheckpointError, match="is no safetensors file"):
        read_weights(tmp_path / "none.safetensors", option="X", purpose="Y", remedy="Z")


def test_a_missing_weights_file_is_explained(tmp_path):
    with pytest.raises(FileNotFoundError) as refused:
        read_weights(tmp_path / "crnn.pth", option="MODEL.tpg_pretrained", purpose="the student", remedy="do without")
    for word in ("crnn.pth", "MODEL.tpg_pretrained", "the student", "rec_pth/README.md", "do without"):
        assert word in str(refused.value)


def test_what_does_not_fit_is_named():
    weights = {"weight": torch.ones(3, 3), "gamma": torch.zeros(2)}
    with pytest.raises(CheckpointError) as refused:
        load_weights(nn.Linear(3, 2), weights, "mine.pth")
    message = str(refused.value)
    assert message.startswith("mine.pth does not fit Linear.")
    assert "missing (1): bias" in message
    assert "left over (1): gamma" in message
    assert "of another shape (1): weight: (3, 3) in the file, (2, 3) expected" in message


def test_a_misfit_changes_nothing():
    module = nn.Linear(3, 2)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(CheckpointError):
        load_weights(module, {"weight": torch.ones(2, 3)}, "mine.pth")
    assert_identical(dict(module.state_dict()), before)


def test_old_batch_norm_without_counters_loads_and_other_buffers_must_be_there():
    module: Any = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    weights = {key: value + 1 for key, value in module.state_dict().items() if not key.endswith("num_batches_tracked")}
    load_weights(module, weights, "old.pth")
    assert module[1].running_mean.tolist() == [1, 1]
    del weights["1.running_var"]
    with pytest.raises(CheckpointError, match=r"missing \(1\): 1.running_var"):
        load_weights(module, weights, "old.pth")


def test_published_weights_may_hold_what_the_published_network_never_used_and_no_more():
    published = RTSRN(srb_nums=1, published_unused=True).state_dict()
    network = RTSRN(srb_nums=1)
    unused = set(published) - set(network.state_dict())
    assert unused
    load_weights(network, published, "published.pth")
    assert_identical(dict(network.state_dict()), {key: published[key] for key in network.state_dict()})
    with pytest.raises(CheckpointError, match=r"left over \(1\): extra"):
        load_weights(network, {**published, "extra": torch.zeros(1)}, "published.pth")
    wrong = {**published, sorted(unused)[0]: torch.zeros(1, 1, 1, 1, 1)}
    with pytest.raises(CheckpointError, match=r"of another shape \(1\)"):
        load_weights(network, wrong, "published.pth")


# Published run folders.


def save_published(folder, stages, *, students=None, names=("model_best_acc_{}.pth", "recognizer_best_acc_{}.pth")):
    """A run folder as the published program leaves it."""
    folder.mkdir()
    for stage in range(stages):
        torch.manual_seed(stage)
        network = RTSRN(srb_nums=1, published_unused=True)
        whole = {
            "state_dict_G": network.state_dict(),
            "info": {"arch": "rtsrn", "iters": 10, "epochs": 2, "voc_type": "all", "up_scale_factor": 2},
            "best_history_res": {"easy": 0.6, "epoch": 1},
            "best_model_info": {"accuracy": {"easy": np.float64(0.6), "epoch": 2}, "psnr": {"easy": np.float64(20.0)}},
            "param_num": 100,
            "converge": [{"iterator": 1, "acc": np.float64(0.5), "psnr": np.float32(20.0), "ssim": 0.7}],
        }
        torch.save(whole, folder / names[0].format(stage))
    for stage in range(stages if students is None else students):
        torch.manual_seed(100 + stage)
        torch.save(CRNN().state_dict(), folder / names[1].format(stage))
    return folder


def test_published_files_by_stage(tmp_path):
    folder = tmp_path / "X"
    folder.mkdir()
    for name in ("model_best_acc_0.pth", "model_best_acc_1.pth", "recognizer_best_acc_0.pth", "model_best.pth"):
        (folder / name).touch()

    def found(path, part, count):
        return [file.name for file in published_files(path, part, count)]

    assert found(folder, "model_best_acc", 2) == ["model_best_acc_0.pth", "model_best_acc_1.pth"]
    assert found(folder, "model_best", 1) == ["model_best_acc_0.pth"]
    assert found(folder / "model_best_acc_1.pth", "model_best_acc", 1) == ["model_best_acc_1.pth"]
    assert found(folder / "model_best_acc_0.pth", "recognizer_best_acc", 1) == ["recognizer_best_acc_0.pth"]
    with pytest.raises(CheckpointError) as refused:
        published_files(folder, "recognizer_best_acc", 2)
    for word in ("recognizer_best_acc_1.pth", "stage 2 of 2", "--stu_iter", "recognizer_best_acc_0.pth"):
        assert word in str(refused.value)
    with pytest.raises(CheckpointError, match="stage 3 of 3"):
        published_files(folder, "model_best_acc", 3)
    with pytest.raises(CheckpointError, match=r"found: no \.pth files"):
        published_files(tmp_path / "none", "model_best_acc", 1)


PUBLISHED = [argument for argument in LIGHT if argument != "--no-triple_clues"]


def test_a_published_folder_loads_for_testing(tmp_path, tiny_dir):
    folder = save_published(tmp_path / "X", 1)
    common = [*PUBLISHED, "--go_test", "--test_data_dir", tiny_dir / "test" / "medium", "--test_model", ""]
    made = run([*common, "--resume", folder])
    weights = torch.load(folder / "model_best_acc_0.pth", weights_only=False)["state_dict_G"]
    loaded = made.system.networks[0].state_dict()
    assert_identical(dict(loaded), {key: weights[key] for key in loaded})
    student = torch.load(folder / "recognizer_best_acc_0.pth", weights_only=True)
    assert_identical(dict(made.system.students[0].state_dict()), dict(student))
    assert list(folder.glob("report-*/report.json"))
    made = task([*common, "--resume", folder / "model_best_acc_0.pth"])
    made.build_trained_system()
    assert_identical(dict(made.system.networks[0].state_dict()), dict(loaded))


@pytest.mark.parametrize("asked", ["c3stisr", "C3-STISR", "bicubic"])
def test_published_weights_say_by_their_keys_which_network_they_are(tmp_path, tiny_dir, caplog, asked):
    """The published program builds RTSRN whatever `--arch` says, and C3-STISR is what its last log was called."""
    folder = save_published(tmp_path / "X", 1)
    arguments = ["--srb", "1", "--go_test", "--test_data_dir", tiny_dir / "test" / "medium", "--test_model", ""]
    made = task([*arguments, "--device", "cpu", "--workers", "0", "--arch", asked, "--resume", folder])
    assert made.config.arch == "rtsrn"
    assert made.config.MODEL.mask
    assert made.config.MODEL.triple_clues
    name = asked.lower().replace("-", "")
    assert f"model_best_acc_0.pth holds the network rtsrn, so that is used, not --arch {name}" in caplog.text
    made.build_trained_system()
    weights = torch.load(folder / "model_best_acc_0.pth", weights_only=False)["state_dict_G"]
    loaded = made.system.networks[0].state_dict()
    assert_identical(dict(loaded), {key: weights[key] for key in loaded})


def test_a_published_folder_starts_a_new_run_for_training(tmp_path, tiny_dir):
    folder = save_published(tmp_path / "X", 1)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    arguments = [*PUBLISHED, "--train_data_dir", tiny_dir / "train", "--ckpt_dir", tmp_path / "new", "--test_model", ""]
    made = task([*arguments, "--resume", folder, "--steps", "1"])
    made.build_training()
    weights = torch.load(folder / "model_best_acc_0.pth", weights_only=False)["state_dict_G"]
    loaded = made.system.networks[0].state_dict()
    assert_identical(dict(loaded), {key: weights[key] for key in loaded})
    assert made.step == 0
    assert made.folder is not None
    assert made.folder.parent == tmp_path / "new"
    made.run_log.close()
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_missing_student_is_an_error_not_a_fallback(tmp_path):
    folder = save_published(tmp_path / "X", 1, students=0)
    made = task([*PUBLISHED, "--go_test", "--resume", folder])
    with pytest.raises(CheckpointError, match=r"recognizer_best_acc_0\.pth"):
        made.build_trained_system()


def test_a_published_folder_of_several_stages(tmp_path):
    folder = save_published(tmp_path / "X", 3)
    made = task([*PUBLISHED, "--go_test", "--resume", folder, "--stu_iter", "3"])
    made.build_trained_system()
    assert len(made.system.networks) == len(made.system.students) == 3
    for stage in range(3):
        torch.manual_seed(100 + stage)
        assert torch.equal(next(made.system.students[stage].parameters()), next(CRNN().parameters()))
    first, last = (made.system.networks[stage].block1[0].weight for stage in (0, 2))
    assert not torch.equal(first, last)
    wrong = task([*PUBLISHED, "--go_test", "--resume", folder, "--stu_iter", "4"])
    with pytest.raises(CheckpointError, match="stage 4 of 4"):
        wrong.build_trained_system()
    for stage in (1, 2):
        (folder / f"model_best_acc_{stage}.pth").unlink()
    shared = task([*PUBLISHED, "--go_test", "--resume", folder, "--stu_iter", "3", "--sr_share"])
    shared.build_trained_system()
    assert len(shared.system.networks) == 1


def test_a_part_of_a_published_cascade_is_not_read_in_silence(tmp_path, tiny_dir):
    folder = save_published(tmp_path / "X", 2)
    common = [*PUBLISHED, "--go_test", "--test_data_dir", tiny_dir / "test" / "medium", "--test_model", ""]
    for flags in ([], ["--stu_iter", "2", "--sr_share"]):
        made = task([*common, *flags, "--resume", folder])
        with pytest.raises(CheckpointError, match=r"has 2 files model_best_acc_<i>.pth, but 1 would be read; give"):
            made.build_trained_system()
    (folder / "model_best_acc_1.pth").unlink()
    made = task([*common, "--resume", folder])
    with pytest.raises(CheckpointError, match=r"has 2 files recognizer_best_acc_<i>.pth, but 1 would be read"):
        made.build_trained_system()
    task([*common, "--stu_iter", "2", "--sr_share", "--tpg_share", "--resume", folder]).build_trained_system()


def test_a_language_model_is_no_part_of_what_is_resumed(tmp_path, tiny_dir):
    folder = save_published(tmp_path / "X", 1)
    common = [*PUBLISHED, "--train_data_dir", tiny_dir / "train", "--ckpt_dir", tmp_path / "new", "--test_model", ""]
    with pytest.raises(CheckpointError, match=r"--language_model none.pth: .* has a language model of its own"):
        task([*common, "--resume", folder, "--language_model", "none.pth"])


def test_published_weights_of_other_options_are_refused_with_advice(tmp_path):
    folder = save_published(tmp_path / "X", 1)
    made = task([*PUBLISHED, "--go_test", "--resume", folder, "--STN"])
    with pytest.raises(CheckpointError, match="--STN") as refused:
        made.build_trained_system()
    assert "missing" in str(refused.value)


def test_a_resume_that_names_nothing_lists_the_runs(tmp_path):
    (tmp_path / "ckpt" / "mine").mkdir(parents=True)
    (tmp_path / "ckpt" / "mine" / "last.pth").touch()
    with pytest.raises(FileNotFoundError, match=r"nothing there; runs found: .*mine"):
        task([*LIGHT, "--resume", tmp_path / "no", "--ckpt_dir", tmp_path / "ckpt"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"no last\.pth or best\.pth"):
        task([*LIGHT, "--resume", tmp_path / "empty"])
    assert open_resume(task(LIGHT).settings) is None
