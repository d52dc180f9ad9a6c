import base64
import io
import json
import logging
import math
import re
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from interface.alignment import align, distance
from interface.report import screen_table, write_report
from interface.report_cases import choose_cases
from interface.report_numbers import tables
from interface.report_text import headlines, method_notes, warnings_of

NASTY = "<script>&\"'/|`*\n\x1b[2J"


def entry(value, half=0.1, **more):
    return {"value": value, "low": value - half, "high": value + half, **more}


def one_split(readings, labels, *, rows, psnr=None):
    """A split whose accuracies are what the readings say."""
    targets = ["".join(c for c in label.lower() if c in "0123456789abcdefghijklmnopqrstuvwxyz") for label in labels]
    accuracy = {
        reader: {
            row: entry(sum(map(str.__eq__, texts, targets)) / len(texts), correct=sum(map(str.__eq__, texts, targets)))
            for row, texts in by_row.items()
        }
        for reader, by_row in readings.items()
    }
    psnr = psnr or {row: [20.0 + k] * len(labels) for k, row in enumerate(rows) if row not in ("lr", "hr")}
    means = {row: sum(values) / len(values) for row, values in psnr.items()}
    return {
        "path": "data/easy",
        "fingerprint": "f00d",
        "images": len(labels),
        "skipped": 0,
        "accuracy": accuracy,
        "psnr": {row: entry(value, 0.5) for row, value in means.items()},
        "ssim": {row: entry(value / 40, 0.01) for row, value in means.items()},
        "psnr_batch": {row: value - 1 for row, value in means.items()},
        "ssim_batch": {row: value / 50 for row, value in means.items()},
        "per_image": {
            "index": [10 + k for k in range(len(labels))],
            "label": list(labels),
            "target": targets,
            "readings": readings,
            "psnr": psnr,
            "ssim": {row: [value / 40 for value in values] for row, values in psnr.items()},
        },
    }


def averages(splits):
    result = {}
    for name, weights in (("plain", [1] * len(splits)), ("weighted", [split["images"] for split in splits])):
        mean = lambda values, weights=weights: sum(w * v for w, v in zip(weights, values)) / sum(weights)  # noqa: B905, E731
        first = splits[0]
        result[name] = {
            "accuracy": {
                reader: {row: mean([split["accuracy"][reader][row]["value"] for split in splits]) for row in by_row}
                for reader, by_row in first["accuracy"].items()
            }
        }
        for measure in ("psnr", "ssim"):
            result[name][measure] = {
                row: mean([split[measure][row]["value"] for split in splits]) for row in first[measure]
            }
            batch = f"{measure}_batch"
            result[name][batch] = {row: mean([split[batch][row] for split in splits]) for row in first[batch]}
    return result


def make_report(splits, *, rows, readers, on="validation"):
    return {
        "format": 1,
        "created": "2025-01-02T03:04:05+00:00",
        "command": "python main.py --arch rtsrn --test",
        "environment": {"python": "3.11", "torch": "2.6", "pillow": "11", "device": "cpu", "code": "abc123"},
        "system": {"arch": "rtsrn", "stages": 1, "weights": None, "weights_sha256": None, "step": 300},
        "selection": {"on": on, "note": "Best of twelve."},
        "protocol": {"psnr_batch_size": 48, "bootstrap_samples": 200, "voc": "lower"},
        "readers": {name: {"fingerprint": "beef", "description": f"the {name}"} for name in readers},
        "rows": rows,
        "splits": splits,
        "average": averages(list(splits.values())),
    }


ROWS = ["lr", "bicubic", "sr_1", "hr"]
LABELS = ["Hotel", "café", "A-1", "open"]  # targets hotel, caf, a1, open


@pytest.fixture
def report():
    easy = {
        "lr": ["hotel", "", "a1", "oper"],  # 2 of 4
        "bicubic": ["hotel", "", "a1", "xxxx"],  # 2 of 4
        "sr_1": ["hotel", "caf", "a7", "open"],  # 3 of 4: helped 1 and 3, hurt 2
        "hr": ["hotel", "caf", "a1", "open"],
    }
    hard = {"lr": ["x", "y"], "bicubic": ["x", "y"], "sr_1": ["stop", "y"], "hr": ["stop", "go"]}  # 0, 0, 1, 2 of 2
    splits = {
        "easy": one_split({"PPOCR": easy}, LABELS, rows=ROWS),
        "hard": one_split({"PPOCR": hard}, ["STOP", "go!"], rows=ROWS),
    }
    return make_report(splits, rows=ROWS, readers=["PPOCR"])


def pictures_of(report):
    """Pictures that tell where they are from: red is the position, green the row."""
    calls = []

    def pictures(split, positions):
        calls.append((split, positions))
        rows = report["rows"]
        sizes = {row: (16, 64) if row == "lr" else (32, 128) for row in rows}
        return [
            {row: np.full((*sizes[row], 3), (position, 40 * k, 7), np.uint8) for k, row in enumerate(rows)}
            for position in positions
        ]

    return pictures, calls


def page_of(report, folder, pictures=None, **more):
    return write_report(folder, report, pictures, **more)["html"].read_text(encoding="utf-8")


def parse(page):
    """As XML (which is strict) and as HTML (which must see balanced tags)."""

    class Balanced(HTMLParser):
        open: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag, attrs):
            self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

        def handle_startendtag(self, tag, attrs):
            pass

    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    return ElementTree.fromstring(page)


def text_of(element):
    return " ".join("".join(element.itertext()).split())


# --- numbers -------------------------------------------------------------------------------------------------------


def lines_of(screen):
    return {" ".join(line.split()) for line in screen.splitlines()}


def test_screen_table_has_the_numbers_worked_out_by_hand(report):
    screen = screen_table(report)
    lines = lines_of(screen)
    assert "images 4 2" in lines
    assert "LR 50.0 ±10.0 0.0 ±10.0 25.0 33.3" in lines  # plain (50 + 0) / 2, weighted 2 / 6
    assert "SR 75.0 ±10.0 50.0 ±10.0 62.5 66.7" in lines  # plain (75 + 50) / 2, weighted 4 / 6
    assert "HR 100.0 ±10.0 100.0 ±10.0 100.0 100.0" in lines
    assert "Bicubic 21.00 ±0.50 21.00 ±0.50 21.00 21.00" in lines
    assert "SR 22.00 ±0.50 22.00 ±0.50 22.00 22.00" in lines
    assert "SR 21.00 21.00 21.00 21.00" in lines  # as published
    assert "SR 0.5500 ±0.0100 0.5500 ±0.0100 0.5500 0.5500" in lines
    assert "SR - Bicubic +1.00 ±0.00 +1.00 ±0.00 +1.00 ±0.00 +1.00 ±0.00" in lines
    assert any(
        re.match(r"SR - LR \+25\.0 ±[\d.]+ \+50\.0 ±[\d.]+ \+37\.5 ±[\d.]+ \+33\.3 ±[\d.]+$", line) for line in lines
    )


def test_screen_table_is_aligned(report):
    lines = screen_table(report).splitlines()
    ends = [re.search(r"[\d.]+ ±", line).end() for line in lines if re.match(r"  (LR|SR|HR|Bicubic).* ±", line)]
    assert len(ends) == 11 and len(set(ends)) == 1


def test_screen_table_aligns_wide_names(report):
    report["splits"] = {"困难": report["splits"]["easy"]}
    lines = screen_table(report).splitlines()
    header, images = next(pair for pair in pairwise(lines) if pair[1].startswith("images"))
    assert header.strip() == "困难"
    assert len(header) + 2 == len(images)  # two characters of two columns each


def test_markdown_has_the_same_numbers(report, tmp_path):
    text = write_report(tmp_path, report)["md"].read_text(encoding="utf-8")
    assert "| LR | 50.0 [40.0, 60.0] | 0.0 [-10.0, 10.0] | 25.0 | 33.3 |" in text
    assert "| SR | **75.0** [65.0, 85.0] | **50.0** [40.0, 60.0] | **62.5** | **66.7** |" in text
    assert "| SR - Bicubic | +1.00 [+1.00, +1.00] |" in text
    assert "plain mean counts every split" in text
    assert "`python main.py --arch rtsrn --test`" in text
    assert "fingerprint f00d" in text


def test_headline_says_result_difference_and_interval(report):
    (sentence,) = headlines(report, tables(report))
    pattern = (
        r"PPOCR reads 62\.5 % of the words correctly in SR, \+37\.5 points against LR "
        r"\(plain mean of 2 splits; 95 % interval ([+-][\d.]+) to ([+-][\d.]+)(: it contains zero.*)?\)\."
    )
    low, high = (float(text) for text in re.fullmatch(pattern, sentence).groups()[:2])
    assert low < 37.5 < high


def test_a_difference_of_one_sign_in_every_image_has_no_width(report):
    for row, texts in (("lr", ["x"] * 4), ("sr_1", ["hotel", "caf", "a1", "open"])):
        report["splits"]["easy"]["per_image"]["readings"]["PPOCR"][row] = texts
        report["splits"]["easy"]["accuracy"]["PPOCR"][row] = entry(float(row == "sr_1"))
    cell = tables(report)[0].row("difference").cells[0]
    assert (cell.value, cell.low, cell.high) == (100.0, 100.0, 100.0)


def test_paired_interval_is_near_the_normal_one(report):
    """1000 images, 100 gained and 40 lost: standard error sqrt((.14 - .06^2) / 1000) = 1.168 points."""
    before = ["a"] * 40 + ["x"] * 960
    after = ["x"] * 40 + ["a"] * 100 + ["x"] * 860
    split = one_split({"R": {"lr": before, "sr_1": after}}, ["a"] * 1000, rows=["lr", "sr_1"])
    more = make_report({"easy": split}, rows=["lr", "sr_1"], readers=["R"])
    more["protocol"]["bootstrap_samples"] = 20000
    cell = tables(more)[0].row("difference").cells[0]
    assert cell.value == pytest.approx(6.0)
    assert cell.low == pytest.approx(6.0 - 1.96 * 1.168, abs=0.15)
    assert cell.high == pytest.approx(6.0 + 1.96 * 1.168, abs=0.15)


def test_chance_is_named_where_the_interval_contains_zero(report):
    split = one_split({"R": {"lr": ["a", "x"], "sr_1": ["x", "a"]}}, ["a", "a"], rows=["lr", "sr_1"])
    more = make_report({"easy": split}, rows=["lr", "sr_1"], readers=["R"])
    (sentence,) = headlines(more, tables(more))
    assert "+0.0 points against LR (on easy;" in sentence and "chance alone" in sentence


def test_two_stages_are_named_and_the_last_is_the_result(report, tmp_path):
    for split in report["splits"].values():
        for measure in ("psnr", "ssim", "psnr_batch", "ssim_batch"):
            split[measure]["sr_2"] = split[measure]["sr_1"]
        split["accuracy"]["PPOCR"]["sr_2"] = split["accuracy"]["PPOCR"]["hr"]
        images = split["per_image"]
        images["readings"]["PPOCR"]["sr_2"] = images["readings"]["PPOCR"]["hr"]
        images["psnr"]["sr_2"] = images["psnr"]["sr_1"]
    report["rows"] = ["lr", "bicubic", "sr_1", "sr_2", "hr"]
    report["average"] = averages(list(report["splits"].values()))
    table = tables(report)[0]
    assert [row.name for row in table.rows] == ["LR", "Bicubic", "SR 1", "SR 2", "HR", "SR 2 - LR"]
    assert [row.kind for row in table.rows] == ["plain", "plain", "plain", "result", "plain", "difference"]
    page = page_of(report, tmp_path, pictures_of(report)[0])
    assert "Where SR 2 helped most" in text_of(parse(page))
    card = parse(page).find(".//article")
    assert [text_of(name) for name in card.iterfind(".//b")] == ["LR", "Bicubic", "SR 1", "SR 2", "HR"]


# --- files ---------------------------------------------------------------------------------------------------------


def test_json_is_strict_and_gives_the_same_report_again(report, tmp_path):
    easy = report["splits"]["easy"]
    easy["psnr"]["sr_1"] = {"value": math.inf, "low": 20.0, "high": math.nan}
    easy["per_image"]["psnr"]["sr_1"] = np.array([math.inf, 20.0, 21.0, 22.0], np.float32)
    easy["path"] = tmp_path / "caf\udce9"  # a folder name that is not UTF-8
    easy["images"] = np.int64(4)
    path = write_report(tmp_path / "a", report)["json"]

    def refuse(name):
        raise AssertionError(name)

    again = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert again["splits"]["easy"]["psnr"]["sr_1"] == {"value": "inf", "low": 20.0, "high": None}
    assert again["splits"]["easy"]["per_image"]["psnr"]["sr_1"] == ["inf", 20.0, 21.0, 22.0]
    assert list(again["splits"]) == ["easy", "hard"] and list(again) == list(report)
    first, second = ((tmp_path / name) for name in "ab")
    write_report(second, again)
    for name in ("report.json", "report.md", "report.html"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert screen_table(again) == screen_table(report)
    assert "inf" in screen_table(report)
    assert "∞" in (first / "report.html").read_text(encoding="utf-8")


def test_json_has_a_line_per_list_not_per_image(report, tmp_path):
    text = write_report(tmp_path, report)["json"].read_text(encoding="utf-8")
    assert '"lr": ["hotel", "", "a1", "oper"]' in text
    assert "café" in text


def test_files_are_replaced_whole_and_nothing_is_left(report, tmp_path):
    write_report(tmp_path, report)
    assert set(write_report(tmp_path, report)) == {"json", "md", "html"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json", "report.md"]


def test_a_failure_of_the_pictures_does_not_lose_the_numbers(report, tmp_path):
    with pytest.raises(ValueError, match="gave 0 images for"):
        write_report(tmp_path, report, lambda split, positions: [])
    assert json.loads((tmp_path / "report.json").read_text())["format"] == 1
    assert "62.5" in (tmp_path / "report.md").read_text()


def test_readings_that_disagree_with_the_counts_are_told(report, tmp_path, caplog):
    report["splits"]["easy"]["accuracy"]["PPOCR"]["sr_1"]["correct"] = 4
    with caplog.at_level(logging.WARNING):
        write_report(tmp_path, report)
    assert "split=easy reader=PPOCR row=sr_1 correct=4 equal=3" in caplog.text


# --- page ----------------------------------------------------------------------------------------------------------


def test_page_is_well_formed_self_contained_and_complete(report, tmp_path):
    page = page_of(report, tmp_path, pictures_of(report)[0])
    tree = parse(page)
    said = text_of(tree)
    for words in (
        "beef",
        "f00d",
        "python main.py --arch rtsrn --test",
        "abc123",
        "the PPOCR",
        "step 300",
        "weights none",
    ):
        assert words in said.replace("weightsnone", "weights none"), words
    assert "http" not in page and "<script" not in page and "<link" not in page and "@import" not in page
    assert all(image.get("alt") for image in tree.iter("img"))
    assert all(table.find("caption") is not None for table in tree.iter("table"))
    assert next(tree.iter("svg")).get("aria-label").startswith("Accuracy in %, read by PPOCR on easy: LR 50.0 %")
    assert {head.get("scope") for head in tree.iter("th")} == {"col", "row"}


def test_table_of_the_page_has_values_and_intervals(report, tmp_path):
    rows = [text_of(row) for row in parse(page_of(report, tmp_path)).find(".//table").iter("tr")]
    plain = [row.replace("\N{EN DASH}", "..").replace("\N{MINUS SIGN}", "-") for row in rows]
    assert "LR50.095 % interval 40.0..60.00.095 % interval -10.0..10.025.033.3" in plain


def test_bars_are_as_long_as_the_accuracies(report, tmp_path):
    chart = next(parse(page_of(report, tmp_path)).iter("svg"))
    widths = [float(bar.get("width")) for bar in chart.iter("rect")]
    assert [width / widths[-1] for width in widths] == pytest.approx([0.5, 0.5, 0.75, 1.0])
    assert len([path for path in chart.iter("path") if path.get("class") == "whisker"]) == 4


def test_pictures_are_asked_for_once_per_split_and_shown_as_they_are(report, tmp_path):
    pictures, calls = pictures_of(report)
    tree = parse(page_of(report, tmp_path, pictures))
    assert calls == [("easy", [0, 1, 2, 3]), ("hard", [0, 1])]
    card = next(card for card in tree.iter("article") if "image 11" in text_of(card))
    images = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(image.get("src").removeprefix("data:image/png;base64,")))))
        for image in card.iter("img")
    ]
    for k, image in enumerate(images):
        assert np.array_equal(image, np.full((32, 128, 3), (1, 40 * k, 7), np.uint8))
    assert len(images) == 4


def test_lr_pixels_become_blocks(report, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (16, 64, 3), dtype=np.uint8)
    big = np.zeros((32, 128, 3), np.uint8)
    page = page_of(report, tmp_path, lambda _, positions: [{"lr": noise, "hr": big} for _ in positions])
    data = next(parse(page).iter("img")).get("src").split(",")[1]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), noise.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("with_pictures", [True, False])
def test_nasty_texts_are_shown_not_obeyed(report, tmp_path, with_pictures):
    easy = report["splits"].pop("easy")
    easy["per_image"]["label"][1] = NASTY
    easy["per_image"]["readings"] = {NASTY: easy["per_image"]["readings"]["PPOCR"]}
    easy["accuracy"] = {NASTY: easy["accuracy"]["PPOCR"]}
    report |= {"splits": {NASTY: easy}, "command": NASTY, "readers": {NASTY: {"description": NASTY}}}
    report["system"]["arch"] = NASTY
    report["selection"] = {"on": "test", "note": NASTY}
    page = page_of(report, tmp_path, pictures_of(report)[0] if with_pictures else None)
    assert "<script" not in page and "\x1b" not in page
    assert "<script>&\"'/|`*" in text_of(
        next(card for card in parse(page).iter("article") if "image 11" in text_of(card))
    )
    assert "\x1b" not in screen_table(report)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "\x1b" not in text
    outside_code = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", re.sub(r"\\.", "", text))
    assert "<script" not in outside_code
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("| ")}) == 1


def test_every_script_survives(report, tmp_path):
    report["splits"]["easy"]["per_image"]["label"][1] = "漢字 عربى 🙂"
    assert "漢字 عربى 🙂" in text_of(parse(page_of(report, tmp_path)))


@pytest.mark.parametrize(
    ("target", "reading", "marks"),
    [
        ("hotel", "hotel", ""),
        ("hotel", "hote1", "wrong 1/l"),
        ("hello", "helo", "missing /l"),
        ("helo", "hello", "extra l/"),
        ("open", "", "missing /o missing /p missing /e missing /n"),
        ("", "ab", "extra a/ extra b/"),
        ("abc", "xbcd", "wrong x/a extra d/"),
        ("kitten", "sitting", "wrong s/k wrong i/e extra g/"),
        ("", "", ""),
    ],
)
def test_exactly_the_wrong_letters_are_marked(report, tmp_path, target, reading, marks):
    pieces = align(target, reading)
    assert " ".join(f"{p.kind} {p.read}/{p.expected}" for p in pieces if p.kind != "same") == marks
    assert "".join(piece.expected for piece in pieces) == target
    assert "".join(piece.read for piece in pieces) == reading
    split = one_split({"R": {"sr_1": [reading]}}, [target], rows=["sr_1"])
    tree = parse(page_of(make_report({"s": split}, rows=["sr_1"], readers=["R"]), tmp_path))
    shown = next(tree.iter("article")).findall(".//mark")
    expected = [mark for mark in marks.split() if mark in ("wrong", "missing", "extra")]
    assert [mark.get("class") for mark in shown] == expected
    assert ("✓" in text_of(next(tree.iter("article")))) == (target == reading)


def test_distance_is_normalised():
    assert distance("", "") == 0
    assert distance("kitten", "sitting") == pytest.approx(3 / 7)
    assert distance("abc", "") == distance("", "abc") == 1


# --- cases ---------------------------------------------------------------------------------------------------------


def test_cases_are_what_their_names_say(report):
    helped, hurt, worst, random = choose_cases(report, 12)
    # easy 1 was read as nothing (distance 1), easy 3 as oper (1/4), hard 0 as x (1); the splits take turns
    assert helped.places == [("easy", 1), ("hard", 0), ("easy", 3)] and helped.total == 3
    assert hurt.places == [("easy", 2)] and hurt.total == 1
    assert worst.places == [("hard", 1)] and worst.total == 2  # easy 2 was shown already
    assert random.places == [("easy", 0)] and random.total == 6
    assert choose_cases(report, 12) == [helped, hurt, worst, random]


def test_worst_breaks_ties_by_psnr():
    rows = ["lr", "sr_1"]
    readings = {"lr": ["x"] * 4, "sr_1": ["x", "x", "a", "x"]}
    split = one_split({"R": readings}, ["a"] * 4, rows=rows, psnr={"sr_1": [21.0, 19.0, 10.0, math.inf]})
    worst = choose_cases(make_report({"s": split}, rows=rows, readers=["R"]), 3)[2]
    assert worst.places == [("s", 1), ("s", 0), ("s", 3)]


def test_number_of_cases(report, tmp_path):
    assert all(len(kind.places) <= 1 for kind in choose_cases(report, 1))
    pictures, calls = pictures_of(report)
    page = page_of(report, tmp_path, pictures, cases=0)
    assert calls == [] and parse(page).find(".//article") is None


# --- what may be missing -------------------------------------------------------------------------------------------


def test_selection_on_the_test_data_is_said_everywhere(report, tmp_path):
    assert warnings_of(report) == []
    assert "WARNING" not in screen_table(report)
    report["selection"]["on"] = "test"
    paths = write_report(tmp_path, report)
    assert screen_table(report).startswith("WARNING: These weights were selected on the test data")
    assert "> **Warning:** These weights were selected on the test data" in paths["md"].read_text()
    note = parse(paths["html"].read_text(encoding="utf-8")).find(".//*[@class='warning']")
    assert "selected on the test data" in text_of(note) and "Best of twelve." in text_of(note)


def test_skipped_images_are_said(report):
    report["splits"]["hard"]["skipped"] = 3
    assert warnings_of(report) == ["3 unreadable images of hard were skipped; no score counts them."]


def test_without_readers_psnr_tells_the_result(report, tmp_path):
    report["readers"] = {}
    for split, gains in zip(report["splits"].values(), ([1.0, -2.0, 3.0, 0.0], [math.inf, 0.5]), strict=True):
        split["accuracy"] = {}
        split["per_image"]["readings"] = {}
        split["per_image"]["psnr"]["sr_1"] = [21.0 + gain for gain in gains]
    report["average"] = averages(list(report["splits"].values()))
    screen = screen_table(report)
    assert screen.startswith("PSNR is 22.00 dB for SR, +1.00 dB against Bicubic (plain mean of 2 splits)")
    assert "Accuracy" not in screen
    helped, hurt, worst, _ = choose_cases(report, 12)
    assert helped.places == [("easy", 2), ("hard", 0), ("easy", 0), ("hard", 1)]
    assert hurt.places == [("easy", 1)]
    assert worst.places == [("easy", 3)]
    said = text_of(parse(page_of(report, tmp_path, pictures_of(report)[0])))
    assert "no reader" in said and "Reading accuracy" not in said


def test_one_split_has_no_averages(report, tmp_path):
    del report["splits"]["hard"]
    report["average"] = {}
    assert tables(report)[0].columns == ["easy"]
    (sentence,) = headlines(report, tables(report))
    assert "(on easy; 95 % interval" in sentence
    assert "plain mean" not in page_of(report, tmp_path)


def test_missing_rows_and_numbers_are_left_out(report, tmp_path):
    for split in report["splits"].values():
        del split["accuracy"]["PPOCR"]["lr"], split["per_image"]["readings"]["PPOCR"]["lr"]
        del split["per_image"]["psnr"], split["per_image"]["ssim"]
    report["splits"]["hard"]["psnr"]["sr_1"] = None
    report["average"]["weighted"] = {}
    del report["average"]["plain"]["accuracy"]["PPOCR"]["lr"]
    table = tables(report)[0]
    assert [row.name for row in table.rows] == ["Bicubic", "SR", "HR", "SR - Bicubic"]
    lines = lines_of(screen_table(report))
    assert "SR 22.00 ±0.50 - 22.00 -" in lines
    parse(page_of(report, tmp_path, pictures_of(report)[0]))


def test_an_almost_empty_report_is_written(tmp_path):
    for k, report in enumerate(({}, {"rows": [], "splits": {}}, {"rows": ROWS, "splits": {"easy": {"images": 0}}})):
        parse(page_of(report, tmp_path / str(k), lambda split, positions: []))
        screen_table(report)


def test_bicubic_alone_has_no_result(report, tmp_path):
    for split in report["splits"].values():
        del split["accuracy"]["PPOCR"]["sr_1"], split["per_image"]["readings"]["PPOCR"]["sr_1"]
    report["rows"] = ["lr", "bicubic", "hr"]
    assert headlines(report, tables(report)) == []
    parse(page_of(report, tmp_path))


def test_method_names_the_protocol(report):
    said = " ".join(method_notes(report))
    for words in ("lower-case letters and digits", "empty label counts as right", "200 samples", "per batch of 48"):
        assert words in said


def test_twenty_thousand_images(tmp_path):
    size = 20_000
    rng = np.random.default_rng(0)
    labels = ["".join(word) for word in rng.choice(list("abcdefgh"), (size, 6))]
    readings = {
        row: [label if keep else label[::-1] for label, keep in zip(labels, rng.random(size) < share, strict=True)]
        for row, share in (("lr", 0.4), ("bicubic", 0.4), ("sr_1", 0.6), ("hr", 0.9))
    }
    psnr = {row: rng.normal(21, 3, size).tolist() for row in ("bicubic", "sr_1")}
    split = one_split({"R": readings}, labels, rows=ROWS, psnr=psnr)
    report = make_report({"easy": split}, rows=ROWS, readers=["R"])
    pictures, calls = pictures_of(report)
    paths = write_report(tmp_path, report, lambda _, positions: pictures(_, [0] * len(positions)), cases=3)
    assert len(calls[0][1]) == 12
    assert paths["html"].stat().st_size < 100_000
    assert json.loads(paths["json"].read_text())["splits"]["easy"]["per_image"]["label"] == labels
