"""Every reference case below `$STISR_VECTORS` (default: `tests/vectors`) against our implementation.

On a GPU with `STISR_DEVICE=cuda`, with ten times the tolerance.
"""

import importlib
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.device import DEVICE, EXACT
from tests.parity.vectors import HANDLERS, ROOT, load_case

for _module in sorted(Path(__file__).parent.glob("cases_*.py")):
    importlib.import_module(f"tests.parity.{_module.stem}")

FILES = sorted(ROOT.glob("*/*.npz"))


def test_there_are_cases():
    assert FILES, f"no reference vectors below {ROOT}"


@pytest.mark.parity
@pytest.mark.parametrize("path", FILES, ids=[f"{path.parent.name}/{path.stem}" for path in FILES])
def test_case(path, monkeypatch):
    case = load_case(path)
    assert case.name in HANDLERS, f"no check knows the case {case.name}; write one in tests/parity/cases_*.py"
    if not EXACT:
        move_when_loaded(monkeypatch)
    HANDLERS[case.name](case)


def move_when_loaded(monkeypatch):
    """Let networks go to the device of the tests when they get the weights of a case."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # as in the program
    load = nn.Module.load_state_dict

    def load_and_move(self, *args, **kwargs):
        result = load(self, *args, **kwargs)
        self.to(DEVICE)
        return result

    monkeypatch.setattr(nn.Module, "load_state_dict", load_and_move)
