"""The text-focus transformer as a recogniser: symbol by symbol it reads what it predicts with the text given."""

import pytest
import torch

from model.recognizer.focus_transformer import READ_LENGTH, FocusTransformer

SMALL = {"widths": (4, 4, 8, 8, 16), "blocks": (1, 1), "heads": 4}


@pytest.fixture(scope="module")
def network() -> FocusTransformer:
    """Random weights whose texts differ and end."""
    torch.manual_seed(30)
    network = FocusTransformer(**SMALL, charset="abcd").eval()
    with torch.no_grad():
        network.generator_word.proj.weight.mul_(6)
        network.decoder.multihead.linears[3].weight.mul_(20)
    return network


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    torch.manual_seed(8)
    return torch.rand(12, 4, 32, 128) * torch.linspace(0.2, 4, 12).view(-1, 1, 1, 1)


@torch.no_grad()
def test_reading_is_what_teacher_forcing_predicts(network, images):
    gray = network.preprocess(images)
    ids, chances = network.spell(gray)
    given = torch.cat([torch.zeros_like(ids[:, :1]), ids[:, :-1]], dim=1)
    logits, _ = network(gray, given)
    assert torch.equal(ids, logits.argmax(2))
    torch.testing.assert_close(chances, logits.log_softmax(2).amax(2))


@torch.no_grad()
def test_texts_and_confidences(network, images):
    ids, chances = network.spell(network.preprocess(images))
    readings = network.read_with_confidence(images)
    assert network.read(images) == [reading.text for reading in readings]
    assert len({reading.text for reading in readings}) > 2
    assert any(0 < len(reading.text) < ids.shape[1] - 1 for reading in readings)
    for reading, row, logs in zip(readings, ids.tolist(), chances.exp().tolist(), strict=True):
        length = row.index(0) if 0 in row else len(row)
        assert reading.text == "".join("-abcd"[index] for index in row[:length])
        assert reading.character_confidences == pytest.approx(logs[:length])
        word = 1.0
        for chance in logs[: length + 1]:
            word *= chance
        assert reading.confidence == pytest.approx(word)


@torch.no_grad()
def test_it_stops_when_all_words_have_ended(images):
    torch.manual_seed(0)
    network = FocusTransformer(**SMALL).eval()
    network.generator_word.proj.bias[0] = 100.0
    ids, _ = network.spell(network.preprocess(images))
    assert ids.shape == (12, 1)
    assert network.read(images) == [""] * 12
    network.generator_word.proj.bias[0] = -100.0
    assert {len(text) for text in network.read(images[:2])} == {READ_LENGTH}


def test_small_pictures_are_enlarged_and_none_are_no_error(network):
    torch.manual_seed(1)
    assert len(network.read(torch.rand(2, 3, 16, 64))) == 2
    assert network.read(torch.rand(0, 3, 32, 128)) == []
