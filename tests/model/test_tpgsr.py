"""TPGSR: sizes as published, the two forms of its interpreter, its recipe and its published files."""

import pytest
import torch

from dataset.loading import LoaderSpec, collate
from interface.config import load_settings
from interface.super_resolution import TextSR
from interface.systems import build_system
from model import build_model, identify
from model.blocks.clue import TextInterpreter
from model.tpgsr import TPGSR
from tests.interface.helpers import SmallCRNN, assert_identical, shrink_recognisers

FLAGS = "--arch tpgsr --srb 1 --hd_u 4 --batch_size 2 --device cpu --workers 0".split()


SIZES = {"tpgsr": 3_545_869, "tpgsr_srresnet": 3_398_035, "tpgsr_srcnn": 1_050_148, "tpgsr_rdn": 1_894_340}
SIZES["tpgsr_vdsr"] = 1_190_336


@pytest.mark.parametrize("name", SIZES)
def test_they_have_the_published_number_of_parameters(name):
    with torch.device("meta"):
        network = build_model(name, **({"STN": True} if name in ("tpgsr", "tpgsr_srresnet") else {}))
    assert sum(parameter.numel() for parameter in network.parameters()) == SIZES[name]


@pytest.mark.parametrize("name", ["tpgsr_srcnn", "tpgsr_rdn", "tpgsr_vdsr"])
@torch.no_grad()
def test_other_trunks_take_any_size_and_refuse_what_does_not_fit(name):
    network = build_model(name, mask=False, scale_factor=3).eval()
    assert network(torch.rand(1, 3, 7, 12), torch.rand(1, 37, 1, 26)).shape == (1, 3, 21, 36)
    with pytest.raises(ValueError, match=r"expected \(N, 3, H, W\)"):
        network(torch.rand(1, 4, 7, 12))
    with pytest.raises(ValueError, match="text prior of shape"):
        network(torch.rand(1, 3, 7, 12), torch.rand(2, 37, 1, 26))
    with pytest.raises(ValueError, match="scale_factor 0"):
        build_model(name, scale_factor=0)


@torch.no_grad()
def test_the_two_forms_of_the_interpreter():
    prior = torch.rand(1, 37, 1, 26)
    assert TextInterpreter(flat=True).eval()(prior).shape == (1, 32, 1, 203)
    assert TextInterpreter().eval()(prior).shape == (1, 32, 25, 213)
    flat, wide = (TPGSR(srb_nums=1, hidden_units=4, flat_prior=flat) for flat in (True, False))
    wide.load_state_dict(flat.state_dict())
    maps = []
    for network in (flat, wide):
        network.block2.register_forward_pre_hook(lambda _, inputs: maps.append(inputs[1]))
        network.eval()(torch.rand(1, 4, 16, 64), prior)
    assert [hint.shape for hint in maps] == [(1, 32, 16, 64)] * 2
    assert torch.equal(maps[0], maps[0][:, :, :1].expand_as(maps[0]))  # one row for all
    assert not torch.equal(maps[1], maps[1][:, :, :1].expand_as(maps[1]))


@torch.no_grad()
def test_no_prior_is_an_empty_text_and_another_shape_is_refused():
    network, images = TPGSR(srb_nums=1, hidden_units=4).eval(), torch.rand(2, 4, 16, 64)
    assert torch.equal(network(images), network(images, torch.zeros(2, 37, 1, 26)))
    with pytest.raises(ValueError, match=r"text prior of shape \(2, 26, 37\): expected \(2, 37, 1, 26\)"):
        network(images, torch.zeros(2, 26, 37))


@pytest.fixture
def batch(tiny_dir):
    return collate(LoaderSpec(mask=True).pairs([tiny_dir / "train"]).__getitems__([0, 1, 2, 3]))


@pytest.fixture
def arguments(monkeypatch, tmp_path, tiny_dir):
    small = shrink_recognisers(monkeypatch, tmp_path)
    return [str(word) for word in [*FLAGS, *small, "--train_data_dir", tiny_dir / "train"]]


@pytest.mark.parametrize("stages", [1, 3])
def test_the_published_recipe(arguments, batch, stages):
    """One shared network, a student per stage, which picture and teacher teach; all terms times 100."""
    config = load_settings([*arguments, "--stu_iter", str(stages)]).config
    torch.manual_seed(0)
    system = build_system(config, training=True).train()
    assert (len(system.networks), len(system.students)) == (1, stages)
    losses = system(batch)
    assert set(losses) == {"mse", "gradient", "distill"}
    assert [system.weights[name] for name in losses] == [100.0, 0.01, 100.0]
    (losses["mse"] + losses["gradient"]).backward()  # the pictures alone
    for student in system.students:
        assert any(value.grad is not None and value.grad.any() for value in student.parameters())
    pictures = system.eval().cascade(batch.images_lr)
    assert [picture.shape for picture in pictures] == [batch.images_hr.shape] * stages


def test_published_files_are_recognised_and_set_the_options(arguments, tmp_path):
    torch.manual_seed(1)
    network, student = TPGSR(srb_nums=1, hidden_units=4, STN=True), SmallCRNN()
    folder = tmp_path / "published"
    folder.mkdir()
    torch.save({"state_dict_G": network.state_dict(), "info": {}}, folder / "model_best_0.pth")
    torch.save(student.state_dict(), folder / "recognizer_best_0.pth")
    test = [word for word in arguments if word != "tpgsr"]
    test.insert(1, "tsrn")  # the keys say what it is
    made = TextSR(load_settings([*test, "--go_test", "--STN", "--resume", str(folder)]))
    made.build_trained_system()
    assert (made.config.arch, made.config.MODEL.stn_align_corners) == ("tpgsr", False)
    assert made.system.networks[0].tps.align_corners is False
    assert_identical(dict(made.system.networks[0].state_dict()), dict(network.state_dict()))
    assert_identical(dict(made.system.students[0].state_dict()), dict(student.state_dict()))


def test_a_network_of_the_same_keys_is_used_if_it_is_asked_for(tmp_path):
    """Its map is of another form, so a run of it must not be taken for this network."""
    torch.save(TPGSR(srb_nums=1, hidden_units=4, STN=True).state_dict(), tmp_path / "model_best_0.pth")
    test = [*FLAGS, "--arch", "c3stisr", "--no-triple_clues", "--go_test", "--STN", "--resume", str(tmp_path)]
    assert TextSR(load_settings(test)).config.arch == "c3stisr"


def test_its_keys_are_those_of_another_network_without_its_clues():
    with torch.device("meta"):
        keys = build_model("c3stisr", triple_clues=False).state_dict().keys()
        assert keys == build_model("tpgsr").state_dict().keys()
    assert identify(keys) == "tpgsr"
