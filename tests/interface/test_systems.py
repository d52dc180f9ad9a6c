import logging
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

from dataset.loading import LoaderSpec, collate
from interface.config import load_settings
from interface.systems import SYSTEMS, build_system
from interface.systems.base import network_options
from interface.systems.clues import as_clue
from interface.targets import TargetCache
from model import build_model, list_models, model_spec
from model.language.bcn import BCN
from model.recognizer.crnn import CRNN
from model.recognizer.focus_transformer import FocusTransformer
from tests.interface.helpers import LIGHT, assert_identical, shrink_recognisers


@pytest.fixture(scope="module")
def batch(tiny_dir):
    pairs = LoaderSpec(mask=True).pairs([tiny_dir / "train"])
    return collate(pairs.__getitems__([0, 1, 2, 3]))


@pytest.fixture(scope="module")
def crnn_file(tmp_path_factory):
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("weights") / "crnn.pth"
    torch.save(CRNN().state_dict(), path)
    return path


def light(*arguments, training=True, pretrained=True) -> Any:
    settings = load_settings([*LIGHT, *map(str, arguments)])
    torch.manual_seed(0)
    return build_system(settings.config, training=training, pretrained=pretrained)


def noting(notes, function):
    """The function, which also notes what it is given."""

    def call(value):
        notes.append(value)
        return function(value)

    return call


def copied(module):
    return {key: value.clone() for key, value in module.state_dict().items()}


# Terms.


@pytest.mark.parametrize(
    ("arguments", "terms"),
    [
        ("", {"mse"}),
        ("--gradient", {"mse", "gradient"}),
        ("--ssim_loss", {"mse", "ssim"}),
        ("--lca", {"mse", "lca"}),
        ("--use_label", {"mse", "ctc_label"}),
        ("--triple_clues", {"mse", "ctc_language"}),
        ("--gradient --ssim_loss --lca --use_label", {"mse", "gradient", "ssim", "lca", "ctc_label"}),
    ],
)
def test_each_flag_adds_its_term(batch, arguments, terms):
    losses = light(*arguments.split()).train()(batch)
    assert set(losses) == terms
    for name, value in losses.items():
        assert value.ndim == 0, name
        assert torch.isfinite(value), name


def test_distillation_adds_its_term(batch, crnn_file):
    losses = light("--use_distill", "--tpg_pretrained", crnn_file).train()(batch)
    assert set(losses) == {"mse", "distill"}
    assert losses["distill"] > 0


def test_the_language_model_learns_from_labels_or_from_the_teacher(batch, crnn_file):
    arguments = ["--triple_clues", "--tpg_pretrained", crnn_file, "--language_loss", "distill"]
    system = light(*arguments).train()
    losses = system(batch)
    assert set(losses) == {"mse", "distill_language"}  # the teacher serves the language model alone
    losses["distill_language"].backward()
    moved = {
        key.split(".")[2] for key, value in system.named_parameters() if value.grad is not None and value.grad.any()
    }
    assert moved == {"lm"}


def test_a_pretrained_language_model_is_where_every_stage_begins(tmp_path):
    torch.manual_seed(9)
    language_model = BCN()
    save_file(language_model.state_dict(), tmp_path / "lm.safetensors")
    arguments = ["--triple_clues", "--stu_iter", "2", "--language_model", tmp_path / "lm.safetensors"]
    for network in light(*arguments).networks:
        assert_identical(dict(network.lm.state_dict()), dict(language_model.state_dict()))
    later = light(*arguments, pretrained=False)  # a checkpoint will bring its own
    assert not torch.equal(later.networks[0].lm.cls.weight, language_model.cls.weight)
    with pytest.raises(FileNotFoundError, match=r"none.pth \(--language_model\).*pretrain_language_model.py"):
        light("--triple_clues", "--language_model", "none.pth")


@pytest.mark.parametrize("arch", ["rtsrn", "c3stisr"])
def test_the_visual_clue_trains_and_tests_with_any_number_of_channels(tiny_dir, monkeypatch, tmp_path, arch):
    """What is read is drawn anew in each stage."""
    small = shrink_recognisers(monkeypatch, tmp_path)
    flags = ["--arch", arch, "--triple_clues", "--visual_clue", "--stu_iter", "2", "--no-mask"]
    system = light(*small, *flags).train()
    pairs = LoaderSpec(mask=False).pairs([tiny_dir / "train"])
    batch = collate(pairs.__getitems__([0, 1, 2, 3]))
    sum(system(batch).values()).backward()
    visual = [value for key, value in system.named_parameters() if "vis_rec_fuser" in key or "infoGen_visual" in key]
    assert visual
    assert all(value.grad is not None and value.grad.isfinite().all() for value in visual)
    with torch.inference_mode():
        assert system.eval().super_resolve(batch.images_lr).shape == (4, 3, 32, 128)


def test_text_focus_adds_its_terms(batch, tmp_path, caplog):
    settings = load_settings([*LIGHT, "--text_focus"])
    settings.config.LOSS.text_focus_pretrained = str(tmp_path / "transformer.pth")
    with pytest.raises(FileNotFoundError, match=r"transformer.pth \(--text_focus_pretrained\).*--text_focus"):
        build_system(settings.config, training=True)
    torch.save(FocusTransformer().state_dict(), tmp_path / "transformer.pth")
    caplog.set_level(logging.INFO)
    system: Any = build_system(settings.config, training=True).train()
    assert "no confusion table (LOSS.confusion): --text_focus weighs all confusions of characters alike" in caplog.text
    assert set(system(batch)) == {"mse", "attention", "recognition"}
    assert not any("text_focus" in key for key in system.trained_state())
    build_system(settings.config, training=False)  # a test does not need the recogniser of a loss


def test_the_recognisers_of_losses_may_compute_in_bf16_alone(batch, tmp_path):
    torch.manual_seed(1)
    torch.save(FocusTransformer().state_dict(), tmp_path / "transformer.pth")
    full: Any = light("--text_focus", "--text_focus_pretrained", tmp_path / "transformer.pth")
    half: Any = light(
        "--text_focus", "--text_focus_pretrained", tmp_path / "transformer.pth", "--loss_precision", "bf16"
    )
    precisions: list[torch.dtype] = []
    half.losses.text_focus.recognizer.encoder.register_forward_hook(lambda _, __, out: precisions.append(out.dtype))
    losses = []
    for system in (full, half):
        torch.manual_seed(2)
        losses.append(system.train()(batch))
        sum(losses[-1].values()).backward()
    assert precisions == [torch.bfloat16, torch.bfloat16]  # HR and SR
    assert losses[0]["mse"] == losses[1]["mse"]
    for name in ("attention", "recognition"):
        assert losses[0][name] != losses[1][name]
        assert_close(losses[1][name], losses[0][name], rtol=0.05, atol=0)
    one, other = (torch.cat([p.grad.flatten() for p in system.networks.parameters()]) for system in (full, half))
    assert torch.nn.functional.cosine_similarity(one, other, dim=0) > 0.99


def test_the_confusion_table_must_be_one(tmp_path):
    settings = load_settings([*LIGHT, "--text_focus"])
    torch.save(FocusTransformer().state_dict(), tmp_path / "transformer.pth")
    np.save(tmp_path / "table.npy", np.zeros((3, 3)))
    settings.config.LOSS.text_focus_pretrained = str(tmp_path / "transformer.pth")
    settings.config.LOSS.confusion = str(tmp_path / "table.npy")
    with pytest.raises(ValueError, match="62x62 was expected, found \\(3, 3\\)"):
        build_system(settings.config, training=True)
    np.savez(tmp_path / "table.npz", np.random.default_rng(0).random((62, 62)))
    settings.config.LOSS.confusion = str(tmp_path / "table.npz")
    build_system(settings.config, training=True)


def test_every_term_has_a_weight_and_is_multiplied_by_it(batch):
    arguments = ["--gradient", "--ssim_loss", "--lca", "--use_label", "--triple_clues"]
    settings = load_settings([*LIGHT, *arguments])
    torch.manual_seed(0)
    plain = build_system(settings.config, training=True).train()
    for name in settings.config.LOSS.weights:
        settings.config.LOSS.weights[name] *= 2
    torch.manual_seed(0)
    double = build_system(settings.config, training=True).train()
    assert set(plain.weights) >= set(plain(batch))
    torch.manual_seed(1)
    once = plain(batch)
    torch.manual_seed(1)
    twice = double(batch)
    # BatchNorm moves its statistics, not its output, so both see the same numbers.
    for name, value in once.items():
        assert twice[name].item() == pytest.approx(2 * value.item(), rel=1e-5), name


# Priors.


@pytest.mark.parametrize(("share", "zeroed"), [(0.0, 0), (0.25, 1), (0.49, 1), (0.5, 2), (1.0, 4)])
def test_prior_dropout_blinds_the_first_samples(batch, share, zeroed):
    settings = load_settings([*LIGHT, "--triple_clues"])
    settings.config.MODEL.prior_dropout = share
    system: Any = build_system(settings.config, training=True).train()
    seen: list = []
    system.networks[0].register_forward_pre_hook(lambda _, arguments: seen.extend(arguments))
    system(batch)
    images, *clues = seen
    assert images is batch.images_lr
    assert len(clues) == 2
    for clue in clues:
        sums = clue.flatten(1).sum(1)
        assert (sums[:zeroed] == 0).all()
        assert sums[zeroed:].tolist() == pytest.approx([26.0] * (4 - zeroed), rel=1e-4)  # probabilities of 26 places


def test_evaluation_uses_every_prior(batch):
    system = light().eval()
    seen: list = []
    system.networks[0].register_forward_pre_hook(lambda _, arguments: seen.extend(arguments))
    system.cascade(batch.images_lr)
    assert (seen[1].flatten(1).sum(1) > 0).all()


def test_layout_of_a_clue():
    probabilities = torch.rand(2, 26, 37)
    clue = as_clue(probabilities)
    assert clue.shape == (2, 37, 1, 26)
    assert clue[1, 5, 0, 7] == probabilities[1, 7, 5]


# Teacher.


def test_the_teacher_never_moves_and_never_trains(batch, crnn_file):
    system = light("--use_distill", "--tpg_pretrained", crnn_file).train()
    assert system.teacher is not None
    before = copied(system.teacher)
    assert_identical(before, torch.load(crnn_file, weights_only=True))
    assert not {id(p) for p in system.teacher.parameters()} & {id(p) for p in system.params("main")}
    optimizer = torch.optim.SGD(system.params("main"), lr=1e-3)
    for _ in range(2):
        system.train()
        assert not any(module.training for module in system.teacher.modules())
        sum(system(batch).values()).backward()
        optimizer.step()
    assert all(parameter.grad is None for parameter in system.teacher.parameters())
    assert_identical(copied(system.teacher), before)
    moved = copied(system.students[0])
    assert not torch.equal(next(iter(moved.values())), next(iter(before.values())))


@pytest.mark.parametrize("options", ["", "--triple_clues", "--stu_iter 2"])
def test_frozen_students_never_move_and_read_each_lr_picture_once(batch, crnn_file, options):
    system = light("--freeze_tpg", "--tpg_pretrained", crnn_file, *options.split()).train()
    before = copied(system.students)
    system.targets = TargetCache(12, longest=0, key=str, folder=None, limit=1e9)
    read: list[int] = []
    for student in system.students:
        assert not any(module.training for module in student.modules() if not isinstance(module, nn.LSTM))
        student.register_forward_pre_hook(lambda module, args: read.append(len(args[0])))
    optimizer = torch.optim.SGD(system.params("main"), lr=1e-3)
    assert not {id(p) for p in system.students.parameters()} & {id(p) for p in system.params("main")}
    losses = []
    for _ in range(2):
        system.train()
        losses.append(system(batch))
        sum(losses[-1].values()).backward()
        optimizer.step()
    assert_identical(copied(system.students), before)
    # The LR picture by itself for each sample, and once more where the size of a value is found out.
    later = [4, 4] if "--stu_iter" in options else []
    assert sorted(read) == sorted([1] * 5 + later)


def test_frozen_students_give_the_prior_of_their_evaluation_mode(batch, crnn_file):
    options = ["--tpg_pretrained", crnn_file, "--triple_clues"]
    frozen, free = light("--freeze_tpg", *options).eval(), light(*options).eval()
    free.load_state_dict(frozen.state_dict())
    assert_close(frozen.super_resolve(batch.images_lr), free.super_resolve(batch.images_lr))
    for kept, computed in zip(frozen(batch).values(), free(batch).values(), strict=True):
        assert_close(kept, computed)


def test_the_teacher_is_no_part_of_a_checkpoint(crnn_file):
    system = light("--use_distill", "--tpg_pretrained", crnn_file)
    state = system.trained_state()
    assert not any(key.startswith(("teacher", "losses")) for key in state)
    teacher = copied(system.teacher)
    system.load_trained_state({key: torch.zeros_like(value) for key, value in state.items()}, "zeros.pth")
    assert_identical(copied(system.teacher), teacher)
    assert not next(system.students[0].parameters()).any()
    light("--tpg_pretrained", "random").load_trained_state(state, "without_teacher.pth")
    with pytest.raises(ValueError, match=r"broken\.pth does not fit Clues"):
        system.load_trained_state(dict(list(state.items())[1:]), "broken.pth")


def test_students_begin_with_the_pretrained_weights(crnn_file):
    state = torch.load(crnn_file, weights_only=True)
    system = light("--tpg_pretrained", crnn_file, "--stu_iter", "2")
    for student in system.students:
        assert_identical(copied(student), state)
    fresh = light("--tpg_pretrained", crnn_file, pretrained=False)  # a checkpoint will bring them
    assert not torch.equal(next(fresh.students[0].parameters()), next(iter(state.values())))
    with pytest.raises(FileNotFoundError, match=r"nowhere.pth \(--tpg_pretrained\).*--tpg_pretrained random"):
        light("--tpg_pretrained", "nowhere.pth")
    light("--tpg_pretrained", "nowhere.pth", pretrained=False, training=False)


# Stages.


@pytest.mark.parametrize(
    ("arguments", "networks", "students"),
    [("", 2, 2), ("--sr_share", 1, 2), ("--tpg_share", 2, 1), ("--sr_share --tpg_share", 1, 1)],
)
def test_sharing_decides_how_many_networks_there_are(batch, arguments, networks, students):
    system = light("--stu_iter", "2", *arguments.split()).train()
    assert (len(system.networks), len(system.students)) == (networks, students)
    groups = system.clip_groups("main")
    assert len(groups) == networks
    assert sum(len(group) for group in groups) == len(list(system.networks.parameters()))
    assert not {id(p) for group in groups for p in group} & {id(p) for p in system.students.parameters()}
    everything = system.params("main")
    assert len({id(p) for p in everything}) == len(everything) == len(list(system.parameters()))
    assert {name: len(parts) for name, parts in system.published_parts().items()} == {
        "model_best_acc": networks,
        "recognizer_best_acc": students,
    }
    with torch.inference_mode():
        pictures = system.eval().cascade(batch.images_lr)
    assert [picture.shape for picture in pictures] == [batch.images_hr.shape] * 2
    assert not torch.equal(*pictures)


def test_gradients_flow_back_through_the_whole_cascade(batch):
    """The loss of the second picture alone reaches the first stage."""
    system = light("--stu_iter", "2", "--use_label").train()
    pictures: list = []
    for network in system.networks:
        network.register_forward_hook(lambda _, __, output: pictures.append(output))
    system(batch)
    (pictures[1] - batch.images_hr).square().mean().backward()
    for part in (system.networks[0], system.students[0], system.students[1], system.networks[1]):
        norms = [parameter.grad.norm() for parameter in part.parameters() if parameter.grad is not None]
        assert norms
        assert max(norms) > 0


def test_later_stages_read_the_sharper_picture_and_enlarge_the_same_lr(batch):
    system = light("--stu_iter", "2").eval()
    read: list = []
    enlarged: list = []
    for student, network in zip(system.students, system.networks, strict=True):
        student.preprocess = noting(read, student.preprocess)
        network.register_forward_pre_hook(lambda _, arguments: enlarged.append(arguments[0]))
    with torch.inference_mode():
        first, _ = system.cascade(batch.images_lr)
    assert read[0] is batch.images_lr
    assert torch.equal(read[1], first)
    assert all(images is batch.images_lr for images in enlarged)


def test_terms_are_sums_over_the_stages(batch):
    torch.manual_seed(0)
    system = light("--stu_iter", "2", "--use_label", "--gradient").train()
    pictures: list = []
    for network in system.networks:
        network.register_forward_hook(lambda _, __, output: pictures.append(output.detach()))
    losses = system(batch)
    expected = sum((picture - batch.images_hr).square().mean() for picture in pictures)
    assert losses["mse"].item() == pytest.approx(system.weights["mse"] * expected.item(), rel=1e-5)
    assert set(losses) == {"mse", "ctc_label", "gradient"}


# Student passes.


def test_the_published_second_pass_is_one_in_evaluation_mode(batch):
    """What the language model reads: the statistics kept so far, not those of the batch; nothing flows back."""
    settings = load_settings([*LIGHT, "--triple_clues"])
    settings.config.MODEL.student_passes = "published"
    torch.manual_seed(0)
    system: Any = build_system(settings.config, training=True).train()
    student = system.students[0]
    with torch.no_grad():
        student.eval()
        expected = student(student.preprocess(batch.images_lr)).transpose(0, 1).softmax(-1)
        student.train()
    read: list = []
    system.networks[0].language_clue = noting(read, system.networks[0].language_clue)
    system(batch)
    assert torch.allclose(read[0], expected, atol=1e-6)
    assert not read[0].requires_grad
    assert student.training
    norms = [module for module in student.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(module.training for module in norms)
    assert {module.num_batches_tracked.item() for module in norms if module.num_batches_tracked is not None} == {
        1
    }  # one pass left its statistics


def test_the_shared_pass_reads_what_the_network_is_given(batch):
    system = light("--triple_clues").train()
    student = system.students[0]
    read: list = []
    logits: list = []
    system.networks[0].language_clue = noting(read, system.networks[0].language_clue)
    student.register_forward_hook(lambda _, __, output: logits.append(output))
    system(batch)
    assert len(logits) == 1
    assert torch.equal(read[0], logits[0].transpose(0, 1).softmax(-1))
    assert not read[0].requires_grad


def test_evaluation_is_deterministic_needs_no_labels_and_moves_nothing(batch):
    system = light("--triple_clues", "--STN", "--stu_iter", "2").eval()
    before = copied(system)
    with torch.inference_mode():
        torch.manual_seed(1)
        first = system.cascade(batch.images_lr)
        torch.manual_seed(2)
        second = system.cascade(batch.images_lr)
        result = system.super_resolve(batch.images_lr)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(result, first[-1])
    assert_identical(copied(system), before)


# Every network.


@pytest.mark.parametrize("name", list_models())
def test_every_network_has_a_recipe_that_builds(name, tiny_dir):
    assert model_spec(name).system in SYSTEMS
    settings = load_settings(
        ["--arch", name, "--tpg_pretrained", "random", "--srb", "1", "--no-use_distill", "--no-text_focus"]
    )
    config = settings.config
    system = build_system(config, training=True).eval()
    build_model(name, **network_options(config))
    pairs = LoaderSpec(mask=config.MODEL.mask).pairs([tiny_dir / "test" / "easy"])
    images = collate(pairs.__getitems__([0, 1])).images_lr
    with torch.inference_mode():
        pictures = system.cascade(images)
    assert len(pictures) == system.stages
    assert pictures[-1].shape == (2, images.shape[1], 32, 128)
    for parts in system.published_parts().values():
        assert all(isinstance(part, nn.Module) for part in parts)
    state = system.trained_state()
    system.load_trained_state(state, "own.pth")


def test_options_reach_the_network():
    system = light("--srb", "2", "--no-mask", "--STN")
    network = system.networks[0]
    assert network.block1[0].in_channels == 3
    assert hasattr(network, "block3")
    assert hasattr(network, "tps")


def test_four_pictures_are_learned_by_heart(batch):
    """The learning test of this recipe: the image loss falls to less than a quarter."""
    system = light().train()
    optimizer = torch.optim.Adam(system.params("main"), lr=1e-3, betas=(0.5, 0.999))
    values = []
    for _ in range(14):
        losses = system(batch)
        values.append(losses["mse"].item())
        optimizer.zero_grad()
        sum(losses.values()).backward()
        for group in system.clip_groups("main"):
            nn.utils.clip_grad_norm_(group, 0.25)
        optimizer.step()
    assert min(values[-5:]) < values[0] / 4, values
