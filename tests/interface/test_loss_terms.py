"""`--loss` and `--stroke_loss`: which terms they switch on, and what they refuse."""

import json

import pytest
import torch

from interface.config import ConfigError, flatten, load_settings
from interface.data import loader_spec, target_cache
from interface.flags import LOSS_TERMS
from interface.super_resolution import TextSR
from interface.systems import build_system
from interface.systems.base import ImageLosses, Sharp
from loss.stroke_focus import StrokeTransformer, count_strokes, encode_strokes
from model.recognizer.focus_transformer import FocusTransformer
from tests.dataset.pictures import entries_of, word_pair, write_entries
from tests.interface.helpers import LIGHT, TINY, register_tiny, run, shrink_recognisers

FOCUS = {"widths": (4, 4, 8, 8, 64), "blocks": (1, 1)}


def losses(*arguments):
    return load_settings([*map(str, arguments)]).config.LOSS


@pytest.mark.parametrize("term", LOSS_TERMS)
def test_exactly_the_listed_terms_are_on(term):
    picture = "mse" if LOSS_TERMS[term][0] != "LOSS.pixel" else term
    found = dict(flatten({"LOSS": losses(*LIGHT, "--tpg_pretrained", "x", "--loss", ", ".join({term, picture}))}))
    on = {name for name, (path, value, _) in LOSS_TERMS.items() if found[path] == value}
    assert on == {term, picture}


def test_the_list_is_stronger_than_files(tmp_path):
    (tmp_path / "mine.yaml").write_text("LOSS: {gradient: true, lca: true}\n")
    loss = losses("--arch", "tsrn", "--config", tmp_path / "mine.yaml", "--loss", "l1,lca")
    assert (loss.pixel, loss.gradient, loss.lca) == ("l1", False, True)
    assert losses("--arch", "tbsrn", "--loss", "stroke").pixel == "none"
    assert not losses("--arch", "tbsrn", "--loss", "mse").text_focus
    assert losses("--arch", "tsrn", "--loss", "mse,lca", "--lca", "--no-gradient").lca


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--loss", "mse,gradiant"], "unknown term; did you mean gradient"),
        (["--loss", ","], "unknown term; known: charbonnier, distill"),
        (["--loss", "mse,l1"], "keep one of l1, mse"),
        (["--loss", "mse,gradient,mse"], "mse is listed twice"),
        (["--loss", "mse", "--gradient"], r"another flag \(gradient\) says otherwise"),
        (["--loss", "mse,lca", "--no-lca"], r"another flag \(lca\) says otherwise"),
        (["--loss", "label"], "no term of the loss teaches the super-resolution network"),
        (["--arch", "tsrn", "--loss", "ssim", "--training_stablize"], "--training_stablize leaves pictures out"),
        (["--arch", "crnn", "--loss", "mse"], "--loss is no option of this network"),
    ],
)
def test_lists_without_meaning_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        load_settings(["--train_data_dir", "words", *arguments])


def test_pictures_with_large_errors_are_left_out():
    """By hand: of three pictures two count, and the sum is divided by three."""
    hr = torch.zeros(3, 3, 12, 12)
    sr = hr + torch.tensor([0.1, 0.4, 0.2]).view(3, 1, 1, 1)
    sr.requires_grad_()
    found = {}
    for flag in ("--training_stablize", "--no-training_stablize"):
        terms = ImageLosses(losses("--arch", "srcnn", "--loss", "mse,gradient", flag), None)
        found[flag] = terms(sr, Sharp(hr))
    assert found["--training_stablize"]["mse"].item() == pytest.approx((0.01 + 0.04) / 3)
    assert found["--no-training_stablize"]["mse"].item() == pytest.approx((0.01 + 0.16 + 0.04) / 3)
    sum(found["--training_stablize"].values()).backward()
    assert [bool(value.any()) for value in sr.grad] == [True, False, True]


@pytest.mark.parametrize("flag", ["distill", "label"])
def test_terms_of_the_text_prior_need_one(flag):
    config = load_settings(["--arch", "srcnn", "--loss", f"mse,{flag}"]).config
    with pytest.raises(ValueError, match=f"--use_{flag} .*--arch srcnn has none; add --no-use_{flag}"):
        build_system(config, training=True)
    build_system(config, training=False)


def stroke_file(folder, charset="123456789"):
    """A small recogniser of strokes as the published file names its weights."""
    torch.manual_seed(0)
    names = {"embedding_word.": "embedding_word_with_upperword.", "generator_word.": "generator_word_with_upperword."}
    state = {}
    for key, value in FocusTransformer(**FOCUS, charset=charset).state_dict().items():
        old = next((name for name in names if key.startswith(name)), "")
        state[f"module.{key.replace(old, names[old]) if old else key}"] = value
    torch.save(state, folder / "strokes.pth")
    return folder / "strokes.pth"


def test_a_missing_file_and_one_that_reads_characters_are_refused(tmp_path):
    config = load_settings(["--arch", "srcnn", "--loss", "mse,stroke"]).config
    with pytest.raises(FileNotFoundError, match=r"--stroke_focus_pretrained\).*train without --stroke_loss"):
        build_system(config, training=True)
    build_system(config, training=False)
    config.LOSS.stroke_focus_pretrained = str(stroke_file(tmp_path, "abcdefg"))
    with pytest.raises(ValueError, match="tells 7 symbols apart"):
        build_system(config, training=True)


@pytest.fixture
def trained(tmp_path, monkeypatch, tiny_dir):
    """Arguments of a short training of a small network with a recogniser of strokes, whatever its size."""
    register_tiny(monkeypatch, tmp_path)
    monkeypatch.setattr(TextSR, "test_best", lambda self: None)
    arguments = [*TINY, "--loss", "mse,stroke", "--steps", "7", "--log_interval", "1"]
    arguments += ["--stroke_focus_pretrained", stroke_file(tmp_path), "--train_data_dir", tiny_dir / "train"]
    return [*arguments, "--ckpt_dir", tmp_path / "ckpt", "--test_model", "", "--val_interval", "100"]


def first_steps(folder):
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in event.items() if name.startswith("main/")}
            for event in events if event["event"] == "train"][:2]  # fmt: skip


def test_a_network_trains_with_strokes_kept_or_not(trained, tmp_path):
    for where in ("memory", "disk", "none"):
        made = run([*trained, "--target_cache", where, "--vis_dir", where])
        assert not any("stroke" in key for key in made.system.trained_state())
        assert not made.system.losses.stroke_focus.recognizer.training
    kept, again, anew = (first_steps(tmp_path / "ckpt" / where) for where in ("memory", "disk", "none"))
    assert {"main/mse", "main/stroke"} <= set(kept[0])
    assert kept == again
    for one, other in zip(kept, anew, strict=True):
        assert one == pytest.approx(other, rel=1e-3)
    files = [path.name for path in (tmp_path / "ckpt" / ".cache" / "targets").iterdir()]
    assert [name.rpartition("-")[0] for name in files] == ["stroke_attention"]


def test_kept_values_have_rows_for_the_label_with_most_strokes(tmp_path):
    pairs = [word_pair(number) for number in range(3)]
    labels = ["aaaa", "E8-", "llll"]  # 68 a, 2111 E, 8989 8, 2 l
    folder = write_entries(
        tmp_path / "lmdb", entries_of((hr, lr, label) for (hr, lr, _), label in zip(pairs, labels, strict=True))
    )
    for terms, longest in {"mse,stroke": 8, "mse": 0}.items():
        config = load_settings(["--arch", "srcnn", "--loss", terms, "--train_data_dir", str(folder)]).config
        spec = loader_spec(config, rank=0, world_size=1)
        cache = target_cache(config, spec.pairs(config.TRAIN.train_data_dir), spec, processes=1)
        assert (cache.longest_strokes, cache.longest) == (longest, 0)
    assert count_strokes("E8-") == 8
    assert encode_strokes(["E8-"]).lengths.tolist() == [9]


def test_both_recognisers_beside_each_other(tmp_path, monkeypatch, tiny_dir):
    small = shrink_recognisers(monkeypatch, tmp_path)
    arguments = [*LIGHT, *small, "--train_data_dir", tiny_dir / "train", "--ckpt_dir", tmp_path, "--steps", "1"]
    arguments += ["--loss", "charbonnier,text_focus,stroke", "--stroke_focus_pretrained", stroke_file(tmp_path)]
    monkeypatch.setattr(TextSR, "test_best", lambda self: None)
    run([*arguments, "--test_model", "", "--vis_dir", "both", "--log_interval", "1", "--schedule", "constant"])
    seen = {name for name in first_steps(tmp_path / "both")[0] if name.count("/") == 1}
    assert {"main/charbonnier", "main/attention", "main/recognition", "main/stroke"} <= seen
    assert "main/mse" not in seen


def test_the_recogniser_of_strokes_takes_the_sizes_of_its_weights():
    state = FocusTransformer(**FOCUS, charset="123456789").state_dict()
    network = StrokeTransformer.like(state)
    network.load_state_dict(state)
    assert network.charset == "123456789"
