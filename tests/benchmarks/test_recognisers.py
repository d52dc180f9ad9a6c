"""The benchmark of recognisers: both ways read the same words, and what it reports of them."""

import functools
import json

import pytest
import torch

from benchmarks import recognisers, run
from benchmarks.random_readers import LETTERS, word_lengths
from benchmarks.recognisers import RECOGNISERS, WAYS, Comparison, Way, compare, render, summary, table

COUNT = 3
TRAINABLE = ("CRNN", "ASTER")  # published evaluations leave their weights so
SMALL = {
    "ASTER": {"channels": (4, 4, 8, 8, 32), "blocks": (1, 1, 1, 1, 1), "state_size": 64, "attention_size": 32},
    "FocusTransformer": {"widths": (4, 4, 8, 8, 64), "blocks": (1, 1), "heads": 4},
    "CRNN": {"hidden_size": 16},
}


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return render(COUNT)


@pytest.fixture
def small(monkeypatch):
    for name, sizes in SMALL.items():
        monkeypatch.setattr(recognisers, name, functools.partial(getattr(recognisers, name), **sizes))


def test_pictures_are_words_of_the_right_size(pictures):
    assert pictures.shape == (COUNT, 3, 32, 128)
    assert 0 <= pictures.min() < 0.5 < pictures.max() <= 1
    assert len({picture.sum().item() for picture in pictures}) == COUNT


@pytest.mark.parametrize("name", RECOGNISERS)
def test_both_ways_read_the_same_words(name, small, pictures):
    torch.manual_seed(0)
    comparison = RECOGNISERS[name](pictures, torch.device("cpu"))
    read = {size: compare(name, comparison, pictures, size, 1) for size in (1, 2)}
    texts, seconds = read[2]
    assert texts == read[1][0]  # a word does not depend on those beside it
    assert len(set(texts)) > 1
    assert set(seconds) == set(WAYS)
    if name in ("ASTER", "MORAN", "text-focus"):  # decoders that stop when a word has ended
        assert [len(text) for text in texts] == word_lengths(COUNT).tolist()
        assert all(LETTERS[0] <= len(text) <= LETTERS[1] for text in texts)
    if name != "PP-OCR":
        ours, theirs = comparison.ours.network, comparison.straightforward.network
        assert not any(weight.requires_grad for weight in ours.parameters())
        assert {weight.requires_grad for weight in theirs.parameters()} == {name in TRAINABLE}


def test_ways_that_read_differently_are_not_timed(pictures):
    comparison = Comparison(Way(lambda x: ["a"] * len(x)), Way(lambda x: ["a", "b"][: len(x)]), "")
    with pytest.raises(RuntimeError, match=r"CRNN, batch size 2: picture 1 is read 'a', not 'b'.*--seed"):
        compare("CRNN", comparison, pictures[:2], 2, 1)


def test_numbers_by_hand():
    numbers = summary({"straightforward": [8.0, 4.0, 40.0], "ours": [4.0, 2.0, 1.0]}, 8)
    assert numbers["images_per_second"] == {"straightforward": 1.0, "ours": 4.0}
    assert numbers["range"] == {"straightforward": [0.2, 2.0], "ours": [2.0, 8.0]}
    assert numbers["ratio"] == 4.0
    result = {
        "arguments": {"batch_size": [48]},
        "recognisers": {"CRNN": {"straightforward_does": "more", "batches": {"48": numbers}}},
    }
    assert table(result).splitlines() == [
        "| images/s | straightforward, batch 48 | ours, batch 48 | straightforward does more |",
        "|---|---|---|---|",
        "| CRNN | 1 [0.2 - 2] | 4 [2 - 8] (x4.00) | more |",
    ]


def test_the_command_writes_table_and_json(small, tmp_path, capsys):
    out = tmp_path / "new" / "result.json"
    flags = "recognisers --only CRNN SVTR-tiny --batch_size 1 2 --images 2 --repeats 2".split()
    assert run.main([*flags, "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert set(result) == {"arguments", "machine", "code", "peak", "recognisers"}
    assert result["arguments"]["batch_size"] == [1, 2]
    for measured in result["recognisers"].values():
        assert len(measured["strings"]) == 2
        assert set(measured["batches"]) == {"1", "2"}
        for batch in measured["batches"].values():
            assert {way: len(values) for way, values in batch["seconds"].items()} == dict.fromkeys(WAYS, 2)
    lines = capsys.readouterr().out.splitlines()[:-2]
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| CRNN", "| SVTR-tiny"]
    assert {line.count("|") for line in lines} == {7}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("recognisers --batch_size 1 9 --images 8", "--batch_size 9 is more than --images 8"),
        ("recognisers --only ABINet", "ABINet"),
        ("recognisers --repeats 0", "'0': must be a whole number, 1 or more"),
        ("train --batch_size 1", "'1': must be a whole number, 2 or more"),
        ("", "required: {train,eval,"),
    ],
)
def test_wrong_options_are_refused(flags, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        run.main(flags.split())
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
