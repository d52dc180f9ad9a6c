"""Misspelt words: the mutation's shares, and layouts that read as the word they were made of."""

import string
from itertools import groupby

import numpy as np
import pytest

from dataset.charset import CTC_ALPHABET, CTC_MAX_CHARACTERS
from dataset.spelling import COLUMNS, LONGEST_RUN, columns, mutate, spelling_batch

LETTERS = list(string.ascii_lowercase)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def best(probabilities: np.ndarray) -> list[str]:
    """The most probable class of each column, blanks as hyphens."""
    return ["".join(CTC_ALPHABET[number] for number in row) for row in probabilities.argmax(2)]


def collapse(line: str) -> str:
    return "".join(character for character, _ in groupby(line)).replace("-", "")


def edits(one: str, other: str) -> int:
    line = list(range(len(other) + 1))
    for row, a in enumerate(one, start=1):
        above, line = line, [row]
        for column, b in enumerate(other, start=1):
            line.append(min(above[column - 1] + (a != b), above[column] + 1, line[-1] + 1))
    return line[-1]


def random_words(count: int, seed: int = 0) -> list[str]:
    rng = generator(seed)
    return ["".join(rng.choice(LETTERS, rng.integers(1, 13))) for _ in range(count)]


def test_shares_and_kinds_of_mutations_are_those_published():
    rng, word = generator(), "neighbour"
    mutated = [mutate(word, rng) for _ in range(20_000)]
    distances = np.array([edits(word, other) for other in mutated])
    assert distances.max() == 3
    assert np.mean([other == word for other in mutated]) == pytest.approx(0.70, abs=0.01)
    # Every single change costs one edit; a few pairs of changes cost less (deleted "i", inserted "i" beside it).
    assert np.bincount(distances)[1:] / 20_000 == pytest.approx([0.15, 0.10, 0.05], abs=0.015)
    single = [other for other, distance in zip(mutated, distances, strict=True) if distance == 1]
    lengths = np.array([len(other) - len(word) for other in single])
    assert [np.mean(lengths == change) for change in (0, 1, -1)] == pytest.approx([0.70, 0.15, 0.15], abs=0.03)


@pytest.mark.parametrize(
    ("word", "most"), [("", 0), ("a", 0), ("an", 1), ("city", 1), ("hotel", 2), ("avenue", 3), ("headquarters", 3)]
)
def test_short_words_change_less(word, most):
    rng = generator()
    distances = {edits(word, mutate(word, rng)) for _ in range(2000)}
    assert max(distances) == most
    assert all(mutate(word, rng) for _ in range(500) if word)  # something is left


@pytest.mark.parametrize("word", ["1984", "12ab", "7", "no1234"])
def test_numbers_stay(word):
    rng = generator()
    assert {mutate(word, rng) for _ in range(300)} == {word}


def test_a_mutation_is_a_function_of_the_generator():
    words = random_words(300)
    first, again, other = ([mutate(word, rng) for word in words] for rng in map(generator, (1, 1, 2)))
    assert first == again
    assert first != other


def test_layouts_read_as_their_words():
    words = ["a", "aa", "aaa", "book", "committee", "address", "0011", "", "z9z9z9", *random_words(3000)]
    lines = best(columns(words, generator(), doubt=0))
    assert [collapse(line) for line in lines] == words
    assert max(len(list(run)) for line in lines for a, run in groupby(line) if a != "-") == LONGEST_RUN
    assert {len(line) for line in lines} == {COLUMNS}


def test_words_spread_over_the_width_whatever_their_length():
    lines = best(columns(["exit"] * 2000, generator(), doubt=0))
    middles = np.array([[line.index(c) + line.count(c) / 2 for c in "exit"] for line in lines]).mean(0)
    assert middles == pytest.approx(np.arange(4) * 6.5 + 3.25, abs=1.0)
    assert len(set(lines)) > 1500
    # No place is favoured: mirrored words have mirrored layouts.
    starts = np.mean([line.index("e") for line in lines])
    ends = np.mean([COLUMNS - 1 - line.rindex("t") for line in lines])
    assert starts == pytest.approx(ends, abs=0.15)


def test_the_end_of_a_word_that_does_not_fit_is_cut():
    words = ["abcdefghijklmnopqrstuvwxyz0123456789", "a" * 20, "ab" * 13, "abcdefghijklmnopqrstuvwxyy", "exit"]
    read = [collapse(line) for line in best(columns(words, generator(), doubt=0))]
    assert read == ["abcdefghijklmnopqrstuvwxyz", "a" * 13, "ab" * 13, "abcdefghijklmnopqrstuvwxy", "exit"]


def test_columns_are_probabilities_from_sure_to_unsure():
    words = random_words(2000)
    soft = columns(words, generator())
    assert (soft.shape, soft.dtype) == ((2000, COLUMNS, 37), np.float32)
    assert soft.min() >= 0
    assert np.abs(soft.sum(2) - 1).max() < 1e-6
    sureness = soft.max(2).mean(1)
    assert sureness.max() > 0.99
    assert sureness.min() < 0.80
    read = np.mean([collapse(line) == word for line, word in zip(best(soft), words, strict=True)])
    assert 0.85 < read < 0.98  # in some the rival wins
    assert np.unique(columns(words, generator(), doubt=0)).tolist() == [0, 1]


def test_columns_are_a_function_of_the_generator():
    words = random_words(50)
    assert (columns(words, generator(3)) == columns(words, generator(3))).all()
    assert (columns(words, generator(3)) != columns(words, generator(4))).any()
    assert columns([], generator()).shape == (0, COLUMNS, 37)


@pytest.mark.parametrize("word", ["Exit", "no.1", "a b", "caf\u00e9", "\u8a9e", "a "])
def test_other_characters_are_refused(word):
    with pytest.raises(ValueError, match="lower-case"):
        columns(["exit", word], generator())


def test_batches_are_numbered():
    (one, words), (again, same), (other, others) = (spelling_batch(5, index, 200) for index in (7, 7, 8))
    assert words == same
    assert (one == again).all()
    assert words != others
    assert one.shape == other.shape == (200, COLUMNS, 37)
    assert spelling_batch(6, 7, 200)[1] != words
    assert all(set(word) <= set(CTC_ALPHABET[1:]) and 1 <= len(word) <= CTC_MAX_CHARACTERS for word in words + others)
    read = [collapse(line) == word for line, word in zip(best(one), words, strict=True)]
    assert 0.55 < np.mean(read) < 0.85
