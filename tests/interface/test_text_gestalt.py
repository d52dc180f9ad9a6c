"""Text Gestalt: its recipe, its loss with each way of training, and how to come by its recogniser."""

import pytest
import torch

from dataset.loading import LoaderSpec, collate
from interface import doctor_weights, starter
from interface.config import ConfigError, flatten, load_settings
from interface.super_resolution import TextSR
from interface.systems import SYSTEMS, base, build_system
from loss.stroke_focus import STROKE_KINDS
from model import list_models, model_spec
from model.recognizer.focus_transformer import FocusTransformer
from tests.interface.helpers import run

RECIPE = ["--config", "text_gestalt.yaml"]
# One network of each system, made small.
NETWORKS = {
    "plain": "--arch srcnn",
    "clues": "--arch rtsrn --srb 1 --no-triple_clues --tpg_pretrained random",
    "prior_guided": "--arch tpgsr --srb 1 --tpg_pretrained random --no-use_distill",
    "semantic": "--arch sgenet --srb 1 --hd_u 4 --tpg_pretrained random --no-text_focus",
    "semantic_attention": "--arch lemma --srb 1 --hd_u 4 --tpg_pretrained random --no-text_focus",
}


@pytest.fixture
def strokes(tmp_path):
    """Weights of a recogniser of strokes with few features."""
    torch.manual_seed(0)
    network = FocusTransformer(widths=(4, 4, 8, 8, 64), blocks=(1, 1), charset=STROKE_KINDS)
    torch.save(network.state_dict(), tmp_path / "strokes.pth")
    return str(tmp_path / "strokes.pth")


def test_the_recipe_is_the_published_one():
    config = load_settings(RECIPE).config
    assert (config.arch, config.MODEL.mask, config.MODEL.srb) == ("tsrn", False, 5)
    train = config.TRAIN
    assert (train.batch_size, train.lr, train.schedule, train.warmup, train.VAL.valInterval) == (
        16,
        1e-4,
        "constant",
        0.0,
        1000,
    )
    assert (train.optimizer, train.beta1, train.clip_grad) == ("Adam", 0.5, 0.25)
    on = {name for name, value in flatten(config.LOSS) if value is True}
    assert on - {"lca_gradient"} == {"stroke_focus"}  # that one says how, not whether
    assert (config.LOSS.pixel, config.LOSS.weights.mse, config.LOSS.weights.stroke) == ("mse", 100.0, 100.0 * 50.0)


@pytest.mark.parametrize(("flag", "way"), [("--stroke_lambda", r"LOSS\.weights\.stroke"), ("--exp_name", "--vis_dir")])
def test_published_flags_that_are_called_otherwise(flag, way):
    with pytest.raises(ConfigError, match=f"{flag} is not offered: use {way}"):
        load_settings([*RECIPE, flag, "50"])


def test_the_recipe_trains_and_resumes(strokes, tiny_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(TextSR, "test_best", lambda self: None)
    small = "--srb 1 --batch_size 2 --device cpu --workers 0 --val_interval 100".split()
    arguments = [*RECIPE, *small, "--stroke_focus_pretrained", strokes, "--train_data_dir", tiny_dir / "train"]
    arguments += ["--ckpt_dir", tmp_path, "--test_model", "", "--vis_dir", "a"]
    made = run([*arguments, "--steps", "1"])
    assert made.config.arch == "tsrn"
    losses = made.system(next(iter(made.loader)))
    assert losses.keys() == {"mse", "stroke"}
    assert all(value > 0 for value in losses.values())
    again = run(["--resume", made.folder, "--device", "cpu", "--steps", "2", "--train_data_dir", tiny_dir / "train"])
    assert again.step == 2
    assert again.system.losses.stroke_focus is not None


def test_every_system_is_here():
    assert set(NETWORKS) == {model_spec(name).system for name in list_models()} <= set(SYSTEMS)


@pytest.mark.parametrize("system", NETWORKS)
def test_strokes_teach_the_network_of_each_system(system, strokes, tiny_dir):
    arguments = [*NETWORKS[system].split(), "--stroke_loss", "--stroke_focus_pretrained", strokes]
    config = load_settings([*arguments, "--train_data_dir", "x"]).config
    torch.manual_seed(0)
    made = build_system(config, training=True).train()
    pairs = LoaderSpec(mask=config.MODEL.mask).pairs([tiny_dir / "train"])
    losses = made(collate(pairs.__getitems__([0, 1])))
    assert {"mse", "stroke"} <= losses.keys()
    losses["stroke"].backward()
    frozen = set(made.losses.stroke_focus.recognizer.parameters())
    assert not any(value.grad is not None for value in frozen)
    assert any(value.grad is not None and value.grad.any() for value in made.params("main"))
    assert not any("stroke" in key for key in made.trained_state())


def test_who_lacks_a_recogniser_of_strokes_is_told_how_to_train_one(tmp_path, monkeypatch):
    config = load_settings([*RECIPE, "--stroke_focus_pretrained", "none.pth"]).config
    monkeypatch.setattr(base, "ROOT", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"--arch focus_transformer_small --charset strokes .*without --stroke"):
        build_system(config, training=True)
    (tmp_path / "rec_pth").mkdir()
    (tmp_path / starter.STROKE_FOCUS).touch()
    with pytest.raises(FileNotFoundError, match=f"--stroke_focus_pretrained {starter.STROKE_FOCUS} takes the one that"):
        build_system(config, training=True)
    (file,) = [file for file in doctor_weights.WEIGHTS if file.option == "LOSS.stroke_focus_pretrained"]
    settings = load_settings(["--doctor", *RECIPE])
    assert doctor_weights.is_needed(file, settings)
    row = doctor_weights.weights_row(tmp_path / "none.pth", [file], settings)
    assert any(way.startswith("make it: python main.py --arch focus_transformer_small") for way in row.notes)
    assert row.problem is not None
    assert "leave --stroke_loss out" in row.problem.remedy
