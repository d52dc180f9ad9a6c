"""The field's recognisers as judges: published files, one pass over the pictures, numbers that depend on them alone."""

import copy
import json
import subprocess
import sys

import pytest
import torch

from interface.config import ROOT, load_settings
from interface.readers import build_readers
from model.recognizer.aster import ASTER
from model.recognizer.crnn import CRNN
from model.recognizer.moran import MORAN
from tests.interface.helpers import environment, run

NAMES = ["CRNN", "ASTER", "MORAN"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Random weights, wrapped as the published files are; a configuration that names them."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    torch.save(CRNN().state_dict(), folder / "crnn.pth")
    state = {key: value for key, value in ASTER().state_dict().items() if not key.endswith("num_batches_tracked")}
    state["decoder.decoder.fc.bias"][ASTER().end] += 4  # random weights would write for ever
    torch.save({"state_dict": state, "iters": 1, "best_res": 0.5}, folder / "demo.pth.tar")
    torch.save({f"module.{key}": value for key, value in MORAN().state_dict().items()}, folder / "demo.pth")
    names = {"crnn_pretrained": "crnn.pth", "rec_pretrained": "demo.pth.tar", "moran_pretrained": "demo.pth"}
    keys = ", ".join(f"{key}: {folder / name}" for key, name in names.items())
    (folder / "files.yaml").write_text(f"TRAIN: {{VAL: {{{keys}}}}}\n")
    return folder / "files.yaml"


def readers(files, names, **test):
    config = load_settings(["--config", str(files)]).config
    config.TEST.update(test)
    return build_readers(names, config, torch.device("cpu"))


def test_published_files_are_read_and_frozen(files):
    built = readers(files, NAMES)
    assert [reader.name for reader in built] == NAMES
    images = torch.rand(2, 4, 32, 128, generator=torch.Generator().manual_seed(1))
    for reader in built:
        answers = reader.read(images)
        assert len(answers) == 2
        assert all(text == "".join(c for c in text.lower() if c.isalnum()) for text, _ in answers)
        assert all(0 <= confidence <= 1 for _, confidence in answers)
        assert not any(parameter.requires_grad for parameter in reader.recognizer.parameters())
        assert not any(module.training for module in reader.recognizer.modules())


def test_how_pixels_are_counted_is_part_of_the_fingerprint(files):
    for name in ("ASTER", "MORAN"):
        one, other = (readers(files, [name], align_corners=corners)[0] for corners in (False, True))
        assert one.fingerprint != other.fingerprint
        assert "align_corners" in other.description


@pytest.mark.parametrize("name", ["CRNN", "ASTER", "MORAN"])
def test_a_judge_may_compute_in_bf16_and_says_so(files, name):
    full, lower = (readers(files, [name], precision=precision)[0] for precision in ("float32", "bf16"))
    assert full.fingerprint != lower.fingerprint
    assert lower.description == f"{full.description}, bf16"
    images = torch.rand(2, 3, 32, 128, generator=torch.Generator().manual_seed(1))
    seen: list[torch.dtype] = []
    layer = next(module for module in lower.recognizer.modules() if type(module) is torch.nn.Conv2d)
    layer.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    answers = lower.read(images)
    assert seen
    assert set(seen) == {torch.bfloat16}
    assert len(answers) == 2
    assert all(0 <= confidence <= 1 for _, confidence in answers)
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(("name", "key"), [("ASTER", "rec_pretrained"), ("MORAN", "moran_pretrained")])
def test_a_missing_file_is_named_with_its_option(name, key):
    config = load_settings([]).config
    config.TRAIN.VAL[key] = "none.pth"
    with pytest.raises(FileNotFoundError, match=rf"none.pth \(--{key}\).*--test_model {name}.*PPOCR"):
        build_readers([name], config, torch.device("cpu"))


@pytest.fixture(scope="module")
def evaluate(files, tmp_path_factory, tiny_dir):
    """Evaluate as a user does, in a process of its own for several processes; returns the report."""

    def evaluate(*options, processes=1):
        folder = tmp_path_factory.mktemp("evaluation")  # its own cache of readings, too
        arguments = ["--arch", "bicubic", "--go_test", "--config", files, "--device", "cpu", "--ckpt_dir", folder]
        arguments += ["--test_data_dir", tiny_dir / "train", tiny_dir / "test" / "easy", "--report_dir", folder / "r"]
        arguments += ["--test_model", ",".join([*NAMES, "PPOCR"]), *options]
        if processes == 1:
            run(arguments)
        else:
            launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
            finished = subprocess.run(
                [sys.executable, *launch, "main.py", *map(str, arguments)],
                cwd=ROOT, env=environment() | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert finished.returncode == 0, finished.stderr
        return json.loads((folder / "r" / "report.json").read_text())

    return evaluate


@pytest.fixture(scope="module")
def one_report(evaluate):
    return evaluate("--batch_size", "7", "--workers", "0")


def test_all_judges_look_at_the_same_pictures(one_report):
    assert list(one_report["splits"]["easy"]["accuracy"]) == [*NAMES, "PPOCR"]
    images = one_report["splits"]["train"]["per_image"]
    assert len(images["index"]) == 12
    for key in ("readings", "confidences", "character_accuracy"):
        assert set(images[key]) == {*NAMES, "PPOCR"}
        assert {row: len(values) for row, values in images[key]["ASTER"].items()} == dict.fromkeys(
            ["lr", "bicubic", "sr_1", "hr"], 12
        )
    for reader in images["confidences"].values():
        assert all(0 <= value <= 1 for values in reader.values() for value in values)
    environment_facts = one_report["environment"]
    assert environment_facts["torch"] == torch.__version__
    assert environment_facts["pillow"]
    assert all(entry["fingerprint"] for entry in one_report["splits"].values())
    assert all(reader["fingerprint"] for reader in one_report["readers"].values())


@pytest.mark.parametrize(
    ("options", "processes"),
    [
        (("--batch_size", "1", "--workers", "0"), 1),
        (("--batch_size", "48", "--workers", "2"), 1),
        (("--batch_size", "7", "--workers", "2", "--no-cache"), 1),
        (("--batch_size", "7", "--workers", "0"), 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else f"{value} processes",
)
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_the_report_is_the_same(evaluate, one_report, options, processes):
    found = evaluate(*options, processes=processes)
    assert found["rows"] == one_report["rows"]
    assert found["readers"] == one_report["readers"]
    for name, expected in copy.deepcopy(one_report["splits"]).items():
        split = found["splits"][name]
        for reader, rows in expected["per_image"].pop("confidences").items():
            sure = split["per_image"]["confidences"][reader]
            for row, values in rows.items():  # the last of four digits may be rounded otherwise
                assert sure[row] == pytest.approx(values, abs=1.01e-4)
        del split["per_image"]["confidences"]
        assert split == expected
    assert found["average"] == one_report["average"]
