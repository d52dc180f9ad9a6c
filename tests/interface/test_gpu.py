"""What only a GPU can show: its numbers are those of the CPU, and no training step waits for it."""

import pytest
import torch
from torch import nn

from interface import base
from interface.config import load_settings
from interface.replays import RecordedSteps, Replays
from interface.systems import build_system
from model import list_models, model_spec
from tests.interface.helpers import LIGHT, assert_near, shrink_recognisers, task
from tests.parity.vectors import without_dropout

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

RECIPES = {
    "rtsrn": "--STN --mask --triple_clues --use_distill --text_focus --gradient --lca",
    "c3stisr": "--STN --mask --triple_clues --use_distill --gradient",
    "tpgsr": "--use_distill --stu_iter 2",
    "tatt": "--use_distill",
    "tsrn": "--text_focus --gradient",
    "sgenet": "--tpg_pretrained random",
    "lemma": "--tpg_pretrained random",
}
SETTLED = 3  # the first steps load libraries and set up the optimizer


@pytest.mark.parametrize("arch", list_models())
def test_pictures_are_those_of_the_cpu(arch, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    shrink_recognisers(monkeypatch, tmp_path)
    torch.manual_seed(0)
    config = load_settings([*LIGHT, "--arch", arch, "--no-use_distill"]).config
    system = build_system(config, training=False, pretrained=False).eval()
    images = torch.rand(3, 4 if config.MODEL.mask else 3, 16, 64)
    with torch.inference_mode():
        expected = system.super_resolve(images)
        found = system.to("cuda").super_resolve(images.cuda())
        with torch.autocast("cuda", dtype=torch.bfloat16):
            rounded = system.super_resolve(images.cuda())
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-4)
    # Random weights, so some networks enlarge what rounding does.
    assert (rounded.float().cpu() - expected).abs().mean() < 0.05 * max(1.0, expected.abs().max().item())


@pytest.mark.parametrize("arch", RECIPES)
def test_no_step_waits_for_the_gpu(arch, monkeypatch, tmp_path, tiny_dir):
    small = shrink_recognisers(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    machine = "--device cuda --workers 0 --batch_size 3 --steps 9 --val_interval 100 --log_interval 100".split()
    data = ["--train_data_dir", tiny_dir / "train", "--test_data_dir", tiny_dir / "test" / "easy", "--test_model", ""]
    run = task(["--arch", arch, *small, *RECIPES[arch].split(), *machine, *data])
    take = run.train_step
    waits = []

    def watched(batches):
        if run.step >= SETTLED:
            torch.cuda.set_sync_debug_mode("error")
        try:
            take(batches)
        except RuntimeError as error:
            waits.append(f"step {run.step}: {error}")
            raise
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(run, "train_step", watched)
    monkeypatch.setattr(run, "test_best", lambda: None)
    assert run.run() == 0
    assert not waits and run.step == 9


@pytest.mark.parametrize("arch", list_models())
def test_replayed_pictures_are_those_of_the_cascade(arch, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    shrink_recognisers(monkeypatch, tmp_path)
    config = load_settings([*LIGHT, "--arch", arch, "--no-use_distill"]).config
    system = build_system(config, training=False, pretrained=False).eval().to("cuda")
    batches = torch.rand(4, 3, 4 if config.MODEL.mask else 3, 16, 64, device="cuda")
    replays = Replays()
    with torch.inference_mode(), caplog.at_level("INFO"):
        for images in batches:  # called, recorded, replayed twice
            torch.testing.assert_close(replays(system, images)[-1], system.cascade(images)[-1], rtol=0, atol=1e-5)
    assert "cannot be recorded" not in caplog.text
    assert len(replays._recorded) == 1


def test_a_recording_that_fails_leaves_everything_as_it_was(caplog):
    """Here for an operation that waits for the GPU."""

    class Waits(nn.Linear):
        def forward(self, x):
            return super().forward(nn.functional.dropout(x, 0.5)) * float(x.sum().item() > 0)

    network = Waits(4, 4).cuda().train()
    x = torch.ones(2, 4, device="cuda")
    RecordedSteps.install(network)
    with caplog.at_level("INFO"):
        for _ in range(6):
            network(x).sum().backward()
    assert caplog.text.count("cannot be recorded") == 1
    torch.cuda.manual_seed(0)
    first = network(x)
    torch.cuda.manual_seed(0)
    assert torch.equal(first, network(x))


@pytest.mark.parametrize("arch", [name for name in list_models() if name != "bicubic"])
def test_recorded_steps_are_those_of_the_network(arch, monkeypatch, tmp_path, tiny_dir, caplog):
    """With weights that stay, so that rounding cannot add up, and without dropout."""
    small = shrink_recognisers(monkeypatch, tmp_path)
    monkeypatch.chdir(tmp_path)
    build = base.build_system
    monkeypatch.setattr(base, "build_system", lambda *args, **kwargs: without_dropout(build(*args, **kwargs)))
    options = RECIPES.get(arch, "").split() if arch in ("rtsrn", "c3stisr") else []
    ending = options if model_spec(arch).system in ("clues", "prior_guided") else ["--tpg_pretrained", "random"]
    ending += ["--srb", "1"] * ("srb_nums" in model_spec(arch).options)
    machine = "--device cuda --workers 0 --batch_size 3 --steps 7 --val_interval 100 --learning_rate 1e-12".split()
    data = ["--train_data_dir", tiny_dir / "train", "--test_data_dir", tiny_dir / "test" / "easy", "--test_model", ""]
    states, moments = [], []
    for option in ("--cuda_graphs", "--no-cuda_graphs"):
        run = task(["--arch", arch, *small, *ending, *machine, *data, option, "--vis_dir", option.strip("-")])
        monkeypatch.setattr(run, "test_best", lambda: None)
        assert run.run() == 0
        if not run.system.called_once():
            return
        states.append(run.system.trained_state())
        optimizer = run.optimizers["main"].state_dict()["state"]
        moments.append({number: state["exp_avg"] for number, state in optimizer.items()})
        recorders = [network.forward for network in run.system.called_once() if option == "--cuda_graphs"]
        assert all(isinstance(recorder, RecordedSteps) and recorder._recorded for recorder in recorders)
    assert "cannot be recorded" not in caplog.text
    assert_near(*states)
    recorded, plain = moments
    assert recorded.keys() == plain.keys()
    largest = max(moment.abs().max().item() for moment in plain.values())
    assert all((recorded[number] - moment).abs().max() <= 1e-3 * largest for number, moment in plain.items())
