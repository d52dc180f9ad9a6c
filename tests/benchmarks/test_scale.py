"""The benchmark of what grows: it goes through everything, and sees what does."""

import json

import pytest
import torch

from benchmarks import measuring, run, scale
from dataset.textzoom import TextZoomLMDB


def test_the_command_writes_tables_and_json(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(scale, "EVALUATED", 100)
    out = tmp_path / "scale.json"
    sizes = "--sizes 100 200 --batch_size 16 8 --words 100 --epochs 2 --repeats 1"
    assert run.main(["scale", *sizes.split(), "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert set(result["sizes"]) == {"100", "200"}
    done = result["sizes"]["200"]
    assert all(entry["microseconds"] >= 0 and entry["images"] == 200 for entry in done.values())
    assert done["train: first epoch (decoded)"]["microseconds"] > done["train: later epoch (kept)"]["microseconds"] > 0
    assert set(result["batches"]) == {"16", "8"}
    assert "evaluate: later" in result["sizes"]["100"]
    assert "evaluate: later" not in done
    assert len(result["epochs"]) == 2
    assert "| microseconds a picture, of | 100 | 200 | growth |" in capsys.readouterr().out


def test_labels_are_different_and_pictures_are_repeated(tmp_path):
    scale.write_repeated(tmp_path / "data", 20)
    source = TextZoomLMDB(tmp_path / "data")
    samples = [source.raw(index) for index in range(20)]
    assert len({sample.label for sample in samples}) == 20
    assert samples[0].hr == samples[scale.PICTURES].hr != samples[1].hr


def test_growth_by_hand():
    sizes = {
        "10": {
            "a": {"images": 10, "microseconds": 2.0, "memory": 100},
            "b": {"images": 10, "microseconds": 0.0, "memory": None},
        },
        "1000": {"a": {"images": 1000, "microseconds": 3.0, "memory": 30_000}},
    }
    assert scale.growth(sizes, "a", "microseconds") == 1.5
    assert scale.growth(sizes, "a", "memory") == 3.0
    assert scale.growth(sizes, "b", "microseconds") is None


@pytest.mark.skipif(not measuring.STATUS.is_file(), reason="the system does not say how much memory is held")
def test_memory_of_a_work():
    size = 2**26

    def work():
        torch.ones(size // 4).sum()
        return "done"

    result, held = measuring.peak_memory(work, torch.device("cpu"))
    assert result == "done"
    assert held is None or 0.9 * size < held < 2 * size
    kept = torch.ones(size // 4)
    assert measuring.resident() > kept.numel() * 4


def test_words_that_make_no_batch_are_refused(capsys):
    with pytest.raises(SystemExit):
        run.main("scale --batch_size 64 --words 100".split())
    assert "--batch_size 64 is more than half of --words 100" in capsys.readouterr().err
