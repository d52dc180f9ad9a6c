"""Every way to build a cascade: trained, cut, resumed, evaluated."""

import itertools
import json

import pytest

from interface.checkpoint import load_checkpoint
from interface.super_resolution import TextSR
from tests.interface.helpers import LIGHT, assert_identical, run, shrink_recognisers, task

FLAGS = "--STN --mask --triple_clues --gradient --use_distill --use_label --text_focus --lca".split()
ALL = [("rtsrn", *row) for row in itertools.product([1, 3], [False, True], [False, True])]


@pytest.fixture
def arguments(tmp_path, monkeypatch, tiny_dir):
    """Two steps of the published recipe."""
    monkeypatch.setattr(TextSR, "test_best", lambda self: None)
    data = ["--train_data_dir", tiny_dir / "train", "--test_data_dir", tiny_dir / "test" / "easy"]
    small = shrink_recognisers(monkeypatch, tmp_path)
    arguments = [*LIGHT, *FLAGS, *small, *data, "--ckpt_dir", tmp_path, "--schedule", "constant"]
    return [*arguments, "--test_model", "", "--val_interval", "100"]


def trained(folder):
    state = load_checkpoint(folder / "last.pth")
    return {key: state[key] for key in ("system", "optimizers", "rng", "step", "position")}


def shared(count, sr_share, tpg_share):
    flags = ["--stu_iter", str(count)]
    return flags + ["--sr_share"] * sr_share + ["--tpg_share"] * tpg_share


# The visual clue has weights of its own in each network, and c3stisr shares the rest with rtsrn.
VISUAL = [("rtsrn", 1, False, False, "--visual_clue"), ("c3stisr", 3, False, False, "--visual_clue")]


@pytest.mark.parametrize("row", [*ALL, ("c3stisr", 3, True, True), *VISUAL], ids=str)
def test_a_cascade_trains_resumes_and_is_tested(arguments, tmp_path, row):
    arch, stages, sr_share, tpg_share, *more = row
    arguments = [*arguments, "--arch", arch, *shared(stages, sr_share, tpg_share), *more]
    whole = run([*arguments, "--steps", "2", "--vis_dir", "whole"])
    networks = {key.split(".")[1] for key in whole.system.trained_state() if key.startswith("networks.")}
    students = {key.split(".")[1] for key in whole.system.trained_state() if key.startswith("students.")}
    assert len(networks) == (1 if sr_share else stages)
    assert len(students) == (1 if tpg_share else stages)
    run([*arguments, "--steps", "1", "--vis_dir", "cut"])
    run([*arguments, "--steps", "2", "--resume", tmp_path / "cut"])
    assert_identical(trained(tmp_path / "whole"), trained(tmp_path / "cut"))
    # The checkpoint knows how it was made: the flags need not be said again.
    tested = run(["--go_test", "--resume", tmp_path / "cut", "--device", "cpu", "--report_dir", tmp_path / "r"])
    assert tested.system.stages == stages
    rows = json.loads((tmp_path / "r" / "report.json").read_text())["splits"]["easy"]["psnr"]
    assert sorted(rows) == sorted(["bicubic", *(f"sr_{stage}" for stage in range(1, stages + 1))])
    # Each stage draws its own picture; where all share their networks, the last two may agree in every digit.
    assert len({row["value"] for row in rows.values()}) >= len(rows) - (sr_share and tpg_share)


def test_another_cascade_than_the_checkpoints_is_refused(arguments, tmp_path):
    run([*arguments, *shared(3, False, False), "--steps", "1", "--vis_dir", "three"])
    with pytest.raises(ValueError, match=r"made with MODEL.stu_iter = 3, but 2 is asked for"):
        task([*arguments, *shared(2, False, False), "--resume", tmp_path / "three"])
    with pytest.raises(ValueError, match=r"made with MODEL.visual_clue = False, but True is asked for"):
        task([*arguments, *shared(3, False, False), "--visual_clue", "--resume", tmp_path / "three"])
