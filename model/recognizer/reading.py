"""What a recognizer read, and how sure it is."""

from dataclasses import dataclass


def check_charset(charset: str) -> None:
    """Refuse a charset in which a character stands twice, as each is a class of its own.

    Raises:
        ValueError: there is one.
    """
    twice = sorted({character for character in charset if charset.count(character) > 1})
    if twice:
        raise ValueError(f"charset {charset!r} has {''.join(twice)!r} twice; each character is a class of its own")


@dataclass(frozen=True)
class Reading:
    """One word with its confidence.

    Attributes:
        text: all characters that the recognizer found, not filtered.
        confidence: probability of the whole reading, in (0, 1]; longer words have lower ones by nature. Attention
            decoders: the product of the probabilities of all chosen symbols, the end symbol included. CTC: the sum
            over all ways to spread the text over the columns.
        character_confidences: of each character of `text`, in (0, 1]. Attention decoders: its probability given those
            before it. CTC: the highest probability of its class among the columns it was read from.
    """

    text: str
    confidence: float
    character_confidences: tuple[float, ...]
