"""The benchmark of data: it goes through loaders and a training of the program, and reports what it counted."""

import json

import pytest

from benchmarks import data, run
from interface.systems import recognizers
from tests.interface.helpers import SmallCRNN

# On one core torch advises against two workers; here they are the point.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

NAMES = (
    *("rendered by one process", "rendered by 1 workers", "LMDB pairs, first pass", "LMDB pairs, kept"),
    *("augmented, HR", "augmented, LR"),
)  # fmt: skip


def test_the_command_writes_table_and_json(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(recognizers, "build_model", lambda name, charset: SmallCRNN())
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "result.json"
    sizes = "--words 4 --batch_size 2 --workers 1 --repeats 2 --warmup 1 --steps 2"
    assert run.main(["data", *sizes.split(), "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert set(result) == {"arguments", "machine", "code", "peak", "cores", "load", "speeds", "training"}
    assert tuple(result["speeds"]) == NAMES
    for name, speed in result["speeds"].items():
        assert len(speed["words_per_second"]) == 2
        assert len(speed["per_cpu_second"]) == (0 if "workers" in name else 2)
        assert min(speed["words_per_second"] + speed["per_cpu_second"]) > 0
    trained = result["training"]
    waited, worked = sum(trained["seconds_waited"]), sum(trained["seconds_worked"])
    assert len(trained["seconds_waited"]) == len(trained["seconds_worked"]) == 2
    assert trained["waiting_for_data"] == pytest.approx(waited / (waited + worked))
    assert trained["words_per_second"] == pytest.approx(4 / (waited + worked))
    assert trained["per_cpu_second"] > 0
    *lines, _, peak = capsys.readouterr().out.splitlines()
    assert peak.startswith("Peak of this machine")
    assert [line.split(" | ")[0] for line in lines[2:8]] == [f"| {name}" for name in NAMES]
    assert lines[-1].startswith("crnn on cpu, batch 2, 1 workers: ")
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_numbers_by_hand():
    arguments = {"arch": "crnn", "device": "cpu", "batch_size": 64, "workers": 2}
    training = {"words_per_second": 12.34, "per_cpu_second": 25.0, "waiting_for_data": 0.256}
    speeds = {
        "kept": {"words_per_second": [3.0, 1234.0, 20.0], "per_cpu_second": [5.0, 40.0, 30.0]},
        "others": {"words_per_second": [7.0], "per_cpu_second": []},
    }
    result = {"arguments": arguments, "training": training, "speeds": speeds}
    assert data.table(result).splitlines() == [
        "| words/s | median | slowest - fastest | per CPU second, median |",
        "|---|--:|---|--:|",
        "| kept | 20 | 3 - 1234 | 30 |",
        "| others | 7 | 7 - 7 |  |",
        "",
        "crnn on cpu, batch 64, 2 workers: 12.3 words/s (25 in a CPU second of the training process), "
        "25.6% of the time waiting for data",
    ]


def test_wrong_options_are_refused(capsys):
    for flags, message in (
        ("data --batch_size 9 --words 8", "--batch_size 9 is more than --words 8"),
        ("data --workers 0", "'0': must be a whole number, 1 or more"),
        ("data --arch rtsrn", "invalid choice: 'rtsrn'"),
    ):
        with pytest.raises(SystemExit) as stopped:
            run.main(flags.split())
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err
