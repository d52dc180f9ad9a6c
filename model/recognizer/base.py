"""What every recognizer can do, so that nobody has to ask which one it is."""

from typing import Protocol

from torch import Tensor

from model.recognizer.reading import Reading


class Recognizer(Protocol):
    """Reads the text of word images."""

    charset: str
    """The characters it can read."""

    def preprocess(self, images: Tensor) -> Tensor:
        """(N, >=3, H, W) RGB in [0, 1], further channels are ignored -> what this network eats."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """Return logits, in the layout that `decode` of the same recognizer takes."""
        ...

    def decode(self, logits: Tensor) -> list[str]:
        """Return one string per image."""
        ...

    def read(self, images: Tensor) -> list[str]:
        """(N, >=3, H, W) RGB in [0, 1] -> N strings: the three steps in a row, without gradient."""
        ...

    def read_with_confidence(self, images: Tensor) -> list[Reading]:
        """`read`, with how sure the recognizer is of each word and each character."""
        ...
