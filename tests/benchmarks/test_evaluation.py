"""The benchmark of evaluations: both ways come to the same strings and scores."""

import functools
import json

import pytest
import torch

from benchmarks import building, evaluation, recognisers, run
from benchmarks.straightforward_evaluation import SR, Run, batch_psnr, batch_ssim
from interface.evaluation import HR, LR
from interface.metrics import image_metrics
from tests.interface.helpers import shrink_recognisers

SIDES = [evaluation.FIRST, evaluation.OURS_FIRST, evaluation.OURS_LATER, evaluation.BF16]


def test_both_ways_find_the_same(tmp_path, capsys, monkeypatch):
    shrink_recognisers(monkeypatch, tmp_path)
    monkeypatch.setattr(building, "CLUES", [*building.CLUES, "--srb", "1"])
    monkeypatch.setattr(evaluation, "CLUES", building.CLUES)
    monkeypatch.setattr(recognisers, "CRNN", functools.partial(recognisers.CRNN, hidden_size=16))
    out = tmp_path / "eval.json"
    flags = "--readers CRNN MORAN --images 4 --batch_size 2 --repeats 1 --mixed_precision no bf16".split()
    assert run.main(["eval", *flags, "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert list(result["seconds"]) == SIDES
    assert result["apart"]["psnr"] < 1e-4
    assert result["apart"]["ssim"] < 1e-5
    assert result["apart"]["strings"] == 0
    assert result["apart"]["of"] == 2 * 3 * 4  # readers, kinds of pictures, words
    scores = result["scores"]
    assert scores[evaluation.OURS_FIRST] == scores[evaluation.OURS_LATER]
    assert scores[evaluation.BF16]["psnr"] == pytest.approx(scores[evaluation.OURS_LATER]["psnr"], abs=0.5)
    flop = result["needed_flop"]
    assert flop[evaluation.OURS_FIRST] > flop[evaluation.OURS_LATER] == flop[evaluation.FIRST] == flop[evaluation.BF16]
    parts = result["parts"]
    assert parts[evaluation.OURS_LATER]["CRNN"] < parts[evaluation.OURS_FIRST]["CRNN"]
    assert "**all**" in capsys.readouterr().out


def test_any_network_is_evaluated(capsys):
    flags = "eval --arch srcnn --against none --images 2 --batch_size 2 --repeats 1".split()
    assert run.main(flags) == 0
    assert "| SR network |" in capsys.readouterr().out


def test_sides_that_differ_are_not_timed():
    readings = {LR: ["a"], HR: ["b"], SR: ["c"]}
    ours = {"psnr_batch": {SR: 20.0}, "ssim_batch": {SR: 0.5}, "per_image": {"readings": {"CRNN": readings}}}
    run_of = {"CRNN": Run({LR: ["a"], HR: ["b"], SR: ["c"]}, [19.0, 21.0], [0.5])}
    assert evaluation.check(run_of, ours, 2) == {"psnr": 0, "ssim": 0, "strings": 0, "of": 3}
    run_of["CRNN"].readings[SR] = ["d"]
    with pytest.raises(RuntimeError, match="1 of 3 strings, more than roundings do"):
        evaluation.check(run_of, ours, 2)
    run_of["CRNN"].readings[SR] = ["c"]
    run_of["CRNN"].psnr[0] = 20.0
    with pytest.raises(RuntimeError, match=r"differ by 5\.0e-01 dB"):
        evaluation.check(run_of, ours, 2)


def test_published_forms_of_psnr_and_ssim():
    generator = torch.Generator().manual_seed(0)
    sr, hr = (torch.rand(2, 4, 32, 128, generator=generator) for _ in range(2))
    measured = image_metrics(sr, hr)
    assert batch_ssim(sr, hr) == pytest.approx(measured["ssim_raw"].mean().item(), abs=1e-6)
    expected = -10 * torch.log10(measured["mse_raw"].mean()).item()
    assert batch_psnr(sr, hr) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("eval --arch tsrn", "add --against none"),
        ("eval --readers SVTR", "invalid choice: 'SVTR'"),
        ("eval --images 1", "'1': must be a whole number, 2 or more"),
    ],
)
def test_wrong_options_are_refused(flags, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        run.main(flags.split())
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
