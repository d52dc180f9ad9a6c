"""Misspelt words as a CRNN would write them: what a language model learns to repair.

Papers: ABINet, CVPR 2021, https://arxiv.org/abs/2103.06495 (the spelling mutation); C3-STISR, IJCAI 2022,
https://arxiv.org/abs/2204.14044 (trains its language model by it). Source: the `SpellingMutation` of
https://github.com/FangShancheng/ABINet, whose shares and limits these are. Differences: the alphabet has one case, a
replaced letter is always another one, and the words are laid out for CTC. ABINet's language model gets one character
per position, this one the class probabilities of all columns of a CRNN: characters in peaks of a few columns, blanks
between them, doubt everywhere. How these are spread is made up here, not measured on a CRNN.
"""

import string
from collections.abc import Sequence

import numpy as np

from dataset.charset import CTC_ALPHABET, CTC_MAX_CHARACTERS, canonical
from dataset.words import random_label

COLUMNS = 26  # of a CRNN on a picture of 32x100
CLASSES = len(CTC_ALPHABET)

# Published shares (pn0, pn1, pn2): no change, at most one, at most two; else three.
CHANGES_UP_TO = (0.70, 0.85, 0.95)
# Published shares (pt0, pt1) of the kinds of a change: replaced, or a letter inserted before; else deleted.
REPLACED_UP_TO, INSERTED_UP_TO = 0.70, 0.85
SHORT = 4  # characters of the longest word that gets one change at most; a single character gets none
DIGITS_FROM = 0.5  # share of digits from which a word is a number, which nobody can spell

LONGEST_RUN = 3  # columns of one character
RUN_SHARE = 0.5  # of the columns to spare, the most that lengthen characters; blanks take the others
MARGIN = 0.5  # width of the blanks at both ends, of those between characters
MOST_DOUBT = 0.8  # the largest share of a column that is not on its own class
QUIET_BLANK = 0.5  # doubt of a blank, of that of a character
FADED = 0.3  # how often a character's rival is the blank

_CLASS_OF = np.zeros(128, dtype=np.int64)
_CLASS_OF[[ord(character) for character in CTC_ALPHABET[1:]]] = np.arange(1, CLASSES)


def mutate(word: str, generator: np.random.Generator) -> str:
    """Misspell a word: up to three letters replaced, inserted or deleted, most words left as they are.

    Args:
        word: lower-case letters and digits. A single character and a word of half digits or more stay as they are,
            one of 2 to 4 characters gets one change at most, a longer one at most half as many as it has characters.
        generator: source of all choices.
    """
    count = int(np.searchsorted(CHANGES_UP_TO, generator.random(), side="right"))
    length = len(word)
    count = min(count, length // 2, 1 if length <= SHORT else len(CHANGES_UP_TO))
    if not count or sum(character in string.digits for character in word) >= DIGITS_FROM * length:
        return word
    choices = iter(generator.random(3 * count).tolist())  # in one call, since calls are what takes the time
    places: set[int] = set()
    for last in range(length - count, length):  # Floyd's sampling without replacement
        place = int(next(choices) * (last + 1))
        places.add(last if place in places else place)
    letters = list(word)
    for place in places:
        kind, letter = next(choices), next(choices)
        if kind < REPLACED_UP_TO:
            others = string.ascii_lowercase.replace(word[place], "")
            letters[place] = others[int(letter * len(others))]
        elif kind < INSERTED_UP_TO:
            letters[place] = string.ascii_lowercase[int(letter * 26)] + word[place]
        else:
            letters[place] = ""
    return "".join(letters)


def columns(words: Sequence[str], generator: np.random.Generator, *, doubt: float = MOST_DOUBT) -> np.ndarray:
    """Lay words out as a CRNN writes them.

    A character takes 1 to 3 columns, equal neighbours have a blank between them, the word fills the width. How sure
    the reading is differs from word to word, from nearly one-hot to hardly legible. A part of the doubt is on a rival
    of the character, sometimes so much that the rival is read.

    Args:
        words: lower-case letters and digits; the end of a word that doesn't fit into the columns is cut.
        generator: source of all choices.
        doubt: the largest share of a column that is not on its own class; 0 for one-hot columns.

    Returns:
        (N, 26, 37) float32 class probabilities; class 0 is the blank.

    Raises:
        ValueError: a word has other characters.
    """
    spelt = _classes(words)
    slots, widths = _layout(spelt, generator)
    count = len(words)
    rivals = generator.integers(1, CLASSES, slots.shape)
    rivals[(slots > 0) & (generator.random(slots.shape) < FADED)] = 0
    # Small powers of uniform numbers: most words and characters are read well, some are hardly legible.
    unsure = doubt * generator.random((count, 1)) * generator.random(slots.shape) ** 0.5
    unsure *= np.where(slots > 0, 1.0, QUIET_BLANK)
    rivalry = generator.random(slots.shape)

    def by_column(values: np.ndarray) -> np.ndarray:
        return np.repeat(values.ravel(), widths.ravel()).astype(values.dtype).reshape(count, COLUMNS)

    unsure_here = by_column(unsure) * generator.uniform(0.5, 1.0, (count, COLUMNS))
    on_rival = unsure_here * by_column(rivalry)
    result = generator.standard_exponential((count, COLUMNS, CLASSES), dtype=np.float32)
    result *= result  # squared: the rest of the doubt is on few classes, too
    result *= ((unsure_here - on_rival) / result.sum(axis=2)).astype(np.float32)[..., None]
    sample, column = np.ogrid[:count, :COLUMNS]
    result[sample, column, by_column(rivals)] += on_rival.astype(np.float32)
    result[sample, column, by_column(slots)] += (1 - unsure_here).astype(np.float32)
    return result


def spelling_batch(seed: int, index: int, size: int) -> tuple[np.ndarray, list[str]]:
    """Batch number `index` of the endless stream `seed`: columns of misspelt words, and the words.

    The words are those of `random_label`, reduced to lower-case letters and digits. One that is longer than the
    targets of a CTC training (15 characters) is left out: its target would not be the word.

    Returns:
        (size, 26, 37) float32 class probabilities; `size` words.
    """
    generator = np.random.default_rng((seed, index))
    words: list[str] = []
    while len(words) < size:
        word = canonical(random_label(generator))
        if len(word) <= CTC_MAX_CHARACTERS:
            words.append(word)
    return columns([mutate(word, generator) for word in words], generator), words


def _classes(words: Sequence[str]) -> np.ndarray:
    """(N, L) class ids, zeros after the end of a word; what doesn't fit into the columns is zero, too."""
    longest = max([1, *map(len, words)])
    text = "".join(word.ljust(longest) for word in words).encode("ascii", "replace")
    spelt = _CLASS_OF[np.frombuffer(text, dtype=np.uint8)].reshape(len(words), longest)
    known = np.count_nonzero(spelt, axis=1)
    for word, number in zip(words, known.tolist(), strict=True):
        if number != len(word):
            raise ValueError(f"{word!r} cannot be written: lower-case ASCII letters and digits only (see `canonical`)")
    spelt[_needed(spelt).cumsum(axis=1) > COLUMNS] = 0
    return spelt


def _needed(spelt: np.ndarray) -> np.ndarray:
    """(N, L) columns that each character needs: one, and a blank before it if it repeats the one before."""
    needed = (spelt > 0).astype(np.int64)
    needed[:, 1:] += (spelt[:, 1:] == spelt[:, :-1]) & (spelt[:, 1:] > 0)
    return needed


def _layout(spelt: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(N, L) class ids -> (N, 2 * L + 1) class ids of blanks and characters in turn, and the columns each takes."""
    count, longest = spelt.shape
    present = spelt > 0
    length = present.sum(axis=1)
    needed = _needed(spelt)
    spare = COLUMNS - needed.sum(axis=1)

    runs = present * generator.uniform(0, LONGEST_RUN - 1, spelt.shape)
    longer = np.minimum(runs.sum(axis=1), spare * generator.uniform(0, RUN_SHARE, count)).astype(np.int64)
    extra = _apportion(runs, longer, generator)

    place = np.arange(longest + 1)
    gaps = generator.uniform(0.5, 1.5, (count, longest + 1)) * (place <= length[:, None])
    gaps[:, 0] *= MARGIN
    gaps[np.arange(count), length] *= MARGIN
    blanks = _apportion(gaps, spare - longer, generator)
    blanks[:, :-1] += needed - present

    slots = np.zeros((count, 2 * longest + 1), dtype=np.int64)
    widths = np.zeros_like(slots)
    slots[:, 1::2], widths[:, 1::2], widths[:, ::2] = spelt, present + extra, blanks
    return slots, widths


def _apportion(weights: np.ndarray, total: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(N, S) weights >= 0, (N,) whole numbers -> (N, S) whole numbers in that proportion that add up to them."""
    ends = weights.cumsum(axis=1)
    ends *= (total / np.maximum(ends[:, -1], 1e-9))[:, None]
    ends[:, -1] = total
    # The same random shift before all are rounded down: sums stay, and no place is favoured.
    ends = np.floor(np.minimum(ends, total[:, None]) + generator.random((len(total), 1)))
    return np.diff(ends, axis=1, prepend=0).astype(np.int64)
