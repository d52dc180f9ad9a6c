"""Recognisers of strokes (`--charset strokes`): they learn to spell words, and serve the stroke-focus loss."""

import dataclasses
import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dataset.charset import read_charset, reduce_text
from dataset.rendering.fonts import Face
from interface import data, doctor_weights
from interface.checkpoint import CheckpointError, load_checkpoint
from interface.config import load_settings
from interface.reading import Examiner, table
from interface.recognition import TextRecognition
from interface.systems import base, build_system
from interface.systems.recognizers import STROKES_READ, Words
from interface.training import Training
from loss.stroke_focus import STROKE_KINDS, STROKES, encode_strokes
from loss.weighted_ce import IGNORED
from model import registry
from model.recognizer.focus_transformer import READ_LENGTH, FocusTransformer
from tests.dataset.pictures import WORDS, write_pairs
from tests.interface.helpers import assert_identical
from tests.interface.test_recognition import run, state_of, task

ARCH = "focus_transformer_small"
PLAIN = ["--arch", "srcnn", "--train_data_dir", "x"]


def smaller(**kwargs) -> FocusTransformer:
    return FocusTransformer(**{"widths": (8, 16, 24, 32, 64), "blocks": (1, 1), **kwargs})


@pytest.fixture
def spelling(tmp_path, monkeypatch):
    """Arguments of a training of a small recogniser of strokes: four words, which are validated on, too."""
    monkeypatch.setitem(registry._SPECS, ARCH, dataclasses.replace(registry.model_spec(ARCH), builder=smaller))
    monkeypatch.chdir(tmp_path)
    write_pairs(Path("words"), range(4))
    options = f"--arch {ARCH} --charset strokes --device cpu --workers 0 --batch_size 4 --augment 0".split()
    return [*options, "--train_data_dir", "words", "--val_data_dir", "words"]


def built(*more, arch=ARCH):
    config = load_settings(["--arch", arch, "--train_data_dir", "x", *map(str, more)]).config
    return build_system(config, training=True)


def settings_of(*flags, **files):
    settings = load_settings([*PLAIN, *flags])
    settings.config.LOSS.update({name: str(path) for name, path in files.items()})
    return settings.config


# How labels are spelled.


def test_the_charset_has_the_kinds_of_strokes():
    assert read_charset("strokes") == STROKE_KINDS
    assert max(map(len, STROKES.values())) * (READ_LENGTH - 1) < STROKES_READ  # every word that is read is spelled


@pytest.mark.parametrize("arch", ["crnn", ARCH])
def test_labels_are_spelled_in_strokes_case_kept(arch):
    system = built("--charset", "strokes", arch=arch)
    assert system.charset == "123456789"
    assert system.reduce("Al-1a") == "341" + "2" + "2" + "68"
    assert system.unusable("?!") == "without a character that has strokes"
    assert not system.unusable("R" * 8)  # 24 strokes, none of them twice in a row
    limit = {"crnn": "too long for 26 columns", ARCH: "too long to be read with 127 strokes at most"}
    assert system.unusable("M" * 32) == limit[arch]
    if arch == ARCH:
        assert not system.unusable("M" * 31)
        assert built(arch=arch).unusable("m" * 32) == "too long to be read with 31 characters at most"


def test_targets_are_those_of_the_stroke_focus_loss():
    system = built("--charset", "strokes")
    labels = ["Al-1", "8", "Hotel"]
    ids, lengths = system.spelled(labels)
    wanted = encode_strokes(labels)
    assert lengths.tolist() == wanted.lengths.tolist()
    targets = system.padded(ids)
    assert torch.equal(targets, wanted.targets.where(wanted.targets != IGNORED, 0))
    images = torch.rand(3, 3, 32, 128, generator=torch.Generator().manual_seed(0))
    system.eval()
    with torch.no_grad():
        loss = system(Words((images,), labels))["cross_entropy"]
        logits, _ = system.network(system.network.preprocess(images), wanted.inputs)
        by_hand = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), wanted.targets.flatten(), ignore_index=IGNORED
        )
    torch.testing.assert_close(loss, by_hand)


def test_a_word_is_read_right_if_all_its_strokes_are():
    records = [
        {"index": 0, "label": "Al", "readings": {"hr": "3412"}},
        {"index": 1, "label": "al", "readings": {"hr": "3412"}},  # 682: 68 for 34 and one more
        {"index": 2, "label": "1-", "readings": {"hr": "2"}},
    ]
    system = built("--charset", "strokes")
    result = Examiner(system.charset, torch.device("cpu"), spell=system.reduce).summarise(records)
    assert result["words"]["hr"]["correct"] == 2
    assert result["characters"]["hr"]["value"] == pytest.approx((1 + 1 / 4 + 1) / 3)
    assert result["per_image"]["readings"]["hr"] == ["3412", "3412", "2"]
    shown = table({"set": {**result, "images": 3}}, system.symbols)
    assert "strokes, %" in shown
    assert "characters" not in shown
    assert reduce_text("a1", system.charset) == "1"  # what the nine digits would be as characters


# Training.


def test_four_words_are_learned_by_heart_and_the_weights_serve_the_loss(spelling, capsys, monkeypatch):
    monkeypatch.setattr(base, "fold", lambda recognizer: None)  # weights are compared
    made = run(
        [*spelling, *"--learning_rate 0.005 --steps 100 --val_interval 100 --log_interval 5 --vis_dir a".split()]
    )
    (result,) = made.results.values()
    assert {row: entry["correct"] for row, entry in result["words"].items()} == {"hr": 4, "lr": 4}
    assert result["per_image"]["readings"]["hr"] == [made.system.reduce(word) for word in WORDS[:4]]
    assert "strokes, %" in capsys.readouterr().out
    (report,) = made.folder.glob("report*/report.json")
    assert json.loads(report.read_text())["protocol"]["compared as"] == "the 9 kinds of strokes 123456789"

    file = made.folder / f"{ARCH}.safetensors"
    facts = json.loads(file.with_suffix(".json").read_text())
    assert (facts["arch"], facts["charset"], facts["config"]["MODEL"]["charset"]) == (ARCH, "strokes", "strokes")
    config = settings_of("--stroke_loss", stroke_focus_pretrained=file)
    frozen = build_system(config, training=True).losses.stroke_focus.recognizer
    half = {key: value.half().float() for key, value in made.system.network.named_parameters()}
    assert_identical({key: value.data for key, value in frozen.named_parameters()}, half)
    assert not any(value.requires_grad for value in frozen.parameters())

    config = settings_of("--text_focus", text_focus_pretrained=file)
    with pytest.raises(ValueError, match=r"reads 9 characters.*--charset 36.*--stroke_focus_pretrained"):
        build_system(config, training=True)
    tested = run(["--go_test", "--device", "cpu", "--resume", made.folder, "--test_data_dir", "words"])
    assert tested.results["words"]["words"]["hr"]["correct"] == 4
    alone = ["--go_test", "--device", "cpu", "--arch", ARCH, "--resume", file, "--test_data_dir", "words"]
    assert run([*alone, "--charset", "strokes"]).results["words"]["words"]["hr"]["correct"] == 4
    with pytest.raises(CheckpointError, match=r"--charset"):
        run(alone)


def test_weights_of_characters_are_no_recogniser_of_strokes(spelling, tmp_path):
    torch.save(smaller().state_dict(), tmp_path / "characters.pth")
    config = settings_of("--stroke_loss", stroke_focus_pretrained=tmp_path / "characters.pth")
    with pytest.raises(ValueError, match=r"tells 36 symbols apart.*--text_focus_pretrained.*--charset strokes"):
        build_system(config, training=True)
    torch.save({"module.generator_word_with_upperword.proj.bias": torch.zeros(10)}, tmp_path / "strokes.pth")
    config = settings_of("--text_focus", text_focus_pretrained=tmp_path / "strokes.pth")
    with pytest.raises(ValueError, match=r"reads 9 characters.*--stroke_focus_pretrained"):
        build_system(config, training=True)


def test_runs_of_strokes_and_of_characters_are_told_apart(spelling, tmp_path):
    (tmp_path / "digits.txt").write_text(STROKE_KINDS)
    made = run([*spelling, "--steps", "1", "--vis_dir", "a"])
    for other in ("36", tmp_path / "digits.txt"):
        with pytest.raises(CheckpointError, match=r"made with MODEL\.charset = strokes"):
            task([*spelling, "--resume", made.folder, "--charset", other])
    with pytest.raises(ValueError, match="use 36, 62, 94, strokes, or name a text file"):
        run([*spelling, "--charset", "stroke", "--vis_dir", "b"])


def test_a_training_may_begin_with_weights_of_characters(spelling, tmp_path, caplog):
    torch.manual_seed(7)
    characters = smaller()
    torch.save(characters.state_dict(), tmp_path / "characters.pth")
    network = built("--charset", "strokes", "--pretrained", tmp_path / "characters.pth").network
    known = {"embedding_word.lut.weight", "generator_word.proj.weight", "generator_word.proj.bias"}
    for key, value in network.state_dict().items():
        assert (key in known) != torch.equal(value, characters.state_dict()[key]), key
    assert "what knows symbols begins anew: embedding_word.lut.weight, generator_word.proj" in caplog.text
    path = tmp_path / "characters.pth"
    arguments = ["--arch", ARCH, "--charset", "strokes", "--pretrained", str(path), "--train_data_dir", "words"]
    (file,) = [file for file in doctor_weights.WEIGHTS if file.option == "MODEL.pretrained"]
    assert not doctor_weights.misfit(path, file, load_settings(arguments))
    for wrong in ({"widths": (8, 16, 24, 40, 64)}, {"widths": (8, 16, 24, 32, 48)}):
        torch.save(smaller(heads=1, **wrong).state_dict(), path)
        with pytest.raises(CheckpointError, match="of another shape"):
            built("--charset", "strokes", "--pretrained", path)
        assert "of another shape" in doctor_weights.misfit(path, file, load_settings(arguments))


@pytest.mark.parametrize("rendered", [False, True])
def test_cut_by_a_signal_and_resumed_is_bit_identical(spelling, monkeypatch, rendered):
    """On pairs, and on pairs beside words that are rendered meanwhile."""
    arguments = [*spelling, *"--steps 5 --batch_size 2 --augment 0.5 --val_interval 2".split()]
    if rendered:
        monkeypatch.setattr(data, "find_faces", lambda folders: (Face("Aileron", "pillow"),))
        arguments += ["--rendered", "4"]
    whole = run([*arguments, "--vis_dir", "whole"])
    original = Training.after_step

    def after_step(self, bar):
        original(self, bar)
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Training, "after_step", after_step)
    assert task([*arguments, "--vis_dir", "cut"]).run() == 143
    monkeypatch.setattr(Training, "after_step", original)
    assert load_checkpoint(Path("ckpt/cut/last.pth"))["step"] == 3
    again = run(["--device", "cpu", "--resume", "ckpt/cut"])
    assert again.recognizer.strokes
    assert_identical(state_of(whole.folder), state_of(again.folder))
    stored = [load_file(made.folder / f"{ARCH}.safetensors") for made in (whole, again)]
    assert_identical(*stored)


def test_rendered_words_alone_teach_strokes(spelling, monkeypatch):
    monkeypatch.setattr(data, "find_faces", lambda folders: (Face("Aileron", "pillow"),))
    options = f"--arch {ARCH} --charset strokes --rendered 4 --batch_size 2 --device cpu --workers 0 --steps 2".split()
    Path("few.yaml").write_text("TRAIN: {VAL: {rendered: 2}}\n")
    made = TextRecognition(load_settings([*options, "--config", "few.yaml", "--vis_dir", "a"]))
    assert made.run() == 0
    lines = [json.loads(line) for line in (made.folder / "metrics.jsonl").read_text().splitlines()]
    (validation,) = [line for line in lines if line["event"] == "validation"]
    assert {"rendered/words/hr", "rendered/characters/lr"} <= set(validation)
