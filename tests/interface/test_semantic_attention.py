"""LEMMA's recipe: its terms, two rates, the files of its recogniser, published weights."""

from typing import Any

import pytest
import torch
from torch import nn

from dataset.loading import LoaderSpec, collate
from interface.checkpoint import CheckpointError
from interface.config import ConfigError, load_settings
from interface.export import export_published
from interface.systems import build_system
from model import build_model, lemma
from model.recognizer.abinet import ABINet
from tests.interface.helpers import assert_identical, run, task

SMALL = "--arch lemma --srb 1 --hd_u 4 --tpg_pretrained random --no-text_focus --batch_size 2 --device cpu".split()
SMALL += ["--workers", "0", "--test_model", ""]


class SmallABINet(ABINet):
    """The recogniser with narrow layers, of 16 channels at least.

    With fewer, strided 1x1 convolutions in channels-last write beyond their memory on CPUs (oneDNN in PyTorch 2.15).
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(widths=(16, 16, 16, 16, 16), blocks=(1, 1, 1, 1, 1), hidden=16)


@pytest.fixture(autouse=True)
def small_reader(monkeypatch):
    monkeypatch.setattr(lemma, "ABINet", SmallABINet)


@pytest.fixture(scope="module")
def batch(tiny_dir):
    pairs = LoaderSpec(mask=True).pairs([tiny_dir / "train"])
    return collate(pairs.__getitems__([0, 1, 2]))


def system_of(*flags, **loss):
    config = load_settings([*SMALL, *map(str, flags), "--train_data_dir", "x"]).config
    config.LOSS.update(loss)
    torch.manual_seed(0)
    return build_system(config, training=True).train()


def test_terms(batch):
    assert system_of()(batch).keys() == {"mse", "finetune"}
    assert system_of("--no-use_label")(batch).keys() == {"mse"}
    with pytest.raises(ValueError, match=r"LOSS\.finetune = 'ctc' is not for the recogniser of --arch lemma; use pos"):
        system_of(finetune="ctc")
    with pytest.raises(ValueError, match="'positions' is not for the recogniser of --arch sgenet; use ctc or publish"):
        system_of("--arch", "sgenet", finetune="positions")


def without_dropout(system):
    for module in system.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    return system


@pytest.mark.parametrize("form", ["positions", "published"])
def test_both_models_learn_from_the_label(batch, form):
    system = without_dropout(system_of(finetune=form))
    optimizer = torch.optim.Adam(system.guide.parameters(), lr=1e-2)
    floor = 2 * 2.63 if form == "published" else 0.0  # 2 (log(e + 36) - 1), the least of a softmax of probabilities
    values = []
    for _ in range(12):
        value = system(batch)["finetune"]
        values.append(value.item())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    for part in (system.guide.vision, system.guide.language):
        assert all(bool(value.grad.abs().sum() > 0) for value in part.cls.parameters())
    assert values[-1] - floor < 0.8 * (values[0] - floor), values


def test_a_picture_teaches_the_recogniser_where_to_look(batch):
    system = system_of("--no-use_label")
    system(batch)["mse"].backward()
    assert system.guide.vision.attention.project.weight.grad.abs().sum() > 0
    assert system.guide.vision.cls.weight.grad is None  # what is seen is not what the blocks are told


def test_two_rates(tmp_path, tiny_dir, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where there are no test sets
    data = ["--train_data_dir", tiny_dir / "train", "--val_data_dir", tiny_dir / "test" / "easy"]
    made = run([*SMALL, *data, "--steps", "1", "--vis_dir", "run"])
    network, guide = made.optimizers["main"].param_groups
    assert (network["lr"], guide["lr"]) == pytest.approx((1e-3, 1e-4))
    names = {id(value): key for key, value in made.system.named_parameters()}
    assert all(names[id(value)].startswith("network.position_prior.") for value in guide["params"])
    assert len(network["params"]) + len(guide["params"]) == len(names)


def test_four_pictures_are_learned_by_heart(tiny_dir):
    """The image loss falls to less than a quarter."""
    pairs = LoaderSpec(mask=True).pairs([tiny_dir / "train"])
    batch = collate(pairs.__getitems__([0, 1, 2, 3]))
    system = without_dropout(system_of("--no-STN"))
    optimizer = torch.optim.Adam(system.params("main"), lr=4e-3, betas=(0.5, 0.999))
    values = []
    for _ in range(12):
        terms = system(batch)
        values.append(terms["mse"].item())
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
    assert values[-1] < values[0] / 4, values


def test_the_recogniser_begins_with_its_files(tmp_path):
    torch.manual_seed(1)
    reader = SmallABINet()
    for part in ("vision", "language"):
        torch.save({"model": reader.get_submodule(part).state_dict()}, tmp_path / f"{part}.pth")
    vision = ["--tpg_pretrained", tmp_path / "vision.pth"]
    system = system_of(*vision, "--tpg_language", tmp_path / "language.pth")
    assert_identical(dict(system.guide.state_dict()), dict(reader.state_dict()))
    system = system_of(*vision, "--tpg_language", "")
    assert_identical(dict(system.guide.vision.state_dict()), dict(reader.vision.state_dict()))
    assert not torch.equal(system.guide.language.cls.weight, reader.language.cls.weight)
    with pytest.raises(CheckpointError, match="names weights of ABINet's vision model"):
        system_of("--tpg_pretrained", tmp_path / "language.pth")
    with pytest.raises(CheckpointError, match="names weights of ABINet's language model"):
        system_of(*vision, "--tpg_language", tmp_path / "vision.pth")
    with pytest.raises(FileNotFoundError, match=r"none\.pth .* --tpg_pretrained random"):
        system_of("--tpg_pretrained", tmp_path / "none.pth")
    with pytest.raises(FileNotFoundError, match=r'none\.pth .* --tpg_language ""'):
        system_of(*vision, "--tpg_language", tmp_path / "none.pth")


def test_from_nothing_means_both_models():
    assert system_of()  # though configs/lemma.yaml names a file of the language model
    with pytest.raises(ConfigError, match="random trains the language model from nothing, too"):
        system_of("--tpg_language", "language.pth")


def test_published_weights_are_tested(tmp_path):
    torch.manual_seed(0)
    whole = build_model("lemma", srb_nums=1, STN=True, published_unused=True)
    weights = whole.state_dict()
    torch.save({"state_dict_G": weights, "info": {"iters": 1}}, tmp_path / "model_best_acc_0.pth")
    for arch in ("lemma", "sgenet"):
        made = task(["--arch", arch, "--go_test", "--device", "cpu", "--resume", tmp_path])
        made.build_trained_system()
        model = made.config.MODEL
        assert (made.config.arch, model.srb, model.stn_align_corners) == ("lemma", 1, False)
        own = made.system.network.state_dict()
        assert_identical(dict(own), {key: weights[key] for key in own})


def test_runs_are_exported_whole(tmp_path, tiny_dir, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = run([*SMALL, "--train_data_dir", tiny_dir / "train", "--steps", "1", "--vis_dir", "run"])
    export_published(made.folder, tmp_path / "out")
    exported = torch.load(tmp_path / "out" / "model_best_acc_0.pth", weights_only=True)["state_dict_G"]
    own = made.system.network.state_dict()
    assert exported.keys() - own.keys() == {f"guidanceGen.{name}_pos.pe" for name in ("vision", "text", "select")}
    assert_identical({key: exported[key] for key in own}, dict(own))
