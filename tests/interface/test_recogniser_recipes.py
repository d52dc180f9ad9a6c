"""Every recogniser of the registry, built small: it learns, resumes to the bit, its weights serve where they should.

What all runs of recognisers share is tested with one tiny network in `test_recognition.py`.
"""

import dataclasses
import json
import os
import runpy
import signal
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dataset.charset import read_charset
from interface import readers
from interface.checkpoint import CheckpointError, load_checkpoint
from interface.config import ROOT, load_settings
from interface.export_weights import export_weights, training_commands
from interface.recognition import TextRecognition
from interface.systems import base, build_system
from interface.systems.recognizers import Words, start_weights
from interface.training import Training
from loss.text_focus import focus_recognizer
from model import build_model, identify, list_models, registry
from model.blocks.stn import two_rows
from model.recognizer import aster, crnn, moran, svtr
from model.recognizer.aster import ASTER
from model.recognizer.focus_transformer import FocusTransformer
from model.recognizer.moran import MORAN
from model.recognizer.svtr import SVTR
from tests.dataset.pictures import write_pairs
from tests.interface.helpers import LIGHT, assert_identical

RECOGNISERS = list_models("recognition")
SPELLERS = ("aster", "moran", "focus_transformer")
STATE = ("system", "optimizers", "step", "epoch", "position", "best", "rng")


def small_convolutions() -> nn.Sequential:
    """CRNN's first layers: (N, 1, 32, 100) -> (N, 512, 1, 26)."""
    layers = nn.Sequential()
    for before, after, kernel, padding in ((1, 24, 3, 1), (24, 48, 3, 1), (48, 512, (8, 2), (0, 1))):
        layers += nn.Sequential(
            nn.Conv2d(before, after, kernel, padding=padding), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
        )
        if kernel == 3:
            layers.append(nn.MaxPool2d(2))
    return layers


class SmallHead(nn.Module):
    """The interface of `STNHead`: twenty control points, on two straight lines at first."""

    def __init__(self, in_channels: int, *, height: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.AdaptiveAvgPool2d((height // 8, 8)),
            nn.Flatten(),
            nn.Linear(in_channels * height, 32),
            nn.BatchNorm1d(32),
            nn.ReLU(),
        )
        self.stn_fc2 = nn.Linear(32, 40)
        nn.init.zeros_(self.stn_fc2.weight)
        lines = two_rows(20, margin_x=0.01, margin_y=0.01)
        self.stn_fc2.bias.data = torch.from_numpy(lines.astype("float32")).flatten()

    def forward(self, images: Tensor) -> Tensor:
        return self.stn_fc2(0.1 * self.features(images)).unflatten(1, (20, 2))


def small_aster(**kwargs) -> ASTER:
    # Of 8 channels, the kernels of PyTorch 2.x for CPUs crash going backward through a strided 1x1 convolution.
    sizes = {"channels": (16, 16, 32, 32, 64), "blocks": (1, 1, 1, 1, 1), "state_size": 64, "attention_size": 32}
    return ASTER(**{**sizes, **kwargs})


def small_moran(**kwargs) -> MORAN:
    sizes = {"channels": (8, 16, 32, 32, 64), "blocks": (1, 1, 1, 1, 1), "features": 64}
    return MORAN(**{**sizes, **kwargs})


def small_svtr(**kwargs) -> SVTR:
    return SVTR(**{"dropout": 0.02, "drop_path": 0.02, **kwargs})


def small_focus(**kwargs) -> FocusTransformer:
    return FocusTransformer(**{"widths": (8, 16, 24, 32, 64), "blocks": (1, 1), **kwargs})


BUILDERS = {
    "svtr": small_svtr,
    "aster": small_aster,
    "moran": small_moran,
    "focus_transformer": small_focus,
    "focus_transformer_small": small_focus,
}


@pytest.fixture
def small(monkeypatch):
    """The recognisers of the registry, with fewer features."""
    monkeypatch.setattr(crnn, "_convolutions", small_convolutions)
    for module in (aster, svtr):
        monkeypatch.setattr(module, "STNHead", SmallHead)
    monkeypatch.setattr(svtr, "STAGES", ((16, 1, 1), (32, 2, 1), (64, 4, 1)))
    monkeypatch.setattr(svtr, "LOCAL_BLOCKS", 2)
    for name, builder in BUILDERS.items():
        spec = dataclasses.replace(registry.model_spec(name), builder=builder)
        monkeypatch.setitem(registry._SPECS, name, spec)


@pytest.fixture
def words(tmp_path, monkeypatch):
    """Arguments of a training on so many words, which are the validation and the test set as well."""
    monkeypatch.chdir(tmp_path)

    def arguments(count: int) -> list:
        if not Path("words").exists():
            write_pairs(Path("words"), range(count))
        options = f"--device cpu --workers 0 --batch_size {count} --augment 0".split()
        return [*options, "--train_data_dir", "words", "--val_data_dir", "words"]

    return arguments


def task(arguments):
    return TextRecognition(load_settings([str(argument) for argument in arguments]))


def run(arguments):
    made = task(arguments)
    assert made.run() == 0
    return made


def built(name, *more, training=True):
    config = load_settings(["--arch", name, "--train_data_dir", "x", *map(str, more)]).config
    return build_system(config, training=training)


# The program, with each recogniser.

# Learning rate and steps in which a small one learns four words; CRNN's recipe does so in `test_recognition.py`.
BY_HEART = {
    "aster": (0.01, 60),
    "focus_transformer": (0.005, 80),
    "focus_transformer_small": (0.005, 80),
    "moran": (0.003, 160),
    "svtr": (0.004, 180),
}


@pytest.mark.parametrize("name", sorted({*RECOGNISERS} - {"crnn"}))
def test_four_words_are_learned_by_heart(name, small, words):
    rate, steps = BY_HEART[name]
    options = f"--arch {name} --learning_rate {rate} --steps {steps} --val_interval {steps} --log_interval 5".split()
    made = run([*words(4), *options])
    (result,) = made.results.values()
    assert {row: entry["correct"] for row, entry in result["words"].items()} == {"hr": 4, "lr": 4}
    lines = [json.loads(line) for line in (made.folder / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["event"] == "train"]
    assert losses[-1] < losses[0] / 5


@pytest.mark.parametrize("name", RECOGNISERS)
def test_cut_by_a_signal_and_resumed_is_bit_identical(name, small, words, monkeypatch):
    """With everything random that the recipe has: dropout, skipped blocks, pictures not rectified, mixed attention."""
    arguments = [*words(8), "--arch", name, "--steps", "5", "--batch_size", "4", "--augment", "0.5"]
    whole = run([*arguments, "--vis_dir", "whole"])
    original = Training.after_step

    def after_step(self, bar):
        original(self, bar)
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Training, "after_step", after_step)
    assert task([*arguments, "--vis_dir", "cut"]).run() == 143
    monkeypatch.setattr(Training, "after_step", original)
    again = run(["--device", "cpu", "--resume", "ckpt/cut"])
    one, other = ({key: load_checkpoint(made.folder / "last.pth")[key] for key in STATE} for made in (whole, again))
    assert_identical(one, other)


# Handing on.


@pytest.mark.parametrize("name", RECOGNISERS)
def test_weights_are_exported_and_tested_by_themselves(name, small, words):
    arguments = [*words(4), "--arch", name, "--steps", "1"]
    made = run([*arguments, "--vis_dir", "a"])
    file = made.folder / f"{name}.safetensors"
    state, stored = made.system.network.state_dict(), load_file(file)
    trained = {key for key, _ in made.system.network.named_parameters()}
    for key, value in stored.items():
        kept = state[key] if key not in trained else state[key].half()
        assert torch.equal(value, kept), key
    tested = run(["--go_test", *words(4)[:2], "--arch", name, "--resume", file, "--test_data_dir", "words"])
    assert list(tested.results) == ["words"]


@pytest.mark.parametrize(("name", "option"), [("aster", "rec_pretrained"), ("moran", "moran_pretrained")])
def test_a_trained_judge_judges(name, option, small, words, monkeypatch):
    made = run([*words(4), "--arch", name, "--steps", "1"])
    monkeypatch.setattr(readers, name.upper(), BUILDERS[name])
    settings = load_settings(["--go_test", "--arch", "bicubic", f"--{option}", f"{made.folder / name}.safetensors"])
    (judge,) = readers.build_readers([name.upper()], settings.config, torch.device("cpu"))
    assert len(judge.read(torch.rand(2, 3, 32, 128))) == 2


@pytest.mark.parametrize("name", ["focus_transformer", "focus_transformer_small"])
def test_a_trained_recogniser_says_where_to_look(name, small, words, monkeypatch):
    monkeypatch.setattr(base, "fold", lambda recognizer: None)  # weights are compared
    made = run([*words(4), "--arch", name, "--steps", "1"])
    settings = load_settings([*LIGHT, "--text_focus"])
    settings.config.LOSS.text_focus_pretrained = str(made.folder / f"{name}.safetensors")
    focus = build_system(settings.config, training=True).losses.text_focus.recognizer
    half = {key: value.half().float() for key, value in made.system.network.named_parameters()}
    assert_identical({key: value.data for key, value in focus.named_parameters()}, half)
    torch.testing.assert_close(focus.decoder.multihead.heads, made.system.network.decoder.multihead.heads)
    other = build_model("focus_transformer_small", charset=read_charset("62"))
    save_file(other.state_dict(), "other.safetensors")
    settings.config.LOSS.text_focus_pretrained = "other.safetensors"
    with pytest.raises(ValueError, match=r"other.safetensors reads 62 characters.*--charset 36"):
        build_system(settings.config, training=True)


def test_a_run_that_was_stopped_early_is_exported(small, words, tmp_path, capsys):
    arguments = [*words(4), *"--arch aster --val_interval 1 --vis_dir a".split()]
    folder = run([*arguments, "--steps", "1"]).folder
    run(["--device", "cpu", "--resume", folder, "--steps", "2"])
    script = runpy.run_path(str(ROOT / "scripts" / "export_weights.py"))
    out = tmp_path / "out" / "mine.safetensors"
    log = folder / "metrics.jsonl"
    log.write_text(log.read_text().replace("python ", "python main.py --once ") + '{"event": "tra')
    assert script["main"]([str(folder), str(out), "--which", "last"]) == 0
    assert "wrote" in capsys.readouterr().out
    facts = json.loads(out.with_suffix(".json").read_text())
    assert facts["step"] == 2
    assert facts["command"].startswith("python main.py --once ")  # that of the training
    assert len(facts["continued by"]) == 1
    assert (facts["arch"], len(facts["charset"])) == ("aster", 94)
    out.unlink()
    assert script["main"]([str(folder), str(out)]) == 2  # the json is still there
    assert "nothing is overwritten" in capsys.readouterr().err
    other = str(tmp_path / "other.safetensors")
    assert script["main"]([str(folder / "last.pth"), other, "--which", "best"]) == 2
    assert "--which best chooses" in capsys.readouterr().err
    log.unlink()
    assert training_commands(folder) == []
    assert json.loads(export_weights(folder, tmp_path / "b.safetensors").read_text())["command"] is None


# Recipes.


def test_pictures_of_both_sizes_are_brought_to_that_of_the_larger(small):
    system = built("aster")
    images = torch.rand(2, 3, 16, 64)
    x = system.prepared(Words((torch.rand(1, 3, 32, 128), images), ["a"] * 3))
    assert x.shape == (3, 3, 32, 128)
    wanted = F.interpolate(images, (32, 128), mode="bilinear") * 2 - 1
    torch.testing.assert_close(x[1:], wanted, atol=1e-6, rtol=0)
    assert system.prepared(Words((images,), ["a"] * 2)).shape == (2, 3, 16, 64)


@pytest.mark.parametrize("name", SPELLERS)
def test_what_is_predicted_after_its_own_reading_is_that_reading(name, small):
    """Teacher forcing and reading are the same computation, symbol by symbol; and nothing is random in evaluation."""
    system = built(name).eval()
    network = system.network
    x = network.preprocess(torch.rand(3, 3, 32, 128, generator=torch.Generator().manual_seed(1)))
    with torch.no_grad():
        if name == "aster":
            spelling = network.decoder.search(network.encode(x), beam_width=1)
            ids, chances = spelling.ids, spelling.log_probabilities
            found = network.predict(x, ids)
        elif name == "moran":
            logits = network(x, all_steps=True)
            backwards = network(x, direction="right_to_left", all_steps=True)
            found, mirrored = network.predict(x, logits.argmax(2), backwards.argmax(2))
            torch.testing.assert_close(found, logits)
            torch.testing.assert_close(mirrored, backwards)
            return
        else:
            ids, chances = network.spell(x)
            found = network.predict(x, ids)
    first_end = (ids == network.end).int().cumsum(1) - (ids == network.end).int()
    read = found.log_softmax(2).gather(2, ids.unsqueeze(2)).squeeze(2)
    counted = first_end == 0
    torch.testing.assert_close(read[counted], chances[counted], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "per"), [("aster", "words"), ("focus_transformer", "symbols")])
def test_the_loss_is_that_of_the_words_that_can_be_learned(name, per, small):
    system = built(name, "--charset", "36").eval()
    images = torch.rand(4, 3, 32, 128, generator=torch.Generator().manual_seed(0))
    labels = ["Hotel!", "?!", "a" * 100, "24h"]
    limit = system.network.reading_length - 1
    assert [system.unusable(label) for label in labels] == [
        "",
        "without a character of the charset",
        f"too long to be read with {limit} characters at most",
        "",
    ]
    assert not system.unusable("a" * limit)
    with torch.no_grad():
        loss = system(Words((images,), labels))["cross_entropy"]
        total, symbols = 0.0, 0
        for image, text in ((images[:1], "hotel"), (images[3:], "24h")):
            first = 0 if name == "aster" else 1
            ids = torch.tensor([[system.charset.index(c) + first for c in text] + [system.network.end]])
            logits = system.network.predict(system.network.preprocess(image), ids)
            total += F.cross_entropy(logits[0], ids[0], reduction="sum")
            symbols += len(text) + 1
        nothing = system(Words((images,), ["", "?", "!", "."]))["cross_entropy"]
    torch.testing.assert_close(loss, total / (2 if per == "words" else symbols), atol=1e-4, rtol=1e-4)
    assert nothing.item() == 0


def test_both_directions_count_alike(small):
    system = built("moran").eval()
    images = torch.rand(2, 3, 32, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        losses = system(Words((images,), ["Hotel", "24h"]))
        ids = [[system.charset.index(c) for c in text] for text in ("hotel", "24h")]
        ends = [[36], [36, 36, 36]]
        targets = torch.tensor([text + end for text, end in zip(ids, ends, strict=True)])
        backwards = torch.tensor([text[::-1] + end for text, end in zip(ids, ends, strict=True)])
        found = system.network.predict(system.network.preprocess(images), targets, backwards)
    counted = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    for value, logits, wanted in zip(losses.values(), found, (targets, backwards), strict=True):
        torch.testing.assert_close(value, 0.5 * F.cross_entropy(logits[counted], wanted[counted]))
    assert list(losses) == ["left_to_right", "right_to_left"]


def test_what_is_random_in_the_training_of_moran(small, monkeypatch):
    torch.manual_seed(0)
    network = small_moran().train()
    network.start_weights()
    x = torch.rand(6, 1, 32, 100)
    targets = torch.randint(36, (6, 4))
    torch.manual_seed(1)
    first = network.predict(x, targets, targets)[0]
    torch.manual_seed(2)
    assert not torch.equal(first, network.predict(x, targets, targets)[0])
    torch.manual_seed(1)
    assert torch.equal(first, network.predict(x, targets, targets)[0])
    monkeypatch.setattr(moran, "RECTIFIED_SHARE", 0.0)
    unchanged = network.MORN.rectify_some(x)
    torch.testing.assert_close(unchanged, network.MORN.shift(x, torch.zeros(6, 32, 100)))
    unchanged.sum().backward()  # of a batch without rectified pictures, too
    assert all(parameter.grad is not None for parameter in network.MORN.parameters())
    monkeypatch.setattr(moran, "RECTIFIED_SHARE", 1.0)
    rectified = network.MORN.rectify_some(x)
    torch.testing.assert_close(rectified, network.MORN.shift(x, network.MORN.shifts(x)))
    assert 0 < (rectified - unchanged).abs().mean() < 0.2  # small shifts at first


def test_fractional_pickup_mixes_two_neighbours():
    attention = torch.rand(3, 9, 1).softmax(1)
    torch.manual_seed(0)
    seen = set()
    for _ in range(60):
        mixed = moran.pick_up(attention)
        torch.testing.assert_close(mixed.sum(1), attention.sum(1))
        changed = (mixed != attention).any(0).flatten().nonzero().flatten().tolist()
        assert len(changed) == 2
        assert changed[1] == changed[0] + 1
        first = changed[0]
        share = (mixed - attention)[0, first] / (attention[0, first + 1] - attention[0, first])
        assert 0 <= share < 0.25
        seen.add(first)
    assert seen == set(range(8))


@pytest.mark.parametrize("name", ["aster", "svtr"])
def test_training_begins_with_straight_lines(name):
    """All pictures are first seen as they are: initialisation leaves the rectifier alone."""
    torch.manual_seed(0)
    network = build_model(name)
    start_weights(network)
    head = network.stn_head if name == "aster" else network.transform.stn_head
    points = head(torch.rand(2, 3, 32, 64))
    assert torch.equal(points[0], points[1])
    assert points[0, 0].tolist() == pytest.approx([0.01, 0.01])


def test_a_batch_of_one_word_is_refused_where_it_cannot_be_normalised(words):
    with pytest.raises(ValueError, match="--batch_size 2 or more"):
        built("svtr", "--batch_size", "1")
    built("svtr", "--batch_size", "1", training=False)
    built("moran", "--batch_size", "1")


# Sizes.


def test_the_small_focus_transformer_has_the_same_interface():
    published, small_one = build_model("focus_transformer"), build_model("focus_transformer_small")
    parameters = sum(value.numel() for value in small_one.parameters())
    assert parameters < 4e6
    assert sum(v.numel() * (2 if v.is_floating_point() else 8) for v in small_one.state_dict().values()) < 8e6
    x, ids = torch.rand(1, 1, 32, 128), torch.zeros(1, 3, dtype=torch.long)
    with torch.no_grad():
        logits, attention = small_one.eval()(x, ids)
    assert logits.shape == (1, 3, 37)
    assert attention.shape == (1, 4, 3, 8 * 32)
    for network, name in ((published, "focus_transformer"), (small_one, "focus_transformer_small")):
        assert identify(network.state_dict()) == name
        again = focus_recognizer(network.state_dict(), "x.pth")
        shapes = [{key: value.shape for key, value in one.state_dict().items()} for one in (again, network)]
        assert shapes[0] == shapes[1]
        assert again.decoder.multihead.heads == network.decoder.multihead.heads


def test_other_weights_are_no_focus_recogniser(tmp_path):
    settings = load_settings([*LIGHT, "--text_focus"])
    settings.config.LOSS.text_focus_pretrained = str(tmp_path / "crnn.pth")
    torch.save({"cnn.conv0.weight": torch.zeros(1)}, tmp_path / "crnn.pth")
    with pytest.raises(CheckpointError, match="does not fit FocusTransformer"):
        base.build_image_losses(settings.config, training=True)


@pytest.mark.parametrize("name", ["crnn", "aster", "moran", "svtr"])
def test_keys_tell_the_recogniser(name):
    assert identify(build_model(name).state_dict()) == name
