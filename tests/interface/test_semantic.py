"""SGENet's recipe: its terms, two rates, steps of the rate, weights of its recogniser, blocks from the checkpoint."""

import pytest
import torch
from torch import nn

from dataset.loading import LoaderSpec, collate
from interface.checkpoint import CheckpointError
from interface.config import ConfigError, load_settings
from interface.export import export_published
from interface.systems import base, build_system
from model import build_model
from model.recognizer.svtr import SVTR
from tests.interface.helpers import SmallFocus, assert_identical, run, task

SMALL = "--arch sgenet --srb 1 --hd_u 4 --tpg_pretrained random --no-text_focus --batch_size 2 --device cpu".split()
SMALL += ["--workers", "0", "--test_model", ""]


@pytest.fixture(scope="module")
def batch(tiny_dir):
    pairs = LoaderSpec(mask=True).pairs([tiny_dir / "train"])
    return collate(pairs.__getitems__([0, 1, 2]))


def system_of(*flags, **loss):
    config = load_settings([*SMALL, *map(str, flags), "--train_data_dir", "x"]).config
    config.LOSS.update(loss)
    torch.manual_seed(0)
    return build_system(config, training=True).train()


def test_terms(batch, monkeypatch, tmp_path):
    monkeypatch.setattr(base, "focus_recognizer", lambda state, source: SmallFocus())
    torch.save(SmallFocus().state_dict(), tmp_path / "focus.pth")
    focus = ["--text_focus", "--text_focus_pretrained", tmp_path / "focus.pth"]
    assert system_of()(batch).keys() == {"mse", "ctc_label"}
    assert system_of("--no-use_label")(batch).keys() == {"mse"}
    assert system_of(*focus)(batch).keys() == {"mse", "ctc_label", "attention", "recognition"}
    assert system_of(*focus, finetune="published")(batch).keys() == {"mse", "finetune", "attention", "recognition"}


@pytest.mark.parametrize("form", ["ctc", "published"])
def test_the_recogniser_learns_from_the_label(batch, form):
    system = system_of(finetune=form)
    system.network.text_form = form.replace(
        "ctc", "probabilities"
    )  # of these, the published form would have three softmax
    name = "finetune" if form == "published" else "ctc_label"
    for module in system.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    optimizer = torch.optim.Adam(system.guide.parameters(), lr=3e-4)
    values = []
    for _ in range(12):
        value = system(batch)[name]
        values.append(value.item())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    floor = 2.63 if form == "published" else 0.0  # log(e + 36) - 1, the least of a softmax of probabilities
    assert values[-1] - floor < 0.9 * (values[0] - floor), values


def test_two_rates_and_steps_down(tmp_path, tiny_dir, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where there are no test sets
    (tmp_path / "steps.yaml").write_text("TRAIN: {step_epochs: 1, step_factor: 0.25}\n")
    arguments = [*SMALL, "--train_data_dir", tiny_dir / "train", "--val_data_dir", tiny_dir / "test" / "easy"]
    arguments += ["--batch_size", "6", "--config", "steps.yaml", "--learning_rate", "1e-3", "--lr_position", "2e-4"]
    made = run([*arguments, "--steps", "3", "--vis_dir", "run"])
    assert made.steps_per_epoch == 2
    network, guide = made.optimizers["main"].param_groups
    assert (network["lr"], guide["lr"]) == pytest.approx((2.5e-4, 5e-5))  # the third step is in the second epoch
    names = {id(value): key for key, value in made.system.named_parameters()}
    assert all(names[id(value)].startswith("network.position_prior.") for value in guide["params"])
    assert not any("position_prior" in names[id(value)] for value in network["params"])
    assert len(network["params"]) + len(guide["params"]) == len(names)


def test_a_frozen_recogniser_never_moves(batch):
    system = system_of("--no-use_label")
    assert len(system.rate_groups("main")) == 2
    config = load_settings([*SMALL]).config
    config.MODEL.freeze_tpg, config.LOSS.use_label = True, False
    system = build_system(config, training=True).train()
    before = {key: value.clone() for key, value in system.guide.state_dict().items()}
    system(batch)["mse"].backward()
    assert len(system.rate_groups("main")) == 1
    assert_identical(dict(system.guide.state_dict()), before)
    assert all(value.grad is None for value in system.guide.parameters())


def test_the_recogniser_begins_with_its_file(tmp_path):
    torch.manual_seed(1)
    reader = SVTR()
    torch.save(reader.state_dict(), tmp_path / "svtr.pth")
    system = system_of("--tpg_pretrained", tmp_path / "svtr.pth")
    assert_identical(dict(system.guide.state_dict()), dict(reader.state_dict()))
    torch.save({"cnn.conv0.weight": torch.zeros(1)}, tmp_path / "crnn.pth")
    with pytest.raises(CheckpointError, match="names weights of SVTR-tiny"):
        system_of("--tpg_pretrained", tmp_path / "crnn.pth")
    with pytest.raises(FileNotFoundError, match=r"--arch svtr .* --tpg_pretrained random"):
        system_of("--tpg_pretrained", tmp_path / "none.pth")


def save_published(path, blocks):
    torch.manual_seed(blocks)
    whole = build_model("sgenet", srb_nums=blocks, published_unused=True)
    torch.save({"state_dict_G": whole.state_dict(), "info": {"iters": 1}}, path)
    return whole.state_dict()


@pytest.mark.parametrize("flags", [[], ["--srb", "5"]])
def test_published_weights_are_tested_with_their_own_number_of_blocks(flags, tmp_path, caplog):
    weights = save_published(tmp_path / "model_best_acc_0.pth", 1)
    for arch in ("sgenet", "tsrn"):
        made = task(["--arch", arch, "--go_test", "--device", "cpu", *flags, "--resume", tmp_path])
        made.build_trained_system()
        assert (made.config.arch, made.config.MODEL.srb) == ("sgenet", 1)
        own = made.system.network.state_dict()
        assert_identical(dict(own), {key: weights[key] for key in own})
    assert ("has 1 residual blocks, and that counts, not --srb 5" in caplog.text) == bool(flags)
    with pytest.raises(CheckpointError, match="has 1 residual blocks, but --srb 5 is asked for"):
        task(["--arch", "sgenet", "--train_data_dir", "x", "--srb", "5", "--resume", tmp_path])


def test_own_and_exported_weights_are_tested_with_their_own_number_of_blocks(tmp_path, tiny_dir, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = run([*SMALL, "--train_data_dir", tiny_dir / "train", "--steps", "1", "--vis_dir", "run"])
    test = ["--arch", "sgenet", "--go_test", "--srb", "5", "--device", "cpu", "--workers", "0", "--test_model", ""]
    tested = run([*test, "--resume", made.folder, "--test_data_dir", tiny_dir / "test" / "easy"])
    assert tested.config.MODEL.srb == 1
    export_published(made.folder, tmp_path / "out")
    back = task([*test, "--hd_u", "4", "--resume", tmp_path / "out"])
    back.build_trained_system()
    assert_identical(dict(back.system.state_dict()), dict(tested.system.state_dict()))


def test_steps_are_for_super_resolution():
    with pytest.raises(ConfigError, match="--schedule step is for super-resolution"):
        load_settings(["--arch", "crnn", "--train_data_dir", "x", "--schedule", "step"])
