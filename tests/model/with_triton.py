"""What the tests of all Triton kernels need."""

import importlib.util
import subprocess
import sys

import pytest
import torch

from interface.config import ROOT
from tests.interface.helpers import environment

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs the package triton")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def check_interpreted(module: str) -> None:
    """Run a module of this package on a CPU by Triton's interpreter; it compares, and says that it did."""
    command = [sys.executable, "-m", f"tests.model.{module}"]
    interpreted = {**environment(), "TRITON_INTERPRET": "1"}  # Triton asks for it when it is imported
    done = subprocess.run(command, cwd=ROOT, env=interpreted, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout == "checked\n", done.stderr
