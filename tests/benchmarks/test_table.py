"""README's tables are what the files of measurements say."""

import json

import pytest

from benchmarks import peak, run, table
from benchmarks.measuring import efficiency, percent, rows, spread

NUMBERS = {
    "images_per_second": {"straightforward": 1.0, "ours": 4.0},
    "range": {"straightforward": [1, 1], "ours": [4, 4]},
}


def recognised(folder, name, *readers):
    entry = {"straightforward_does": name, "batches": {"48": {**NUMBERS, "ratio": 4.0}}}
    content = {
        "arguments": {"what": "recognisers", "batch_size": [48]},
        "recognisers": dict.fromkeys(readers, entry),
    }
    (folder / name).write_text(json.dumps(content))


def test_readme_has_the_numbers_of_the_files():
    text = (table.ROOT / "README.md").read_text(encoding="utf-8")
    assert table.filled(text) == text, "python benchmarks/table.py --write README.md"
    assert len(table.PLACE.findall(text)) >= 3


def test_places_are_filled_and_the_rest_stays(tmp_path, capsys):
    recognised(tmp_path, "a.json", "CRNN", "ASTER")
    recognised(tmp_path, "b.json", "ASTER")
    text = "# Before\n<!-- benchmarks/table.py: a.json b.json -->\nold | numbers\n<!-- end -->\nafter\n"
    found = table.filled(text, tmp_path).splitlines()
    assert found[:2] == text.splitlines()[:2]
    assert found[-2:] == ["<!-- end -->", "after"]
    assert found[4:6] == [
        "| CRNN | 1 [1 - 1] | 4 [4 - 4] (x4.00) | a.json |",
        "| ASTER | 1 [1 - 1] | 4 [4 - 4] (x4.00) | b.json |",
    ]
    again = table.filled("\n".join(found) + "\n", tmp_path)
    assert again.splitlines() == found


def test_the_command_prints_and_writes(tmp_path, capsys, monkeypatch):
    assert table.main([]) == 0
    assert capsys.readouterr().out.count("<!-- end -->") >= 3
    document = tmp_path / "document.md"
    document.write_text("<!-- benchmarks/table.py: recognisers_cpu1.json -->\n<!-- end -->\n")
    assert table.main(["--write", str(document)]) == 0
    assert "| CRNN |" in document.read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "no place for a table"),
        ("<!-- benchmarks/table.py: c.json -->\n<!-- end -->", "c.json is not there"),
        ("<!-- benchmarks/table.py: other.json -->\n<!-- end -->", "was not written by benchmarks/run.py"),
        ("<!-- benchmarks/table.py: a.json train.json -->\n<!-- end -->", "make no common table"),
    ],
)
def test_places_that_cannot_be_filled_are_named(text, message, tmp_path):
    recognised(tmp_path, "a.json", "CRNN")
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "train.json").write_text('{"arguments": {"what": "train"}}')
    with pytest.raises(ValueError, match=message):
        table.filled(text, tmp_path)


def test_numbers_by_hand():
    peaks = {"float32": {"best": 200.0}, "bfloat16": {}}
    assert efficiency(1e12, 10.0, peaks, "float32") == 0.5
    assert efficiency(0.0, 10.0, peaks, "float32") is None
    assert efficiency(1e12, 10.0, peaks, "bfloat16") is None
    assert (percent(0.123), percent(None), spread([3.0, 1.0, 200.0])) == ("12 %", "", "3 [1 - 200]")


def test_empty_columns_are_left_out():
    assert rows(["a", "b", "c"], [["1", "", ""], ["2", "", "3"]]) == [
        "| a | c |",
        "| --- | --- |",
        "| 1 |  |",
        "| 2 | 3 |",
    ]
    assert rows(["a"], []) == ["| a |", "| --- |"]


def test_peak_is_the_best_of_all_sizes(monkeypatch):
    monkeypatch.setattr(peak, "best_rate", lambda work, operations, device: operations)
    found = peak.measure(run.torch.device("cpu"))
    assert set(found) == {"float32", "bfloat16"}
    rates = found["float32"]
    assert rates == {"matmul 8": 2 * 8**3, "convolution 1x2x4x4": 2 * 16 * 4 * 9, "best": 2 * 16 * 4 * 9}


def test_all_goes_on_after_a_failure(tmp_path, monkeypatch, capsys):
    done = []

    def part(name):
        class Part:
            @staticmethod
            def measure(args):
                done.append((name, args.device, args.out.name))
                if name == "eval":
                    raise RuntimeError("no luck")
                return {}

            @staticmethod
            def table(result):
                return name

        return Part

    monkeypatch.setattr(run, "PARTS", {name: part(name) for name in run.PARTS})
    assert run.main(["all", "--quick", "--out", str(tmp_path)]) == 1
    assert done == [(name, "cpu", f"{name}.json") for name in run.PARTS]
    assert "eval failed: RuntimeError: no luck" in capsys.readouterr().err
    assert {path.stem for path in tmp_path.iterdir()} == set(run.PARTS) - {"eval"}
    for name, flags in {**run.WHOLE}.items():
        run.complete(run.command_line().parse_args([name, *flags.split()]))
