"""The pre-training script: what it writes, that it resumes to the bit, and what it refuses."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from interface.checkpoint import file_sha256, load_checkpoint, load_weights, save_checkpoint
from interface.config import ROOT
from model.language.bcn import BCN
from tests.interface.helpers import assert_identical, environment

SCRIPT = ROOT / "scripts" / "pretrain_language_model.py"
SMALL = {"width": 32, "heads": 2, "layers": 2, "hidden": 48}
FEW = "--batch_size 4 --device cpu --validation_words 20 --log_interval 2 --save_interval 2 --lr 0.001".split()


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pretrain_language_model", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["pretrain_language_model"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(script, tmp_path):
    """Runs the script in this process, with a small network and into one folder."""

    def main(*arguments: str, out: str = "lm.safetensors") -> int:
        return script.main(["--out", str(tmp_path / out), *FEW, *arguments], size=SMALL)

    return main


def test_writes_weights_and_what_they_are(run, tmp_path, capsys):
    assert run("--steps", "3", "--seed", "5") == 0
    said = capsys.readouterr().out
    assert "step 2 of 3: loss" in said
    assert "step 3 of 3: loss" in said
    assert said.count(" before, ") == 4  # words and characters, at step 2 and at the end
    out = tmp_path / "lm.safetensors"
    network = BCN(**SMALL)
    load_weights(network, load_file(out), out)
    trained = load_checkpoint(tmp_path / "lm.safetensors.last.pth")["network"]
    assert_identical(network.state_dict(), trained)
    facts = json.loads((tmp_path / "lm.json").read_text())
    assert facts["sha256"] == file_sha256(out)
    assert (facts["seed"], facts["steps"], facts["batch_size"], facts["words"]) == (5, 3, 4, 12)
    assert "--steps 3 --seed 5" in facts["commands"][0]
    scores = facts["scores"]
    assert 0.4 < scores["words_before"] < 1
    assert scores["validation_words"] == 20
    assert {"words_after", "characters_before", "characters_after", "repaired", "spoilt"} <= set(scores)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "lm.json",
        "lm.safetensors",
        "lm.safetensors.last.pth",
    ]


def test_nothing_but_a_file_has_to_be_named(script, tmp_path, monkeypatch):
    monkeypatch.setitem(script.DEFAULTS, "steps", 1)
    assert script.main(["--out", str(tmp_path / "new" / "lm.safetensors")], size=SMALL) == 0
    facts = json.loads((tmp_path / "new" / "lm.json").read_text())
    assert {name: facts[name] for name in script.DEFAULTS} == script.DEFAULTS
    assert facts["scores"]["validation_words"] == 1000


def test_half_rounds_weights_but_not_constants(run, tmp_path):
    assert run("--steps", "1") == 0
    assert run("--steps", "1", "--half", out="half.safetensors") == 0
    whole, half = load_file(tmp_path / "lm.safetensors"), load_file(tmp_path / "half.safetensors")
    assert half["cls.weight"].dtype == torch.float16
    assert torch.equal(whole["cls.weight"].half(), half["cls.weight"])
    assert torch.equal(whole["token_encoder.pe"], half["token_encoder.pe"])
    assert json.loads((tmp_path / "half.json").read_text())["precision"] == "float16"


def test_a_resumed_run_ends_with_the_same_bits(run, script, tmp_path, monkeypatch, capsys):
    assert run("--steps", "5", "--dropout", "0.1", out="through.safetensors") == 0
    step = script.train_step

    def interrupted(current):
        result = step(current)
        if current.step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return result

    monkeypatch.setattr(script, "train_step", interrupted)
    assert run("--steps", "5", "--dropout", "0.1", out="cut.safetensors") == 128 + signal.SIGINT
    assert "SIGINT at step 3: saved" in capsys.readouterr().out
    assert not (tmp_path / "cut.safetensors").exists()
    monkeypatch.undo()
    torch.manual_seed(77)  # the state of dropout comes from the checkpoint
    assert run("--resume", out="cut.safetensors") == 0
    one, other = (load_checkpoint(tmp_path / f"{name}.safetensors.last.pth") for name in ("through", "cut"))
    for part in ("network", "optimizer"):
        assert_identical(one[part], other[part])
    assert len(json.loads((tmp_path / "cut.json").read_text())["commands"]) == 2


def test_a_finished_run_can_be_lengthened_but_not_changed(run, tmp_path, capsys):
    assert run("--steps", "2") == 0
    assert run("--resume", "--steps", "4", "--half") == 0
    assert json.loads((tmp_path / "lm.json").read_text())["steps"] == 4
    capsys.readouterr()
    for option, value, word in (("--seed", "3", "was made with --seed 0"), ("--steps", "3", "has 4 already")):
        assert run("--resume", option, value) == 2
        assert word in capsys.readouterr().err


def test_seed_decides_and_validation_words_stay(run, tmp_path):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert run("--steps", "1", "--seed", seed, out=f"{name}.safetensors") == 0
    a, b, c = (load_file(tmp_path / f"{name}.safetensors") for name in "abc")
    assert_identical(a, b)
    assert not torch.equal(a["cls.weight"], c["cls.weight"])
    before = {json.loads((tmp_path / f"{name}.json").read_text())["scores"]["words_before"] for name in "abc"}
    assert len(before) == 1


def test_nothing_is_overwritten_unasked(run, tmp_path, capsys):
    assert run("--steps", "1") == 0
    before = file_sha256(tmp_path / "lm.safetensors")
    capsys.readouterr()
    assert run("--steps", "1", "--seed", "1") == 2
    message = capsys.readouterr().err
    assert "--overwrite" in message
    assert "--resume" in message
    assert file_sha256(tmp_path / "lm.safetensors") == before
    assert run("--steps", "1", "--seed", "1", "--overwrite") == 0
    assert file_sha256(tmp_path / "lm.safetensors") != before
    (tmp_path / "other.json").write_text("{}")
    assert run("--steps", "1", out="other.safetensors") == 2  # somebody's notes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "--steps 0: must be 1 or more"),
        (["--batch_size", "-2"], "--batch_size -2"),
        (["--lr", "0"], "--lr 0.0: must be above 0"),
        (["--lr", "nan"], "--lr nan"),
        (["--seed", "-1"], "--seed -1"),
        (["--dropout", "1"], "--dropout 1.0"),
        (["--save_interval", "0"], "--save_interval 0"),
        (["--device", "cuda:99"], "--device cuda:99"),
        (["--device", "nothing"], "--device nothing"),
        (["--resume"], "leave --resume out"),
    ],
)
def test_bad_values_are_explained(run, tmp_path, capsys, arguments, message):
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_name_and_a_foreign_checkpoint_are_refused(run, tmp_path, capsys):
    assert run(out="lm.pth") == 2
    assert ".safetensors" in capsys.readouterr().err
    (tmp_path / "lm.safetensors.last.pth").write_bytes(b"no checkpoint")
    assert run("--resume") == 2
    assert "no PyTorch file" in capsys.readouterr().err
    save_checkpoint(tmp_path / "lm.safetensors.last.pth", {"system": {}, "step": 3})
    assert run("--resume") == 2
    assert "no checkpoint of this script" in capsys.readouterr().err


def test_a_loss_that_is_no_number_ends_the_run(run, script, tmp_path, monkeypatch, capsys):
    step = script.train_step

    def poisoned(current):
        torch.nn.init.constant_(current.network.cls.bias, float("nan"))
        return step(current)

    monkeypatch.setattr(script, "train_step", poisoned)
    assert run("--steps", "2") == 2
    assert "smaller --lr" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_loss_falls(script):
    current = script.build({**script.DEFAULTS, "steps": 60, "lr": 3e-3}, SMALL, torch.device("cpu"))
    losses = [script.train_step(current)[0] for _ in range(60)]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_characters_start_as_loud_as_positions(script):
    network = script.build(script.DEFAULTS, {}, torch.device("cpu")).network
    assert network.proj.weight.std().item() == pytest.approx(0.5**0.5, rel=0.01)  # that of a sine
    assert sum(weight.numel() for weight in network.parameters()) == 12_647_461


HELP = """
import runpy, sys
sys.argv = ["pretrain_language_model.py", "--help"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as done:
    assert not done.code
assert not {"torch", "numpy", "safetensors"} & set(sys.modules)
"""


def test_help_imports_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-c", HELP],
        cwd=ROOT / "scripts",
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--resume" in done.stdout
