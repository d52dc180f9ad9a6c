import functools
import json
import logging
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
import yaml

from interface import base
from interface.checkpoint import load_checkpoint
from interface.compiling import compile_networks
from interface.config import changed_options, flatten, load_settings, plain
from interface.data import training_data
from interface.late_checks import LateChecks
from interface.run_folder import free_folder
from interface.state import StopSignals, restore_rng, rng_state, seed_everything
from interface.super_resolution import TextSR
from tests.interface.helpers import LIGHT, TINY, assert_identical, register_tiny, run, task, write_damaged

# What a checkpoint must bring back: everything but where it was made.
STATE = ("system", "optimizers", "step", "epoch", "position", "best", "rng")


@pytest.fixture
def tiny(tmp_path, monkeypatch, tiny_dir):
    """Arguments of a training with the tiny network: 11 pairs in batches of 2, one held out, no reader."""
    register_tiny(monkeypatch, tmp_path)
    data = ["--train_data_dir", tiny_dir / "train", "--test_data_dir", tiny_dir / "test" / "easy"]
    return [*TINY, *data, "--ckpt_dir", tmp_path / "ckpt", "--test_model", "", "--val_interval", "2"]


def state_of(folder, name="last.pth"):
    state = load_checkpoint(Path(folder) / name)
    return {key: state[key] for key in STATE}


def events(folder, kind=None):
    lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if kind in (None, line["event"])]


def at_step(monkeypatch, step, action):
    """Do something once, after that step."""
    original = TextSR.after_step

    def after_step(self, bar):
        original(self, bar)
        if self.step == step:
            monkeypatch.setattr(TextSR, "after_step", original)
            action(self)

    monkeypatch.setattr(TextSR, "after_step", after_step)


def stop_at(monkeypatch, step, number=signal.SIGTERM):
    at_step(monkeypatch, step, lambda _: os.kill(os.getpid(), number))


# Cut and resumed.


@pytest.mark.parametrize("cut", [1, 3, 5, 7])
@pytest.mark.parametrize("more", ["", "--accumulate 2", "--no-cache --workers 1"])
def test_cut_by_a_signal_and_resumed_is_bit_identical(tiny, tmp_path, monkeypatch, cut, more):
    """Eight steps of five (or two) an epoch, with dropout and BatchNorm; the cuts lie within, at and after an epoch."""
    tiny = [*tiny, *more.split(), "--steps", "8"]
    whole = run([*tiny, "--vis_dir", "whole"])
    stop_at(monkeypatch, cut)
    assert task([*tiny, "--vis_dir", "cut"]).run() == 143
    assert load_checkpoint(tmp_path / "ckpt" / "cut" / "last.pth")["step"] == cut
    again = run([*tiny, "--resume", tmp_path / "ckpt" / "cut"])
    assert again.folder == tmp_path / "ckpt" / "cut"
    assert again.step == whole.step == 8
    assert_identical(state_of(whole.folder), state_of(again.folder))
    assert_identical(state_of(whole.folder, "best.pth"), state_of(again.folder, "best.pth"))


def test_resumed_again_and_again_is_bit_identical(tiny, tmp_path, monkeypatch):
    whole = run([*tiny, "--steps", "7", "--vis_dir", "whole"])
    folder, arguments = tmp_path / "ckpt" / "cut", ["--vis_dir", "cut"]
    for cut in range(1, 7):
        stop_at(monkeypatch, cut)
        assert task([*tiny, "--steps", "7", *arguments]).run() == 143
        arguments = ["--resume", folder]
    run([*tiny, "--steps", "7", "--resume", folder])
    assert_identical(state_of(whole.folder), state_of(folder))


def test_continued_from_a_copied_checkpoint_is_bit_identical(tiny, tmp_path, monkeypatch):
    """As after kill -9: what was done since the last save is done again."""
    copy = tmp_path / "ckpt" / "copy"

    def keep(task):
        copy.mkdir()
        for name in ("last.pth", "best.pth", "config.yaml"):
            shutil.copy(task.folder / name, copy)

    at_step(monkeypatch, 4, keep)
    whole = run([*tiny, "--steps", "8", "--save_interval", "3", "--vis_dir", "whole"])
    assert load_checkpoint(copy / "last.pth")["step"] == 3
    again = run([*tiny, "--steps", "8", "--resume", copy])
    assert again.folder == copy
    assert_identical(state_of(whole.folder), state_of(copy))


def test_the_real_network_with_dropout_resumes_bit_identical(tmp_path, monkeypatch, tiny_dir):
    arguments = [*LIGHT, "--triple_clues", "--STN", "--use_label", "--gradient", "--steps", "3"]
    arguments += ["--train_data_dir", tiny_dir / "train", "--test_data_dir", tmp_path / "none", "--ckpt_dir", tmp_path]
    arguments += ["--test_model", "", "--val_interval", "100", "--learning_rate", "1e-4"]
    monkeypatch.setattr(TextSR, "test_best", lambda self: None)
    whole = run([*arguments, "--vis_dir", "whole"])
    dropouts = [module for module in whole.system.modules() if isinstance(module, torch.nn.Dropout) and module.p > 0]
    assert dropouts
    stop_at(monkeypatch, 2)
    assert task([*arguments, "--vis_dir", "cut"]).run() == 143
    run([*arguments, "--resume", tmp_path / "cut"])
    assert_identical(state_of(tmp_path / "whole"), state_of(tmp_path / "cut"))


def test_the_same_seed_gives_the_same_run_and_another_one_does_not(tiny):
    one, two = (run([*tiny, "--steps", "3", "--vis_dir", name]) for name in ("one", "two"))
    other = run([*tiny, "--steps", "3", "--vis_dir", "other", "--seed", "1"])
    assert_identical(state_of(one.folder), state_of(two.folder))
    weights = [run.system.state_dict()["network.tail.0.weight"] for run in (one, other)]
    assert not torch.equal(*weights)


def test_what_does_not_matter_changes_nothing(tiny, tmp_path):
    """Saving, logging, validating, decoding and picture options leave the weights as they are."""
    plain = run([*tiny, "--steps", "4", "--vis_dir", "plain"])
    busy = "--save_interval 1 --log_interval 1 --val_interval 1 --no-cache --workers 1 --cases 1".split()
    other = run([*tiny, "--steps", "4", "--vis_dir", "busy", *busy])
    one, two = state_of(plain.folder), state_of(other.folder)
    for key in ("system", "optimizers", "step", "epoch", "position"):
        assert_identical(one[key], two[key])


def test_other_options_than_saved_are_named(tiny, tmp_path, caplog):
    run([*tiny, "--steps", "2", "--vis_dir", "a"])
    with caplog.at_level(logging.WARNING):
        made = run([*tiny, "--steps", "3", "--resume", tmp_path / "ckpt" / "a", "--learning_rate", "0.5"])
    assert "continued with other options than saved" in caplog.text
    assert "TRAIN.lr 0.001 -> 0.5" in caplog.text
    assert made.step == 3


def test_an_option_that_there_was_not_yet_had_the_value_that_it_has_by_default():
    new = load_settings(["--arch", "tsrn", "--seed", "3"]).config
    old = plain(new)
    del old["TRAIN"]["lr_scaling"], old["TRAIN"]["lr_images"], old["TRAIN"]["seed"]  # lr_images: of the recipe
    assert changed_options(old, new) == ["TRAIN.seed 0 -> 3"]


def test_the_rate_follows_the_images_of_a_step(tiny):
    made = task([*tiny, "--lr_scaling", "sqrt", "--accumulate", "6"])  # 12 pictures a step instead of 48
    assert made.learning_rate(1, 48, 8) == pytest.approx(0.5 * made.config.TRAIN.lr)


def test_compiled_networks_learn_the_same_and_have_the_same_keys(tiny, monkeypatch):
    monkeypatch.setattr(base, "compile_networks", functools.partial(compile_networks, backend="eager"))
    plain, translated = (run([*tiny, "--steps", "3", "--vis_dir", name, *more]) for name, more in
                         (("plain", []), ("compiled", ["--compile"])))  # fmt: skip
    assert translated.system.network._compiled_call_impl is not None
    assert plain.system.network._compiled_call_impl is None
    assert_identical(state_of(plain.folder), state_of(translated.folder))


def test_a_finished_run_can_be_resumed_and_lengthened(tiny, tmp_path):
    folder = run([*tiny, "--steps", "2", "--vis_dir", "a"]).folder
    before = state_of(folder)
    run([*tiny, "--steps", "2", "--resume", folder])
    assert_identical(state_of(folder)["system"], before["system"])
    made = run([*tiny, "--steps", "0", "--epochs", "2", "--resume", folder])
    assert made.step == 10


# Signals.


@pytest.mark.parametrize("number", StopSignals.WATCHED)
def test_a_signal_saves_and_ends_in_good_order(tiny, tmp_path, monkeypatch, caplog, number):
    code = {signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    before = {number: signal.getsignal(number) for number in StopSignals.WATCHED}
    stop_at(monkeypatch, 3, number)
    with caplog.at_level(logging.WARNING):
        assert task([*tiny, "--steps", "8", "--vis_dir", "cut"]).run() == code
    folder = tmp_path / "ckpt" / "cut"
    assert f"{signal.Signals(number).name} at step 3: saved; go on with --resume {folder}" in caplog.text
    assert load_checkpoint(folder / "last.pth")["step"] == 3
    assert {number: signal.getsignal(number) for number in StopSignals.WATCHED} == before
    assert "at step 3: saved" in (folder / "log.txt").read_text()


def test_a_second_interrupt_does_not_wait():
    with pytest.raises(KeyboardInterrupt), StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)


def test_random_state_round_trip():
    import random

    import numpy as np

    seed_everything(3)
    state = rng_state()
    first = (torch.rand(3).tolist(), np.random.random(3).tolist(), random.random(), random.gauss(0, 1))
    restore_rng(state)
    assert (torch.rand(3).tolist(), np.random.random(3).tolist(), random.random(), random.gauss(0, 1)) == first


# A loss that is not finite.


def poison(monkeypatch, step):
    original = TextSR.train_step

    def train_step(self, batches):
        if self.step == step:
            with torch.no_grad():
                next(self.system.parameters()).fill_(float("nan"))
        original(self, batches)

    monkeypatch.setattr(TextSR, "train_step", train_step)


@pytest.fixture(params=[False, True], ids=["at once", "late, as on a GPU"])
def late(request, monkeypatch):
    monkeypatch.setattr(base, "LateChecks", functools.partial(LateChecks, late=request.param))


@pytest.mark.usefixtures("late")
def test_a_loss_that_is_not_finite_ends_the_run_and_spares_the_checkpoint(tiny, tmp_path, monkeypatch, caplog):
    whole = run([*tiny, "--steps", "6", "--vis_dir", "whole", "--gradient"])
    with monkeypatch.context() as patch:
        poison(patch, 3)
        made = task([*tiny, "--steps", "6", "--vis_dir", "bad", "--gradient", "--save_interval", "1"])
        assert made.run() not in (0, 2, 130, 143)
    folder = tmp_path / "ckpt" / "bad"
    logged = (folder / "log.txt").read_text()
    assert "step 3, phase main: the loss is nan" in logged
    assert "mse=nan gradient=nan" in logged
    assert str(folder / "last.pth") in logged
    assert logged.count("sample 0000000") == 2  # each picture of the batch by its number
    assert load_checkpoint(folder / "last.pth")["step"] == 3
    run([*tiny, "--steps", "6", "--resume", folder])  # without the poison it goes on as if nothing had been
    assert_identical(state_of(whole.folder), state_of(folder))


@pytest.mark.usefixtures("late")
def test_a_gradient_that_is_not_finite_never_reaches_a_checkpoint(tiny, tmp_path, monkeypatch):
    """The loss of a step can be finite and its gradient not, as that of a square root at 0."""
    from interface.systems.plain import Plain

    original = Plain.forward

    def forward(self, batch, phase="main"):
        losses = original(self, batch, phase)
        weight = next(self.parameters())
        losses["mse"] = losses["mse"] + (weight.sum() * 0).sqrt()  # 0, with the gradient inf * 0
        return losses

    monkeypatch.setattr(Plain, "forward", forward)
    made = task([*tiny, "--steps", "4", "--vis_dir", "bad", "--save_interval", "1"])
    assert made.run() not in (0, 2)
    state = load_checkpoint(tmp_path / "ckpt" / "bad" / "last.pth")
    assert all(torch.isfinite(value).all() for value in state["system"].values())
    assert "grad" in (tmp_path / "ckpt" / "bad" / "log.txt").read_text()


# The run folder.


def test_a_run_leaves_what_it_promises(tiny, tmp_path):
    made = run([*tiny, "--steps", "6", "--vis_dir", "a", "--log_interval", "2"])
    folder = made.folder
    assert folder == tmp_path / "ckpt" / "a"
    names = {path.name for path in folder.iterdir()}
    assert {"config.yaml", "last.pth", "best.pth", "metrics.jsonl", "log.txt", "tensorboard"} <= names
    assert not [name for name in names if name.endswith(".tmp")]
    assert list((folder / "tensorboard").glob("events.out.tfevents.*"))
    assert [event["event"] for event in events(folder)].count("start") == 1
    assert [event["step"] for event in events(folder, "train")] == [2, 4, 6]
    assert [event["step"] for event in events(folder, "validation")] == [2, 4, 6]
    assert len(events(folder, "test")) == 1
    line = events(folder, "train")[0]
    assert line["main/mse"] == pytest.approx(100 * line["unweighted"]["main/mse"])
    assert line["loss"] == pytest.approx(line["main/mse"])
    assert line["lr"] == pytest.approx(1e-3)
    assert {"epoch", "time", "images_per_second", "main/grad_norm"} <= set(line)
    logged = (folder / "log.txt").read_text()
    assert "step 6/6" in logged
    assert "trained 6 steps" in logged
    saved = load_settings(["--config", str(folder / "config.yaml")])
    expected = yaml.safe_load((folder / "config.yaml").read_text())
    assert dict(flatten(saved.config)) == dict(flatten(expected))
    best = load_checkpoint(folder / "best.pth")
    assert best["best"]["step"] == best["step"]
    assert made.best == best["best"]
    expected["TRAIN"]["VAL"]["vis_dir"] = "a"  # the file leaves the name out, so that it makes another run
    assert best["config"] == expected


def test_logs_dir_takes_the_tensorboard_files(tiny, tmp_path):
    made = run([*tiny, "--steps", "1", "--vis_dir", "a", "--logs_dir", tmp_path / "logs"])
    assert list((tmp_path / "logs" / "a").glob("events.out.tfevents.*"))
    assert not (made.folder / "tensorboard").exists()


def test_a_folder_that_holds_a_run_is_refused_and_left_alone(tiny, tmp_path):
    folder = run([*tiny, "--steps", "1", "--vis_dir", "a"]).folder
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(
        FileExistsError, match=r"already holds a run \(.*last.pth.*\); continue .* --resume .*--vis_dir"
    ):
        task([*tiny, "--steps", "1", "--vis_dir", "a"]).run()
    with pytest.raises(FileExistsError, match="already holds a run"):
        other = run([*tiny, "--steps", "1", "--vis_dir", "b"]).folder
        task([*tiny, "--steps", "2", "--vis_dir", "a", "--resume", other]).run()
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_folder_with_other_files_of_the_users_is_not_overwritten(tiny, tmp_path):
    folder = tmp_path / "ckpt" / "a"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("# mine")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"config\.yaml"):
        task([*tiny, "--steps", "1", "--vis_dir", "a"]).run()
    assert (folder / "config.yaml").read_text() == "# mine"
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "notes.txt"]


def test_a_resumed_run_under_a_new_name_leaves_the_old_one_alone(tiny, tmp_path):
    old = run([*tiny, "--steps", "2", "--vis_dir", "old"]).folder
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    new = run([*tiny, "--steps", "4", "--vis_dir", "new", "--resume", old]).folder
    assert new == tmp_path / "ckpt" / "new"
    assert {path: path.read_bytes() for path in old.rglob("*") if path.is_file()} == before
    (report,) = new.glob("report-*/report.json")
    weights = Path(json.loads(report.read_text())["system"]["weights"])
    assert weights.is_file()  # a report never names a file that is not there
    assert weights.parent == new


def test_reports_never_overwrite_each_other(tiny, tmp_path):
    target = tmp_path / "mine"
    folder = run([*tiny, "--steps", "1", "--vis_dir", "a", "--report_dir", target]).folder
    first = (target / "report.json").read_bytes()
    run([*tiny, "--go_test", "--resume", folder, "--report_dir", target])
    assert (target / "report.json").read_bytes() == first
    assert (tmp_path / "mine-2" / "report.json").is_file()


def test_free_folder(tmp_path):
    assert free_folder(tmp_path / "a") == tmp_path / "a"
    assert free_folder(tmp_path / "a") == tmp_path / "a"  # it is still empty
    (tmp_path / "a" / "x").touch()
    assert free_folder(tmp_path / "a") == tmp_path / "a-2"


# Length, selection, test.


def test_epochs_and_steps_set_the_end(tiny):
    assert run([*tiny, "--epochs", "2", "--vis_dir", "a"]).step == 10  # 11 pairs in batches of 2
    assert run([*tiny, "--epochs", "2", "--steps", "3", "--vis_dir", "b"]).step == 3
    made = run([*tiny, "--epochs", "1", "--steps", "12", "--vis_dir", "c"])  # steps count, whatever the epochs
    assert (made.step, made.epoch) == (12, 2)
    assert run([*tiny, "--epochs", "3", "--accumulate", "2", "--vis_dir", "d"]).step == 6


def test_fewer_steps_than_were_taken_are_refused_before_anything_is_written(tiny, tmp_path):
    whole = run([*tiny, "--steps", "4", "--vis_dir", "whole"])
    before = {path: path.read_bytes() for path in whole.folder.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"4 steps are taken already, more than the 2 asked for"):
        task([*tiny, "--resume", whole.folder, "--steps", "2"]).build_training()
    assert {path: path.read_bytes() for path in whole.folder.rglob("*") if path.is_file()} == before


def test_a_finished_run_under_a_new_name_reports_what_it_has(tiny, tmp_path):
    run([*tiny, "--steps", "2", "--vis_dir", "whole"])
    other = run([*tiny, "--resume", tmp_path / "ckpt" / "whole", "--steps", "2", "--vis_dir", "other"])
    (report,) = other.folder.glob("report-*/report.json")
    assert json.loads(report.read_text())["system"]["weights"].endswith("last.pth")


def test_reports_go_to_the_run_that_its_own_configuration_names(tiny, tmp_path, tiny_dir):
    """The file has an empty `vis_dir` if the name was chosen by the date."""
    trained = run([*tiny, "--steps", "1"])
    tested = ["--go_test", "--resume", trained.folder, "--config", trained.folder / "config.yaml"]
    before = set(trained.folder.glob("report-*"))
    run([*tested, "--device", "cpu"])
    assert len(set(trained.folder.glob("report-*")) - before) == 1
    assert not list((tmp_path / "ckpt").glob("report-*"))


def test_accumulation_is_the_mean_of_its_batches(tiny, tmp_path):
    """Without dropout and BatchNorm two batches of two make the step of one of four."""
    from torch import nn

    results = []
    for name, size, accumulate in (("one", "4", "1"), ("two", "2", "2")):
        made = task([*tiny, "--batch_size", size, "--accumulate", accumulate, "--steps", "2", "--vis_dir", name])
        original = made.build_system

        def build_system(*, training, made=made, original=original):
            original(training=training)
            made.system.network.body[1], made.system.network.body[3] = nn.Identity(), nn.Identity()

        made.build_system = build_system
        assert made.run() == 0
        results.append(load_checkpoint(made.folder / "last.pth")["system"])
    for key, value in results[0].items():
        assert torch.allclose(value, results[1][key], atol=2e-6), key


def test_more_accumulation_than_batches_is_refused(tiny):
    with pytest.raises(ValueError, match="--accumulate 6 is more than the 5 batches of an epoch"):
        task([*tiny, "--accumulate", "6"]).build_training()


def test_validation_is_held_out_of_training_and_touches_no_test_set(tiny, tmp_path):
    again = task([*tiny, "--steps", "5", "--vis_dir", "b", "--test_data_dir", tmp_path / "not_even_there"])
    again.build_training()
    (held,) = again.splits
    assert held.name == "held_out"
    kept, out = set(again.loader.pairs.selection.tolist()), set(held.loader.pairs.selection.tolist())
    assert not kept & out
    assert kept | out == set(range(12))
    again.run_log.close()


def test_the_end_of_an_epoch_is_a_time_to_validate(tiny):
    folder = run([*tiny, "--steps", "12", "--vis_dir", "a", "--val_interval", "0"]).folder
    assert [event["step"] for event in events(folder, "validation")] == [5, 10, 12]


def test_named_validation_sets_are_used_and_the_training_set_is_whole(tiny, tiny_dir):
    made = task([*tiny, "--val_data_dir", tiny_dir / "test" / "medium"])
    loader, splits = training_data(made.config, made.spec)
    assert len(loader.pairs) == 12
    assert [split.name for split in splits] == ["medium"]


def test_selection_on_the_test_sets_is_said(tiny, tmp_path):
    made = run([*tiny, "--steps", "2", "--vis_dir", "a", "--select_on", "test"])
    assert "best.pth is chosen on the test sets" in (made.folder / "log.txt").read_text()
    (report,) = made.folder.glob("report-*/report.json")
    found = json.loads(report.read_text())
    assert found["selection"]["on"] == "test"
    assert "optimistic" in found["selection"]["note"]
    assert "optimistic" in report.with_suffix(".md").read_text()
    # A later test of the same weights says it, too, whatever its own options are.
    run([*tiny, "--go_test", "--resume", made.folder, "--report_dir", tmp_path / "later", "--select_on", "validation"])
    assert json.loads((tmp_path / "later" / "report.json").read_text())["selection"]["on"] == "test"


def test_test_sets_as_validation_sets_are_selection_on_test(tiny, tiny_dir):
    made = run([*tiny, "--steps", "2", "--vis_dir", "a", "--val_data_dir", tiny_dir / "test" / "easy"])
    (report,) = made.folder.glob("report-*/report.json")
    assert json.loads(report.read_text())["selection"]["on"] == "test"


def test_a_continued_run_reports_how_its_own_weights_were_chosen(tiny, tmp_path):
    folder = run([*tiny, "--steps", "2", "--vis_dir", "a"]).folder
    run([*tiny, "--steps", "4", "--resume", folder, "--select_on", "test", "--report_dir", tmp_path / "later"])
    assert json.loads((tmp_path / "later" / "report.json").read_text())["selection"]["on"] == "test"


def test_the_report_after_training_is_that_of_the_best_weights(tiny, tmp_path):
    made = run([*tiny, "--steps", "6", "--vis_dir", "a", "--learning_rate", "0.05"])
    (report,) = made.folder.glob("report-*/report.json")
    found = json.loads(report.read_text())
    assert found["system"]["weights"] == str(made.folder / "best.pth")
    assert found["system"]["step"] == load_checkpoint(made.folder / "best.pth")["step"]
    assert found["selection"]["on"] == "validation"
    assert list(found["splits"]) == ["easy"]
    assert found["splits"]["easy"]["images"] == 6
    assert found["system"]["arch"] == "tinynet"
    run([*tiny, "--go_test", "--resume", made.folder, "--report_dir", tmp_path / "again"])
    again = json.loads((tmp_path / "again" / "report.json").read_text())
    assert again["splits"] == found["splits"]
    assert again["system"] == found["system"]


def test_absent_default_test_sets_are_mentioned_and_named_ones_are_an_error(tiny, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    without = [argument for k, argument in enumerate(tiny) if "--test_data_dir" not in tiny[max(0, k - 1) : k + 1]]
    with caplog.at_level(logging.INFO):
        run([*without, "--steps", "1", "--vis_dir", "a"])
    assert "no test sets at ./textzoom/test/easy; to test: --go_test --resume" in caplog.text
    with pytest.raises(ValueError, match="nothing there"):
        task([*without, "--steps", "1", "--vis_dir", "b", "--test_data_dir", tmp_path / "gone"]).run()


def test_a_weight_of_nought_switches_a_term_off(tiny, tmp_path):
    (tmp_path / "mine.yaml").write_text("LOSS: {gradient: true, weights: {gradient: 0}}")
    folder = run([*tiny, "--steps", "2", "--vis_dir", "a", "--config", tmp_path / "mine.yaml"]).folder
    assert events(folder, "train")[-1]["main/gradient"] == 0


# Bad data.


def test_training_leaves_damaged_samples_out_and_names_them(tiny, tmp_path):
    path = write_damaged(tmp_path / "damaged", 12, bad=[1, 6, 7])
    arguments = [*tiny, "--train_data_dir", path, "--epochs", "2", "--vis_dir", "a", "--val_data_dir"]
    made = run([*arguments, tiny[tiny.index("--test_data_dir") + 1]])
    logged = (made.folder / "log.txt").read_text()
    for number in (2, 7, 8):
        assert logged.count(f"{path} sample {number:09d}") == 1
    assert made.step == made.total_steps


def test_a_set_without_one_good_sample_ends_training(tiny, tmp_path, tiny_dir):
    path = write_damaged(tmp_path / "damaged", 4, bad=[0, 1, 2, 3])
    with pytest.raises(ValueError, match="cannot be read"):
        task([*tiny, "--train_data_dir", path, "--val_data_dir", tiny_dir / "test" / "easy", "--vis_dir", "a"]).run()


def test_data_cannot_bring_numbers_that_are_not_finite(tiny, tmp_path):
    """Pictures are 8-bit planes over 255, whatever their files hold."""
    path = write_damaged(tmp_path / "damaged", 6, bad=[2])
    made = task([*tiny, "--train_data_dir", path])
    loader, _ = training_data(made.config, made.spec)
    for batch in loader:
        for images in (batch.images_lr, batch.images_hr):
            assert torch.isfinite(images).all()
            assert 0 <= images.min() <= images.max() <= 1
            assert torch.equal((images * 255).round() / 255, images)


def test_too_few_samples_for_a_step_are_refused(tiny):
    with pytest.raises(ValueError, match="lower --batch_size"):
        task([*tiny, "--batch_size", "12"]).run()


def test_a_network_without_parameters_is_not_trained(tmp_path, tiny_dir):
    arguments = ["--arch", "bicubic", "--train_data_dir", tiny_dir / "train", "--batch_size", "2", "--device", "cpu"]
    with pytest.raises(ValueError, match="--arch bicubic has no parameters to train; evaluate it with --go_test"):
        task([*arguments, "--ckpt_dir", tmp_path / "ckpt", "--test_model", ""]).run()
    assert not (tmp_path / "ckpt").exists()


@pytest.mark.parametrize("schedule", ["cosine", "constant", "rtsrn_release"])
def test_the_rate_of_each_step_is_that_of_its_schedule(tiny, schedule):
    from interface.optim import learning_rate, release_learning_rate

    made = run([*tiny, "--steps", "8", "--schedule", schedule, "--log_interval", "1", "--vis_dir", "a"])
    rates = [event["lr"] for event in events(made.folder, "train")]
    if schedule == "rtsrn_release":
        expected = [release_learning_rate(step, peak=1e-3, samples=11, steps_per_epoch=5) for step in range(8)]
    else:
        warmup = round(0.05 * 8)
        expected = [learning_rate(step, schedule=schedule, peak=1e-3, warmup=warmup, total=8) for step in range(8)]
    assert rates == pytest.approx(expected)
