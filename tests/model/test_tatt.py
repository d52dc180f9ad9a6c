"""TATT: its size, its two recurrences, its turned pictures, its recipe and its published files."""

import math

import pytest
import torch

from dataset.deform import turned
from dataset.loading import LoaderSpec, collate
from interface.checkpoint import CheckpointError
from interface.config import ConfigError, load_settings
from interface.inference import AT_ONCE, in_parts
from interface.super_resolution import TextSR
from interface.systems import build_system
from loss.similarity import structure_similarity
from model import build_model, identify
from model.tatt import TATT, TATTSFT, SpatialModulation
from tests.interface.helpers import SmallCRNN, assert_identical, shrink_recognisers

FLAGS = "--arch tatt --srb 1 --hd_u 4 --batch_size 2 --device cpu --workers 0".split()


def small(**options) -> TATT:
    torch.manual_seed(0)
    return TATT(srb_nums=1, hidden_units=4, **options).eval()


def test_it_has_the_published_number_of_parameters_but_for_those_without_use():
    with torch.device("meta"):
        network, whole = (build_model("tatt", STN=True, published_unused=unused) for unused in (False, True))
    unused = 64 * 64 + 64 + 2 * (3 * 64 * 64 + 3 * 64 + 64 * 64 + 64 + 2 * 64)
    assert sum(parameter.numel() for parameter in network.parameters()) == 7_608_334 - unused
    assert sum(parameter.numel() for parameter in whole.parameters()) == 7_608_334
    assert len(whole.state_dict()) - len(network.state_dict()) == 2 + 2 * 6
    assert set(network.published_shapes()) == set(whole.state_dict())


@torch.no_grad()
def test_the_two_recurrences():
    """As published a picture depends on its place in the batch; here it does not."""
    images, prior = torch.rand(1, 4, 16, 64).expand(3, 4, 16, 64), torch.rand(1, 37, 1, 26).expand(3, 37, 1, 26)
    columns, batch = small(), small(recurrence="batch")
    batch.load_state_dict(columns.state_dict())
    same, other = columns.infoGen.queries(3), batch.infoGen.queries(3)
    assert same.shape == other.shape == (1024, 3, 8)
    assert torch.equal(same[:, 0], same[:, 2])
    assert not torch.allclose(other[:, 0], other[:, 1], atol=1e-4)
    for place in range(3):
        torch.testing.assert_close(columns(images, prior)[place], columns(images[:1], prior[:1])[0], atol=1e-5, rtol=0)
    assert not torch.allclose(batch(images, prior)[0], batch(images, prior)[1], atol=1e-6)
    # By hand: the codes of a column, one after the other, are what the recurrence is given.
    lines = columns.infoGen.init_factor.weight.view(16, 64, 8).permute(1, 0, 2).reshape(1, 64, 128)
    passed, _ = columns.infoGen.transformer.gru_encoding(lines)
    torch.testing.assert_close(same[5 * 64 + 7, 0], passed[0, 7, 5 * 8 : 6 * 8])


@pytest.mark.parametrize("recurrence", ["columns", "batch"])
@torch.no_grad()
def test_evaluation_leaves_a_batch_whole_where_pictures_depend_on_their_place(recurrence):
    network, count = small(recurrence=recurrence), AT_ONCE + 4
    images, prior = torch.rand(count, 4, 16, 64), torch.rand(count, 37, 1, 26)
    sizes: list[int] = []
    network.register_forward_hook(lambda _, __, out: sizes.append(len(out)))
    result = in_parts(network, images, prior)
    assert sizes == ([count] if recurrence == "batch" else [AT_ONCE, 4])
    torch.testing.assert_close(result, network(images, prior), atol=1e-5, rtol=0)


@torch.no_grad()
def test_each_pixel_attends_to_the_text():
    network, prior = small(), torch.rand(2, 37, 1, 26).softmax(1)
    drawn, attention = network.infoGen.attend(prior, torch.randn(2, 8, 16, 64))
    assert drawn.shape == (2, 8, 16, 64)
    assert attention.shape == (2, 1024, 26)
    torch.testing.assert_close(attention.sum(2), torch.ones(2, 1024))


def test_options_and_images_without_meaning_are_refused():
    with pytest.raises(ValueError, match="unknown recurrence 'rows'; known: columns, batch"):
        TATT(recurrence="rows")
    with pytest.raises(ValueError, match="hidden_units 5 must be even"):
        TATT(hidden_units=5)
    with pytest.raises(ValueError, match=r"\(8, 32\): this network was built for 16x64"):
        small()(torch.rand(1, 4, 8, 32))


def test_a_turn_by_hand():
    """Clockwise by 90 degrees; a square picture whose aspect is 1 is only turned."""
    images = torch.arange(9.0).view(1, 1, 3, 3)
    quarter = turned(images, torch.tensor([math.pi / 2]), torch.tensor([0.5]))
    torch.testing.assert_close(quarter[0, 0], images[0, 0].rot90(-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(turned(images, torch.zeros(1), torch.ones(1)), images)


def test_structure_similarity_by_hand():
    flat = [torch.full((1, 4, 12, 12), value) for value in (0.2, 0.4, 0.6)]
    assert structure_similarity(flat[0], flat[0], flat[0]).item() == pytest.approx(1.0)
    # In the middle, where the window is whole, nothing varies, and the means alone count.
    shared, lengths = 0.08 + 0.24 + 0.12, 0.04 + 0.16 + 0.36
    wide = [value.new_full((1, 4, 200, 200), value[0, 0, 0, 0].item()) for value in flat]
    expected = (shared + 1e-4) / (lengths + 1e-4)
    assert structure_similarity(*wide).item() == pytest.approx(expected, abs=0.05)
    assert structure_similarity(*wide).item() == pytest.approx(structure_similarity(*wide[::-1]).item())
    with pytest.raises(ValueError, match="cannot be compared"):
        structure_similarity(flat[0], flat[1], wide[2])


@pytest.fixture
def batch(tiny_dir):
    return collate(LoaderSpec(mask=True).pairs([tiny_dir / "train"]).__getitems__([0, 1, 2, 3]))


@pytest.fixture
def arguments(monkeypatch, tmp_path, tiny_dir):
    small_ones = shrink_recognisers(monkeypatch, tmp_path)
    return [str(word) for word in [*FLAGS, *small_ones, "--train_data_dir", tiny_dir / "train"]]


def test_the_published_recipe(arguments, batch):
    config = load_settings(arguments).config
    torch.manual_seed(0)
    system = build_system(config, training=True).train()
    losses = system(batch)
    assert set(losses) == {"mse", "gradient", "distill", "structure"}
    assert {name: system.weights[name] for name in losses} == {
        "mse": 100.0,
        "gradient": 0.01,
        "distill": 100.0,
        "structure": 10.0,
    }
    sum(value for name, value in losses.items() if name != "distill").backward()
    assert all(value.grad is None for value in system.students.parameters())  # the picture teaches them nothing
    assert any(value.grad is not None and value.grad.any() for value in system.networks.parameters())
    again = [system(batch)["distill"].item() for _ in range(2)]
    assert again[0] != again[1]  # turned anew


def test_later_stages_count_more(arguments, batch):
    arguments = [*arguments, "--stu_iter", "2", "--rotate_train", "0", "--no-tssim_loss", "--no-use_distill"]
    totals = []
    for growth in (0.0, 0.5, 1.0):
        config = load_settings(arguments).config
        config.LOSS.stage_growth = growth
        torch.manual_seed(0)
        system = build_system(config, training=True).train()
        torch.manual_seed(1)
        totals.append(system(batch)["mse"].item())
    assert totals[1] - totals[0] == pytest.approx(totals[2] - totals[1], rel=1e-3)
    assert totals[2] > totals[0]


def test_consistency_needs_a_turn(arguments):
    with pytest.raises(ConfigError, match="--tssim_loss compares with a picture that was turned; add --rotate_train"):
        load_settings([*arguments, "--rotate_train", "0"])


def test_published_files_are_recognised_and_set_the_options(arguments, tmp_path):
    torch.manual_seed(1)
    network, folder = TATT(srb_nums=1, hidden_units=4, STN=True, published_unused=True), tmp_path / "published"
    folder.mkdir()
    state = network.state_dict()
    assert identify(state) == "tatt"
    torch.save({"state_dict_G": state}, folder / "model_best_acc_0.pth")
    torch.save(SmallCRNN().state_dict(), folder / "recognizer_best_acc_0.pth")
    made = TextSR(load_settings([*arguments, "--go_test", "--resume", str(folder)]))
    made.build_trained_system()
    assert (made.config.MODEL.recurrence, made.config.MODEL.stn_align_corners) == ("batch", False)
    assert made.system.networks[0].infoGen.recurrence == "batch"
    own = made.system.networks[0].state_dict()
    assert own.keys() < state.keys()
    assert_identical(dict(own), {key: state[key] for key in own})
    torch.save({"state_dict_G": {**state, "infoGen.more": torch.zeros(1)}}, folder / "model_best_acc_0.pth")
    made = TextSR(load_settings([*arguments, "--go_test", "--resume", str(folder)]))
    with pytest.raises(CheckpointError, match="left over"):
        made.build_trained_system()


# The variant without a transformer.


def test_the_variant_has_the_published_number_of_parameters_but_for_those_without_use():
    with torch.device("meta"):
        network, whole = (build_model("tatt_sft", STN=True, published_unused=unused) for unused in (False, True))
    unused = 2 * (64 * 32 + 32 + 32 * 64 + 64)
    assert sum(parameter.numel() for parameter in network.parameters()) == 3_591_373 - unused
    assert sum(parameter.numel() for parameter in whole.parameters()) == 3_591_373


@torch.no_grad()
def test_features_are_scaled_and_shifted_by_hand():
    layer = SpatialModulation(2)
    for parameter in layer.parameters():
        parameter.fill_(1.0 if parameter.ndim > 1 else 0.0)
    layer.SFT_shift_conv1.bias.fill_(5.0)
    x, drawn = torch.tensor([3.0, 7.0]).view(1, 2, 1, 1), torch.tensor([-4.0, 2.0]).view(1, 2, 1, 1)
    # The map's channels sum to -2, of which the leaky layer leaves -0.2: scale -0.2, shift -0.2 + 5.
    assert layer(x, drawn).flatten().tolist() == pytest.approx([3 * 0.8 + 4.8, 7 * 0.8 + 4.8])


def test_published_files_of_the_variant_are_recognised(arguments, tmp_path):
    torch.manual_seed(1)
    network, folder = TATTSFT(srb_nums=1, hidden_units=4, STN=True, published_unused=True), tmp_path / "published"
    folder.mkdir()
    state = network.state_dict()
    assert identify(state) == "tatt_sft"
    torch.save({"state_dict_G": state}, folder / "model_best_acc_0.pth")
    torch.save(SmallCRNN().state_dict(), folder / "recognizer_best_acc_0.pth")
    made = TextSR(load_settings([*arguments, "--go_test", "--resume", str(folder)]))
    made.build_trained_system()
    assert (made.config.arch, made.config.MODEL.stn_align_corners) == ("tatt_sft", False)
    loaded = dict(made.system.networks[0].state_dict())
    assert_identical(loaded, {key: value for key, value in state.items() if key in loaded})
    assert len(state) == len(loaded) + 8
