"""The script that tries all networks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from interface.config import ROOT
from scripts import try_networks
from tests.interface.helpers import environment


def test_the_files_that_a_recipe_begins_with(tmp_path):
    words = ["--data", "d", "--test", "t", "--out", str(tmp_path), "--tpg_pretrained", "c.pth"]
    args = try_networks.parse([*words, "--text_focus_pretrained", "f.pth"])
    focus = ["--text_focus_pretrained", str(Path("f.pth").resolve())]
    assert try_networks.recipe_flags("tpgsr", args)[0] == "--tpg_pretrained"
    assert try_networks.recipe_flags("tpgsr", args)[1].endswith("/c.pth")
    assert try_networks.recipe_flags("tbsrn", args) == focus
    assert try_networks.recipe_flags("sgenet", args) == ["--tpg_pretrained", "random", *focus]
    assert try_networks.recipe_flags("srcnn", args) == []


def test_what_a_log_says(tmp_path):
    events = [
        {"event": "start", "step": 0},
        {"event": "train", "step": 2, "loss": 3.0, "images_per_second": 5.0},
        {"event": "resume", "step": 2},
        {"event": "train", "step": 4, "loss": 2.0, "images_per_second": 7.0},
    ]
    (tmp_path / "log.txt").write_text("tsrn: 1,234 trained parameters, 12 pairs")
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, events)))
    found = try_networks.numbers_of(tmp_path, 2)
    assert found == {"parameters": 1234, "train": 7.0, "losses": {2: 3.0, 4: 2.0}, "resumed": True}
    for broken in ({"loss": None}, {"step": 2}):  # a loss that was no number; the step before the stop taken again
        lines = [*events[:3], {**events[3], **broken}]
        (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
        assert not try_networks.numbers_of(tmp_path, 2)["resumed"]
    assert not try_networks.numbers_of(tmp_path, 3)["resumed"]


def test_bad_command_lines_are_refused(tmp_path, capsys):
    words = ["--data", "d", "--test", "t", "--out", str(tmp_path)]
    assert try_networks.main([*words, "--arch", "tsm"]) == 2
    assert "unknown network tsm; known: bicubic, c3stisr" in capsys.readouterr().err
    (tmp_path / "mine.txt").touch()
    for more, message in ((["--steps", "1"], "at least 2"), ([], "is not empty; name a new folder")):
        with pytest.raises(SystemExit):
            try_networks.main([*words, *more])
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_good_and_failing_networks_are_in_the_table(tmp_path, tiny_dir):
    arguments = ["--data", tiny_dir / "train", "--test", tiny_dir / "test" / "easy", "--out", "tried", "--steps", "2"]
    more = ["--batch_size", "2", "--arch", "srcnn", "tpgsr", "--tpg_pretrained", "none.pth"]
    command = [sys.executable, ROOT / "scripts" / "try_networks.py", *arguments, *more]
    command += ["--flags", "--device cpu --workers 0"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    good, bad = json.loads((tmp_path / "tried" / "table.json").read_text())["rows"]
    assert (good["arch"], good["parameters"], good["resumed"], good["result"]) == ("srcnn", 20_099, True, "ok")
    assert list(good["losses"]) == ["1", "2"]
    assert min(good["train"], good["test"], good["memory"]) > 0
    assert bad["result"].startswith("failed: tpgsr-1-train: error: no weights file")
    table = (tmp_path / "tried" / "table.md").read_text().splitlines()
    assert table[2].startswith("| --arch | trained parameters |")
    assert [line.split()[1] for line in table[4:]] == ["`srcnn`", "`tpgsr`"]
