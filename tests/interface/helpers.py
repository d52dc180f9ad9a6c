"""What the tests of the interface share: damaged data, a tiny network with dropout, and ways to run the program."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from interface.config import ROOT, load_settings
from interface.super_resolution import TextSR
from interface.systems import base, prior_guided
from model.blocks import clue_guided
from model.language.bcn import BCN
from model.recognizer.crnn import ALPHANUMERIC, CRNN
from model.recognizer.focus_transformer import FocusTransformer
from model.recognizer.reading import Reading
from tests.dataset.pictures import entries_of, word_pair, write_entries

LIGHT = "--arch rtsrn --srb 1 --no-triple_clues --tpg_pretrained random --batch_size 2 --device cpu --workers 0".split()
"""The smallest RTSRN."""

TINY = "--arch tinynet --batch_size 2 --device cpu --workers 0 --schedule constant".split()
"""The network below, which `register_tiny` makes known."""


class TinyNet(nn.Module):
    """(N, C, H, W) -> (N, C, 2H, 2W) through one hidden layer with dropout and BatchNorm."""

    def __init__(self, *, mask: bool = False) -> None:
        super().__init__()
        channels = 4 if mask else 3
        self.body = nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3))
        self.tail = nn.Sequential(nn.Conv2d(8, 4 * channels, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, images_lr: Tensor) -> Tensor:
        return self.tail(self.body(images_lr))


def tinynet(**kwargs: Any) -> TinyNet:
    return TinyNet(**kwargs)


def register_tiny(monkeypatch, folder: Path) -> None:
    """Make `--arch tinynet` known for one test; `folder` takes a copy of configs/."""
    from interface import config
    from model import list_models, registry

    list_models()  # scans, so that the scan does not undo what is set here
    monkeypatch.setitem(registry._SPECS, "tinynet", registry.ModelSpec("tinynet", tinynet, "plain", ""))
    copied = shutil.copytree(ROOT / "configs", folder / "configs")
    (copied / "tinynet.yaml").touch()
    monkeypatch.setattr(config, "CONFIGS", copied)


class SmallCRNN(CRNN):
    """CRNN's interface, one convolution."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.charset, self.num_classes = ALPHANUMERIC, len(ALPHANUMERIC) + 1
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 32, (32, 4), stride=(1, 4), padding=(0, 2)), nn.BatchNorm2d(32), nn.ReLU()
        )
        self.rnn = nn.Linear(32, self.num_classes)


class SmallBCN(BCN):
    """A language model of one narrow layer."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs, width=32, heads=2, layers=1, hidden=32)


class SmallInterpreter(nn.Module):
    """(N, classes, 1, T) -> (N, channels, 1, T): one convolution."""

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(classes, channels, (1, 3), padding=(0, 1))

    def forward(self, prior: Tensor) -> Tensor:
        return self.conv(prior).relu()


class SmallFocus(FocusTransformer):
    """A text-focus recogniser of 20 thousand parameters."""

    def __init__(self, charset: str = ALPHANUMERIC) -> None:
        super().__init__(widths=(4, 4, 8, 8, 16), blocks=(1, 1), heads=4, charset=charset)

    @classmethod
    def like(cls, state: Mapping[str, Tensor], **options: Any) -> "SmallFocus":
        return cls()


def shrink_recognisers(monkeypatch, folder: Path) -> list[str | Path]:
    """Build small networks around text for one test; returns arguments that name weights of theirs in `folder`."""
    monkeypatch.setattr(base, "focus_recognizer", lambda state, source: SmallFocus())  # its heads are smaller
    monkeypatch.setattr(clue_guided, "BCN", SmallBCN)
    monkeypatch.setattr(clue_guided, "TextInterpreter", SmallInterpreter)
    monkeypatch.setitem(prior_guided.PRIOR_GENERATORS, "CRNN", SmallCRNN)
    torch.manual_seed(3)
    torch.save(SmallCRNN().state_dict(), folder / "crnn.pth")
    torch.save(SmallFocus().state_dict(), folder / "transformer.pth")
    (folder / "files.yaml").write_text(f"LOSS: {{text_focus_pretrained: {folder / 'transformer.pth'}}}\n")
    return ["--config", folder / "files.yaml", "--tpg_pretrained", folder / "crnn.pth"]


def write_damaged(folder: Path, count: int, bad: Sequence[int]) -> Path:
    """A TextZoom LMDB; the HR pictures of the samples `bad` (0-based) cannot be decoded."""
    pairs = [word_pair(number) for number in range(count)]
    return write_entries(
        folder, entries_of((b"no picture" if n in bad else hr, lr, label) for n, (hr, lr, label) in enumerate(pairs))
    )


def task(arguments: Sequence[str | Path]) -> Any:
    """The program up to the point where it starts to work."""
    return TextSR(load_settings([str(argument) for argument in arguments]))


def run(arguments: Sequence[str | Path]) -> Any:
    """The program in this process; it must succeed."""
    made = task(arguments)
    assert made.run() == 0
    return made


def environment() -> dict[str, str]:
    """Of a sub-process: one thread, wherever it runs."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "PYTHONPATH": str(ROOT)}


def command_line(
    arguments: Sequence[str | Path], *, cwd: Path, launcher: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """The program as a user types it, in a folder of the user's."""
    return subprocess.run(
        [sys.executable, *launcher, str(ROOT / "main.py"), *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def tensors_of(tree: Any, prefix: str = "") -> dict[str, Any]:
    """All leaves of nested dicts and lists by their path."""
    if isinstance(tree, dict):
        pairs = list(tree.items())
    elif isinstance(tree, list | tuple):
        pairs = list(enumerate(tree))
    else:
        return {prefix: tree}
    return {path: leaf for key, value in pairs for path, leaf in tensors_of(value, f"{prefix}/{key}").items()}


def assert_identical(one: Any, other: Any) -> None:
    """Equal to the last bit, name by name."""
    first, second = tensors_of(one), tensors_of(other)
    assert first.keys() == second.keys()
    different = [
        name
        for name, value in first.items()
        if not (torch.equal(value, second[name]) if isinstance(value, Tensor) else value == second[name])
    ]
    assert not different, different[:10]


def assert_near(one: Any, other: Any) -> None:
    """Equal but for rounding, which moves a weight by up to the rate where Adam sees a gradient near zero."""
    first, second = tensors_of(one), tensors_of(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        if isinstance(value, Tensor) and value.is_floating_point():
            torch.testing.assert_close(
                value, second[name], rtol=1e-3, atol=5e-3, msg=lambda text, n=name: f"{n}: {text}"
            )
        else:
            assert_identical(value, second[name])


class Reads:
    """A recogniser with a `read` of one's own; it is the less sure, the longer the text."""

    charset = "0-9"

    def read(self, images: Tensor) -> list[str]:
        raise NotImplementedError

    def read_with_confidence(self, images: Tensor) -> list[Reading]:
        return [Reading(text, 1 / (1 + len(text)), (0.5,) * len(text)) for text in self.read(images)]
