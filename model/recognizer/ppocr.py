"""PP-OCR text recognition through ONNX Runtime, with the model file that comes inside the `rapidocr` package.

Paper: PP-OCR: A Practical Ultra Lightweight OCR System, 2020, https://arxiv.org/abs/2009.09941. Licence of package and
model: Apache-2.0. It needs no file to fetch, so every evaluation can at least be read by it. Only the recogniser is
used: pictures are word crops, and RapidOCR's detector, rotation classifier and score filter would change what is read.
"""

import hashlib
import importlib.metadata
import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from model.recognizer.ctc import best_classes, ctc_readings, spell
from model.recognizer.gray import check_rgb
from model.recognizer.reading import Reading


class PPOCR:
    """Reads word crops; a fixed, pretrained recogniser.

    Args:
        threads: ONNX Runtime threads; 0 lets it choose.
        pad_width: pictures are scaled to height 48 and padded to this width, as PP-OCR's own pipeline does.

    Raises:
        FileNotFoundError: the installed `rapidocr` brings no recognition model.
    """

    HEIGHT = 48
    SMALLEST = 30  # pixels; RapidOCR enlarges what is lower before it recognises, to a multiple of GRID
    GRID = 32

    def __init__(self, threads: int = 0, pad_width: int = 320) -> None:
        import onnxruntime  # noqa: PLC0415 - takes 0.2 s, and only those who use this reader should wait

        self.path = self._model_file()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        characters = self._session.get_modelmeta().custom_metadata_map["character"].splitlines()
        # Of classes 1, 2, ...; the last class is the space, which the list leaves out.
        self._characters = [*characters, " "]
        self.charset = "".join(self._characters)  # some of its classes are sequences of characters
        self.pad_width = pad_width

    @staticmethod
    def _model_file() -> Path:
        # Only what the package was installed with: RapidOCR may have downloaded other models beside it.
        files = importlib.metadata.files("rapidocr") or []
        shipped = sorted(Path(str(file.locate())) for file in files if re.search(r"rec[^/]*\.onnx$", str(file)))
        found = [path for path in shipped if path.is_file()]
        if not found:
            raise FileNotFoundError(
                "the installed package rapidocr brings no recognition model (*rec*.onnx), which --test_model PPOCR "
                "reads with; install it again: pip install --force-reinstall 'rapidocr>=3.4'"
            )
        return found[-1]

    @property
    def description(self) -> str:
        """Name of the model file."""
        return self.path.stem

    def fingerprint(self) -> str:
        """Identifies model and preparation; readings may be cached by it."""
        digest = hashlib.sha256(self.path.read_bytes())
        digest.update(f"pad_width={self.pad_width}".encode())
        return digest.hexdigest()

    def preprocess(self, images: Tensor) -> Tensor:
        """(N, >=3, H, W) RGB in [0, 1] -> (N, 3, 48, W') BGR in [-1, 1], zero-padded on the right.

        Values are clamped and rounded to 8 bits first: the reader sees the picture that would be saved.

        Raises:
            ValueError: the images have fewer than three channels.
        """
        check_rgb(images)
        pixels = (images[:, :3].detach().float().clamp(0, 1) * 255).round().to(torch.uint8)
        pictures = pixels.flip(1).permute(0, 2, 3, 1).contiguous().cpu().numpy()
        pictures = self._enlarge_small(pictures)
        width = int(np.ceil(self.HEIGHT * pictures.shape[2] / pictures.shape[1]))
        out = np.zeros((len(pictures), 3, self.HEIGHT, max(width, self.pad_width)), dtype=np.float32)
        for row, picture in enumerate(pictures):
            scaled = cv2.resize(picture, (width, self.HEIGHT))
            out[row, :, :, :width] = scaled.transpose(2, 0, 1) / np.float32(127.5) - 1
        return torch.from_numpy(out)

    def _enlarge_small(self, pictures: np.ndarray) -> np.ndarray:
        height, width = pictures.shape[1:3]
        if min(height, width) >= self.SMALLEST:
            return pictures
        ratio = self.SMALLEST / min(height, width)
        size = [max(self.GRID, round(side * ratio / self.GRID) * self.GRID) for side in (width, height)]
        return np.stack([cv2.resize(picture, size) for picture in pictures])

    def __call__(self, x: Tensor) -> Tensor:
        """Class probabilities (N, T, K), class 0 is the CTC blank."""
        return torch.from_numpy(self._session.run(None, {self._input: x.numpy()})[0])

    def decode(self, logits: Tensor) -> list[str]:
        """(N, T, K) probabilities (or logits) -> N strings, greedy CTC: drop repeats, then blanks."""
        return spell(best_classes(logits), self._characters)

    def read(self, images: Tensor) -> list[str]:
        """(N, >=3, H, W) RGB in [0, 1] -> N strings."""
        return [text for x in self._one_by_one(images) for text in self.decode(self(x))]

    def read_with_confidence(self, images: Tensor) -> list[Reading]:
        """(N, >=3, H, W) RGB in [0, 1] -> N readings, see `ctc_readings`."""
        return [
            reading
            for x in self._one_by_one(images)
            for reading in ctc_readings(self(x), self._characters, probabilities=True)
        ]

    def _one_by_one(self, images: Tensor) -> Iterator[Tensor]:
        """Prepared pictures. Together they are no faster to recognise, and each has 3 MB of probabilities."""
        yield from self.preprocess(images).split(1) if len(images) else ()
