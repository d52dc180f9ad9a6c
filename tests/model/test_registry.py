"""The list of networks."""

import dataclasses
import subprocess
import sys

import pytest
from torch import nn

from model import build_model, list_models, model_spec, register_model, registry
from model.rtsrn import RTSRN


@pytest.fixture
def empty(monkeypatch):
    monkeypatch.setattr(registry, "_SPECS", {})
    monkeypatch.setattr(registry, "_scanned", True)


def test_an_import_reads_no_network():
    code = "import model, sys; assert 'torch' not in sys.modules; assert 'model.rtsrn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_scan_finds_the_files_of_the_folder():
    assert {"rtsrn", "bicubic"} <= set(list_models())
    assert list_models() == sorted(list_models())


def test_the_entry_of_a_network():
    spec = model_spec("rtsrn")
    assert (spec.name, spec.system) == ("rtsrn", "clues")
    assert model_spec("bicubic").system == "plain"
    assert spec.options["triple_clues"] is True
    assert isinstance(build_model("rtsrn", triple_clues=False, srb_nums=1), RTSRN)
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.name = "other"


def test_unknown_names_are_told_apart_from_typos():
    with pytest.raises(ValueError, match="unknown model 'rtsm'; did you mean 'rtsrn'"):
        build_model("rtsm")
    with pytest.raises(ValueError, match=r"unknown model 'zzz'; known: .*rtsrn"):
        model_spec("zzz")


def test_unknown_options_name_the_valid_ones():
    with pytest.raises(ValueError, match="'rtsrn' has no option 'triple_clue'; did you mean 'triple_clues'"):
        build_model("rtsrn", triple_clue=True)
    with pytest.raises(ValueError, match=r"'bicubic' has no option 'zzz'; known: .*scale_factor"):
        build_model("bicubic", zzz=1)


def test_a_name_is_given_once(empty):
    def net(*, depth: int = 3) -> nn.Module:
        return nn.Sequential(*[nn.Identity()] * depth)

    register_model(system="plain")(net)
    assert list_models() == ["net"]
    assert model_spec("net").options == {"depth": 3}
    assert len(build_model("net", depth=2)) == 2
    with pytest.raises(ValueError, match=r"'net'.* already registered"):
        register_model()(net)


def test_a_builder_with_open_keywords_must_name_its_class(empty):
    def net(**kwargs):
        return nn.Identity()

    register_model()(net)
    with pytest.raises(TypeError, match="net"):
        build_model("net", depth=2)
