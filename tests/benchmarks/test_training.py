"""The benchmark of training: what its sides have in common, what it counts, and what it reports."""

import json

import pytest
import torch

from benchmarks import building, counting, run, training
from benchmarks.measuring import Clock
from benchmarks.training import Way, loss_difference, needed, needed_by
from dataset.loading import LoaderSpec
from interface.config import load_settings
from tests.interface.helpers import SmallFocus, shrink_recognisers

CPU = torch.device("cpu")
SMALL = "--batch_size 2 --warmup 1 --repeats 1".split()


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Recognisers without weight, and RTSRN with one block."""
    shrink_recognisers(monkeypatch, tmp_path)
    monkeypatch.setattr(building, "build_model", lambda name: SmallFocus())
    monkeypatch.setattr(building, "LOSSES", [*building.LOSSES, "--srb", "1"])


def test_sides_that_compute_the_same_lose_the_same(small, tmp_path, capsys):
    out = tmp_path / "train.json"
    assert run.main(["train", *SMALL, "--mixed_precision", "no", "bf16", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    losses = result["losses"]
    names = [training.FIRST, training.OURS_FIRST, training.OURS_LATER, training.SHARED, training.BF16]
    assert list(losses) == list(result["seconds"]) == names
    assert all(len(values) == 2 for values in losses.values())
    same = [losses[name][0] for name in names[:3]]
    assert same == pytest.approx([same[0]] * 3, rel=1e-3)
    assert result["largest_loss_difference"] < 0.01
    assert losses[training.BF16][0] == pytest.approx(same[0], rel=0.05)
    assert losses[training.BF16][0] != losses[training.SHARED][0]
    flop = result["needed_flop"]
    assert flop[training.OURS_FIRST] > flop[training.OURS_LATER] > flop[training.SHARED] == flop[training.BF16] > 0
    assert flop[training.FIRST] == flop[training.OURS_LATER]
    assert result["precision"][training.BF16] == "bfloat16"
    assert result["seconds"][training.OURS_LATER]["teacher"] < result["seconds"][training.OURS_FIRST]["teacher"]
    assert all(0 < result["recurrent_seconds"][name] < result["seconds"][name]["step"] for name in names)
    assert result["host_waits"] == dict.fromkeys(names)
    printed = capsys.readouterr().out
    assert "| recurrent layers, forward |" in printed
    assert "| **step** |" in printed
    assert "Largest relative difference" in printed
    assert "efficiency" in printed


def test_needed_operations_by_hand(tmp_path):
    """SRCNN works on enlarged pictures of 32x128; a multiplication counts twice, learning three times."""
    building.render(tmp_path / "words", 2)
    config = building.training_config("srcnn", ["--batch_size", "2"], tmp_path, "published")
    pairs = LoaderSpec(mask=False).pairs([tmp_path / "words"])
    counts = needed(config, pairs)
    network = building.networks_of(building.build_system(config, training=False))[0]
    kernels = sum(module.weight.numel() for module in network.modules() if isinstance(module, torch.nn.Conv2d))
    assert counts["every step"] == 3 * 2 * kernels * 32 * 128
    assert counts["quiet"] == counts["kept"] == 0


def test_needed_work_of_ways():
    config = load_settings(["--arch", "rtsrn"]).config
    counts = {"every step": 100.0, "quiet": 10.0, "kept": 1.0}
    fresh, kept, shared = Way(kept=False), Way(kept=True), Way(kept=True, passes="shared")
    assert needed_by(training.FIRST, fresh, counts, config) == 110
    assert needed_by(training.OURS_FIRST, fresh, counts, config) == 111
    assert needed_by(training.OURS_LATER, kept, counts, config) == 110
    assert needed_by(training.SHARED, shared, counts, config) == 100
    turned = load_settings(["--arch", "rtsrn", "--rotate_train", "5"]).config
    assert needed_by(training.SHARED, shared, counts, turned) == 101


def test_difference_of_losses_by_hand():
    assert loss_difference([[2.0, 4.0], [2.0, 5.0], [1.0, 4.0]]) == 0.5
    assert loss_difference([[2.0]]) is None


def test_what_a_teacher_needs_counts_once(small, tmp_path):
    """Also where pictures are turned, and nothing can be kept."""
    building.render(tmp_path / "words", 2)
    counts = []
    for options in ([], ["--rotate_train", "5"]):
        config = building.training_config("tpgsr", ["--batch_size", "2", *options], tmp_path, "published")
        counts.append(needed(config, LoaderSpec().pairs([tmp_path / "words"])))
    assert counts[0]["kept"] == counts[1]["kept"] > 0
    assert counts[0]["every step"] == counts[1]["every step"]


@pytest.mark.parametrize("arch", ["srcnn", "tpgsr", "sgenet"])
def test_other_networks_train_without_a_straightforward_side(arch, small, capsys):
    assert run.main(["train", "--arch", arch, "--against", "none", *SMALL]) == 0
    printed = capsys.readouterr().out
    assert ("| student |" in printed) == (arch == "tpgsr")
    assert "straightforward" not in printed


def test_a_part_within_another_is_no_part_of_it():
    ticks = iter([0, 1, 5, 20, 100, 101, 102, 103])
    clock = Clock(CPU, lambda: next(ticks))
    with clock("outer"), clock("inner"):
        pass
    assert clock.take() == {"inner": 4, "outer": 16}
    with clock("outer", whole=True), clock("inner"):
        pass
    assert clock.take() == {"outer": 1}
    clock.running = False
    with clock("outer"):
        pass
    assert clock.take() == {}


def test_operations_and_parameters_by_hand():
    layer = torch.nn.LSTM(3, 4)
    words = torch.zeros(5, 2, 3)  # steps, words
    with torch.no_grad():
        assert counting.operations(lambda: layer(words)) == 2 * 5 * 2 * (16 * 3 + 16 * 4)
    linear, unused = torch.nn.Linear(3, 4), torch.nn.Linear(7, 8)
    both = torch.nn.ModuleList([linear, unused])
    assert counting.used_parameters(lambda: both[0](words)) == 16
    parts = counting.by_part(lambda clock: (clock.wrap(linear, "a")(words), linear(words)))
    assert parts == {"a": 2 * 10 * 12, "other": 2 * 10 * 12}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("train --batch_size 1", "'1': must be a whole number, 2 or more"),
        ("train --arch tsrn", "only rtsrn, c3stisr are known the straightforward way; add --against none"),
        ("train --arch bicubic --against none", "no parameters to train"),
        ("train --arch srcnn --against none --stu_iter 2", "has no stages"),
        ("train --mixed_precision fp16", "invalid choice: 'fp16'"),
    ],
)
def test_wrong_options_are_refused(flags, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        run.main(flags.split())
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_small_recogniser_for_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="--recogniser small: --arch srcnn trains without a text-focus loss"):
        building.training_config("srcnn", [], tmp_path, "small")


def test_five_steps_lose_the_same(small, tmp_path):
    """At a rate at which rounding does not decide where random weights go; directions of contours jump by rounding."""
    data = tmp_path / "words"
    building.render(data, 4)
    config = building.training_config("rtsrn", "--batch_size 4 --device cpu --workers 0".split(), tmp_path, "published")
    config.TRAIN.lr = 1e-4
    config.LOSS.lca = False
    sides = [
        training.build_side(name, way, config, data, CPU)
        for name, way in training.ways(run.command_line().parse_args(["train"]), config).items()
        if training.exact(way)
    ]
    assert len(sides) == 3
    for step in range(5):
        for side in sides:
            side.step(step)
    assert all(side.losses[-1] < 0.9 * side.losses[0] for side in sides)
    assert loss_difference([side.losses for side in sides]) < 1e-5
