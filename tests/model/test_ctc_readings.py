"""CTC confidences where `test_svtr.py` has none: given probabilities, many classes, every recogniser that uses them."""

import cv2
import numpy as np
import pytest
import torch

from model.recognizer.crnn import CRNN
from model.recognizer.ctc import ctc_readings, spell
from model.recognizer.ppocr import PPOCR


def test_probabilities_and_logits_are_the_same():
    torch.manual_seed(0)
    logits = 4 * torch.randn(6, 9, 50)
    charset = [chr(1000 + number) for number in range(49)]
    one, other = ctc_readings(logits, charset), ctc_readings(logits.softmax(2), charset, probabilities=True)
    assert [reading.text for reading in one] == spell(logits.argmax(2), charset) == [reading.text for reading in other]
    assert [reading.confidence for reading in one] == pytest.approx([reading.confidence for reading in other], rel=1e-5)
    for reading, same in zip(one, other, strict=True):
        assert reading.character_confidences == pytest.approx(same.character_confidences, rel=1e-5)
        assert len(reading.character_confidences) == len(reading.text)


def test_a_certain_reading_has_confidence_one():
    probabilities = torch.eye(4)[[1, 1, 0, 1, 3]].unsqueeze(0)
    (reading,) = ctc_readings(probabilities, "abc", probabilities=True)
    assert (reading.text, reading.confidence, reading.character_confidences) == ("aac", 1.0, (1.0, 1.0, 1.0))


def test_crnn_reads_with_confidence():
    torch.manual_seed(0)
    network = CRNN(hidden_size=16).eval()
    with torch.no_grad():
        network.rnn[1].embedding.weight.mul_(30)
    images = torch.rand(5, 3, 32, 100)
    readings = network.read_with_confidence(images)
    assert [reading.text for reading in readings] == network.read(images)
    assert any(reading.text for reading in readings)
    assert all(0 < reading.confidence <= 1 for reading in readings)


def test_ppocr_reads_with_confidence():
    picture = np.full((32, 100, 3), 255, np.uint8)
    cv2.putText(picture, "SALE", (8, 25), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (0, 0, 0), 2, cv2.LINE_AA)
    images = torch.from_numpy(picture).permute(2, 0, 1).unsqueeze(0).float() / 255
    reader = PPOCR(threads=1)
    (reading,) = reader.read_with_confidence(images)
    assert reader.read(images) == [reading.text] == ["SALE"]
    assert 0.5 < reading.confidence <= 1
    assert len(reading.character_confidences) == 4
    assert min(reading.character_confidences) > 0.5


def test_what_is_no_number_is_no_certainty():
    (reading,) = ctc_readings(torch.full((1, 4, 3), float("nan")), "ab")
    assert reading.confidence != reading.confidence  # NaN, not 1


def test_no_pictures_and_pictures_without_colour():
    reader = PPOCR(threads=1)
    assert reader.read(torch.rand(0, 3, 32, 100)) == reader.read_with_confidence(torch.rand(0, 3, 32, 100)) == []
    with pytest.raises(ValueError, match=r"\(1, 1, 32, 100\).*RGB"):
        reader.read(torch.rand(1, 1, 32, 100))
    assert {"a", "Z", "7", " "} <= set(reader.charset)


def test_a_character_is_one_class():
    with pytest.raises(ValueError, match="'b' twice"):
        CRNN(charset="abcb")
