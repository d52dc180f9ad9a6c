"""Recognisers trained on words that are rendered meanwhile: alone, beside LMDBs, in other alphabets, and cut short."""

# ruff: noqa: RUF001 - letters that look like Latin ones are the point

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import matplotlib
import pytest
import torch

import main as program
from dataset.rendered import VALIDATION_SEED, RenderedWords
from dataset.rendering.fonts import Face
from dataset.synthetic import label_of
from interface import data, doctor
from interface.checkpoint import load_checkpoint
from interface.config import ROOT, ConfigError, load_settings
from interface.meter import Meter
from interface.training import Training
from model import list_models
from tests.dataset.pictures import WORDS
from tests.interface.helpers import assert_identical, command_line
from tests.interface.test_recognition import run, state_of, task, tinyreader

# On one core torch advises against two workers; here they are the point.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
FEW = (Face("Aileron", "pillow"), Face("DejaVuSans", str(FONTS / "DejaVuSans.ttf")))


@pytest.fixture
def rendering(tmp_path, monkeypatch):
    """Arguments of a training of the tiny recogniser on eight words an epoch, drawn with two faces."""
    from interface import config
    from model import registry

    list_models()
    spec = registry.ModelSpec("tinyreader", tinyreader, "recognizer_ctc", "", task="recognition")
    monkeypatch.setitem(registry._SPECS, "tinyreader", spec)
    copied = shutil.copytree(ROOT / "configs", tmp_path / "configs")
    (copied / "tinyreader.yaml").write_text("interface: recognition\nTRAIN: {VAL: {rendered: 3}}\n")
    monkeypatch.setattr(config, "CONFIGS", copied)
    monkeypatch.setattr(data, "find_faces", lambda folders: FEW)
    monkeypatch.chdir(tmp_path)
    return "--arch tinyreader --batch_size 2 --device cpu --workers 0 --rendered 8".split()


def events(folder, kind):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == kind]


def labels_of(made, epoch):
    """Labels and numbers of one epoch, as the training gets them."""
    made.loader.batches.seek(epoch)
    return [pair for batch in made.loader for pair in zip(batch.indices.tolist(), batch.labels, strict=True)]


# Training.


def test_no_other_data_are_needed(rendering, caplog):
    made = run(
        [*rendering, "--epochs", "2", "--val_interval", "4", "--log_interval", "2", "--vis_dir", "a", "--seed", "6"]
    )
    assert made.step == 8
    first, second = (sorted(labels_of(made, epoch)) for epoch in (0, 1))
    assert first == [(number, label_of(6, number)) for number in range(8)]
    assert second == [(number, label_of(6, number)) for number in range(8, 16)]
    (split,) = made.splits
    assert (split.name, split.path, len(split.loader.pairs)) == ("rendered", "rendered words, held out", 3)
    assert list(split.loader.pairs.labels()) == [label_of(VALIDATION_SEED, number) for number in range(3)]
    assert "8 pairs, 8 of them rendered anew in each epoch, validation on rendered (3)" in caplog.text
    assert {"rendered/words/hr", "rendered/words/lr"} <= set(events(made.folder, "validation")[0])
    facts = json.loads((made.folder / "tinyreader.json").read_text())
    assert (facts["data"], facts["rendered"]) == ([], {"an epoch": 8, "word_list": "", "font_dirs": []})


def test_validation_is_the_same_whatever_the_seed(rendering):
    rules = []
    for seed in ("0", "7"):
        made = task([*rendering, "--seed", seed, "--vis_dir", seed])
        made.build_training()
        made.run_log.close()
        rules.append(made.selection_rule())
    assert rules[0] == rules[1]
    assert "rendered:" in rules[0]


def test_rendered_words_go_beside_lmdbs(rendering, tiny_dir, monkeypatch):
    rendering += ["--train_data_dir", tiny_dir / "train"]
    made = run([*rendering, "--steps", "3", "--val_interval", "3", "--vis_dir", "a"])
    kept = 11  # of twelve photos one is held out
    assert [(split.name, len(split.loader.pairs)) for split in made.splits] == [("held_out", 1), ("rendered", 3)]
    epochs = [dict(labels_of(made, epoch)) for epoch in (0, 1)]
    photos = [{label for number, label in epoch.items() if number < kept} for epoch in epochs]
    drawn = [{label for number, label in epoch.items() if number >= kept} for epoch in epochs]
    assert photos[0] | photos[1] <= set(WORDS[:12])
    assert drawn[1] <= {label_of(0, number) for number in range(8, 16)}
    assert len(epochs[0]) == len(epochs[1]) == 18  # of 19, in twos
    (line,) = events(made.folder, "validation")
    assert {"held_out/words/hr", "rendered/words/lr"} <= set(line)
    made = task([*rendering, "--val_data_dir", tiny_dir / "test" / "easy", "--vis_dir", "b"])
    made.build_training()
    made.run_log.close()
    assert [split.name for split in made.splits] == ["easy"]


def test_lmdbs_alone_are_read_as_before(rendering, tiny_dir, monkeypatch):
    """No face is looked for, pictures are kept, and the numbers of an epoch are those of the data set."""
    monkeypatch.setattr(data, "find_faces", None)
    made = task([*rendering, "--rendered", "0", "--train_data_dir", tiny_dir / "train", "--vis_dir", "a"])
    made.build_training()
    made.run_log.close()
    assert made.loader.pairs.cache
    assert made.loader.batches.endless == 0
    assert sorted(number for number, _ in labels_of(made, 4))[-1] < 11
    assert [split.name for split in made.splits] == ["held_out"]


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("cut", [1, 4, 6])
def test_cut_by_a_signal_and_resumed_is_bit_identical(rendering, tiny_dir, monkeypatch, cut, workers):
    """Nine steps an epoch of photos and rendered words together; resumed with another number of workers."""
    rendering += ["--train_data_dir", tiny_dir / "train", "--steps", "11", "--val_interval", "5"]
    whole = run([*rendering, "--vis_dir", "whole"])
    original = Training.after_step

    def after_step(self, bar):
        original(self, bar)
        if self.step == cut:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Training, "after_step", after_step)
    assert task([*rendering, "--vis_dir", "cut", "--workers", workers]).run() == 143
    monkeypatch.setattr(Training, "after_step", original)
    again = run(["--device", "cpu", "--resume", "ckpt/cut", "--workers", "1"])
    assert again.step == whole.step == 11
    assert_identical(state_of(whole.folder), state_of(again.folder))
    assert_identical(state_of(whole.folder, "best.pth"), state_of(again.folder, "best.pth"))


def test_loader_processes_end_with_the_run(rendering):
    made = run([*rendering, "--workers", "2", "--steps", "2", "--vis_dir", "a"])
    for loader in (made.loader, made.splits[0].loader):
        assert loader._loader.num_workers == 2
        assert loader._loader._iterator is None


# Words and fonts of one's own.


@pytest.fixture
def greek(tmp_path):
    """A list of Greek words, one of which no face has, and a charset for the others."""
    (tmp_path / "words.txt").write_text("ταξί\t3\nΑθήνα\n\ue123\nοδός\n", encoding="utf-8")
    (tmp_path / "letters.txt").write_text("αδήθίνξοότςΑ\n", encoding="utf-8")
    return ["--word_list", "words.txt", "--charset", "letters.txt"]


def test_another_language_is_learned(rendering, greek, caplog):
    made = run([*rendering, *greek, "--steps", "4", "--vis_dir", "a"])
    assert made.system.network.num_classes == 13
    assert {label for _, label in labels_of(made, 2)} <= {"ταξί", "Αθήνα", "οδός"}
    assert "1 of 4 words are left out, no face can draw them; the first is '\\ue123'" in caplog.text
    assert "left out of the loss" not in caplog.text
    facts = json.loads((made.folder / "tinyreader.json").read_text())
    assert (facts["charset"], facts["rendered"]["word_list"]) == ("αδήθίνξοότςΑ", "words.txt")


def test_a_list_that_was_changed_makes_another_validation(rendering, greek, caplog):
    folder = run([*rendering, *greek, "--steps", "2", "--vis_dir", "a"]).folder
    Path("words.txt").write_text("ταξί\n", encoding="utf-8")
    run(["--device", "cpu", "--resume", folder, "--steps", "3"])
    assert "validation has changed, so the best model is chosen anew" in caplog.text


def test_words_that_cannot_be_read_are_counted(rendering, greek, caplog):
    Path("letters.txt").write_text("οδός\n".replace("ό", ""), encoding="utf-8")
    Path("words.txt").write_text("οδός\nξένη\n", encoding="utf-8")
    made = task([*rendering, *greek, "--rendered", "60", "--vis_dir", "a"])
    made.build_training()
    made.run_log.close()
    count = sum(label_of(0, number, made.loader.pairs.stream._labels) == "ξένη" for number in range(60))
    assert 10 < count < 50
    assert (
        f"{count} words of 60 looked at are left out of the loss, without a character of the charset, such as 'ξένη'"
        in caplog.text
    )
    Path("letters.txt").write_text("xyz\n", encoding="utf-8")
    with pytest.raises(ValueError, match="none of the 60 training labels"):
        task([*rendering, *greek, "--rendered", "60", "--vis_dir", "b"]).build_training()


# Options.

BAD = {
    "no data": (["--rendered", "0"], "--train_data_dir, or words to render with --rendered"),
    "negative": (["--rendered", "-4"], "--rendered: TRAIN.rendered is -4; it must be at least 0"),
    "no number": (["--rendered", "many"], "a whole number was expected"),
    "too many": (["--rendered", "1e12"], "at most 100000000"),
    "fewer than a step": (["--rendered", "1"], "1 training samples are fewer than one step takes"),
    "no list": (["--word_list", "none.txt"], "word list none.txt: no such file"),
    "nothing to draw": (["--word_list", "arrows.txt"], "none of its 1 words can be drawn"),
    "a list for nothing": (
        ["--rendered", "0", "--train_data_dir", "x", "--word_list", "a"],
        "--word_list is for words",
    ),
    "fonts for nothing": (["--rendered", "0", "--train_data_dir", "x", "--font_dirs", "a"], "--font_dirs is for words"),
    "no validation": (["--config", "mine.yaml"], "TRAIN.VAL.rendered is 0; it must be at least 1"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_explained(kind, rendering, tmp_path, monkeypatch, capsys):
    arguments, words = BAD[kind]
    (tmp_path / "arrows.txt").write_text("\ue123\n", encoding="utf-8")
    (tmp_path / "mine.yaml").write_text("TRAIN: {VAL: {rendered: 0}}\n")
    monkeypatch.setattr(sys, "argv", ["main.py", *rendering, *arguments])
    assert program.main() == 2
    shown = capsys.readouterr().err
    assert words in shown[shown.index("error: ") :]
    assert "Traceback" not in shown
    assert not (tmp_path / "ckpt").exists()


def test_fonts_must_be_there(tmp_path):
    settings = load_settings(["--arch", "crnn", "--rendered", "9", "--font_dirs", str(tmp_path)])
    with pytest.raises(ValueError, match=f"fonts {tmp_path}: no .ttf"):
        data.rendered_words(settings.config)


def test_super_resolution_has_no_such_option():
    with pytest.raises(ConfigError, match="--rendered is no option of this network"):
        load_settings(["--arch", "rtsrn", "--rendered", "4", "--train_data_dir", "x"])
    with pytest.raises(ConfigError, match=r"with --train_data_dir$"):
        load_settings(["--arch", "rtsrn", "--train_data_dir", ""])


# The account of waiting.


class Log:
    """What a meter writes."""

    def __init__(self):
        self.events, self.numbers = [], {}

    def event(self, kind, step, values):
        self.events.append(values)

    def scalars(self, step, values):
        self.numbers |= values

    def note(self, **values):
        pass


def test_waiting_is_counted_in_the_time_of_training(monkeypatch, caplog):
    """Each item takes 3 s and its step 1 s; two items, and 2 s until it is known that there are no more."""
    now = [0.0]
    monkeypatch.setattr("interface.meter.time.perf_counter", lambda: now[0])

    def slow():
        for item in "ab":
            now[0] += 3
            yield item
        now[0] += 2

    with caplog.at_level("INFO"):
        meter, log = Meter({"x": 1.0}, 4, 0), Log()
        for _ in meter.waiting_for(slow()):
            meter.add({"main/x": torch.tensor(1.0)})
            now[0] += 1
        now[0] += 5  # a validation
        meter.leave_out(5)
        meter.write(log, log, step=2, total=2, epoch=0, rate=0.1)
        meter.add({"main/x": torch.tensor(1.0)})
        now[0] += 1
        meter.write(log, log, step=3, total=3, epoch=0, rate=0.1)
    assert [line["waiting_for_data"] for line in log.events] == [8 / 10, 0]
    assert [line["images_per_second"] for line in log.events] == [8 / 10, 4]
    assert log.numbers["train/waiting_for_data"] == 0
    assert "images/s=0.8 waiting_for_data=80.0%" in caplog.text


def test_an_error_while_waiting_is_passed_on():
    def broken():
        yield 1
        raise OSError("lost")

    with pytest.raises(OSError, match="lost"):
        list(Meter({}, 1, 0).waiting_for(broken()))


# The doctor.


def rows(*arguments):
    sections = doctor.examine(load_settings(["--doctor", "--arch", "crnn", "--device", "cpu", *map(str, arguments)]))
    return next(section.rows for section in sections if section.title == "Data sets")


def problems(*arguments):
    return [row.problem.what for row in rows(*arguments) if row.problem]


def test_the_doctor_asks_for_no_lmdb_where_words_are_rendered(rendering, tiny_dir, tmp_path):
    found = [row.cells for row in rows("--rendered", "1000") if row.cells[0] != "test"]
    assert found == [
        ("train", "rendered", "ok", "English words", "1,000 an epoch", "2 faces"),
        ("validation", "2,000 rendered words, held out"),
    ]
    assert problems("--rendered", "1000") == []
    assert problems() == ["train: no data set is named (--train_data_dir)"]
    both = [row.cells for row in rows("--rendered", "60", "--train_data_dir", tiny_dir / "train")]
    assert [cells[1] for cells in both if cells[0] == "validation"] == [
        "1% of the training data",
        "2,000 rendered words, held out",
    ]
    assert problems("--rendered", "60", "--train_data_dir", tiny_dir / "train") == []
    assert problems("--rendered", "40") == [
        "40 training samples, 0 of them held out, for a step of --batch_size 64, --accumulate 1"
    ]
    (tmp_path / "words.txt").write_text("ταξί\nοδός\n", encoding="utf-8")
    assert rows("--rendered", "99", "--word_list", "words.txt")[0].cells[3] == "2 words of words.txt"
    assert "none.txt: no such file" in problems("--rendered", "99", "--word_list", "none.txt")[0]


# As a user types it.


@pytest.mark.slow
def test_the_program_as_typed(tmp_path):
    (tmp_path / "few.yaml").write_text("TRAIN: {VAL: {rendered: 3}}\n")
    options = (
        "--arch crnn --rendered 4 --batch_size 2 --device cpu --workers 2 --mixed_precision bf16 --config few.yaml"
    )
    done = command_line([*options.split(), "--steps", "3", "--vis_dir", "mine"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "trained 3 steps" in done.stderr
    assert "Traceback" not in done.stderr
    assert "waiting_for_data=" in done.stderr
    assert load_checkpoint(tmp_path / "ckpt" / "mine" / "last.pth")["epoch"] == 1
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    done = command_line([*options.split(), "--steps", "2", "--vis_dir", "two"], cwd=tmp_path, launcher=launcher)
    assert done.returncode == 0, done.stderr[-3000:]
    done = command_line(["--doctor", "--arch", "crnn", "--device", "cpu", "--rendered", "1000"], cwd=tmp_path)
    assert done.returncode == 0, done.stdout


def test_a_stream_is_of_the_seed_of_the_run():
    config = load_settings(["--arch", "crnn", "--rendered", "9", "--seed", "11"]).config
    stream = data.rendered_words(config)
    assert isinstance(stream, RenderedWords)
    assert (len(stream), stream.seed, stream.words) == (9, 11, None)
    assert len(stream.fonts) > 10
