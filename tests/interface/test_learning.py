"""What each loss term teaches by itself, on eight pairs that are seen again and again."""

import pytest
import torch

from dataset.loading import LoaderSpec, collate
from interface.config import load_settings
from interface.systems import base, build_system
from loss.image import PIXEL_ERRORS
from loss.stroke_focus import STROKE_KINDS, encode_strokes
from loss.text_focus import encode_labels
from loss.weighted_ce import IGNORED
from tests.interface.helpers import LIGHT, SmallFocus, shrink_recognisers

# Term, flags that switch it on, learning rate, share of its first value that is left at the end at most.
TERMS = [
    ("mse", "", 2e-3, 0.5),
    ("l1", "", 2e-3, 0.7),
    ("charbonnier", "", 2e-3, 0.7),
    ("gradient", "--gradient", 2e-3, 0.8),
    ("ssim", "--ssim_loss", 2e-3, 0.8),
    ("structure", "--tssim_loss --rotate_train 5", 2e-3, 0.9),
    ("lca", "--lca", 2e-3, 0.9),
    ("attention", "--text_focus", 3e-4, 0.8),
    ("recognition", "--text_focus", 1e-4, 0.6),
    ("stroke", "--stroke_loss", 3e-4, 0.9),
    ("distill", "--use_distill", 2e-3, 0.7),
    ("ctc_label", "--use_label", 2e-3, 0.8),
    ("ctc_language", "--triple_clues", 2e-3, 0.7),
    ("distill_language", "--triple_clues --language_loss distill", 2e-3, 0.7),
]
STEPS = 12


@pytest.fixture(scope="module")
def eight(tiny_dir):
    """Half as wide as usual, to save time."""
    pairs = LoaderSpec(mask=True, width=64).pairs([tiny_dir / "train"])
    return collate(pairs.__getitems__(list(range(8))))


@pytest.fixture(scope="module")
def focus_state(eight):
    """A text-focus recogniser that can read the eight sharp pictures."""
    torch.manual_seed(0)
    recognizer = SmallFocus()
    targets = encode_labels(eight.labels)
    optimizer = torch.optim.Adam(recognizer.parameters(), lr=1e-2)
    for _ in range(60):
        logits, _ = recognizer(recognizer.preprocess(eight.images_hr), targets.inputs)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.targets.flatten(), ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return recognizer.state_dict()


@pytest.fixture(scope="module")
def stroke_state(eight):
    """A recogniser of strokes that can spell the eight sharp pictures."""
    torch.manual_seed(0)
    recognizer = SmallFocus(charset=STROKE_KINDS)
    targets = encode_strokes(eight.labels)
    optimizer = torch.optim.Adam(recognizer.parameters(), lr=1e-2)
    for _ in range(60):
        logits, _ = recognizer(recognizer.preprocess(eight.images_hr), targets.inputs)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.targets.flatten(), ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return recognizer.state_dict()


@pytest.fixture(scope="module")
def states(focus_state, stroke_state):
    """Weights of both recognisers."""
    return focus_state, stroke_state


def system_of(flags, monkeypatch, folder, weights):
    """The smallest RTSRN with small recognisers, and these weights of terms."""
    arguments = [*LIGHT, "--width", "64", *shrink_recognisers(monkeypatch, folder), *flags.split()]
    settings = load_settings([str(argument) for argument in arguments])
    settings.config.LOSS.pixel = next((name for name in weights if name in PIXEL_ERRORS), "mse")
    for name in settings.config.LOSS.weights:
        settings.config.LOSS.weights[name] = weights.get(name, 0.0)
    torch.manual_seed(0)
    system = build_system(settings.config, training=True)
    return system.train()


def learn(system, batch, steps, rate=2e-3):
    """Adam steps; returns the total before each."""
    optimizer = torch.optim.Adam(system.params("main"), lr=rate, betas=(0.5, 0.999))
    totals = []
    for _ in range(steps):
        total = sum(system(batch).values())
        totals.append(total.item())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    return totals


@pytest.mark.parametrize("row", TERMS, ids=[row[0] for row in TERMS])
def test_each_term_falls_by_itself(eight, states, monkeypatch, tmp_path, row):
    focus_state, stroke_state = states
    term, flags, rate, left = row
    small = SmallFocus(charset=STROKE_KINDS)
    torch.save(small.state_dict(), tmp_path / "strokes.pth")
    monkeypatch.setattr(base, "stroke_recognizer", lambda state, source: small)  # its heads are smaller
    monkeypatch.setattr(base, "fold", lambda recognizer: None)  # other weights follow
    flags = flags.replace("--stroke_loss", f"--stroke_loss --stroke_focus_pretrained {tmp_path / 'strokes.pth'}")
    system = system_of(flags, monkeypatch, tmp_path, {term: 1.0})
    if system.losses.text_focus is not None:
        system.losses.text_focus.recognizer.load_state_dict(focus_state)
    if system.losses.stroke_focus is not None:
        system.losses.stroke_focus.recognizer.load_state_dict(stroke_state)
    steps = 2 * STEPS if term in ("attention", "recognition", "stroke") else STEPS  # they begin by going up and down
    totals = learn(system, eight, steps, rate)
    assert totals[-1] < left * totals[0], totals


def test_every_term_of_the_program_is_tried():
    known = set(load_settings(LIGHT).config.LOSS.weights)
    assert {row[0] for row in TERMS} | {"finetune"} == known  # that one is SGENet's: `test_semantic.py`


def changed(system, before):
    return [key for key, value in system.named_parameters() if not torch.equal(value, before[key])]


def test_local_contours_move_weights_unless_they_are_computed_as_published(eight, monkeypatch, tmp_path):
    for with_gradient in (True, False):
        system = system_of("--lca", monkeypatch, tmp_path, {"lca": 10.0})
        system.losses.config.lca_gradient = with_gradient
        before = {key: value.detach().clone() for key, value in system.named_parameters()}
        totals = learn(system, eight, 2)
        assert totals[0] > 0
        if with_gradient:
            assert any(key.startswith("networks.0.block") for key in changed(system, before))
        else:
            assert changed(system, before) == []
