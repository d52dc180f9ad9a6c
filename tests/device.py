"""Where tests compute: on the CPU, or for those that can, on the device that `$STISR_DEVICE` names, e.g. cuda."""

import os

import torch

DEVICE = torch.device(os.environ.get("STISR_DEVICE") or "cpu")
EXACT = DEVICE.type == "cpu"
"""Whether the same work gives the same bits: sums of a GPU have no fixed order."""
