"""What a recognizer read, and how sure it is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """One word with its confidence.

    Attributes:
        text: all characters that the recognizer found, not filtered.
        confidence: probability of the whole reading, in (0, 1]: exp of the sum of the log-probabilities of all chosen
            symbols, the end symbol included. Longer words have lower ones by nature.
        character_confidences: probability of each character of `text`, given those before it; in (0, 1].
    """

    text: str
    confidence: float
    character_confidences: tuple[float, ...]
