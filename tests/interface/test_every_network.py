"""Every network of the registry through the program: trained, cut, resumed, tested, exported in both forms, read back.

A network that is added is found by itself. On a GPU with `STISR_DEVICE=cuda`.
"""

import json
import math

import pytest
import torch

from interface.checkpoint import load_checkpoint
from interface.config import load_settings
from interface.export import export_published, whole_network
from interface.export_weights import export_weights
from interface.super_resolution import TextSR
from model import build_model, list_models, model_spec
from tests.device import DEVICE, EXACT
from tests.interface.helpers import assert_identical, assert_near, run, shrink_recognisers, task
from tests.model.published import published_options, zoo_tables

WITH_STUDENTS = ("clues", "prior_guided")
STATE = ("system", "optimizers", "step", "epoch", "position", "rng")


@pytest.fixture
def start(tmp_path, tiny_dir, monkeypatch):
    """What a command line for a network begins with: its own recipe, small, on twelve words."""
    small = shrink_recognisers(monkeypatch, tmp_path)  # text-prior generator and text focus
    monkeypatch.setattr(TextSR, "test_best", lambda self: None)  # it is tested once, on purpose
    monkeypatch.chdir(tmp_path)

    def arguments(arch):
        spec = model_spec(arch)
        words = ["--arch", arch, *small]
        words += [] if spec.system in WITH_STUDENTS else ["--tpg_pretrained", "random"]
        words += ["--srb", "1"] * ("srb_nums" in spec.options)
        # The clue modules need their size.
        words += ["--hd_u", "4"] * ("hidden_units" in spec.options and spec.system != "clues")
        data = ["--train_data_dir", tiny_dir / "train", "--test_data_dir", tiny_dir / "test" / "easy"]
        machine = f"--device {DEVICE} --workers 0 --batch_size 2 --val_interval 100 --schedule constant".split()
        return [*words, *data, *machine, "--test_model", ""]

    return arguments


def on_host(state):
    return {name: value.cpu() for name, value in state.items()}


def psnr_of(folder):
    return json.loads((folder / "report.json").read_text())["splits"]["easy"]["psnr"]["sr_1"]


@pytest.mark.parametrize("arch", [name for name in list_models() if name != "bicubic"])
def test_a_network_trains_resumes_is_tested_and_exported(arch, start, tmp_path, caplog):
    arguments = start(arch)
    run([*arguments, "--steps", "2", "--vis_dir", "whole"])
    run([*arguments, "--steps", "1", "--vis_dir", "cut"])
    before = load_checkpoint(tmp_path / "ckpt" / "cut" / "last.pth")["system"]
    run([*arguments, "--steps", "2", "--resume", "ckpt/cut"])
    straight, resumed = (load_checkpoint(tmp_path / "ckpt" / name / "last.pth") for name in ("whole", "cut"))
    for key in STATE:
        (assert_identical if EXACT else assert_near)(straight[key], resumed[key])
    assert any(not torch.equal(value, before[key]) for key, value in resumed["system"].items())

    test = [*arguments, "--go_test", "--resume"]
    tested = run([*test, "ckpt/cut/last.pth", "--report_dir", "tested"])
    assert_identical(on_host(tested.system.trained_state()), resumed["system"])
    assert math.isfinite(psnr_of(tmp_path / "tested")["value"])

    export_published(tmp_path / "ckpt" / "cut", tmp_path / "published", "last")
    assert ("published weights go with" in caplog.text) == bool(model_spec(arch).published)
    back = task([*test, "published"])
    back.build_trained_system()
    assert_identical(on_host(back.system.trained_state()), resumed["system"])

    export_weights(tmp_path / "ckpt" / "cut", tmp_path / "small.safetensors", which="last")
    run([*test, "small.safetensors", "--report_dir", "rounded"])
    assert psnr_of(tmp_path / "rounded")["value"] == pytest.approx(psnr_of(tmp_path / "tested")["value"], abs=0.1)


@pytest.mark.parametrize("arch", [name for name in zoo_tables() if name in list_models()])
def test_an_export_has_all_keys_of_the_published_network(arch):
    """At full size, without memory for the weights."""
    keys = zoo_tables()[arch][1]
    options = published_options(arch)
    options.pop("published_unused", None)
    with torch.device("meta"):
        network = build_model(arch, **options)
        config = load_settings(["--arch", arch, "--go_test"]).config
        config.MODEL |= {name: value for name, value in options.items() if name in config.MODEL}
        whole = whole_network(network, config).state_dict()
    assert {key: tuple(value.shape) for key, value in whole.items()} == {key: shape for key, (shape, _) in keys.items()}
