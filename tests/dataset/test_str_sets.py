import importlib.util
import subprocess
import sys
from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image

from dataset.loading import OrderedBatches, Skipped
from dataset.str_sets import (
    BENCHMARKS,
    Preparation,
    StrSet,
    StrWriter,
    WordPhoto,
    check_count,
    expected,
    find_benchmark,
    find_sets,
    read_batches,
)
from dataset.textzoom import DataError
from dataset.transforms import text_mask
from tests.dataset.pictures import WORDS, encode, word_picture, write_entries, write_pairs

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "build_str_lmdb.py"
PLAIN = Preparation(photo_sizes=(None, (100, 32)), sizes=((32, 8), (20, 5)))


def str_entries(numbers, bad=()):
    """Keys and values of an STR set; the pictures of the samples `bad` cannot be decoded."""
    entries = {}
    for place, number in enumerate(numbers):
        picture = b"no picture" if place in bad else encode(word_picture(number))
        entries |= {f"image-{place + 1:09d}": picture, f"label-{place + 1:09d}": WORDS[number].encode()}
    return {**entries, "num-samples": str(len(numbers)).encode()}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """An STR set of five words."""
    return write_entries(tmp_path_factory.mktemp("str") / "words", str_entries(range(5)))


# ------------------------------------------------------------------------------------------- reading


def test_photos_and_reduced_pictures_by_pillow(small):
    sample = StrSet(small).read(3, PLAIN)
    image = word_picture(3)
    assert isinstance(sample, WordPhoto)
    assert (sample.index, sample.label, sample.size) == (3, WORDS[3], image.size)
    assert np.array_equal(sample.photos[None], np.asarray(image).transpose(2, 0, 1))
    wide = image.resize((100, 32), Image.Resampling.BICUBIC)
    assert np.array_equal(sample.photos[100, 32], np.asarray(wide).transpose(2, 0, 1))
    for size in ((32, 8), (20, 5)):
        reduced = np.asarray(image.resize(size, Image.Resampling.BICUBIC)).transpose(2, 0, 1)
        assert np.array_equal(sample.reduced[size], reduced)
        assert np.array_equal(sample.inputs[size], reduced)


def test_the_network_may_want_another_size_and_a_mask(small):
    image = word_picture(1)
    wanted = Preparation(photo_sizes=(), sizes=((20, 5), (64, 16)), input_size=(64, 16), mask=True)
    sample = StrSet(small).read(1, wanted)
    assert not sample.photos
    for size in wanted.sizes:
        small_one = image.resize(size, Image.Resampling.BICUBIC)
        large = small_one.resize((64, 16), Image.Resampling.BICUBIC)
        assert sample.inputs[size].shape == (4, 16, 64)
        assert np.array_equal(sample.inputs[size][:3], np.asarray(large).transpose(2, 0, 1))
        assert np.array_equal(sample.inputs[size][3], text_mask(large))
        assert np.array_equal(sample.reduced[size], np.asarray(small_one).transpose(2, 0, 1))
    direct = StrSet(small).read(1, Preparation(photo_sizes=(), sizes=((20, 5),), mask=True))
    assert direct.inputs[20, 5].shape == (4, 5, 20)


@pytest.mark.parametrize("threads", [0, 1, 3])
@pytest.mark.parametrize("size", [1, 2, 5, 9])
def test_batches_hold_every_sample_in_order(small, size, threads):
    data = StrSet(small)
    batches = list(read_batches(data, PLAIN, OrderedBatches(len(data), size), threads=threads))
    assert [len(batch) for batch in batches] == [min(size, 5 - start) for start in range(0, 5, size)]
    samples = [sample for batch in batches for sample in batch]
    assert [sample.index for sample in samples] == list(range(5))
    for sample in samples:
        assert np.array_equal(sample.reduced[20, 5], data.read(sample.index, PLAIN).reduced[20, 5])


def test_a_limit_takes_the_first_ones(small):
    data = StrSet(small, "mine", limit=2)
    assert (len(data), data.stored, data.name) == (2, 5, "mine")
    assert len(StrSet(small, limit=9)) == 5
    assert data.fingerprint() == StrSet(small).fingerprint()


def test_hr_pictures_of_textzoom_can_be_read(tiny_pairs):
    sample = StrSet(tiny_pairs).read(0, PLAIN)
    assert sample.label == WORDS[0]
    assert sample.size == word_picture(0).size


def test_samples_that_cannot_be_read_are_named(tmp_path):
    entries = str_entries(range(4), bad=[1])
    del entries["label-000000003"]
    path = write_entries(tmp_path / "damaged", entries)
    found = [StrSet(path).read(index, PLAIN) for index in range(4)]
    assert [isinstance(sample, Skipped) for sample in found] == [False, True, True, False]
    assert f"{path} sample 000000002: its picture (10 bytes) cannot be decoded" in found[1].reason
    assert f"{path} sample 000000003: label-000000003 is missing" in found[2].reason


@pytest.mark.parametrize("what", ["nothing", "file", "empty", "labels only"])
def test_what_is_no_str_set_is_refused(tmp_path, what):
    path = tmp_path / "set"
    if what == "file":
        path.write_text("x")
    elif what == "empty":
        write_entries(path, {"num-samples": b"0"})
    elif what == "labels only":
        write_entries(path, {"num-samples": b"1", "label-000000001": b"x"})
    with pytest.raises(DataError, match=r"set: .*scripts/build_str_lmdb\.py"):
        StrSet(path)


def test_a_folder_of_lmdbs_stands_for_all_of_them(tmp_path):
    for name in ("SVT", "CUTE80", "deep/IC13"):
        write_pairs(tmp_path / name, [0])
    assert find_sets([tmp_path]) == [tmp_path / "CUTE80", tmp_path / "SVT"]
    one = tmp_path / "deep" / "IC13"
    assert find_sets([str(one), tmp_path / "none"]) == [one, tmp_path / "none"]
    with pytest.raises(DataError, match="no data set was named"):
        find_sets([])


# ------------------------------------------------------------------------------------------- counts


def test_the_published_counts():
    found = {benchmark.name: set(benchmark.published) for benchmark in BENCHMARKS}
    assert found == {
        "IIIT5K": {3000},
        "SVT": {647},
        "IC03": {860, 867},
        "IC13": {857, 1015},
        "IC15": {1811, 2077},
        "SVTP": {645},
        "CUTE80": {288},
    }


@pytest.mark.parametrize(
    ("name", "benchmark", "variant"),
    [
        ("IIIT5K", "IIIT5K", None),
        ("IIIT5k_3000", "IIIT5K", 3000),
        ("iiit5k-words-test", "IIIT5K", None),
        ("SVT", "SVT", None),
        ("svt-647", "SVT", 647),
        ("SVTP", "SVTP", None),
        ("svt_p_645", "SVTP", 645),
        ("svtp-645", "SVTP", 645),
        ("IC03_860", "IC03", 860),
        ("icdar2003", "IC03", None),
        ("ICDAR2013_857", "IC13", 857),
        ("ic13_test", "IC13", None),
        ("IC13_900", "IC13", None),
        ("ic15_1811", "IC15", 1811),
        ("CUTE80", "CUTE80", None),
        ("cute80_288", "CUTE80", 288),
        ("CUTE288", "CUTE80", 288),
    ],
)
def test_names_of_benchmarks(name, benchmark, variant):
    found = find_benchmark(name)
    assert found is not None
    assert (found[0].name, found[1]) == (benchmark, variant)


@pytest.mark.parametrize("name", ["ic13_train", "iiit5k_train", "my_words", "", "svtx", "1015", "synth"])
def test_other_names_are_no_benchmark(name):
    assert find_benchmark(name) is None


def said(name, count):
    found = find_benchmark(name)
    assert found is not None
    result = check_count(found, count)
    return result.fits, result.text


def test_what_a_count_means():
    assert said("IC13", 857) == (True, "IC13 with 857 pictures: the 1015 without words of fewer than three characters")
    assert said("IC13", 1015)[0]
    fits, text = said("IC13_857", 1015)
    assert not fits
    assert "has 857 (" in text
    assert "here are 1015: that is without words of other than letters and digits" in text
    assert "compare with published ones of 1015 pictures" in text
    fits, text = said("IC03", 861)
    assert not fits
    assert "867 (" in text
    assert "860 (the 867 without seven boxes" in text
    assert "missing or doubled" in text
    assert "training part" in said("IIIT5K", 2000)[1]
    assert "whole test set" in said("ICDAR2013", 1095)[1]
    assert said("CUTE80", 288)[0]


def test_an_expected_name_must_be_known():
    assert expected("IC13_857")[1] == 857
    assert expected("icdar2013")[1] is None
    for name in ("IC14", "IC13_900", "words"):
        with pytest.raises(DataError, match=rf"{name}.*IC13 \(1015, 857\)"):
            expected(name)


# ------------------------------------------------------------------------------------------- writing


def test_the_writer_gives_the_keys_of_the_field(tmp_path):
    pictures = [encode(word_picture(number)) for number in range(3)]
    with StrWriter(tmp_path / "set") as writer:
        writer.COMMIT_EVERY = 2
        for picture, word in zip(pictures, ("Käse", "b", "c"), strict=True):
            writer.add_photo(image=picture, label=word)
    env = lmdb.open(str(tmp_path / "set"), readonly=True, lock=False)
    with env.begin() as transaction:
        stored = {bytes(key).decode(): bytes(value) for key, value in transaction.cursor()}
    env.close()
    assert sorted(stored) == [
        *(f"image-{number:09d}" for number in (1, 2, 3)),
        *(f"label-{number:09d}" for number in (1, 2, 3)),
        "num-samples",
    ]
    assert [stored[f"image-{number:09d}"] for number in (1, 2, 3)] == pictures
    assert stored["label-000000001"].decode() == "Käse"
    assert stored["num-samples"] == b"3"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("build_str_lmdb", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(tool, capsys):
    """Calls the tool; gives (exit status, stdout, stderr)."""

    def call(*words):
        status = tool.main([str(word) for word in words])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def crops(tmp_path):
    """Pictures pics/a.png, pics/b.png and a list beside the folder."""
    (tmp_path / "pics").mkdir()
    for number, name in enumerate("ab"):
        word_picture(number).save(tmp_path / "pics" / f"{name}.png")
    (tmp_path / "gt.txt").write_text("a.png\tHotel\nb.png\tOPEN now\n", encoding="utf-8")
    return tmp_path


def test_a_set_is_built_and_read_back(run, crops):
    status, out, err = run(crops / "mine", "--images", crops / "pics", "--gt", crops / "gt.txt")
    assert (status, out, err) == (0, f"wrote {crops / 'mine'}: 2 samples\n", "")
    data = StrSet(crops / "mine")
    assert [data.read(index, PLAIN).label for index in range(2)] == ["Hotel", "OPEN now"]
    assert data.count() is None


def test_samples_are_left_out_and_named(run, crops):
    (crops / "pics" / "c.png").write_text("no picture")
    with (crops / "gt.txt").open("a") as file:
        file.write("c.png\tword\nnone.png\tword\na.png\t \n")
    words = (crops / "mine", "--images", crops / "pics", "--gt", crops / "gt.txt")
    status, _, err = run(*words, "--strict")
    assert status == 2
    assert "nothing is written because of --strict" in err
    assert not (crops / "mine").exists()
    status, out, err = run(*words)
    assert status == 0
    assert "2 samples, 3 left out (undecodable picture: 1, no such file: 1, empty label: 1)" in out
    for place in (":3 c.png", ":4 none.png", ":5 a.png"):
        assert f"{crops / 'gt.txt'}{place}: " in err


def test_the_count_of_a_benchmark_is_checked(run, crops):
    words = ("--images", crops / "pics", "--gt", crops / "gt.txt")
    status, out, _ = run(crops / "SVT", *words)
    assert status == 0
    assert "WARNING: SVT has 647 (the test part) pictures, here are 2" in out
    count = StrSet(crops / "SVT").count()
    assert count is not None
    assert not count.fits
    status, _, err = run(crops / "mine", *words, "--expect", "IC13_857")
    assert status == 2
    assert "nothing is written because of --expect IC13_857" in err
    assert "here are 2" in err
    assert not (crops / "mine").exists()


def test_a_count_that_fits_is_said(run, tool, crops, monkeypatch):
    from dataset import str_sets

    monkeypatch.setattr(str_sets, "BENCHMARKS", (str_sets.Benchmark("TWO", "two", {2: "both"}),))
    words = ("--images", crops / "pics", "--gt", crops / "gt.txt", "--expect", "two")
    assert run(crops / "mine", *words)[1].endswith("TWO with 2 pictures: both\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gt", "none.txt"], "--gt none.txt: no such file"),
        (["--images", "none"], "--images none: no such folder"),
        (["--gt", "gt.txt", "--expect", "IC99"], "'IC99' is no benchmark of known size"),
        (["--gt", "nolabel.txt"], "nolabel.txt:1: 'a.png' has no label"),
    ],
    ids=str,
)
def test_bad_input_is_refused_clearly(run, crops, monkeypatch, words, message):
    monkeypatch.chdir(crops)
    (crops / "nolabel.txt").write_text("a.png\n")
    status, out, err = run("mine", *words)
    assert (status, out) == (2, "")
    assert message in err
    assert not (crops / "mine").exists()


def test_nothing_is_overwritten(run, crops):
    status, _, err = run(crops / "pics", "--images", crops / "pics", "--gt", crops / "gt.txt")
    assert status == 2
    assert "nothing is overwritten" in err


def test_help_is_fast():
    code = (
        f"import runpy, sys; sys.argv = ['x', '--help']\n"
        f"try: runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
        "except SystemExit as error: assert error.code == 0\n"
        "assert not {'torch', 'lmdb', 'PIL', 'numpy'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--expect" in done.stdout
