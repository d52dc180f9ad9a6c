"""C3-STISR: its block and its skeleton; what it shares with RTSRN is in `test_clue_guided`."""

import pytest
import torch

from model import identify
from model.blocks.residual import RecurrentResidualBlock
from model.c3stisr import C3STISR

GRU = 2 * (96 * 64 + 96 * 32 + 2 * 96)  # 3 gates of 32 units read 64 features, in two directions
BLOCK = 2 * (64 * 64 * 9 + 64) + 2 * 2 * 64 + (96 * 64 + 64 + GRU) + (64 * 64 + 64 + GRU)
HEAD = (64 * 256 * 9 + 256) + (64 * 4 * 81 + 4)
SKELETON = (4 * 64 * 81 + 64 + 1) + 5 * BLOCK + (64 * 64 * 9 + 64 + 2 * 64) + HEAD
# The published counts of modules that RTSRN has, too.
INTERPRETER, RECTIFIER, LANGUAGE_MODEL, ATTENTION, FUSER = 853_952, 1_855_048, 12_647_461, 35_848, 334_096
GATE = (64 * 64 + 64) + 4 * (64 * 9 + 64 + 64)
FUSION = 2 * GATE + (128 * 64 + 64)
CLUES = LANGUAGE_MODEL + 2 * ATTENTION + FUSION + (64 * 32 + 32) + INTERPRETER
VISUAL = 841_236 + ATTENTION + FUSER + GATE + (192 * 96 + 96) - (128 * 64 + 64)


def count(**options) -> int:
    with torch.device("meta"):
        return sum(value.numel() for value in C3STISR(**options).parameters())


def test_number_of_parameters():
    assert count(STN=True) == SKELETON + INTERPRETER + RECTIFIER + CLUES == 17_143_266
    assert count(STN=True, visual_clue=True) == 17_143_266 + VISUAL == 18_371_694
    assert count(STN=True, triple_clues=False) == SKELETON + INTERPRETER + RECTIFIER == 3_545_869  # as TPGSR's


def test_keys():
    keys = C3STISR(srb_nums=2).state_dict().keys()
    assert not [key for key in keys if "pam" in key or "wave" in key]
    for number in (2, 3):
        parts = list(dict.fromkeys(key.split(".")[1] for key in keys if key.startswith(f"block{number}.")))
        assert parts == ["conv1", "bn1", "gru1", "conv2", "bn2", "gru2"]
    assert identify(keys) == "c3stisr"
    assert identify(C3STISR(srb_nums=1, triple_clues=False).state_dict()) == "tpgsr"  # which has the same


@torch.no_grad()
def test_the_hint_reaches_every_block():
    torch.manual_seed(0)
    network = C3STISR().eval()
    hints = []
    for name in network.blocks:
        network.get_submodule(name).register_forward_pre_hook(lambda _, inputs: hints.append(inputs[1]))
    network(torch.rand(1, 4, 16, 64), torch.rand(1, 37, 1, 26))
    assert len(hints) == 5
    assert all(hint is hints[0] for hint in hints)
    assert hints[0].shape == (1, 32, 16, 64)


@torch.no_grad()
def test_a_block_by_hand():
    torch.manual_seed(0)
    block = RecurrentResidualBlock(8, 4).eval()
    x, hint = torch.randn(2, 8, 5, 7), torch.randn(2, 4, 5, 7)

    def along_width(part, maps):
        rows = part.conv1(maps).unbind(dim=2)  # (N, F, W) each
        return torch.stack([part.gru(row.transpose(1, 2))[0].transpose(1, 2) for row in rows], dim=2)

    norm = (1 + 1e-5) ** 0.5  # fresh statistics are 0 and 1
    inner = block.conv1(x) / norm
    inner = block.conv2(inner * torch.tanh(torch.log1p(inner.exp()))) / norm
    inner = along_width(block.gru1, torch.cat([inner, hint], dim=1).transpose(2, 3)).transpose(2, 3)
    torch.testing.assert_close(block(x, hint), along_width(block.gru2, x + inner), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(block(x, hint), block(x, torch.zeros_like(hint)))


@torch.no_grad()
def test_a_block_without_hint():
    block = RecurrentResidualBlock(8).eval()
    assert block.gru1.conv1.in_channels == 8
    assert block(torch.rand(2, 8, 5, 7)).shape == (2, 8, 5, 7)


@pytest.mark.parametrize("options", [{"triple_clues": False, "hidden_units": 8}, {"mask": False}])
def test_fewer_clues_or_channels(options):
    torch.manual_seed(0)
    network = C3STISR(srb_nums=1, **options)
    images, clue = torch.rand(2, network.in_channels, 16, 64), torch.rand(2, 37, 1, 26).softmax(dim=1)
    sr = network(images, clue, clue if network.triple_clues else None)
    assert sr.shape == (2, network.in_channels, 32, 128)
    sr.square().mean().backward()
    silent = {key for key, value in network.named_parameters() if value.grad is None}
    assert all(key.startswith("lm.") for key in silent)  # which is called by itself
