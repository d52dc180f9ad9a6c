"""The weights that come along: whole, described, and better than nothing on words that they have not seen."""

import json
import subprocess
from itertools import islice

import numpy as np
import pytest
import torch

from dataset.charset import canonical
from dataset.rendering.fonts import find_fonts
from dataset.synthetic import make_sample
from dataset.transforms import resize_planes
from interface import starter
from interface.base import TextBase
from interface.checkpoint import file_sha256, load_weights, read_weights
from interface.config import ROOT, load_settings
from interface.metrics import psnr
from interface.systems.base import build_stroke_focus
from loss.stroke_focus import encode_strokes
from loss.text_focus import focus_recognizer
from loss.weighted_ce import IGNORED
from model.bicubic import enlarge
from model.recognizer.crnn import CRNN

STROKES_THERE = (ROOT / starter.STROKE_FOCUS).is_file()
FILES = (starter.RECOGNIZER, starter.TEXT_FOCUS, starter.SUPER_RESOLUTION, *[starter.STROKE_FOCUS] * STROKES_THERE)
LARGEST, WHOLE = 20e6, 48e6  # bytes of a file, and of all files that git tracks
STREAM = 990_000  # a seed of rendered words that no training had


@pytest.fixture(scope="module")
def words():
    """32 rendered words of middling difficulty: (N, 4, H, W) HR and LR, and what they say."""
    fonts = [face for face in find_fonts() if "DejaVu" in face.source or face.source == "pillow"]  # on every machine
    from PIL import Image

    hr, lr, labels = [], [], []
    for index in range(32):
        sample = make_sample(STREAM, index, "medium", fonts=fonts)
        hr.append(resize_planes(Image.fromarray(sample.hr), (128, 32), True))
        lr.append(resize_planes(Image.fromarray(sample.lr), (64, 16), True))
        labels.append(sample.label)
    return *(torch.from_numpy(np.stack(planes)).float() / 255 for planes in (hr, lr)), labels


def right(recognizer, images, labels):
    texts = [canonical(text) for text in recognizer.read(images[:, :3])]
    return sum(text == canonical(label) for text, label in zip(texts, labels, strict=True))


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_the_one_its_json_describes(name):
    file = ROOT / name
    facts = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    assert facts["sha256"] == file_sha256(file)
    assert file.stat().st_size < LARGEST
    assert facts["command"].startswith("python main.py --arch")
    for key in ("arch", "seed", "scores", "code"):
        assert facts[key] not in (None, "", [], {}), key
    assert facts["data"] or facts["rendered"]


def test_crnn_reads(words):
    hr, lr, labels = words
    network = CRNN()
    load_weights(network, read_weights(ROOT / starter.RECOGNIZER, option="", purpose="", remedy=""), starter.RECOGNIZER)
    network.eval()
    assert right(network, hr, labels) > len(labels) / 2
    assert right(network, lr, labels) > len(labels) / 8


def test_the_small_text_focus_transformer_reads(words):
    hr, _, labels = words
    state = read_weights(ROOT / starter.TEXT_FOCUS, option="", purpose="", remedy="")
    network = focus_recognizer(state, starter.TEXT_FOCUS)
    load_weights(network, state, starter.TEXT_FOCUS)
    network.eval()
    assert right(network, hr, labels) > len(labels) / 3


@pytest.mark.skipif(not STROKES_THERE, reason="weights of a recogniser of strokes do not come along")
def test_the_small_recogniser_of_strokes_spells(words):
    """Where it looks is the next stroke: it names most strokes that it is led to."""
    hr, _, labels = words
    config = load_settings(["--config", "text_gestalt.yaml"]).config
    config.LOSS.stroke_focus_pretrained = str(ROOT / starter.STROKE_FOCUS)
    focus = build_stroke_focus(config.LOSS)
    targets = encode_strokes(labels)
    with torch.inference_mode():
        found = focus.read(hr, targets.inputs)[0].argmax(2)
    counted = targets.targets != IGNORED
    assert (found == targets.targets)[counted].float().mean() > 0.7
    assert json.loads((ROOT / starter.STROKE_FOCUS).with_suffix(".json").read_text())["charset"] == "strokes"


def test_rtsrn_is_nearer_to_hr_than_bicubic(words):
    hr, lr, _ = words
    base = TextBase(load_settings(["--demo", "--resume", str(ROOT / starter.SUPER_RESOLUTION), "--device", "cpu"]))
    base.build_trained_system()
    with torch.inference_mode():
        sr = base.system.super_resolve(lr)
    gain = psnr(sr, hr) - psnr(enlarge(lr, 2), hr)
    assert gain.mean() > 0.2
    assert (gain > 0).float().mean() > 0.6


def test_the_repository_stays_small():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    sizes = {file: file.stat().st_size for file in files if file.is_file()}
    large = sorted(sizes, key=sizes.__getitem__, reverse=True)
    assert all(sizes[file] < LARGEST for file in islice(large, 1)), large[0]
    assert sum(sizes.values()) < WHOLE
