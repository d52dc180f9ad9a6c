"""`--doctor`: what it finds, what it says is missing, and that it needs little itself."""

import importlib.metadata
import importlib.util
import json
import re
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import main as program
from interface import doctor, doctor_weights, starter
from interface.checkpoint import file_sha256
from interface.config import (
    RECOGNITION,
    ROOT,
    SUPER_RESOLUTION,
    arch_names,
    flatten,
    load_settings,
    read_yaml,
    schema_path,
)
from interface.doctor_rows import size_of
from model import build_model, list_models, model_spec
from model.recognizer.crnn import CRNN
from tests.dataset.pictures import encode, entries_of, word_pair, word_picture, write_entries
from tests.interface.helpers import LIGHT, SmallBCN, SmallCRNN, SmallFocus, command_line
from tests.interface.test_cli import BAD_THINGS

PIECES = {
    "model.recognizer.crnn.CRNN": SmallCRNN,
    "model.recognizer.aster.ASTER": SmallCRNN,
    "model.recognizer.moran.MORAN": SmallCRNN,
    "model.recognizer.focus_transformer.FocusTransformer": SmallFocus,
    "model.language.bcn.BCN": SmallBCN,
}


def furnished_file(name):
    """Of the fixture `furnished`."""
    return Path("rec_pth") / name


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to stand in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def examine(capsys):
    """Exit code and text of `main.py --doctor ...`."""

    def examine(*arguments):
        code = doctor.run(["--doctor", *map(str, arguments)])
        return code, capsys.readouterr().out

    return examine


@pytest.fixture
def small(monkeypatch):
    """Small networks in the place of those that weights have to fit."""
    for name, network in PIECES.items():
        monkeypatch.setattr(name, network)


@pytest.fixture
def furnished(here, small, tiny_dir):
    """All weights files of small networks, data and a configuration that names them; returns the arguments."""
    folder = here / "rec_pth"
    folder.mkdir()
    state = SmallCRNN().state_dict()
    torch.save(state, folder / "crnn.pth")
    torch.save({"state_dict": state}, folder / "demo.pth.tar")
    torch.save({f"module.{key}": value for key, value in state.items()}, folder / "demo.pth")
    torch.save(SmallFocus().state_dict(), folder / "pretrain_transformer.pth")
    save_file(SmallBCN().state_dict(), folder / "language_model.safetensors")
    np.savez(folder / "confuse.npz", dissimilarity=1 - np.eye(62))
    (here / "mine.yaml").write_text("LOSS: {confusion: rec_pth/confuse.npz}\n")
    arguments = (
        "--config mine.yaml --mask --triple_clues --use_distill --text_focus --batch_size 2 --device cpu".split()
    )
    arguments += "--test_model CRNN,ASTER,MORAN,PPOCR --language_model rec_pth/language_model.safetensors".split()
    return [*arguments, "--train_data_dir", tiny_dir / "train", "--test_data_dir", tiny_dir / "test" / "easy"]


def line_of(text, name):
    """The one line of a section that begins with a name."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"  {name} ")]
    return line


def lacks(text):
    """What is said after the sections."""
    return text[text.index("This cannot run yet") :]


def test_a_fresh_clone_is_told_what_is_missing_and_how_to_get_it(here, examine):
    code, text = examine()
    assert code == 1
    assert "  train       textzoom/train1       missing" in text
    for name in (
        "crnn.pth",
        "demo.pth.tar",
        "demo.pth",
        "pretrain_transformer.pth",
        "confuse.npz",
        "language_model.safetensors",
    ):
        assert line_of(text, f"rec_pth/{name}").split() == [f"rec_pth/{name}", "missing"]
    end = lacks(text)
    assert "textzoom/train1" in end
    guided = "c3stisr, rtsrn, tatt, tatt_sft, tpgsr, tpgsr_rdn, tpgsr_srcnn, tpgsr_srresnet, tpgsr_vdsr"
    assert f"rec_pth/crnn.pth, for the text prior of --arch {guided} (--tpg_pretrained)" in end
    assert "--tpg_pretrained random" in end
    assert "or make or fetch rec_pth/crnn.pth: see Weights files" in end
    assert "make it: train --arch crnn (below), then --tpg_pretrained ckpt/crnn/crnn.safetensors" in text
    assert "make it: train --arch focus_transformer or focus_transformer_small (below)" in text
    assert text.count("python main.py --arch X --train_data_dir") == 1
    assert "make it: python scripts/make_confusion.py --out rec_pth/confuse.npz" in text
    assert "demo.pth" not in end  # nobody asked for it
    assert "PPOCR" not in end  # it is in a package
    assert text.splitlines()[-1] == "Can be run now: bash scripts/quickstart.sh"
    assert not list(here.iterdir())


def test_with_everything_there_the_job_can_run(furnished, examine):
    code, text = examine(*furnished)
    assert code == 0, lacks(text)
    last = text.splitlines()[-1]
    assert last.startswith("Nothing is missing. Can be run now: python main.py --config mine.yaml --mask")
    assert "--doctor" not in last
    files = ["crnn.pth", "demo.pth.tar", "demo.pth", "pretrain_transformer.pth", "confuse.npz"]
    for name in [*files, "language_model.safetensors"]:
        line = line_of(text, f"rec_pth/{name}")
        assert line.split()[1] == "ok", line
        assert file_sha256(furnished_file(name))[:12] in line
        assert "hash not known" in line
    train = line_of(text, "train")
    assert "TextZoom" in train
    assert "12 samples" in train


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-900]),
        lambda file: file.write_bytes(b""),
        lambda file: torch.save({"conv.weight": torch.zeros(3)}, file),
        lambda file: file.write_text("<html>not found</html>"),
    ],
)
def test_a_damaged_file_is_named_and_counts_where_it_is_needed(furnished, examine, spoil):
    spoil(furnished_file("crnn.pth"))
    code, text = examine(*furnished)
    assert code == 1
    assert line_of(text, "rec_pth/crnn.pth").split()[1] == "unusable"
    assert "rec_pth/crnn.pth" in lacks(text)
    assert "make or fetch rec_pth/crnn.pth: see Weights files" in lacks(text)
    assert "published: crnn.pth of https://" in text
    code, text = examine(*furnished, "--arch", "bicubic", "--go_test", "--no-text_focus", "--test_model", "ASTER")
    assert line_of(text, "rec_pth/crnn.pth").split()[1] == "unusable"
    assert code == 0, lacks(text)


def test_a_damaged_table_or_language_model_is_named(furnished, examine):
    for name in ("confuse.npz", "language_model.safetensors"):
        good = furnished_file(name).read_bytes()
        furnished_file(name).write_bytes(good[:100])
        code, text = examine(*furnished)
        assert code == 1
        assert line_of(text, f"rec_pth/{name}").split()[1] == "unusable"
        assert name in lacks(text)
        furnished_file(name).write_bytes(good)


def test_the_hash_of_starter_weights_is_known_by_the_json_beside_them(here, small, examine):
    folder = here / "rec_pth"
    folder.mkdir()
    file = folder / "reader.safetensors"
    save_file(SmallCRNN().state_dict(), file)
    ask = ["--tpg_pretrained", "rec_pth/reader.safetensors"]

    def said():
        return line_of(examine(*ask)[1], "rec_pth/reader.safetensors")

    assert "hash not known" in said()
    beside = file.with_suffix(".json")
    for facts in ({"sha256": file_sha256(file)}, {"sha256": file_sha256(file), "file": "reader.safetensors"}):
        beside.write_text(json.dumps(facts))
        assert "hash as in reader.json" in said()
    save_file({**SmallCRNN().state_dict(), "cnn.0.bias": torch.ones(32)}, file)
    assert "hash NOT as in reader.json" in said()
    beside.write_text(json.dumps({"sha256": file_sha256(file), "file": "reader.pth"}))  # of another file
    assert "hash not known" in said()
    for content in ("[]", "{}", "no json"):
        beside.write_text(content)
        assert "hash not known" in said()


def test_a_file_that_can_stand_in_is_offered(here, small, examine):
    (here / "rec_pth").mkdir()
    save_file(SmallBCN().state_dict(), here / "rec_pth" / "a.safetensors")
    save_file(SmallCRNN().state_dict(), here / "rec_pth" / "b.safetensors")
    (here / "rec_pth" / "c.safetensors").write_bytes(b"cut")
    code, text = examine()
    assert code == 1
    assert "> --tpg_pretrained rec_pth/b.safetensors, which is there and fits" in lacks(text)
    sha256 = file_sha256(here / "rec_pth" / "b.safetensors")[:12]
    line = next(line for line in text.splitlines() if "instead: rec_pth/b.safetensors" in line)
    assert f", {sha256}, hash not known) fits, name it by --tpg_pretrained or --crnn_pretrained" in line
    assert "instead: rec_pth/a.safetensors" in text
    assert "c.safetensors" not in text


# What each --arch needs.


def needs(arguments=()):
    """{--arch: (what it needs and how that stands, ways)} as the section says."""
    rows = sections(arguments)["Weights files that each --arch needs, by default"]
    named = [(arch, (row.cells[0], row.notes)) for row in rows for arch in row.cells[1].split(", ")]
    assert sorted(arch for arch, _ in named) == arch_names()  # each once
    return dict(named)


def test_each_arch_has_its_needs_said(here):
    said = needs()
    way = "> --tpg_pretrained random --use_label trains one along (as --config synthetic.yaml does)"
    guided = [name for name in list_models() if model_spec(name).system in ("clues", "prior_guided")]
    assert {"rtsrn", "c3stisr", "tpgsr", "tatt"} <= set(guided)
    for arch in guided:
        assert said.pop(arch) == ("lacks rec_pth/crnn.pth", (way,))
    lacking = {arch: said.pop(arch)[0] for arch in ("lemma", "sgenet", "tbsrn")}
    assert lacking["lemma"].startswith(
        "lacks rec_pth/best-pretrain-vision-model.pth, rec_pth/pretrain-language-model.pth"
    )
    assert lacking["sgenet"].startswith("lacks rec_pth/rec_svtr_tiny_none_ctc_en_infer.pth")
    assert lacking["tbsrn"].startswith("lacks rec_pth/pretrain_transformer.pth")
    assert set(said.values()) == {("ready, needs none", ())}
    assert needs(["--arch", "crnn"])["rtsrn"][0] == "lacks rec_pth/crnn.pth"  # whatever the job is


def test_a_stand_in_is_the_first_advice_for_an_arch(here, small):
    (here / "rec_pth").mkdir()
    save_file(SmallCRNN().state_dict(), here / "rec_pth" / "own.safetensors")
    way = "> --tpg_pretrained rec_pth/own.safetensors, which is there and fits"
    assert needs()["rtsrn"] == ("lacks rec_pth/crnn.pth", (way,))


def test_an_arch_whose_file_is_there_is_ready_unless_it_is_damaged(furnished):
    assert needs()["rtsrn"] == ("ready, has rec_pth/crnn.pth", ())
    file = furnished_file("crnn.pth")
    file.write_bytes(file.read_bytes()[:-900])
    assert needs()["rtsrn"][0] == "lacks rec_pth/crnn.pth"


# Advice.


def test_a_command_makes_the_file_that_is_named(here, examine):
    (here / "mine.yaml").write_text("LOSS: {confusion: tables/mine.npz}\n")
    code, text = examine("--config", "mine.yaml", "--text_focus")
    assert code == 1
    assert "make it: python scripts/make_confusion.py --out tables/mine.npz" in text
    assert "or make or fetch tables/mine.npz: see Weights files" in lacks(text)
    code, text = examine("--language_model", "bcn.safetensors")
    assert "make it: python scripts/pretrain_language_model.py --out bcn.safetensors" in text


def test_how_to_use_a_file_that_is_there_is_said_and_works(furnished, examine, here):
    text = examine("--text_focus")[1]
    assert "not used; to use it: --language_model rec_pth/language_model.safetensors" in text
    (advice,) = [line.strip() for line in text.splitlines() if "not used; to use it: --confusion" in line]
    flag, file = advice.removeprefix("not used; to use it: ").split()
    assert file == "rec_pth/confuse.npz"
    assert "not used; to use it: --confusion" not in examine("--text_focus", flag, file)[1]


def test_the_quickstart_is_offered_only_with_the_files_it_needs(monkeypatch, tmp_path):
    assert doctor.quickstart() == "Can be run now: bash scripts/quickstart.sh"
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    assert doctor.quickstart().startswith(
        "For bash scripts/quickstart.sh, first: git checkout rec_pth/crnn.safetensors "
    )


def test_exported_weights_that_lack_their_recogniser_are_not_called_unusable(examine, here):
    zoo = ROOT / starter.SUPER_RESOLUTION
    code, text = examine("--go_test", "--resume", str(zoo), "--tpg_pretrained", "rec_pth/none.safetensors")
    assert code == 1
    assert "unusable" not in text
    assert "lacks rec_pth/none.safetensors" in lacks(text)
    code, text = examine("--go_test", "--resume", str(zoo))
    assert "step 2600" in text
    assert "rec_pth" not in lacks(text)


def test_scripts_that_are_named_exist(here, examine):
    named = set(re.findall(r"(?:python|bash) (\S+\.(?:py|sh))", examine()[1]))
    assert {"main.py", "scripts/make_confusion.py", "scripts/pretrain_language_model.py"} <= named
    for script in named:
        assert (ROOT / script).is_file(), script


def test_ways_are_told_from_steps(here, examine):
    end = lacks(examine()[1]).splitlines()
    first = next(number for number, line in enumerate(end) if line.startswith("  lacks rec_pth/crnn.pth"))
    assert end[first + 1].startswith("      > ")
    assert end[first + 2].startswith("     or ")


def test_sizes_are_said_in_the_fitting_unit():
    assert [size_of(size) for size in (31032, 3 << 19, 5 << 29)] == ["30.3 KiB", "1.5 MiB", "2.5 GiB"]


# Packages.


def hide(monkeypatch, *packages):
    real = importlib.metadata.version

    def version(name):
        if name in packages:
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in packages else found(name))


def test_a_missing_package_is_named_unless_nothing_needs_it(here, examine, monkeypatch, tiny_dir):
    test = ["--arch", "bicubic", "--go_test", "--device", "cpu", "--test_data_dir", tiny_dir / "train"]
    hide(monkeypatch, "rapidocr")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # importing it fails
    code, text = examine(*test)
    assert code == 1
    assert line_of(text, "rapidocr").split() == ["rapidocr", "-", ">=", "3.4", "missing"]
    assert "rapidocr >= 3.4 (missing)" in lacks(text)
    assert text.splitlines()[-1] == "First: pip install -r requirements.txt"
    code, text = examine(*test, "--test_model", "")
    assert code == 0
    assert "missing" in line_of(text, "rapidocr")
    assert "only --test_model PPOCR needs it" in text
    hide(monkeypatch, "tqdm")
    assert examine(*test, "--test_model", "")[0] == 1


def test_an_old_package_is_named(here):
    assert doctor.requirement("torch", "2.5.1+cu124", "2.6").cells[-1] == "too old"
    assert doctor.requirement("torch", "2.10.0a0+git", "2.6").cells[-1] == "ok"
    assert doctor.requirement("rapidocr", "3.4", "3.4").problem is None
    assert doctor.requirement("safetensors", "0.4.4", "0.4.5").problem.remedy == "pip install -r requirements.txt"
    assert doctor.requirement("lmdb", "unknown", "1.5").problem is None


def test_a_package_may_bring_its_module_under_another_name(monkeypatch):
    real = importlib.metadata.version
    versions = {"onnxruntime-gpu": "1.20"}

    def version(name):
        if name == "onnxruntime":
            raise importlib.metadata.PackageNotFoundError(name)
        return versions.get(name) or real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: {"onnxruntime": ["onnxruntime-gpu"]})
    assert doctor.version_of("onnxruntime") == "1.20"


@pytest.mark.parametrize("package", ["yaml", "easydict"])
def test_it_runs_without_the_packages_that_read_options(here, capsys, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "interface.config")
    hide(monkeypatch, {"yaml": "pyyaml"}.get(package, package), package)
    monkeypatch.setattr(sys, "argv", ["main.py", "--doctor"])
    assert program.main() == 1
    assert "First: pip install" in capsys.readouterr().out


def test_packages_that_are_there_share_a_row(here):
    line, *more = [row for row in sections(())["Requirements"] if row.cells[0] == "ok"]
    assert not more
    said = ", ".join([line.cells[1], *line.notes])
    for package in ("python", "torch", "numpy", "safetensors", "matplotlib"):
        assert f"{package} " in said
    assert f"torch {importlib.metadata.version('torch')}" in said


def test_what_cannot_be_looked_at_without_a_package_is_said_once(here, examine, monkeypatch):
    hide(monkeypatch, "torch")
    monkeypatch.setitem(sys.modules, "torch", None)
    code, text = examine()
    assert code == 1
    skipped = text[text.index("Not looked at while packages are missing") : text.index("This cannot run yet")]
    assert "\n  Machine\n" in skipped
    assert "No module named" not in text
    assert "torch >= 2.6 (missing)" in lacks(text)
    assert text.splitlines()[-1] == "First: pip install -r requirements.txt"


def test_a_broken_installation_is_a_section_that_says_so(furnished, examine, monkeypatch):
    def broken(settings):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(doctor, "weights", broken)
    code, text = examine(*furnished)
    assert code == 1
    assert "not looked at: operator torchvision::nms does not exist" in text


# Data sets.


def sections(arguments):
    return {
        section.title: section.rows for section in doctor.examine(load_settings(["--doctor", *map(str, arguments)]))
    }


def test_textzooms_own_counts_are_known(here, tiny_dir, monkeypatch):
    easy = ["--arch", "bicubic", "--go_test", "--test_data_dir", tiny_dir / "test" / "easy"]
    assert sections(easy)["Data sets"][-1].cells[-1] == "TextZoom's own easy has 1,619"
    monkeypatch.setitem(doctor.TEXTZOOM_SIZES, "easy", 6)
    assert sections(easy)["Data sets"][-1].cells[2:] == ("ok", "TextZoom", "6 samples", "complete")


def test_other_kinds_of_data_are_told_apart(here, examine):
    write_entries(here / "hr", entries_of((word_pair(n)[0], None, "a") for n in range(3)))
    photo = {"num-samples": b"1", "label-000000001": b"a", "image-000000001": encode(word_picture(0))}
    write_entries(here / "str" / "CUTE80", photo)
    write_entries(here / "cut", {"num-samples": b"0"})
    baseline = ["--arch", "bicubic", "--go_test", "--device", "cpu", "--test_data_dir"]
    code, text = examine(*baseline, "hr")
    assert code == 1
    assert "add --syn to make LR from HR" in lacks(text)
    code, text = examine(*baseline, "hr", "--syn")
    assert code == 0
    assert "HR-only" in line_of(text, "test")
    code, text = examine(*baseline, "str")  # a folder of benchmarks
    assert code == 0
    assert "STR" in line_of(text, "test")
    assert "here are 1" in line_of(text, "test")
    code, text = examine(*baseline, "cut")
    assert code == 1
    assert "the data set is empty" in lacks(text)


def test_test_sets_are_needed_where_they_are_named_or_tested_on(furnished, examine):
    assert examine(*furnished[:-2])[0] == 0  # TextZoom's are not there, so none is tested on after training
    assert examine(*furnished[:-2], "--select_on", "test")[0] == 1
    code, text = examine(*furnished[:-1], "none")
    assert code == 1
    assert "test (--test_data_dir): none" in lacks(text)
    assert examine(*furnished, "--val_data_dir", "none")[0] == 1


def test_rendered_data_that_are_there_are_pointed_to(here, examine, tiny_dir):
    for name in ("train1", "train2"):
        shutil.copytree(tiny_dir / "train", here / "data" / "synthetic" / name)
    assert "--config synthetic.yaml: rendered data are there" in examine()[1]
    assert "data/synthetic/train2: rendered data are there" in examine("--arch", "crnn")[1]


# The job.


def test_a_recogniser_needs_data_and_no_files(here, examine, tiny_dir):
    code, text = examine("--arch", "crnn")
    assert code == 1
    assert "no data set is named (--train_data_dir)" in lacks(text)
    assert "Weights files\n" not in text
    assert "PP-OCR" not in text
    data = ["--train_data_dir", tiny_dir / "train", "--batch_size", "4"]
    assert examine("--arch", "crnn", *data)[0] == 0
    torch.save(CRNN().state_dict(), here / "crnn.pth")
    begin = ["--arch", "crnn", *data, "--pretrained", "crnn.pth"]
    assert examine(*begin)[0] == 0
    assert examine(*begin, "--charset", "62")[0] == 0  # all but what knows symbols
    torch.save({key: value for key, value in CRNN().state_dict().items() if "conv0" not in key}, here / "crnn.pth")
    code, text = examine(*begin)
    assert code == 1
    assert "does not fit CRNN" in lacks(text)


def test_what_is_tested_must_be_trained(here, examine, tiny_dir):
    data = ["--test_data_dir", tiny_dir / "test" / "easy", "--device", "cpu"]
    code, text = examine("--go_test", *data)
    assert code == 1
    assert "lacks trained weights of --arch rtsrn" in text
    code, text = examine("--go_test", *data, "--resume", "none")
    assert code == 1
    assert "--resume none: nothing there" in lacks(text)
    torch.save({"conv.weight": torch.zeros(3)}, here / "other.pth")
    code, text = examine("--go_test", *data, "--resume", "other.pth", "--srb", "1")
    assert code == 1
    assert "other.pth does not fit RTSRN" in lacks(text)
    code, text = examine("--arch", "bicubic", "--train_data_dir", tiny_dir / "train")
    assert code == 1
    assert "has no parameters to train" in lacks(text)


def test_a_published_file_is_resumed(here, examine, tiny_dir):
    from model import build_model

    options = {"srb_nums": 1, "hidden_units": 8, "triple_clues": False, "mask": True}
    torch.save({"state_dict_G": build_model("rtsrn", **options).state_dict()}, here / "model_best_acc_0.pth")
    torch.save(CRNN().state_dict(), here / "recognizer_best_acc_0.pth")
    flags = "--go_test --srb 1 --hd_u 8 --no-triple_clues --device cpu --resume .".split()
    code, text = examine(*flags, "--test_data_dir", tiny_dir / "test" / "easy")
    assert code == 0, lacks(text)
    assert "published weights" in text


def test_a_demo_needs_pictures(here, examine):
    assert examine("--arch", "bicubic", "--demo", "--device", "cpu")[0] == 1
    (here / "demo").mkdir()
    (here / "demo" / "a.png").write_bytes(encode(word_picture(0)))
    code, text = examine("--arch", "bicubic", "--demo", "--device", "cpu")
    assert code == 0, lacks(text)
    assert "1 pictures" in line_of(text, "demo")


def test_a_device_that_is_not_there_is_named(furnished, examine):
    code, text = examine(*furnished, "--device", "cuda:77")
    assert code == 1
    assert "lacks --device cuda:77" in text
    assert examine(*furnished, "--mixed_precision", "fp16")[0] == 1


def test_gpus_are_listed_with_memory_and_precision(monkeypatch):
    about = types.SimpleNamespace(name="Some GPU", total_memory=24 * 2**30)
    cuda = torch.cuda
    monkeypatch.setattr(cuda, "device_count", lambda: 1)
    monkeypatch.setattr(cuda, "device", lambda index: torch.no_grad())
    monkeypatch.setattr(cuda, "is_bf16_supported", lambda including_emulation=True: True)
    monkeypatch.setattr(cuda, "get_device_properties", lambda index: about)
    assert ("cuda:0", "Some GPU, 24.0 GiB, bf16") in [row.cells for row in doctor.devices()]


@pytest.mark.parametrize("kind", BAD_THINGS)
def test_what_the_program_refuses_is_no_job_that_can_run(kind, here, tiny_dir, monkeypatch):
    make, arguments, _ = BAD_THINGS[kind]
    if make is not None:
        make(here)
    words = [text.format(train=tiny_dir / "train") for text in arguments]
    monkeypatch.setattr(sys, "argv", ["main.py", "--doctor", *words])
    assert program.main() in (1, 2)


def test_what_the_program_does_is_a_job_that_can_run(here, examine, tiny_dir):
    for arguments in (LIGHT, [*LIGHT, "--val_data_dir", tiny_dir / "test" / "easy"]):
        assert examine(*arguments, "--train_data_dir", tiny_dir / "train")[0] == 0


# The table.


def test_the_table_knows_every_option_that_names_weights():
    known = {path for name in (SUPER_RESOLUTION, RECOGNITION) for path, _ in flatten(read_yaml(schema_path(name)))}
    options = {file.option for file in doctor_weights.WEIGHTS}
    assert options <= known
    assert {path for path in known if "pretrained" in path} <= options
    readme = (ROOT / "rec_pth" / "README.md").read_text()
    for file in doctor_weights.WEIGHTS:
        assert file.flag in readme or file.option == "MODEL.pretrained"


@pytest.mark.parametrize("file", doctor_weights.WEIGHTS, ids=lambda file: file.option)
def test_networks_are_built_without_memory(file):
    arch = ["--arch", "crnn"] if file.option == "MODEL.pretrained" else []
    if file.network:
        network = doctor_weights.blueprint(file, {}, load_settings(["--doctor", *arch]))
        assert all(parameter.is_meta for parameter in network.parameters())


def test_a_network_of_full_size_fits(tmp_path):
    file = next(file for file in doctor_weights.WEIGHTS if file.option == "TRAIN.VAL.crnn_pretrained")
    torch.save(CRNN().state_dict(), tmp_path / "crnn.pth")
    assert doctor_weights.misfit(tmp_path / "crnn.pth", file, load_settings([])) == ""


def test_a_focus_transformer_of_another_size_fits(tmp_path):
    file = next(file for file in doctor_weights.WEIGHTS if file.option == "LOSS.text_focus_pretrained")
    small = build_model("focus_transformer_small")
    torch.save(small.state_dict(), tmp_path / "small.pth")
    assert doctor_weights.misfit(tmp_path / "small.pth", file, load_settings([])) == ""
    del small.encoder.cnn.conv1.bias
    torch.save(small.state_dict(), tmp_path / "cut.pth")
    assert "encoder.cnn.conv1.bias" in doctor_weights.misfit(tmp_path / "cut.pth", file, load_settings([]))


# As a user types it.


@pytest.mark.slow
def test_the_program_as_typed(tmp_path):
    done = command_line(["--doctor", "--arch", "rtsrn"], cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == ""
    assert done.stdout.startswith("Requirements\n  ok  python ")
    assert "Can be run now: bash scripts/quickstart.sh" in done.stdout
    assert not list(tmp_path.iterdir())
    done = command_line(["--doctor", "--arhc", "rtsrn"], cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: unknown flag --arhc; did you mean --arch?\n"
