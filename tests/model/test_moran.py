"""MORAN: keys, loading, rectification, early stop against all steps, confidences, errors."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.straightforward_moran import decode_all_steps, read_straightforwardly, text_one_by_one
from interface.checkpoint import CheckpointError, load_weights, read_weights
from model.recognizer import moran as module
from model.recognizer.base import Recognizer
from model.recognizer.moran import FEATURES, MORAN, Decoder
from tests.model.published import GOLDEN
from tests.parity.vectors import load_case

CASE = GOLDEN.parent / "vectors" / "framework" / "moran_forward.npz"


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    torch.manual_seed(5)
    return F.interpolate(torch.rand(6, 3, 4, 16), (32, 128), mode="bicubic")


@pytest.fixture(scope="module")
def moran(images) -> MORAN:
    """A network that tells pictures apart and ends some words; plain random weights would do neither."""
    torch.manual_seed(0)
    network = MORAN(max_length=12)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0  # the statistics become those of the pictures
    with torch.no_grad():
        network.ASRN.encode(network.preprocess(images))
        for weight in network.ASRN.rnn.parameters():
            weight.mul_(4)
        for decoder in (network.ASRN.attentionL2R, network.ASRN.attentionR2L):
            decoder.generator.weight.mul_(20)
            decoder.generator.bias[network.end] += 2
    return network.eval()


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    """A state dict with the published keys, as old as the published file: without BatchNorm's counters."""
    return {f"module.{key}": value for key, value in load_case(CASE).state().items()}


def test_keys_are_those_of_the_published_file():
    network = MORAN()
    assert sum(value.numel() for value in network.parameters()) == 20_340_141
    own = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert {key: shape for key, shape in own.items() if not key.endswith("num_batches_tracked")} == load_case(
        CASE
    ).shapes


def test_a_published_file_loads_strictly(published, tmp_path):
    network = MORAN()

    def load(state):
        torch.save(state, tmp_path / "demo.pth")
        options = {"option": "TRAIN.VAL.moran_pretrained", "purpose": "--test_model MORAN", "remedy": "PPOCR"}
        load_weights(network, read_weights(tmp_path / "demo.pth", **options), tmp_path / "demo.pth")

    load(published)
    own = network.state_dict()
    assert all(torch.equal(own[key.removeprefix("module.")], value) for key, value in published.items())
    key = "module.ASRN.attentionR2L.generator.weight"
    less = {name: value for name, value in published.items() if name != key}
    for wrong in (less, published | {"module.MORN.grid": torch.zeros(1)}, published | {key: torch.zeros(37, 1)}):
        with pytest.raises(CheckpointError, match="does not fit MORAN"):
            load(wrong)


@torch.no_grad()
def test_preparation(moran):
    gray = moran.preprocess(torch.ones(2, 4, 16, 64) * torch.tensor([1.0, 0.5, -0.1, 9.0]).view(1, 4, 1, 1))
    assert gray.shape == (2, 1, 32, 100)
    torch.testing.assert_close(gray, torch.full_like(gray, 0.299 + 0.5 * 0.587 - 0.1 * 0.114))
    for size in ((32, 100), (16, 64), (20, 30)):
        assert moran.rectify(torch.rand(2, 1, *size)).shape == (2, 1, 32, 100)
    assert moran.encode(torch.rand(2, 1, 32, 100)).shape == (2, 25, 256)


@torch.no_grad()
@pytest.mark.parametrize("shift", [0.0, 0.0625, -0.125])
def test_shifts_of_both_passes_add_up(shift):
    network = MORAN(align_corners=True).eval()
    last = network.MORN.cnn[-1]
    last.weight.zero_()
    last.bias.fill_(shift)  # the same for every pixel, in halves of the height
    down = 2 * shift * 31 / 2  # two passes
    rows = torch.arange(32.0).view(1, 1, 32, 1).expand(1, 1, 32, 100)
    inside = (rows + down >= 0) & (rows + down <= 31)
    rectified = network.rectify(rows / 31)
    torch.testing.assert_close(rectified[inside], ((rows + down) / 31)[inside], atol=1e-5, rtol=0)
    assert inside.float().mean() > 0.8


@torch.no_grad()
def test_two_ways_to_count_positions(moran, images):
    other = MORAN(align_corners=True).eval()
    other.load_state_dict(moran.state_dict())
    gray = moran.preprocess(images)
    assert (other.rectify(gray) - moran.rectify(gray)).abs().max() > 0.01


def test_decoding_by_hand(moran):
    rows = [[10, 36, 0], [36, 1, 2], [35, 0, 9]]
    one_hot = F.one_hot(torch.tensor(rows), 37).float()
    assert moran.decode(one_hot) == ["a", "", "z09"]
    assert [text_one_by_one(moran, torch.tensor(row)) for row in rows] == ["a", "", "z09"]


def test_it_reads(moran, images):
    reader: Recognizer = moran
    texts = reader.read(torch.cat([images, images[:, :1]], dim=1))
    with torch.no_grad():
        assert texts == reader.read(images) == read_straightforwardly(moran, images)
    assert len(set(texts)) > 3
    assert all(set(text) <= set(reader.charset) for text in texts)
    assert reader.read(images[:0]) == moran.read_with_confidence(images[:0]) == []


@torch.no_grad()
def test_pictures_do_not_meet(moran, images):
    x = moran.preprocess(images)
    together = moran(x, all_steps=True)
    for alone, row in zip(x.split(1), together, strict=True):
        torch.testing.assert_close(moran(alone, all_steps=True)[0], row, atol=1e-3, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("look", [1, 4])
def test_stopping_early_changes_no_text(look, monkeypatch):
    monkeypatch.setattr(module, "STEPS_PER_LOOK", {"cpu": look})
    network = MORAN()
    saved, given_up = 0, 0
    for seed in range(40):
        torch.manual_seed(seed)
        decoder = Decoder(37).eval()
        decoder.generator.weight.mul_(10)
        decoder.generator.bias[network.end] += seed % 5  # words end never, at times, or often
        columns = torch.randn(1 + seed % 6, 25, FEATURES)
        whole = decoder(columns, max_length=20, end=None)
        torch.testing.assert_close(whole, decode_all_steps(decoder, columns, 20), atol=1e-3, rtol=0)
        logits = decoder(columns, max_length=20, end=network.end)
        length = logits.shape[1]
        assert whole.shape[1] == 20
        assert torch.equal(logits, whole[:, :length])
        assert network.decode(logits) == network.decode(whole)
        ends = (whole.argmax(2) == network.end).int()
        last = int((ends.argmax(1) + 1).max()) if ends.any(1).all() else 20
        assert length == min(20, -(-last // look) * look)  # not a step more than needed, rounded up to a look
        saved, given_up = saved + 20 - length, given_up + (length == 20)
    assert saved > 100
    assert given_up > 3


@torch.no_grad()
def test_both_directions(moran, images):
    x = moran.preprocess(images)
    backwards = moran(x, direction="right_to_left", all_steps=True)
    assert (backwards - moran(x, all_steps=True)).abs().max() > 1
    expected = decode_all_steps(moran.ASRN.attentionR2L, moran.encode(x), 12)
    torch.testing.assert_close(backwards, expected, atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match="'left_to_right'"):
        moran(x, direction="top_to_bottom")


@torch.no_grad()
def test_confidences_are_products_of_probabilities(moran, images):
    readings = moran.read_with_confidence(images)
    assert [reading.text for reading in readings] == moran.read(images)
    chances = moran(moran.preprocess(images), all_steps=True).double().softmax(2).amax(2)
    given_up = 0
    for reading, row in zip(readings, chances.tolist(), strict=True):
        length = len(reading.text)
        assert reading.character_confidences == pytest.approx(row[:length], rel=1e-3)
        assert reading.confidence == pytest.approx(math.prod(row[: length + 1]), rel=1e-3)
        assert all(0 < chance <= 1 for chance in (reading.confidence, *reading.character_confidences))
        given_up += length == moran.max_length
    assert 0 < given_up < len(readings)


def test_gradients_reach_all_that_reads_from_the_left():
    network = MORAN(max_length=2).eval()
    images = torch.rand(1, 1, 32, 100, requires_grad=True)
    network(images, all_steps=True).square().sum().backward()
    without = {name for name, value in network.named_parameters() if value.grad is None}
    assert all(name.startswith("ASRN.attentionR2L.") for name in without)
    assert len(without) == 11
    assert images.grad.abs().sum() > 0


def test_wrong_input_is_refused(moran):
    with pytest.raises(ValueError, match=r"\(2, 1, 16, 64\).*RGB"):
        moran.preprocess(torch.rand(2, 1, 16, 64))
    with pytest.raises(ValueError, match=r"\(1, 3, 32, 100\).*preprocess"):
        moran(torch.rand(1, 3, 32, 100))
    with pytest.raises(ValueError, match="twice"):
        MORAN(charset="aa")
    with pytest.raises(ValueError, match="max_length 0"):
        MORAN(max_length=0)
