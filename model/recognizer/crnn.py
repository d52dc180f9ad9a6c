"""CRNN: convolutions, two bidirectional LSTMs, CTC.

Paper: https://arxiv.org/abs/1507.05717. Key names are those of the `crnn.pth` that scene-text super-resolution papers
score with. It was trained on gray images in [-1, 1]; the published
scores were made with [0, 1].
"""

import string
from typing import Any

import torch
from torch import Tensor, nn

from model.recognizer.ctc import ctc_readings, spell
from model.recognizer.gray import resized_gray
from model.recognizer.reading import Reading, check_charset
from model.registry import RECOGNITION, register_model

ALPHANUMERIC = string.digits + string.ascii_lowercase
HEIGHT, WIDTH = 32, 100


class CRNN(nn.Module):
    """(N, 1, 32, W) gray in [0, 1] -> (W // 4 + 1, N, K) logits, class 0 is the CTC blank; W = 100 gives 26 steps.

    Args:
        charset: the characters of classes 1, 2, ...
        num_classes: K; by default one more than there are characters.
        hidden_size: features of one direction of an LSTM.
    """

    time_first = True
    """Logits are (T, N, K), not (N, T, K)."""

    def __init__(self, *, charset: str = ALPHANUMERIC, num_classes: int | None = None, hidden_size: int = 256) -> None:
        super().__init__()
        if num_classes not in (None, len(charset) + 1):
            raise ValueError(
                f"num_classes {num_classes} does not fit a charset of {len(charset)} characters; a blank and the "
                f"characters make {len(charset) + 1}: leave num_classes out or pass the charset it belongs to"
            )
        check_charset(charset)
        self.charset = charset
        self.num_classes = len(charset) + 1
        self.cnn = _convolutions()
        self.rnn = nn.Sequential(
            BidirectionalLSTM(512, hidden_size, hidden_size),
            BidirectionalLSTM(hidden_size, hidden_size, self.num_classes),
        )

    def preprocess(self, images: Tensor, *, width: int = WIDTH) -> Tensor:
        """(N, >=3, H, W) RGB in [0, 1] -> (N, 1, 32, width) gray: bicubic, unclamped, not normalised.

        Raises:
            ValueError: the images have fewer than three channels.
        """
        return resized_gray(images, (HEIGHT, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (T, N, K) of gray images (N, 1, 32, W).

        Raises:
            ValueError: the images are not gray or not 32 pixels high.
        """
        if x.ndim != 4 or x.shape[1:3] != (1, HEIGHT):
            raise ValueError(f"images of shape {tuple(x.shape)}: CRNN takes (N, 1, {HEIGHT}, W), see `preprocess`")
        columns = self.cnn(x).squeeze(2).permute(2, 0, 1)  # (T, N, 512)
        return self.rnn(columns)

    def decode(self, logits: Tensor) -> list[str]:
        """(T, N, K) -> N strings, greedy."""
        return self.collapse(logits.argmax(dim=2))

    def collapse(self, classes: Tensor) -> list[str]:
        """(T, N) best class of each step -> N strings: repetitions become one, then blanks are dropped."""
        return spell(classes.t(), self.charset)

    @torch.inference_mode()
    def read(self, images: Tensor) -> list[str]:
        """(N, >=3, H, W) RGB in [0, 1] -> N strings."""
        return self.decode(self(self.preprocess(images)))

    @torch.inference_mode()
    def read_with_confidence(self, images: Tensor) -> list[Reading]:
        """(N, >=3, H, W) RGB in [0, 1] -> N readings, see `ctc_readings`."""
        return ctc_readings(self(self.preprocess(images)).transpose(0, 1), self.charset)


@register_model(
    system="recognizer_ctc",
    paper="https://arxiv.org/abs/1507.05717",
    signature=r"^cnn\.conv0\.weight$",
    task=RECOGNITION,
)
def crnn(**kwargs: Any) -> CRNN:
    """`CRNN`; takes its options."""
    return CRNN(**kwargs)


class BidirectionalLSTM(nn.Module):
    """(T, N, in_size) -> (T, N, out_size)."""

    def __init__(self, in_size: int, hidden_size: int, out_size: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(in_size, hidden_size, bidirectional=True)
        self.embedding = nn.Linear(2 * hidden_size, out_size)

    def forward(self, x: Tensor) -> Tensor:
        """Read the sequence in both directions."""
        return self.embedding(self.rnn(x)[0])


def _convolutions() -> nn.Sequential:
    """(N, 1, 32, W) -> (N, 512, 1, W // 4 + 1)."""
    layers = nn.Sequential()
    channels = [1, 64, 128, 256, 256, 512, 512, 512]
    for index in range(7):
        last = index == 6
        kernel, padding = (2, 0) if last else (3, 1)
        layers.add_module(f"conv{index}", nn.Conv2d(channels[index], channels[index + 1], kernel, padding=padding))
        if index in (2, 4, 6):
            layers.add_module(f"batchnorm{index}", nn.BatchNorm2d(channels[index + 1]))
        layers.add_module(f"relu{index}", nn.ReLU(inplace=True))
        if index in (0, 1):
            layers.add_module(f"pooling{index}", nn.MaxPool2d(2))
        if index in (3, 5):  # halves the height, keeps the width: columns are the time axis
            layers.add_module(f"pooling{index}", nn.MaxPool2d(2, stride=(2, 1), padding=(0, 1)))
    return layers
