"""The field's recognisers as judges: published files, one pass over the pictures, numbers that depend on them alone."""

import json

import pytest
import torch

from interface.config import load_settings
from interface.readers import build_readers
from model.recognizer.aster import ASTER
from model.recognizer.crnn import CRNN
from model.recognizer.moran import MORAN
from tests.interface.helpers import run

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
        texts = reader.read(images)
        assert len(texts) == 2
        assert all(text == "".join(c for c in text.lower() if c.isalnum()) for text in texts)
        assert not any(parameter.requires_grad for parameter in reader.recognizer.parameters())
        assert not any(module.training for module in reader.recognizer.modules())


def test_how_pixels_are_counted_is_part_of_the_fingerprint(files):
    for name in ("ASTER", "MORAN"):
        one, other = (readers(files, [name], align_corners=corners)[0] for corners in (False, True))
        assert one.fingerprint != other.fingerprint
        assert "align_corners" in other.description


@pytest.mark.parametrize(("name", "key"), [("ASTER", "rec_pretrained"), ("MORAN", "moran_pretrained")])
def test_a_missing_file_is_named_with_its_option(name, key):
    config = load_settings([]).config
    config.TRAIN.VAL[key] = "none.pth"
    with pytest.raises(FileNotFoundError, match=rf"none.pth \(TRAIN.VAL.{key}\).*--test_model {name}.*PPOCR"):
        build_readers([name], config, torch.device("cpu"))


def test_one_pass_serves_all_and_does_not_depend_on_the_batch(files, tmp_path, tiny_dir):
    common = ["--arch", "bicubic", "--go_test", "--config", files, "--device", "cpu", "--test_model", ",".join(NAMES)]
    common += ["--test_data_dir", tiny_dir / "test" / "easy", "--workers", "0"]
    found = []
    for size in ("1", "4"):
        folder = tmp_path / size
        run([*common, "--batch_size", size, "--ckpt_dir", folder, "--report_dir", folder / "report"])
        report = json.loads((folder / "report" / "report.json").read_text())
        found.append(report["splits"]["easy"])
    assert list(found[0]["accuracy"]) == NAMES
    assert found[0]["per_image"]["readings"] == found[1]["per_image"]["readings"]
    assert set(found[0]["per_image"]["readings"]["ASTER"]) == {"lr", "bicubic", "sr_1", "hr"}
