"""CRNN: keys, preparation and decoding by hand."""

import pytest
import torch
import torch.nn.functional as F

from model.recognizer.base import Recognizer
from model.recognizer.crnn import CRNN
from tests.model.published import table


@pytest.fixture(scope="module")
def crnn() -> CRNN:
    torch.manual_seed(0)
    return CRNN().eval()


def test_keys_are_those_of_the_published_file(crnn):
    count, keys = table("crnn")
    assert count == 8_331_301 == sum(value.numel() for value in crnn.parameters())
    assert {key: tuple(value.shape) for key, value in crnn.state_dict().items()} == {
        key: shape for key, (shape, _) in keys.items()
    }


@pytest.mark.parametrize(
    ("classes", "text"),
    [
        ([0, 0, 0], ""),
        ([1, 1, 0, 1, 2], "001"),  # a blank separates equal characters
        ([36, 36, 36, 35], "zy"),
        ([11, 0, 0, 11], "aa"),
        ([0, 10, 10, 0], "9"),
    ],
)
def test_decoding_by_hand(crnn, classes, text):
    logits = F.one_hot(torch.tensor(classes), 37).float()[:, None]
    assert crnn.decode(logits) == [text]


def test_decoding_keeps_the_images_apart(crnn):
    classes = torch.tensor([[1, 2], [1, 0], [0, 2]])
    assert crnn.collapse(classes) == ["0", "11"]


@torch.no_grad()
def test_preparation(crnn):
    gray = crnn.preprocess(torch.ones(2, 4, 16, 64) * torch.tensor([1.0, 0.5, 0.0, 9.0]).view(1, 4, 1, 1))
    assert gray.shape == (2, 1, 32, 100)
    torch.testing.assert_close(gray, torch.full_like(gray, 0.299 + 0.5 * 0.587))
    assert crnn.preprocess(torch.rand(1, 3, 16, 64), width=160).shape == (1, 1, 32, 160)
    with pytest.raises(ValueError, match="RGB"):
        crnn.preprocess(torch.rand(2, 1, 16, 64))


@torch.no_grad()
def test_width_sets_the_number_of_steps(crnn):
    for width, steps in ((100, 26), (160, 41)):
        assert crnn(torch.rand(1, 1, 32, width)).shape == (steps, 1, 37)
    with pytest.raises(ValueError, match="preprocess"):
        crnn(torch.rand(1, 3, 32, 100))


def test_it_reads(crnn):
    reader: Recognizer = crnn
    texts = reader.read(torch.rand(3, 4, 16, 64))
    assert len(texts) == 3
    assert all(set(text) <= set(reader.charset) for text in texts)


def test_another_alphabet():
    module = CRNN(charset="ab", hidden_size=8)
    assert module.collapse(torch.tensor([[2], [0], [1]])) == ["ba"]
    assert module.rnn[1].embedding.out_features == 3
    with pytest.raises(ValueError, match="num_classes 5"):
        CRNN(charset="ab", num_classes=5)
