import string

import numpy as np
import pytest
import torch
from torch.nn.functional import ctc_loss

from dataset.charset import (
    CTC_ALPHABET,
    canonical,
    ctc_ids,
    encode_ctc,
    filter_text,
    one_hot_labels,
    vocabulary_names,
)


@pytest.mark.parametrize(
    ("text", "voc_type", "expected"),
    [
        ("No. 24-b!", "digit", "24"),
        ("No. 24-b!", "lower", "no24b"),
        ("No. 24-b!", "upper", "No24b"),
        ("No. 24-b!", "all", "No.24-b!"),
        ("naïve\tCAFÉ", "all", "naveCAF"),
        ("İstanbul", "lower", "istanbul"),  # lower() makes i and a combining dot of it
        ("\N{KELVIN SIGN}9", "lower", "k9"),
        ("\N{KELVIN SIGN}9", "upper", "9"),
        ("\N{FULLWIDTH DIGIT ONE}2", "digit", "2"),
        ("小吃-Bar 8折", "chinese", "小吃Bar8折"),
        ("\u4dff\u4e00\u9fa5\u9fa6", "chinese", "\u4e00\u9fa5"),
        (string.punctuation, "all", string.punctuation),
        ("", "lower", ""),
    ],
)
def test_filter_keeps_the_vocabulary_only(text, voc_type, expected):
    assert filter_text(text, voc_type) == expected


@pytest.mark.parametrize("voc_type", vocabulary_names())
def test_filtering_twice_is_filtering_once(voc_type):
    rng = np.random.default_rng(0)
    for _ in range(200):
        text = "".join(map(chr, rng.choice([*range(32, 400), *range(0x4DF0, 0x4E10)], 12)))
        once = filter_text(text, voc_type)
        assert filter_text(once, voc_type) == once


def test_unknown_vocabulary_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'greek'.*digit.*chinese"):
        filter_text("a", "greek")


def test_canonical_is_blind_to_case_and_punctuation():
    assert canonical("E-Mail!") == canonical("email") == "email"


def test_classes_are_blank_digits_letters():
    assert CTC_ALPHABET == "-0123456789abcdefghijklmnopqrstuvwxyz"
    assert ctc_ids("09aZ") == [1, 10, 11, 36]


def test_a_hyphen_is_dropped_or_becomes_the_blank():
    assert ctc_ids("a-b") == [11, 12]
    assert ctc_ids("a-b", hyphen="blank") == [11, 0, 12]
    with pytest.raises(ValueError, match=r"hyphen='keep'.*drop"):
        ctc_ids("a-b", hyphen="keep")


def test_labels_are_cut_to_15_characters_before_punctuation_goes():
    assert len(ctc_ids("a" * 14)) == 14
    assert len(ctc_ids("a" * 40)) == 15
    assert ctc_ids("." * 14 + "ab") == [11]
    assert ctc_ids("." * 15 + "ab") == []


def test_encode_ctc_puts_a_placeholder_for_labels_without_characters():
    encoded = encode_ctc(["ab", "!?", "", "Z"])
    assert encoded.targets.tolist() == [11, 12, 0, 0, 36]
    assert encoded.lengths.tolist() == [2, 1, 1, 1]
    assert encoded.valid.tolist() == [1, 0, 0, 1]
    assert encoded.targets.dtype == encoded.lengths.dtype == encoded.valid.dtype == torch.int64
    assert encoded.to("cpu").targets.tolist() == encoded.targets.tolist()


def test_encode_ctc_of_nothing_is_empty():
    encoded = encode_ctc([])
    assert [len(encoded.targets), len(encoded.lengths), len(encoded.valid)] == [0, 0, 0]


def test_ctc_loss_takes_the_encoding():
    encoded = encode_ctc(["abc", "d"])
    logits = torch.zeros(26, 2, 37).log_softmax(2)
    loss = ctc_loss(logits, encoded.targets, torch.tensor([26, 26]), encoded.lengths)
    assert torch.isfinite(loss)


def test_one_hot_rows():
    rows = one_hot_labels(["a1", "", "x-y"])
    assert rows.shape == (3, 37, 1, 3)
    assert rows.dtype == torch.float32
    assert rows[0, :, 0].argmax(0).tolist() == [11, 2, 0]
    assert rows[0, :, 0].sum(0).tolist() == [1, 1, 0]
    assert rows[1, :, 0].sum(0).tolist() == [1, 0, 0]
    assert rows[1, 0, 0, 0] == 1
    assert rows[2, :, 0].sum(0).tolist() == [1, 1, 0]  # the dropped hyphen still counts for the length
    assert one_hot_labels(["x-y"], hyphen="blank")[0, :, 0].argmax(0).tolist() == [34, 0, 35]


@pytest.mark.parametrize(("labels", "length"), [([], 1), (["", ""], 1), (["a" * 30], 15), (["....."], 5)])
def test_one_hot_length_is_never_zero_and_never_above_the_cut(labels, length):
    assert one_hot_labels(labels).shape == (len(labels), 37, 1, length)


def test_one_hot_agrees_with_ctc_lengths():
    labels = ["hotel", "24/7", "", "a-b-c", "q" * 20]
    rows, encoded = one_hot_labels(labels), encode_ctc(labels)
    assert rows.sum(dim=(1, 2, 3)).long().tolist() == encoded.lengths.tolist()
    flat = torch.cat([row[:, 0].argmax(0)[:length] for row, length in zip(rows, encoded.lengths, strict=True)])
    assert torch.equal(flat, encoded.targets)
