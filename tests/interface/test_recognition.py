"""Recognisers: they learn, go on exactly where they were cut, are tested on pairs and photos, and are handed on."""

import json
import os
import runpy
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import main as program
from dataset.charset import read_charset, reduce_text
from dataset.str_sets import StrWriter
from interface.checkpoint import CheckpointError, file_sha256, load_checkpoint, load_weights, read_weights
from interface.config import ROOT, ConfigError, load_settings
from interface.export import export_published
from interface.export_weights import export_weights
from interface.readers import build_readers
from interface.recognition import TextRecognition
from interface.systems import SYSTEMS, build_system
from interface.systems.recognizers import RecognizerSystem, Words
from interface.training import Training
from loss.ctc import ctc_loss
from model import list_models, model_spec
from model.recognizer.crnn import ALPHANUMERIC, CRNN
from tests.dataset.pictures import WORDS, encode, word_picture, write_pairs
from tests.interface.helpers import assert_identical, command_line

STATE = ("system", "optimizers", "step", "epoch", "position", "best", "rng")


class TinyReader(CRNN):
    """CRNN's interface; a convolution over columns, BatchNorm and dropout."""

    def __init__(self, *, charset: str = ALPHANUMERIC) -> None:
        nn.Module.__init__(self)
        self.charset, self.num_classes = charset, len(charset) + 1
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 96, (32, 24), stride=(1, 4), padding=(0, 12)), nn.BatchNorm2d(96), nn.ReLU(), nn.Dropout(0.05)
        )
        self.rnn = nn.Sequential(nn.Linear(96, 64), nn.ReLU(), nn.Linear(64, self.num_classes))


def tinyreader(**kwargs) -> TinyReader:
    return TinyReader(**kwargs)


@pytest.fixture
def reader(tmp_path, monkeypatch, tiny_dir):
    """Arguments of a training of the tiny recogniser: 12 pairs in batches of 2."""
    from interface import config
    from model import registry

    list_models()
    spec = registry.ModelSpec("tinyreader", tinyreader, "recognizer_ctc", "", task="recognition")
    monkeypatch.setitem(registry._SPECS, "tinyreader", spec)
    copied = shutil.copytree(ROOT / "configs", tmp_path / "configs")
    (copied / "tinyreader.yaml").write_text("interface: recognition\n")
    monkeypatch.setattr(config, "CONFIGS", copied)
    monkeypatch.chdir(tmp_path)
    data = ["--train_data_dir", tiny_dir / "train", "--val_data_dir", tiny_dir / "test" / "easy"]
    return [*"--arch tinyreader --batch_size 2 --device cpu --workers 0 --val_interval 2".split(), *data]


def task(arguments):
    return TextRecognition(load_settings([str(argument) for argument in arguments]))


def run(arguments):
    made = task(arguments)
    assert made.run() == 0
    return made


def state_of(folder, name="last.pth"):
    state = load_checkpoint(Path(folder) / name)
    return {key: state[key] for key in STATE}


def built(name="crnn", *more, training=False):
    config = load_settings(["--arch", name, "--train_data_dir", "x", *map(str, more)]).config
    return build_system(config, training=training)


# The recipe.


@pytest.mark.parametrize("name", list_models("recognition"))
def test_every_recogniser_has_a_recipe_that_learns_and_reads(name):
    """Pictures of both sizes at once, with gradients for all parameters; the weights go there and back."""
    assert issubclass(SYSTEMS[model_spec(name).system], RecognizerSystem)
    torch.manual_seed(0)
    system = built(name, training=True).train()
    words = Words((torch.rand(2, 3, 32, 128), torch.rand(1, 3, 16, 64)), ["Hotel", "24h", "book"])
    losses = system(words)
    assert losses.keys() <= system.weights.keys()
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in system.params("main"))
    assert len(system.eval().read(words.groups[0])) == 2
    other = built(name)
    other.load_trained_state(system.trained_state(), "own.pth")
    assert_identical(other.trained_state(), system.trained_state())


def test_the_loss_is_that_of_the_words_that_can_be_learned():
    system = built().eval()
    images = torch.rand(3, 3, 32, 128, generator=torch.Generator().manual_seed(0))
    labels = ["Hotel!", "?!", "a" * 14]  # the second is empty, the third needs 27 of 26 columns
    assert [system.unusable(label) for label in labels] == [
        "",
        "without a character of the charset",
        "too long for 26 columns",
    ]
    assert not system.unusable("ab" * 13)
    with torch.no_grad():
        loss = system(Words((images,), labels))["ctc"]
        logits = system.network(system.network.preprocess(images[:1])).transpose(0, 1)
        ids = torch.tensor([ALPHANUMERIC.index(character) + 1 for character in "hotel"])
        alone = ctc_loss(logits, ids, torch.tensor([5]))
        nothing = system(Words((images,), ["", "?", "!"]))["ctc"]
    torch.testing.assert_close(loss, alone)
    assert nothing.item() == 0


# Characters.


def test_charsets(tmp_path):
    file = tmp_path / "greek.txt"
    file.write_text("αβγ Δ\n", encoding="utf-8")
    assert [len(read_charset(name)) for name in ("36", "62", "94")] == [36, 62, 94]
    assert read_charset("36") == ALPHANUMERIC
    assert read_charset(str(file)) == "αβγ Δ"
    assert reduce_text("Hotel-7!", read_charset("36")) == "hotel7"
    assert reduce_text("Hotel-7!", read_charset("62")) == "Hotel7"
    assert reduce_text("Hotel-7!", read_charset("94")) == "Hotel-7!"
    assert reduce_text("Δα δ", "αβγ Δ") == "Δα "


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "36, 62, 94.*no such file"),
        (b"", "has 0 lines"),
        (b"\n", "single one"),
        (b"ab\ncd\n", "has 2 lines"),
        (b"abca", "'a' more than once"),
        ("ä".encode("latin-1"), "not UTF-8"),
    ],
)
def test_a_charset_that_is_none_is_explained(tmp_path, content, words):
    file = tmp_path / "set.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        read_charset(str(file))


def test_a_charset_of_ones_own_is_learned_and_must_stay(reader, tmp_path):
    file = tmp_path / "set.txt"
    file.write_text("hotelcafOPEN")
    made = run([*reader, "--steps", "2", "--charset", file, "--vis_dir", "a"])
    assert made.system.network.num_classes == 13
    file.write_text("hotelcafOPEZ")
    with pytest.raises(CheckpointError, match=r"reads the 12 characters 'hotelcafOPEN'.*--charset"):
        run([*reader, "--steps", "4", "--resume", made.folder])
    with pytest.raises(CheckpointError, match=r"MODEL\.charset"):
        task([*reader, "--resume", made.folder, "--charset", "62"])


def test_yaml_may_hold_the_charset_as_a_number(tmp_path):
    (tmp_path / "m.yaml").write_text("MODEL: {charset: 62}")
    assert (
        load_settings(["--arch", "crnn", "--go_test", "--config", str(tmp_path / "m.yaml")]).config.MODEL.charset
        == "62"
    )


# Training.


def test_eight_words_are_learned_by_heart(reader, tmp_path):
    data = write_pairs(tmp_path / "eight", range(8))
    arguments = [*reader, "--train_data_dir", data, "--val_data_dir", data, "--batch_size", "8", "--augment", "0"]
    made = run(
        [*arguments, "--steps", "300", "--learning_rate", "0.01", "--val_interval", "300", "--log_interval", "25"]
    )
    (result,) = made.results.values()
    assert {row: entry["correct"] for row, entry in result["words"].items()} == {"hr": 8, "lr": 8}
    assert result["characters"]["lr"]["value"] == 1
    lines = [json.loads(line) for line in (made.folder / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["event"] == "train"]
    assert losses[-1] < losses[0] / 10


@pytest.mark.parametrize("cut", [1, 2, 5])
@pytest.mark.parametrize("more", ["", "--accumulate 2 --lr_share 0.3"])
def test_cut_by_a_signal_and_resumed_is_bit_identical(reader, monkeypatch, cut, more):
    """With dropout, BatchNorm and augmentation; the cuts lie within, at and after an epoch."""
    reader = [*reader, *more.split(), "--steps", "7"]
    whole = run([*reader, "--vis_dir", "whole"])
    original = Training.after_step

    def after_step(self, bar):
        original(self, bar)
        if self.step == cut:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Training, "after_step", after_step)
    assert task([*reader, "--vis_dir", "cut"]).run() == 143
    monkeypatch.setattr(Training, "after_step", original)
    assert load_checkpoint(Path("ckpt/cut/last.pth"))["step"] == cut
    again = run(["--device", "cpu", "--resume", "ckpt/cut"])  # all else is that of the run
    assert_identical(state_of(whole.folder), state_of(again.folder))
    assert_identical(state_of(whole.folder, "best.pth"), state_of(again.folder, "best.pth"))


def test_words_are_seen_in_both_sizes_by_chance(reader):
    made = task([*reader, "--batch_size", "12", "--vis_dir", "a"])
    made.build_training()
    batch = next(iter(made.loader))
    sizes = []
    for step in range(8):
        made.step = step
        words = made.prepare(batch, 1)
        assert sorted(words.labels) == sorted(batch.labels)
        sizes.append([tuple(group.shape) for group in words.groups])
        assert {shape[2:] for shape in sizes[-1]} <= {(32, 128), (16, 64)}
        assert sum(shape[0] for shape in sizes[-1]) == 12
    assert len(set(map(str, sizes))) > 1
    for share, size in (("0", (32, 128)), ("1", (16, 64))):
        made.config.TRAIN.lr_share = float(share)
        (group,) = made.prepare(batch, 1).groups
        assert group.shape[2:] == size
    made.config.TRAIN.augment = 0.0
    torch.testing.assert_close(made.prepare(batch, 1).groups[0], batch.images_lr)
    made.run_log.close()


def test_labels_that_cannot_be_learned_are_counted_once(reader, tmp_path, caplog):
    file = tmp_path / "digits.txt"
    file.write_text("0123456789")
    run([*reader, "--steps", "4", "--charset", file])
    lines = [record.getMessage() for record in caplog.records if "left out of the loss" in record.getMessage()]
    digits = sum(not any(character.isdigit() for character in word) for word in WORDS[:12])
    assert lines == [f"{digits} words are left out of the loss, without a character of the charset, such as 'Hotel'"]
    file.write_text("äöü")
    with pytest.raises(ValueError, match="none of the 12 training labels"):
        run([*reader, "--charset", file, "--vis_dir", "none"])


def test_training_begins_with_given_weights(reader, tmp_path):
    torch.manual_seed(5)
    weights = TinyReader().state_dict()
    torch.save(weights, tmp_path / "start.pth")
    made = task([*reader, "--pretrained", tmp_path / "start.pth", "--vis_dir", "a"])
    made.build_training()
    made.run_log.close()
    assert_identical(dict(made.system.network.state_dict()), dict(weights))
    with pytest.raises(FileNotFoundError, match=r"none.pth \(--pretrained\)"):
        run([*reader, "--pretrained", "none.pth", "--vis_dir", "b"])


# Testing.


@pytest.fixture
def photos(tmp_path):
    with StrWriter(tmp_path / "photos" / "street") as writer:
        for number in range(5):
            writer.add_photo(image=encode(word_picture(number), "JPEG"), label=WORDS[number])
    return tmp_path / "photos"


def test_pairs_and_photos_are_read(reader, photos, tiny_dir, capsys):
    folder = run([*reader, "--steps", "2", "--vis_dir", "a"]).folder
    capsys.readouterr()
    sets = ["--test_data_dir", tiny_dir / "test" / "medium", photos]
    made = run(["--go_test", "--device", "cpu", "--resume", folder, *sets, "--report_dir", "r"])
    assert {name: list(result["words"]) for name, result in made.results.items()} == {
        "medium": ["hr", "lr"],
        "street": ["photo"],
    }
    report = json.loads(Path("r/report.json").read_text())
    assert report["system"]["step"] == load_checkpoint(folder / "best.pth")["step"]
    readings = report["sets"]["street"]["per_image"]
    assert readings["label"] == list(WORDS[:5])
    assert len(readings["readings"]["photo"]) == 5
    shown = capsys.readouterr().out
    assert "| street | photo | 5 |" in shown
    assert "| street | photo | 5 |" in Path("r/report.md").read_text()


def test_capitals_count_where_the_charset_has_them(reader):
    made = task([*reader, "--charset", "62"])
    from interface.reading import Examiner

    records = [
        {"index": 0, "label": "Hotel", "readings": {"hr": "hotel"}},
        {"index": 1, "label": "a-b", "readings": {"hr": "ab"}},
        {"index": 2, "label": "cafe", "readings": {"hr": "cave"}},
    ]
    result = Examiner(read_charset(made.config.MODEL.charset), torch.device("cpu")).summarise(records)
    assert result["words"]["hr"]["correct"] == 1
    assert result["alphanumeric"]["hr"]["value"] == pytest.approx(2 / 3)
    assert result["characters"]["hr"]["value"] == pytest.approx((4 / 5 + 1 + 3 / 4) / 3)
    plain = Examiner(ALPHANUMERIC, torch.device("cpu")).summarise(records)
    assert plain["words"]["hr"]["correct"] == 2
    assert "alphanumeric" not in plain


# Handing on.


def test_the_best_weights_serve_wherever_a_file_is_asked_for(tmp_path, tiny_dir, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = ["--train_data_dir", tiny_dir / "train", "--val_data_dir", tiny_dir / "test" / "easy"]
    made = run([*"--arch crnn --batch_size 2 --device cpu --workers 0 --steps 1 --vis_dir a --seed 7".split(), *data])
    file = made.folder / "crnn.safetensors"
    facts = json.loads(file.with_suffix(".json").read_text())
    assert facts["sha256"] == file_sha256(file)
    assert (facts["arch"], facts["charset"], facts["seed"]) == ("crnn", ALPHANUMERIC, 7)
    assert facts["data"] == [str(tiny_dir / "train")]
    assert "easy/words/hr" in facts["scores"]["test, %"]
    stored = load_file(file)
    assert stored["cnn.conv0.weight"].dtype == torch.float16
    assert stored["cnn.batchnorm2.running_var"].dtype == torch.float32  # it may be beyond the range of half precision

    network = CRNN()
    load_weights(network, read_weights(file, option="X", purpose="y", remedy="z"), file)
    torch.testing.assert_close(network.cnn.conv0.weight, made.system.network.cnn.conv0.weight.half().float())
    settings = load_settings(["--go_test", "--arch", "bicubic"])
    settings.config.TRAIN.VAL.crnn_pretrained = str(file)
    (judge,) = build_readers(["CRNN"], settings.config, torch.device("cpu"))
    assert len(judge.read(torch.rand(2, 3, 32, 128))) == 2
    settings = load_settings(["--arch", "rtsrn", "--train_data_dir", "x", "--tpg_pretrained", str(file), "--srb", "1"])
    student = build_system(settings.config, training=True).students[0]
    assert torch.equal(student.cnn.conv0.weight, network.cnn.conv0.weight)

    test = ["--go_test", "--arch", "crnn", "--device", "cpu", "--test_data_dir", tiny_dir / "test" / "easy"]
    assert list(run([*test, "--resume", file]).results) == ["easy"]
    with pytest.raises(CheckpointError, match="holds the network crnn; give --arch crnn"):
        program_of("--go_test", "--resume", file)


def program_of(*arguments):
    from interface.super_resolution import TextSR

    return TextSR(load_settings([str(argument) for argument in arguments]))


def test_weights_are_exported_once_and_only_from_recognisers(reader, tmp_path):
    folder = run([*reader, "--steps", "2", "--vis_dir", "a"]).folder
    facts = export_weights(folder, tmp_path / "out" / "mine.safetensors")
    assert json.loads(facts.read_text())["scores"]["at step"] == 2
    with pytest.raises(FileExistsError, match="nothing is overwritten"):
        export_weights(folder, tmp_path / "out" / "mine.safetensors")
    with pytest.raises(ValueError, match=r"written as \.safetensors"):
        export_weights(folder, tmp_path / "mine.pth")
    with pytest.raises(FileNotFoundError):
        export_weights(tmp_path / "nowhere", tmp_path / "other.safetensors")


# Options and bad input.


def test_programs_for_systems_refuse_recognisers(reader, tmp_path, capsys):
    folder = run([*reader, "--steps", "2"]).folder
    with pytest.raises(ValueError, match="is a run of the recogniser tinyreader"):
        export_published(folder, tmp_path / "out")
    script = runpy.run_path(str(ROOT / "scripts" / "str_benchmark.py"))
    assert script["main"](["--resume", str(folder), "--test_data_dir", str(tmp_path)]) == 2
    assert "tinyreader is a recogniser; test it with main.py --go_test" in capsys.readouterr().err


def test_options_are_those_of_the_task(reader):
    assert load_settings(["--arch", "crnn", "--train_data_dir", "x"]).interface == "recognition"
    assert load_settings(["--train_data_dir", "x"]).interface == "super_resolution"
    assert load_settings(["--arch", "CRNN", "--go_test"]).config.arch == "crnn"
    for wrong in (["--srb", "3"], ["--demo"], ["--no-mask"]):
        with pytest.raises(ConfigError, match=f"{wrong[0]} is no option of this network"):
            load_settings(["--arch", "crnn", *wrong])
    with pytest.raises(ConfigError, match="--charset is no option of this network"):
        load_settings(["--arch", "rtsrn", "--charset", "36"])
    with pytest.raises(ConfigError, match="rtsrn_release"):
        load_settings(["--arch", "crnn", "--train_data_dir", "x", "--schedule", "rtsrn_release"])


def test_a_run_says_what_it_is(reader):
    folder = run([*reader, "--steps", "2", "--vis_dir", "a"]).folder
    settings = load_settings(["--resume", str(folder)])
    assert (settings.interface, settings.config.arch) == ("recognition", "tinyreader")
    with pytest.raises(ValueError, match="give --arch tinyreader"):
        program_of("--arch", "rtsrn", "--resume", folder)
    (folder / "config.yaml").unlink()
    with pytest.raises(CheckpointError, match="give --arch tinyreader"):
        program_of("--go_test", "--resume", folder)
    assert task(["--go_test", "--arch", "tinyreader", "--resume", folder]).config.TRAIN.batch_size == 2


BAD = {
    "no data": (["--arch", "crnn"], "--train_data_dir"),
    "missing data": (["--arch", "crnn", "--train_data_dir", "none"], "none: nothing there"),
    "missing test set": (["--arch", "crnn", "--go_test", "--test_data_dir", "none"], "none: nothing there"),
    "missing test set of a training": (
        ["--arch", "crnn", "--train_data_dir", "{train}", "--batch_size", "2", "--test_data_dir", "none"],
        "none: nothing there",
    ),
    "no charset": (
        ["--arch", "crnn", "--train_data_dir", "{train}", "--batch_size", "2", "--charset", "abc"],
        "charset 'abc'",
    ),
    "random weights": (["--arch", "crnn", "--go_test", "--test_data_dir", "{train}"], "random weights"),
    "too much": (["--arch", "crnn", "--train_data_dir", "{train}", "--augment", "2"], "at most 1"),
    "too few": (["--arch", "crnn", "--train_data_dir", "{train}", "--batch_size", "99"], "lower --batch_size"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_explained(kind, tmp_path, tiny_dir, monkeypatch, capsys):
    arguments, words = BAD[kind]
    monkeypatch.chdir(tmp_path)
    filled = [text.format(train=tiny_dir / "train") for text in arguments]
    monkeypatch.setattr(sys, "argv", ["main.py", *filled, "--device", "cpu"])
    assert program.main() == 2
    shown = capsys.readouterr().err
    assert words in shown[shown.index("error: ") :]
    assert "Traceback" not in shown
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [(), ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")])
def test_the_program_as_typed(tmp_path, tiny_dir, launcher):
    data = ["--train_data_dir", tiny_dir / "train", "--test_data_dir", tiny_dir / "test" / "medium"]
    options = (
        "--arch crnn --batch_size 2 --device cpu --workers 0 --mixed_precision bf16 --vis_dir mine --steps".split()
    )
    done = command_line([*options, "2", *data], cwd=tmp_path, launcher=launcher)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("trained 2 steps") == 1
    assert done.stdout.count("| medium | LR | 6 |") == 1
    folder = tmp_path / "ckpt" / "mine"
    assert {"crnn.safetensors", "crnn.json", "best.pth", "last.pth", "config.yaml"} <= {
        p.name for p in folder.iterdir()
    }
    more = ["--device", "cpu", "--resume", "ckpt/mine", "--steps", "3"]
    done = command_line(more, cwd=tmp_path, launcher=launcher)
    assert done.returncode == 0, done.stderr[-3000:]
    assert load_checkpoint(folder / "last.pth")["step"] == 3
