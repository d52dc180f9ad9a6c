import json
import math
import subprocess
import sys

import numpy as np
import pytest

from interface.compare import CompareError, compare, load_report, mcnemar
from interface.config import ROOT
from tests.interface.helpers import environment


def report(readings, psnr, *, stages=1, fingerprint="one"):
    """Four words on one set; SR readings and PSNR as given, for the last stage."""
    target = ["cafe", "open", "exit", "sale"]
    rows = ["bicubic", *(f"sr_{stage}" for stage in range(1, stages + 1))]
    texts = {row: ["x"] * 4 for row in ["lr", *rows, "hr"]} | {rows[-1]: readings}
    values = {row: [20.0] * 4 for row in rows} | {rows[-1]: psnr}
    return {
        "splits": {
            "easy": {
                "fingerprint": fingerprint,
                "per_image": {
                    "index": [0, 1, 2, 3],
                    "target": target,
                    "readings": {"PPOCR": texts},
                    "psnr": values,
                    "ssim": {row: [float(value) / 100 for value in column] for row, column in values.items()},
                },
            }
        }
    }


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [(0, 0, 1.0), (1, 1, 1.0), (0, 5, 2 / 32), (1, 8, 2 * 10 / 512), (3, 4, 1.0), (0, 20, 2 / 2**20)],
)
def test_mcnemar_by_hand(only_a, only_b, p):
    assert mcnemar(only_a, only_b) == pytest.approx(p)
    assert mcnemar(only_b, only_a) == pytest.approx(p)


def test_mcnemar_of_thousands_of_words():
    assert mcnemar(3000, 3200) == pytest.approx(0.0115, abs=5e-4)  # normal approximation with continuity: 0.0115


def test_mcnemar_of_many_words_is_quick():
    assert mcnemar(20_000, 20_050) == pytest.approx(0.806, abs=2e-3)  # normal approximation: z = 49 / sqrt(40050)


def test_differences_by_hand():
    one = report(["cafe", "open", "no", "no"], [20.0, 21.0, 22.0, 23.0])
    other = report(["cafe", "no", "exit", "sale"], [21.0, 22.0, 23.0, 24.0])
    accuracy, psnr, ssim = compare(one, other)
    assert (accuracy.split, accuracy.measure, accuracy.a, accuracy.b) == ("easy", "accuracy PPOCR", 0.5, 0.75)
    assert (accuracy.only_a, accuracy.only_b, accuracy.p) == (1, 2, 1.0)
    assert accuracy.low < 0.25 < accuracy.high
    assert (psnr.measure, psnr.a, psnr.b, psnr.p) == ("psnr", 21.5, 22.5, None)
    assert psnr.low == psnr.high == 1.0  # every picture gains the same: pairing leaves no doubt
    assert ssim.measure == "ssim"


def test_the_result_is_that_of_the_last_stage_of_each():
    one = report(["cafe", "no", "no", "no"], [20.0] * 4)
    other = report(["cafe", "open", "no", "no"], [20.0] * 4, stages=12)
    assert compare(one, other)[0].b == 0.5
    assert compare(one, other, row="bicubic")[0].b == 0.0
    assert [found.measure for found in compare(one, other, row="lr")] == ["accuracy PPOCR"]
    with pytest.raises(CompareError, match="no row 'sr_9'; there are lr, bicubic, sr_1, hr"):
        compare(one, other, row="sr_9")


def test_equal_pictures_have_infinite_psnr_and_no_difference():
    both = report(["cafe"] * 4, ["inf", 20.0, 20.0, 20.0])
    psnr = compare(both, both)[1]
    assert (psnr.change, psnr.low, psnr.high) == (0.0, 0.0, 0.0)


def test_a_missing_number_is_no_crash_and_no_number(tmp_path):
    one, other = report(["cafe"] * 4, [20.0] * 4), report(["cafe"] * 4, ["inf", 21.0, 21.0, 21.0])
    one["splits"]["easy"]["per_image"]["psnr"]["sr_1"][0] = None
    for part in (one, other):
        part["splits"]["easy"]["per_image"]["ssim"] = {}
    psnr = compare(one, other)[1]
    assert math.isnan(psnr.change)
    for name, content in (("a", one), ("b", other)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    command = [sys.executable, str(ROOT / "scripts" / "compare_reports.py"), "a.json", "b.json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert next(line for line in done.stdout.splitlines() if "psnr" in line).split()[-2:] == ["-", "-"]


def test_a_report_without_results_asks_for_a_row():
    photos = report(["cafe"] * 4, [20.0] * 4)
    images = photos["splits"]["easy"]["per_image"]
    images["psnr"], images["ssim"] = {}, {}
    images["readings"] = {"PPOCR": {"photo": ["cafe"] * 4, "bicubic_32x8": ["no"] * 4, "sr_32x8": ["no"] * 4}}
    with pytest.raises(CompareError, match=r"--row; there are photo, bicubic_32x8, sr_32x8"):
        compare(photos, photos)
    with pytest.raises(CompareError, match=r"no row 'sr_1'; there are photo, bicubic_32x8, sr_32x8"):
        compare(photos, photos, row="sr_1")
    assert compare(photos, photos, row="photo")[0].change == 0.0


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """Of 200 pairs of systems with a true difference of 0.3 dB, about 5 % of the intervals miss it."""
    generator = np.random.default_rng(0)
    missed = 0
    for _ in range(200):
        hard = generator.normal(20, 3, 60)
        one = report(["x"] * 4, [0.0] * 4)
        other = report(["x"] * 4, [0.0] * 4)
        for made, shift in ((one, 0.0), (other, 0.3)):
            part = made["splits"]["easy"]["per_image"]
            part["index"], part["target"] = list(range(60)), ["x"] * 60
            part["readings"] = {}
            part["psnr"] = {"sr_1": (hard + shift + generator.normal(0, 0.5, 60)).tolist()}
            part["ssim"] = {}
        found = compare(one, other, samples=300)[0]
        missed += not found.low <= 0.3 <= found.high
    assert 3 <= missed <= 22


def test_other_pictures_cannot_be_compared():
    one, other = report(["x"] * 4, [20.0] * 4), report(["x"] * 4, [20.0] * 4, fingerprint="two")
    with pytest.raises(CompareError, match="easy: the two reports are about other pictures"):
        compare(one, other)
    other["splits"] = {"hard": other["splits"]["easy"]}
    with pytest.raises(CompareError, match="no data set in common: easy and hard"):
        compare(one, other)


def test_files_that_are_no_reports(tmp_path):
    with pytest.raises(CompareError, match=r"has no report\.json; --go_test writes one"):
        load_report(tmp_path)
    (tmp_path / "report.json").write_text("[]")
    with pytest.raises(CompareError, match="is no report of this program"):
        load_report(tmp_path)
    (tmp_path / "report.json").write_text('{"splits": {"easy": {}}}')
    with pytest.raises(CompareError, match="no numbers per image"):
        load_report(tmp_path)


@pytest.mark.slow
def test_the_script(tmp_path):
    for name, readings in {"a": ["cafe", "open", "no", "no"], "b": ["cafe", "no", "exit", "sale"]}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps(report(readings, [20.0, 21.0, 22.0, 23.0])))
    command = [sys.executable, str(ROOT / "scripts" / "compare_reports.py"), "a", "b"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if "PPOCR" in line)
    assert line.split()[:6] == ["easy", "accuracy", "PPOCR", "50.0", "75.0", "+25.0"]
    assert line.split()[-3:] == ["1", "2", "1"]
    done = subprocess.run(
        [*command[:-1], "none"], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "none has no report.json" in done.stderr
