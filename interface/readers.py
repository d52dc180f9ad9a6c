"""The recognisers that score pictures: built by name, each with a fingerprint by which its readings can be kept."""

import hashlib
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from easydict import EasyDict
from torch import Tensor

from dataset.charset import canonical
from interface import starter
from interface.checkpoint import file_sha256, load_weights, read_weights, write_atomically, write_text
from model.recognizer.aster import ASTER
from model.recognizer.base import Recognizer
from model.recognizer.crnn import CRNN
from model.recognizer.moran import MORAN
from model.recognizer.ppocr import PPOCR

log = logging.getLogger(__name__)

Answer = tuple[str, float]
"""A text of lower-case letters and digits, and the confidence of the whole reading that it was taken from."""
SIGNS = {"CRNN": "cnn.conv0.", "ASTER": "stn_head.", "MORAN": "MORN."}
"""How the keys of a recogniser's weights begin, and those of no other."""
NO_FILE_NEEDED = "--test_model PPOCR needs no file"
CONFIDENCE_DIGITS = 4  # what is left of float32 after batches of any size


@dataclass(frozen=True)
class Reader:
    """A recogniser with its name in reports.

    Attributes:
        name: as in `--test_model`.
        recognizer: what reads.
        fingerprint: identifies weights and preparation.
        description: one line for the report.
        weights: their file; empty if they come with a package.
        lower: whether it computes in bfloat16 what bears it.
    """

    name: str
    recognizer: Recognizer
    fingerprint: str
    description: str
    weights: str = ""
    lower: bool = False

    def read(self, images: Tensor) -> list[Answer]:
        """(N, >=3, H, W) in [0, 1], not clamped -> N answers."""
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=self.lower):
            readings = self.recognizer.read_with_confidence(images)
        return [(canonical(reading.text), round(reading.confidence, CONFIDENCE_DIGITS)) for reading in readings]


def build_readers(names: list[str], config: EasyDict, device: torch.device) -> list[Reader]:
    """Build the recognisers of `--test_model`, frozen, in evaluation mode, on `device`.

    Raises:
        FileNotFoundError: the weights file of one is missing.
        ValueError: there is no recogniser of that name, or a file does not fit.
    """
    builders = {"CRNN": _crnn, "ASTER": _aster, "MORAN": _moran, "PPOCR": _ppocr}
    unknown = [name for name in names if name not in builders]
    if unknown:
        raise ValueError(f"no recogniser is called {', '.join(unknown)}; there are {', '.join(builders)}")
    return [builders[name](config, device) for name in dict.fromkeys(names)]


def _crnn(config: EasyDict, device: torch.device) -> Reader:
    return _from_file("CRNN", CRNN(), "crnn_pretrained", config, device)


def _aster(config: EasyDict, device: torch.device) -> Reader:
    corners = config.TEST.align_corners
    return _from_file("ASTER", ASTER(align_corners=corners), "rec_pretrained", config, device, corners=corners)


def _moran(config: EasyDict, device: torch.device) -> Reader:
    corners = config.TEST.align_corners
    return _from_file("MORAN", MORAN(align_corners=corners), "moran_pretrained", config, device, corners=corners)


def _from_file(
    name: str, network: Any, key: str, config: EasyDict, device: torch.device, *, corners: bool = False
) -> Reader:
    """A network with the weights that `TRAIN.VAL.<key>` names; readings depend on `corners` and precision, too."""
    path, lower = config.TRAIN.VAL[key], config.TEST.precision == "bf16"
    own = starter.way_out(path, starter.RECOGNIZER, f"--{key}", NO_FILE_NEEDED)
    remedy = own if name == "CRNN" else NO_FILE_NEEDED
    state = read_weights(path, option=f"--{key}", purpose=f"--test_model {name}", remedy=remedy)
    others = [other for other, sign in SIGNS.items() if other != name and any(key.startswith(sign) for key in state)]
    hint = f"These are the weights of {others[0]}." if others else f"--{key} names a file for {name}: rec_pth/README.md"
    load_weights(network, state, path, hint=hint)
    network.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)
    sha256 = file_sha256(Path(path))
    variant = ", align_corners" if corners else ""
    variant += ", bf16" if lower else ""
    description = f"{name}, {path}, sha256 {sha256[:12]}{variant}"
    return Reader(name, network, f"{name}-{sha256}{variant}", description, path, lower)


def _ppocr(config: EasyDict, device: torch.device) -> Reader:
    recognizer = PPOCR(threads=torch.get_num_threads())
    fingerprint = recognizer.fingerprint()
    return Reader("PPOCR", recognizer, f"PPOCR-{fingerprint}", f"{recognizer.description} (rapidocr, ONNX Runtime)")


@dataclass
class ReadingCache:
    """Readings of pictures that no training changes (LR, bicubic, HR), kept on disk as JSON.

    A file belongs to one reader (by fingerprint), one data set as this run prepares it, and one kind of picture.

    Attributes:
        folder: where the files lie; None keeps nothing.
    """

    folder: Path | None
    _loaded: dict[str, dict[int, Answer]] = field(default_factory=dict)

    def _path(self, reader: Reader, data: str, row: str) -> Path | None:
        if self.folder is None:
            return None
        digest = hashlib.sha256(reader.fingerprint.encode()).hexdigest()
        return self.folder / f"{reader.name}-{digest[:16]}-{data[:32]}-{row}.answers.json"

    def load(self, reader: Reader, data: str, row: str) -> dict[int, Answer] | None:
        """{sample number: answer} as `store` kept them, or None."""
        path = self._path(reader, data, row)
        if path is None or not path.is_file():
            return None
        if str(path) not in self._loaded:
            try:
                stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
                complete = stored["reader"] == reader.fingerprint and stored["data"] == data
                answers = {int(key): (str(text), float(sure)) for key, (text, sure) in stored["answers"].items()}
                self._loaded[str(path)] = answers
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                log.warning("%s is not a file of kept readings (%s); the pictures are read again", path, error)
                return None
            if not complete:
                self._loaded.pop(str(path))
                return None
        return self._loaded[str(path)]

    def store(self, reader: Reader, data: str, row: str, answers: dict[int, Answer]) -> None:
        """Keep the answers for all samples of a data set."""
        path = self._path(reader, data, row)
        if path is None:
            return
        content = {"reader": reader.fingerprint, "data": data, "row": row, "answers": answers}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lambda temporary: write_text(temporary, json.dumps(content)))
        except OSError as error:
            log.warning("readings cannot be kept in %s (TEST.cache_dir): %s", path.parent, error)
        self._loaded.pop(str(path), None)
