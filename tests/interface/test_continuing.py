"""Going on with what is there: where it writes, what counts, and what a signal leaves behind."""

import json
import os
import resource
import signal
from pathlib import Path

import pytest
import torch

from interface.checkpoint import CheckpointError, load_checkpoint, read_weights, save_checkpoint
from interface.config import ConfigError, load_settings
from interface.readers import Reader, ReadingCache
from interface.run_folder import free_name
from interface.systems import unused_options
from tests.interface.helpers import LIGHT, TINY, assert_identical, register_tiny, run, task


@pytest.fixture
def tiny(tmp_path, monkeypatch, tiny_dir):
    monkeypatch.chdir(tmp_path)
    register_tiny(monkeypatch, tmp_path)
    data = ["--train_data_dir", str(tiny_dir / "train"), "--test_data_dir", str(tiny_dir / "test" / "easy")]
    return [*TINY, *data, "--test_model", "", "--val_interval", "2"]


def test_another_file_than_the_last_state_starts_a_new_run(tiny):
    folder = run([*tiny, "--steps", "3", "--vis_dir", "a"]).folder
    last = (folder / "last.pth").read_bytes()
    new = run([*tiny, "--steps", "5", "--resume", folder / "best.pth"]).folder
    assert new != folder
    assert (folder / "last.pth").read_bytes() == last
    assert run([*tiny, "--steps", "5", "--resume", folder / "last.pth"]).folder == folder


def test_a_checkpoint_alone_knows_how_it_was_made(tiny, tmp_path):
    folder = run([*tiny, "--steps", "2", "--vis_dir", "a", "--learning_rate", "0.003", "--gradient"]).folder
    (folder / "config.yaml").unlink()
    made = task(["--device", "cpu", "--resume", folder])
    assert (made.config.arch, made.config.TRAIN.lr, made.config.LOSS.gradient) == ("tinynet", 0.003, True)


def test_an_option_that_is_gone_does_not_keep_a_run_from_being_read(tiny):
    folder = run([*tiny, "--steps", "2", "--vis_dir", "a"]).folder
    saved = folder / "config.yaml"
    saved.write_text(saved.read_text() + "OLD:\n  thing: 1\n")
    settings = load_settings(["--go_test", "--resume", str(folder)])
    assert settings.config.arch == "tinynet"
    assert any("OLD.thing" in note for note in settings.notes)


def test_a_strangers_yaml_beside_a_weights_file_is_not_read(tmp_path):
    (tmp_path / "config.yaml").write_text("my: own")
    (tmp_path / "weights.pth").write_bytes(b"PK")
    assert load_settings(["--go_test", "--resume", str(tmp_path / "weights.pth")]).config.arch == "rtsrn"


def test_the_configuration_of_a_run_repeats_it_in_another_folder(tiny):
    first = run([*tiny, "--steps", "2", "--vis_dir", "a"])
    resumed = run([*tiny, "--steps", "4", "--resume", first.folder])
    again = run(["--config", resumed.folder / "config.yaml"])
    assert again.folder != resumed.folder
    assert again.step == 4
    whole = run([*tiny, "--steps", "4", "--vis_dir", "c"])
    assert_identical(
        load_checkpoint(again.folder / "last.pth")["system"], load_checkpoint(whole.folder / "last.pth")["system"]
    )
    assert (first.folder / "config-until-step-2.yaml").is_file()  # the options of the first two steps are kept


def test_initial_weights_do_not_depend_on_who_reads(tmp_path, tiny_dir, monkeypatch):
    monkeypatch.chdir(tmp_path)
    states = []
    for readers in ("", "PPOCR"):
        data = ["--train_data_dir", tiny_dir / "train", "--test_model", readers]
        made = task([*LIGHT, *data, "--vis_dir", f"r{readers}"])
        made.build_training()
        made.run_log.close()
        states.append(load_checkpoint(made.folder / "last.pth")["system"])
    assert_identical(*states)


def test_scores_of_another_validation_are_not_compared(tiny, tmp_path, tiny_dir, caplog):
    folder = run([*tiny, "--steps", "2", "--vis_dir", "a"]).folder
    first = (folder / "best.pth").read_bytes()
    more = ["--val_data_dir", tiny_dir / "test" / "medium", "--learning_rate", "1e-9"]
    made = run([*tiny, "--steps", "4", "--resume", folder, *more])
    assert (folder / "best-2.pth").read_bytes() == first
    assert made.best["step"] == 4
    assert "medium" in made.best["rule"]
    assert "validation has changed" in (folder / "log.txt").read_text()
    assert "continued with other options" in (folder / "log.txt").read_text()  # said before the log file was open


def test_another_optimizer_cannot_take_over(tiny, tmp_path):
    folder = run([*tiny, "--steps", "2", "--vis_dir", "a"]).folder
    other = tmp_path / "sgd.yaml"
    other.write_text("TRAIN:\n  optimizer: SGD\n")
    with pytest.raises(ValueError, match=r"optimizer Adam.*leave TRAIN\.optimizer at Adam"):
        task([*tiny, "--steps", "4", "--resume", folder, "--config", other]).run()
    other.write_text("TRAIN:\n  beta1: 0.75\n")
    made = run([*tiny, "--steps", "4", "--resume", folder, "--config", other])
    assert made.optimizers["main"].param_groups[0]["betas"][0] == 0.75


def test_published_test_flags_work_on_runs_made_with_others(tiny, caplog):
    folder = run([*tiny, "--steps", "2", "--vis_dir", "a"]).folder
    run([*tiny, "--go_test", "--resume", folder, "--sr_share", "--use_distill", "--mask", "--stu_iter", "1"])
    assert "MODEL.mask is False" in caplog.text
    with pytest.raises(CheckpointError, match=r"MODEL\.mask = False"):
        task([*tiny, "--resume", folder, "--mask"])


def test_a_signal_in_a_validation_saves_the_step_and_the_validation_is_made_up_for(tiny, monkeypatch):
    from interface.evaluation import Evaluator

    whole = run([*tiny, "--steps", "4", "--vis_dir", "whole"])
    original, calls = Evaluator.run, []

    def interrupted(self, system, split, progress=None):
        calls.append(split)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, system, split, progress)

    monkeypatch.setattr(Evaluator, "run", interrupted)
    cut = task([*tiny, "--steps", "4", "--vis_dir", "cut"])
    assert cut.run() == 143
    assert load_checkpoint(cut.folder / "last.pth")["step"] == 4
    assert load_checkpoint(cut.folder / "best.pth")["step"] == 2
    monkeypatch.setattr(Evaluator, "run", original)
    resumed = run([*tiny, "--steps", "4", "--resume", cut.folder])
    assert resumed.best == whole.best
    one, two = (load_checkpoint(made.folder / "last.pth") for made in (whole, resumed))
    for key in ("system", "optimizers", "best", "validated", "rng"):
        assert_identical(one[key], two[key])


def test_leftovers_of_killed_saves_are_removed(tiny):
    folder = run([*tiny, "--steps", "2", "--vis_dir", "a"]).folder
    (folder / ".last.pth.123.tmp").write_bytes(b"half a file")
    run([*tiny, "--steps", "3", "--resume", folder])
    assert not list(folder.glob(".*.tmp"))


def test_precision_that_does_nothing_is_refused(tiny):
    with pytest.raises(ValueError, match="fp16 has no effect on cpu; use bf16"):
        task([*tiny, "--mixed_precision", "fp16"])


def test_one_picture_is_no_batch_for_the_stn():
    with pytest.raises(ConfigError, match="--batch_size 2 or more"):
        load_settings(["--STN", "--batch_size", "1"])


def test_options_that_a_network_does_not_take_are_named(tmp_path, tiny_dir, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    run(["--arch", "bicubic", "--go_test", "--test_data_dir", tiny_dir / "test" / "easy", "--STN", "--test_model", ""])
    assert "bicubic has no use for MODEL.STN" in caplog.text


STUDENT = {"stu_iter", "sr_share", "tpg_share", "tpg", "prior_dropout", "detach_prior"}
CLUE = {"language_model", "student_passes"}
IDLE = {
    "tsrn": STUDENT | CLUE | {"tpg_pretrained", "freeze_tpg"},
    "sgenet": STUDENT | CLUE,
    "tpgsr": CLUE,
    "rtsrn": set(),
}


@pytest.mark.parametrize("arch", IDLE)
def test_options_that_a_recipe_does_not_read_are_named(arch):
    unused = unused_options(load_settings(["--arch", arch, "--go_test"]).config)
    assert unused & (STUDENT | CLUE | {"tpg_pretrained", "freeze_tpg"}) == IDLE[arch]


def test_a_student_of_a_network_without_text_is_named(tmp_path, tiny_dir, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    test = ["--arch", "bicubic", "--go_test", "--test_data_dir", tiny_dir / "test" / "easy", "--test_model", ""]
    run([*test, "--tpg_share", "--tpg_pretrained", "random"])
    assert "bicubic has no use for MODEL.tpg_pretrained, MODEL.tpg_share" in caplog.text


def test_a_web_page_is_not_called_a_pickle(tmp_path):
    page = tmp_path / "crnn.pth"
    page.write_text("<!DOCTYPE html><html>not found</html>")
    with pytest.raises(CheckpointError, match=r"no PyTorch file: it begins with .*DOCTYPE.*download"):
        read_weights(page, option="X", purpose="y", remedy="z")


def test_readings_that_cannot_be_kept_do_not_end_an_evaluation(tmp_path, caplog):
    (tmp_path / "file").touch()
    reader = Reader("R", None, "R-1", "")  # type: ignore[arg-type]
    ReadingCache(tmp_path / "file" / "cache").store(reader, "data", "lr", {0: "a"})
    assert "cannot be kept" in caplog.text


def test_testing_on_training_data_is_said(tiny, tiny_dir):
    folder = run([*tiny, "--steps", "2", "--vis_dir", "a"]).folder
    run([*tiny, "--go_test", "--resume", folder, "--test_data_dir", tiny_dir / "train", "--report_dir", "r"])
    selection = json.loads(Path("r/report.json").read_text())["selection"]
    assert selection["on"] == "test"
    assert "trained on" in selection["note"]


def test_a_test_says_what_it_evaluates_and_writes_where_it_is_told(tiny, tmp_path, caplog):
    caplog.set_level("INFO")
    folder = run([*tiny, "--steps", "2", "--vis_dir", "a"]).folder
    (folder / "best.pth").unlink()
    run([*tiny, "--go_test", "--resume", folder, "--vis_dir", "elsewhere"])
    assert "has no best.pth, so last.pth is used" in caplog.text
    assert "step=2" in caplog.text
    assert list((tmp_path / "ckpt" / "elsewhere").glob("report-*/report.html"))
    assert not list((tmp_path / "ckpt").glob("**/*.json.tmp"))
    with pytest.raises(CheckpointError, match="made with arch = tinynet"):
        task(["--arch", "bicubic", "--go_test", "--resume", folder])


def test_networks_of_later_versions_are_known_by_name():
    with pytest.raises(ConfigError, match="textsr is not built yet"):
        load_settings(["--arch", "textsr"])


def test_a_full_disk_is_said_and_spares_what_was_saved(tmp_path):
    file = tmp_path / "last.pth"
    save_checkpoint(file, {"a": torch.zeros(10)})
    before = file.read_bytes()
    child = os.fork()
    if not child:  # a limit on the size of files, in a process of its own, is a disk that fills up
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            save_checkpoint(file, {"a": torch.zeros(1_000_000)})
        except OSError as error:
            os._exit(42 if "MiB are free" in str(error) and "unharmed" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["last.pth"]


@pytest.mark.parametrize("lost", ["system", "optimizers", "rng", "config", "best"])
def test_a_file_with_a_digest_is_not_taken_for_a_run(tiny, tmp_path, lost):
    folder = run([*tiny, "--steps", "2", "--vis_dir", "a"]).folder
    state = load_checkpoint(folder / "last.pth")
    del state[lost]
    save_checkpoint(tmp_path / "last.pth", state)
    with pytest.raises(CheckpointError, match="not the state of a run"):
        task(["--device", "cpu", "--resume", tmp_path / "last.pth"])


def test_options_from_a_checkpoint_are_checked_like_any_others(tiny, tmp_path):
    folder = run([*tiny, "--steps", "2", "--vis_dir", "a"]).folder
    state = load_checkpoint(folder / "last.pth")
    state["config"]["MODEL"]["srb"] = "many"
    save_checkpoint(tmp_path / "last.pth", state)
    with pytest.raises(ConfigError, match=r"MODEL\.srb is 'many'; a whole number"):
        task(["--device", "cpu", "--resume", tmp_path / "last.pth"])


def test_kept_files_never_replace_each_other(tmp_path):
    assert free_name(tmp_path / "best-2.pth").name == "best-2.pth"
    (tmp_path / "best-2.pth").touch()
    assert free_name(tmp_path / "best-2.pth").name == "best-2-2.pth"
