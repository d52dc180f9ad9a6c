import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor

from dataset.loading import OrderedBatches
from dataset.str_sets import StrSet
from interface.compare import compare, load_report
from interface.config import ROOT, load_settings
from interface.evaluation import Evaluator
from interface.readers import Reader, ReadingCache
from interface.str_protocol import SIZES, StrProtocol, takes
from interface.str_report import screen_table, write_benchmark, write_summary
from interface.systems import build_system
from interface.systems.base import System
from model.bicubic import enlarge
from tests.dataset.pictures import WORDS, encode, word_picture, write_entries
from tests.interface.helpers import LIGHT, Reads
from tests.interface.helpers import run as run_main

CPU = torch.device("cpu")
SCRIPT = ROOT / "scripts" / "str_benchmark.py"


def write_words(path: Path, count: int, *, label: str = "", bad=()) -> Path:
    """An STR set; the pictures of the samples `bad` (0-based) cannot be decoded."""
    entries: dict[str, bytes] = {"num-samples": str(count).encode()}
    for place in range(count):
        picture = b"no picture" if place in bad else encode(word_picture(place))
        entries[f"image-{place + 1:09d}"] = picture
        entries[f"label-{place + 1:09d}"] = (label or WORDS[place]).encode()
    return write_entries(path, entries)


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> Path:
    """An STR set of seven words; read only."""
    return write_words(tmp_path_factory.mktemp("str") / "words", 7)


class Counting(Reads):
    """A recogniser whose reading is a number made of the picture."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def read(self, images: Tensor) -> list[str]:
        self.shapes.append(tuple(images.shape))
        return [str(int(1e6 * image[:3].double().mean().abs())) for image in images]


class Wide(Reads):
    """Reads the word in every picture that is at least 64 pixels wide."""

    def read(self, images: Tensor) -> list[str]:
        return ["HOTEL!" if images.shape[-1] >= 64 else "hat" for _ in images]


def reader(recognizer: Any = None, name="COUNT", fingerprint="COUNT-1") -> Any:
    return Reader(name, recognizer or Counting(), fingerprint, "counts")


class Twice(System):
    """Enlarges by two, whatever it gets; notes what it got."""

    def __init__(self, offset: float = 0.0) -> None:
        super().__init__()
        self.offset, self.shapes = offset, []

    def cascade(self, images_lr: Tensor) -> list[Tensor]:
        assert torch.is_inference_mode_enabled()
        self.shapes.append(tuple(images_lr.shape))
        return [torch.zeros(1), enlarge(images_lr) + self.offset]


class Fixed(Twice):
    """Takes 16x64 pictures only."""

    def cascade(self, images_lr: Tensor) -> list[Tensor]:
        if images_lr.shape[2:] != (16, 64):
            raise ValueError("16x64 wanted")
        return super().cascade(images_lr)


def protocol(readers=None, system=None, cache=None, gather=list, **options) -> StrProtocol:
    evaluator = Evaluator(readers or [reader()], CPU, cache or ReadingCache(None), bootstrap_samples=50, gather=gather)
    return StrProtocol(evaluator, system, **{"scale": 2, "size_lr": (64, 16), "batch_size": 3, **options})


def readings(found, name="COUNT"):
    return found["per_image"]["readings"][name]


# ------------------------------------------------------------------------------------------- numbers


def test_the_numbers_of_a_small_set_by_hand(tmp_path):
    path = write_words(tmp_path / "SVT", 4, label="Ho-tel")
    found = protocol([reader(Wide(), "WIDE")], scale=4).run(StrSet(path))
    assert found["images"] == 4
    right = {row for row, entry in found["accuracy"]["WIDE"].items() if entry["correct"] == 4}
    every = {"photo", *(f"{kind}_{size}" for kind in ("lr", "bicubic") for size in map("{0[0]}x{0[1]}".format, SIZES))}
    assert right == every - {"lr_32x8", "lr_24x6", "lr_20x5"}
    assert set(found["accuracy"]["WIDE"]) == every
    assert found["accuracy"]["WIDE"]["photo"] == {"value": 1, "low": 1, "high": 1, "correct": 4}
    assert found["accuracy"]["WIDE"]["lr_20x5"] == {"value": 0, "low": 0, "high": 0, "correct": 0}
    assert found["difference"] == {}
    images = found["per_image"]
    assert images["index"] == list(range(4))
    assert images["label"] == 4 * ["Ho-tel"]
    assert images["target"] == 4 * ["hotel"]
    assert readings(found, "WIDE")["photo"] == 4 * ["hotel"]
    assert readings(found, "WIDE")["lr_20x5"] == 4 * ["hat"]
    sizes = [word_picture(number).size for number in range(4)]
    assert images["size"] == [f"{width}x{height}" for width, height in sizes]
    assert found["smaller"]["128x32"] == sum(width < 128 or height < 32 for width, height in sizes) > 0
    assert found["smaller"]["20x5"] == 0
    assert (found["count"]["benchmark"], found["count"]["fits"]) == ("SVT", False)


def test_the_difference_is_that_of_the_pictures(tmp_path):
    path = write_words(tmp_path / "words", 4, label="hotel")

    class Bright(Reads):
        """Reads where the picture is brighter than its bicubic could be."""

        def read(self, images):
            return ["hotel" if image.mean() > 2 else "hat" for image in images]

    found = protocol([reader(Bright())], Twice(offset=5.0)).run(StrSet(path))
    assert found["difference"]["COUNT"] == {f"{w}x{h}": {"value": 1, "low": 1, "high": 1} for w, h in SIZES}
    assert found["accuracy"]["COUNT"]["sr_20x5"]["correct"] == 4
    assert found["accuracy"]["COUNT"]["bicubic_20x5"]["correct"] == 0


@pytest.mark.parametrize(
    "options", [{"batch_size": 1}, {"batch_size": 5, "threads": 2}, {"batch_size": 48}, {"threads": 1}], ids=str
)
@pytest.mark.parametrize("system", [None, Twice(0.1), Fixed(0.1)], ids=["none", "direct", "resized"])
def test_results_do_not_depend_on_batches_and_threads(words, system, options):
    assert protocol(system=system, **options).run(StrSet(words)) == protocol(system=system).run(StrSet(words))


def test_a_real_network_gives_the_same_numbers_in_every_batch(words):
    torch.manual_seed(0)
    system = build_system(load_settings([*LIGHT, "--triple_clues"]).config, training=False).eval()
    system.to(memory_format=torch.channels_last)
    assert takes(system, (64, 16), channels=4, scale=2, device=CPU)
    assert not takes(system, (20, 5), channels=4, scale=2, device=CPU)
    found = []
    for size in (4, 3):
        made = protocol(system=system, mask=True, sizes=((32, 8), (20, 5)), batch_size=size)
        assert made.network_input == "resized"
        found.append(made.run(StrSet(words, limit=4)))
    assert found[0] == found[1]
    assert readings(found[0])["sr_20x5"] != readings(found[0])["bicubic_20x5"]


def test_a_system_that_is_bicubic_gives_the_bicubic_row(words):
    system = build_system(load_settings(["--arch", "bicubic", "--go_test"]).config, training=False).eval()
    made = protocol(system=system)
    assert made.network_input == "direct"
    found = readings(made.run(StrSet(words)))
    for width, height in SIZES:
        assert found[f"sr_{width}x{height}"] == found[f"bicubic_{width}x{height}"]
        assert found[f"sr_{width}x{height}"] != found[f"lr_{width}x{height}"]


def test_two_processes_give_the_numbers_of_one(words):
    whole = protocol(system=Twice(0.1)).run(StrSet(words))
    parts: list[list] = []

    def collect(share):
        parts.append(share)
        return share

    for rank in (0, 1):
        protocol(system=Twice(0.1), gather=collect, rank=rank, world_size=2, batch_size=2).run(StrSet(words))
    assert [len(part) for part in parts] == [4, 1, 3, 1]
    last = protocol(
        system=Twice(0.1), gather=lambda share: [*parts[2], *parts[0]] if isinstance(share[0], dict) else [0]
    )
    assert last.run(StrSet(words)) == whole


# ------------------------------------------------------------------------------------------- pictures


def test_every_size_reaches_system_and_reader(words):
    system, one, other = Twice(), reader(), reader(name="OTHER", fingerprint="OTHER-1")
    made = protocol([one, other], system, batch_size=7)
    system.shapes.clear()  # of the trial
    made.run(StrSet(words))
    assert system.shapes == [(7, 3, height, width) for width, height in SIZES]  # once, for both readers
    shapes = [(7, 3, 32, 128)]
    for width, height in SIZES:
        shapes += [(7, 3, height, width), *2 * [(7, 3, 2 * height, 2 * width)]]
    assert one.recognizer.shapes == other.recognizer.shapes == shapes


def test_a_network_of_one_size_gets_that_size(words):
    system, read = Fixed(), reader()
    made = protocol([read], system, batch_size=7)
    system.shapes.clear()
    found = readings(made.run(StrSet(words)))
    assert made.network_input == "resized"
    assert made.description()["enlarged to"] == {f"{w}x{h}": "128x32" for w, h in SIZES}
    assert system.shapes == 5 * [(7, 3, 16, 64)]
    assert set(read.recognizer.shapes) == {(7, 3, h, w) for w, h in SIZES}  # enlarged ones have 32x128
    assert found["sr_64x16"] == found["bicubic_64x16"]
    assert found["bicubic_128x32"] == found["lr_128x32"]  # nothing to enlarge
    assert found["sr_20x5"] != found["bicubic_20x5"]  # it was brought to 64x16 in 8 bits first


def test_how_pictures_reach_the_network_can_be_chosen(words):
    system = Twice()
    protocol(system=system, network_input="resized", batch_size=7).run(StrSet(words))
    assert system.shapes == 5 * [(7, 3, 16, 64)]
    with pytest.raises(
        ValueError, match="does not take pictures of 128x32, 32x8, 24x6, 20x5 pixels; use --input resized"
    ):
        protocol(system=Fixed(), network_input="direct")


def test_a_system_of_another_scale_does_not_take_a_size():
    with torch.inference_mode():
        assert takes(Twice(), (20, 5), channels=3, scale=2, device=CPU)
        assert not takes(Twice(), (20, 5), channels=3, scale=4, device=CPU)


def test_the_mask_goes_to_the_network_alone(words):
    system, read = Twice(), reader()
    protocol([read], system, mask=True, batch_size=7).run(StrSet(words))
    assert {shape[1] for shape in system.shapes} == {4}
    kinds = [shape[1] for shape in read.recognizer.shapes]
    assert kinds == [3, *5 * [3, 3, 4]]  # a reader leaves out what comes behind RGB


def test_recognisers_get_photos_in_the_size_of_their_protocol(words):
    crnn, own, unknown = reader(name="CRNN"), reader(name="PPOCR"), reader(name="NEW")
    made = protocol([crnn, own, unknown], sizes=((20, 5),), batch_size=7)
    made.run(StrSet(words))
    assert crnn.recognizer.shapes[0] == (7, 3, 32, 100)
    assert unknown.recognizer.shapes[0] == (7, 3, 32, 128)
    sizes = [word_picture(number).size for number in range(7)]
    assert own.recognizer.shapes[:7] == [(1, 3, height, width) for width, height in sizes]
    assert made.description()["photo size"] == {"CRNN": "100x32", "PPOCR": "its own", "NEW": "128x32"}


# ------------------------------------------------------------------------------------------- damage, kept readings


def test_samples_that_cannot_be_read_are_left_out_counted_and_named(tmp_path, caplog):
    path = write_words(tmp_path / "damaged", 6, bad=[0, 3, 4])
    found = protocol(batch_size=2).run(StrSet(path))
    assert (found["images"], found["skipped"], found["stored"]) == (3, 3, 6)
    assert found["per_image"]["index"] == [1, 2, 5]
    for number in (1, 4, 5):
        assert f"{path} sample {number:09d}" in caplog.text


def test_a_set_of_which_nothing_can_be_read_is_an_error(tmp_path):
    path = write_words(tmp_path / "damaged", 2, bad=[0, 1])
    with pytest.raises(ValueError, match="damaged: no picture of it can be read"):
        protocol().run(StrSet(path))


def test_readings_of_what_no_training_changes_are_kept(words, tmp_path):
    def rows_read(**options):
        read = reader(fingerprint=options.pop("fingerprint", "COUNT-1"))
        made = protocol([read], cache=ReadingCache(tmp_path), **options)
        found = made.run(StrSet(words, limit=options.pop("limit", 0)))
        return found, sum(shape[0] for shape in read.recognizer.shapes)

    first, count = rows_read(system=Twice(0.1))
    assert count == 7 * 16
    again, count = rows_read(system=Twice(0.1))
    assert count == 7 * 5
    assert again == first
    assert rows_read()[1] == 0
    assert rows_read(scale=4)[1] == 7 * 5  # other bicubic pictures
    assert rows_read(system=Fixed())[1] == 7 * (5 + 3)  # 64x16 and 32x8 were enlarged to 128x32 before
    assert rows_read(fingerprint="COUNT-2")[1] == 7 * 11


def test_readings_of_a_part_are_completed(words, tmp_path):
    whole = protocol().run(StrSet(words))
    part = protocol(cache=ReadingCache(tmp_path)).run(StrSet(words, limit=4))
    assert (part["images"], part["stored"]) == (4, 7)
    assert readings(part)["lr_20x5"] == readings(whole)["lr_20x5"][:4]
    for _ in range(2):
        assert protocol(cache=ReadingCache(tmp_path)).run(StrSet(words)) == whole


def test_progress_counts_every_picture(words):
    counted: list[int] = []
    protocol(sizes=((20, 5),)).run(StrSet(words), counted.append)
    assert counted == [3, 3, 1] == [len(batch) for batch in OrderedBatches(7, 3)]


# ------------------------------------------------------------------------------------------- report


def report_of(made: StrProtocol, results) -> dict[str, Any]:
    return {
        "system": {"arch": "mine"},
        "protocol": made.description(),
        "readers": {read.name: {} for read in made.evaluator.readers},
        "rows": made.rows,
        "splits": results,
    }


@pytest.fixture
def two_sets(tmp_path):
    """A report of two sets, in which one reader reads wide pictures."""
    made = protocol([reader(Wide(), "WIDE")], Twice(), sizes=((40, 10), (20, 5)))
    results = {}
    for name, count, label in (("ic13", 2, "hotel"), ("a|b$c$/x", 6, "other")):
        path = write_words(tmp_path / f"{count}" / "ic13", count, label=label)
        results[name] = made.run(StrSet(path))
    return report_of(made, results)


def test_the_table_by_hand(two_sets):
    lines = screen_table(two_sets).splitlines()
    assert lines[0] == "Accuracy in %, read by WIDE"
    table = [line.split() for line in lines]
    assert table[1] == ["photo", "40x10", "20x5"]
    assert lines[2] == "ic13 (2)"
    assert table[3] == ["as", "it", "is", "100.0", "±0.0", "0.0", "±0.0", "0.0", "±0.0"]
    assert table[4] == ["bicubic", "x2", "100.0", "±0.0", "0.0", "±0.0"]
    assert table[5] == ["SR", "100.0", "±0.0", "0.0", "±0.0"]
    assert table[6] == ["SR", "-", "bicubic", "+0.0", "±0.0", "+0.0", "±0.0"]
    assert lines[7] == "a|b$c$/x (6)"
    assert lines[12] == "plain mean"
    assert table[14] == ["bicubic", "x2", "50.0", "0.0"]
    assert lines[17] == "weighted mean"
    assert table[19] == ["bicubic", "x2", "25.0", "0.0"]
    notes = lines[23:]
    assert notes[0].startswith("WARNING: IC13 has 1015 (")
    assert "here are 2" in notes[0]


def test_files_of_a_report(two_sets, tmp_path):
    folders = {}
    for name, entry in two_sets["splits"].items():
        folders[name] = write_benchmark(tmp_path / "out", {**two_sets, "splits": {name: entry}})
    written = write_summary(tmp_path / "out", two_sets, folders).read_text(encoding="utf-8")
    assert [folder.name for folder in folders.values()] == ["ic13", "a_b_c_x"]
    assert r"| a\|b$c$/x (6) | as it is | 0.0 [0.0, 0.0] |" in written
    for name, folder in folders.items():
        assert f"({folder.name}/accuracy.svg)" in written
        assert ElementTree.parse(folder / "accuracy.svg").getroot().tag.endswith("svg")
        assert set(load_report(folder)["splits"]) == {name}
    again = write_benchmark(tmp_path / "out", {**two_sets, "splits": {"ic13": two_sets["splits"]["ic13"]}})
    assert again.name == "ic13-2"  # nothing is overwritten
    assert (again / "accuracy.svg").read_bytes() == (folders["ic13"] / "accuracy.svg").read_bytes()
    same = compare(load_report(folders["ic13"]), load_report(again), row="sr_20x5", samples=20)
    assert [(one.measure, one.a, one.b) for one in same] == [
        ("accuracy WIDE", 0.0, 0.0),
        ("character accuracy WIDE", 0.4, 0.4),  # "hat" for "hotel" takes three edits
    ]


# ------------------------------------------------------------------------------------------- the program


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("str_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(tool, capsys, monkeypatch, tmp_path):
    """Calls the program in a folder of its own; gives (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        status = tool.main([*map(str, arguments), "--device", "cpu", "--workers", "0"])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def test_the_program_without_a_system(run, words, tmp_path):
    other = write_words(tmp_path / "sets" / "IC13", 3)
    data = ("--test_data_dir", words, tmp_path / "sets")
    status, out, _ = run(*data, "--sizes", "64x16", "20x5", "--limit", "2")
    assert status == 0
    (folder,) = (tmp_path / "ckpt" / "bicubic").glob("str-*")
    assert {path.name for path in folder.iterdir()} == {"report.md", "words", "IC13"}
    report = json.loads((folder / "IC13" / "report.json").read_text())
    assert report["rows"] == ["photo", "lr_64x16", "bicubic_64x16", "lr_20x5", "bicubic_20x5"]
    assert report["protocol"]["enlarged to"]["20x5"] == "80x20"
    assert report["splits"]["IC13"]["path"] == str(other)
    assert report["splits"]["IC13"]["per_image"]["readings"]["PPOCR"]["photo"] == ["hotel", "open"]
    assert "WARNING: IC13 has 1015" in out
    assert "only the first 2 of 3" in out
    assert out.count("weighted mean") == 1


def test_the_program_with_a_system(run, words, tmp_path):
    arguments = ("--test_data_dir", words, "--sizes", "32x8", "--arch", "bicubic", "--report_dir", "out")
    assert run(*arguments, "--batch_size", "3")[0] == 0
    report = json.loads((tmp_path / "out" / "words" / "report.json").read_text())
    assert report["protocol"]["scale"] == 2
    assert report["protocol"]["network input"] == "direct"
    read = report["splits"]["words"]["per_image"]["readings"]["PPOCR"]
    assert read["sr_32x8"] == read["bicubic_32x8"]
    assert report["splits"]["words"]["difference"]["PPOCR"]["32x8"] == {"value": 0, "low": 0, "high": 0}


def test_main_takes_benchmarks_as_test_sets(words, tmp_path, tiny_dir):
    arguments = ["--arch", "bicubic", "--go_test", "--device", "cpu", "--workers", "0", "--ckpt_dir", tmp_path]
    run_main([*arguments, "--test_data_dir", words, "--report_dir", tmp_path / "out"])
    report = json.loads((tmp_path / "out" / "words" / "report.json").read_text())
    assert report["rows"][:4] == ["photo", "lr_128x32", "bicubic_128x32", "sr_128x32"]
    assert report["splits"]["words"]["images"] == 7
    with pytest.raises(ValueError, match=r"words is an STR set and .*easy a TextZoom set"):
        run_main([*arguments, "--test_data_dir", words, tiny_dir / "test" / "easy"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the benchmarks with --test_data_dir"),
        (["--test_data_dir", "none"], "none: nothing there"),
        (["--test_data_dir", "words", "words"], "the same data set is named twice"),
        (["--test_data_dir", "words", "--input", "resized"], "--input resized is about a system"),
        (["--test_data_dir", "words", "--arch", "rtsrn"], "random weights"),
        (["--test_data_dir", "words", "--test_model", ""], "--test_model names no recogniser"),
        (["--test_data_dir", "words", "--limmit", "3"], "unknown flag --limmit"),
    ],
    ids=str,
)
def test_bad_input_is_refused_clearly(run, words, arguments, message):
    Path("words").symlink_to(words)
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize("value", ["0x8", "32", "32X8", "99999x1", "16x64", "2000x32", "4x2"])
def test_a_size_is_width_x_height(tool, capsys, value):
    with pytest.raises(SystemExit):
        tool.parse(["--sizes", value])
    assert "is no size" in capsys.readouterr().err


def test_help_is_fast_and_names_the_sizes():
    code = (
        f"import runpy, sys; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
        "except SystemExit as error: assert error.code == 0\n"
        "assert not {'torch', 'lmdb', 'PIL', 'numpy'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert " ".join(f"{width}x{height}" for width, height in SIZES) in done.stdout
