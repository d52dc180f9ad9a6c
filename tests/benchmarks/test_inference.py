"""The benchmark of super-resolution: both ways make the same pictures; sizes are counted."""

import json

import pytest

from benchmarks import building, inference, run
from benchmarks.run import command_line


@pytest.mark.parametrize(("arch", "sizes"), [("rtsrn", ["1", "2"]), ("c3stisr", ["2"])])
def test_both_ways_super_resolve_the_same(arch, sizes, monkeypatch):
    monkeypatch.setattr(building, "CLUES", [*building.CLUES, "--srb", "1"])
    args = command_line().parse_args(["infer", "--arch", arch, "--batch_size", *sizes, "--repeats", "1"])
    result = inference.measure(args)
    works = result["networks"][arch]
    assert list(works) == [inference.ALONE, inference.PATH]
    for found in works.values():
        for batch in found["batches"].values():
            apart = batch["difference"]
            assert apart[inference.FIRST] == 0
            assert apart[inference.OURS] < 1e-4
            assert apart[inference.OURS] < apart[inference.BF16] < 0.2
    assert works[inference.PATH]["macs"] > works[inference.ALONE]["macs"] + 700e6  # CRNN's
    assert works[inference.PATH]["parameters"] > works[inference.ALONE]["parameters"] + 8.3e6
    assert len(inference.table({**result, "peak": {}}).splitlines()) == 2 + 2 * len(sizes) * 3


def test_a_network_of_its_own_has_one_work(tmp_path, capsys):
    out = tmp_path / "infer.json"
    assert (
        run.main(["infer", "--arch", "srcnn", "bicubic", "--batch_size", "1", "--repeats", "2", "--out", str(out)]) == 0
    )
    result = json.loads(out.read_text())
    srcnn, bicubic = (result["networks"][arch] for arch in ("srcnn", "bicubic"))
    assert list(srcnn) == list(bicubic) == [inference.ALONE]
    assert srcnn[inference.ALONE]["parameters"] == 20099
    assert bicubic[inference.ALONE]["parameters"] == bicubic[inference.ALONE]["macs"] == 0
    seconds = srcnn[inference.ALONE]["batches"]["1"]["seconds"]
    assert {side: len(values) for side, values in seconds.items()} == {inference.OURS: 2, inference.BF16: 2}
    assert "| srcnn | SR network | 0.02 M | 0.08 G |" in capsys.readouterr().out


def test_a_side_by_onnx_runtime_makes_the_same_pictures():
    args = command_line().parse_args(["infer", "--arch", "srcnn", "--batch_size", "1", "3", "--repeats", "1", "--onnx"])
    batches = inference.measure(args)["networks"]["srcnn"][inference.ALONE]["batches"]
    for batch in batches.values():
        assert set(batch["seconds"]) == {inference.OURS, inference.BF16, inference.ONNX}
        assert batch["difference"][inference.ONNX] < 1e-5
    args = command_line().parse_args(["infer", "--onnx", "--device", "cuda"])
    with pytest.raises(ValueError, match="--onnx --device cuda"):
        run.complete(args)


def test_an_overview_of_several_networks_by_hand():
    def batch(ours, lower):
        return {"seconds": {"ours": ours, "ours, bf16": lower}, "difference": {}, "memory": {"ours": 2**20}}

    found = {"parameters": 2_500_000, "macs": 1_500_000_000, "state": 2**21}
    found["batches"] = {"1": batch([0.5, 0.75, 1.0], [9.0]), "8": batch([2.0], [0.5])}
    peak = {"float32": {"best": 24.0}, "bfloat16": {"best": 96.0}}
    result = {"networks": {"x": {"SR network": found}, "y": {"SR network": found, "path": found}}, "peak": peak}
    lines = inference.table(result).splitlines()
    assert "| ms, batch 1 | images/s, batch 8 |" in lines[0]
    numbers = "| 2.50 M | 1.50 G | 750 | 4 | 50 % | 16 | 50 % | 3 |"
    assert lines[2:] == [f"| x | SR network {numbers}", f"| y | SR network {numbers}", f"| y | path {numbers}"]


def test_numbers_by_hand():
    batch = {
        "seconds": {"straightforward": [2.0, 4.0, 3.0], "ours": [1.0, 1.5, 2.0]},
        "difference": {"straightforward": 0.0, "ours": 0.25},
        "memory": {"straightforward": None, "ours": 2**20},
    }
    found = {"parameters": 2_500_000, "macs": 1_500_000_000, "state": 2**20, "batches": {"6": batch}}
    result = {"networks": {"x": {"SR network": found}}, "peak": {"float32": {"best": 24.0}}}
    assert inference.table(result).splitlines()[2:] == [
        "| x | 2.50 M | 1.50 G | 6 | straightforward | 3000 [2000 - 4000] | 2 |  | 25 % |  |  |",
        "| x | 2.50 M | 1.50 G | 6 | ours | 1500 [1000 - 2000] | 4 | x2.00 | 50 % | 2 | 2.5e-01 |",
    ]
