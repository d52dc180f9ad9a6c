"""The Triton kernel of the bidirectional GRU against PyTorch's: on a CPU by Triton's interpreter, and on a GPU."""

import logging

import pytest
import torch
from torch import nn

from model.blocks import gru as gru_module
from model.blocks.gru import GruBlock, fused_gru
from model.blocks.triton_here import translated
from tests.model.interpreted_gru import expected, found, largest_difference
from tests.model.with_triton import check_interpreted, needs_gpu, needs_triton


@needs_triton
def test_the_kernel_computes_what_pytorch_does():
    check_interpreted("interpreted_gru")


def test_other_devices_do_not_use_it():
    gru = GruBlock(32, 32, pointwise=False).gru
    assert fused_gru(gru, torch.zeros(1, 2, 3, 32), columns=False) is None
    assert fused_gru(gru, torch.zeros(1, 2, 3, 32, device="meta"), columns=False) is None


@needs_triton
def test_a_gpu_where_triton_does_not_work_is_named_once_and_keeps_the_gru_of_pytorch(monkeypatch, caplog):
    from model.blocks import gru_triton

    def rehearse(*_, backward):
        raise OSError("no C compiler")

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(gru_triton, "rehearse", rehearse)
    case = "gru_triton", "GRUs are read by cuDNN", torch.device("cuda")
    translated.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert translated(*case, 16, torch.float32, 7, backward=True) is None
    assert [record.getMessage() for record in caplog.records] == [
        "GRUs are read by cuDNN, which is slower, since Triton does not work here: no C compiler"
    ]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(gru_triton, "rehearse", lambda *_, backward: None)
    assert translated(*case, 16, torch.float32, 8, backward=True) is None
    translated.cache_clear()


@pytest.fixture
def large():
    """A GRU of an SR network, on a GPU, and feature maps of 48 pictures: 3072 columns of 16 pixels, 768 rows of 64."""
    torch.manual_seed(0)
    gru = nn.GRU(64, 32, bidirectional=True, batch_first=True, device="cuda")
    return gru, torch.randn(48, 16, 64, 64, device="cuda"), torch.randn(48, 16, 64, 64, device="cuda")


@needs_triton
@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize(("autocast", "tolerance"), [(None, 1e-4), (torch.bfloat16, 2e-2), (torch.float16, 2e-2)])
def test_a_gpu_computes_what_pytorch_does(large, columns, autocast, tolerance, monkeypatch):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    gru, pixels, upstream = large
    ours = found(gru, pixels, upstream, columns=columns, autocast=autocast)
    theirs = expected(gru.double(), pixels.double(), upstream.double(), columns=columns)
    assert ours[0].dtype == (autocast or torch.float32)
    assert largest_difference(ours, theirs) < tolerance


@needs_triton
@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("units", [16, 64])
@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_a_gpu_reads_with_other_numbers_of_units(units, autocast, monkeypatch):
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    torch.manual_seed(0)
    gru = nn.GRU(2 * units, units, bidirectional=True, batch_first=True, device="cuda")
    pixels, upstream = torch.randn(2, 3, 5, 7, 2 * units, device="cuda")
    ours = found(gru, pixels, upstream, columns=True, autocast=autocast)
    theirs = expected(gru.double(), pixels.double(), upstream.double(), columns=True)
    assert largest_difference(ours, theirs) < (2e-2 if autocast else 1e-4)


@needs_triton
@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_block_uses_the_kernel_on_a_gpu(columns, layout, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    torch.manual_seed(0)
    block = GruBlock(32, 32).to("cuda")
    maps = torch.randn(2, 32, 4, 6, device="cuda").contiguous(memory_format=layout)
    assert fused_gru(block.gru, maps.permute(0, 2, 3, 1), columns=columns) is not None
    ours = block(maps, columns=columns)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    monkeypatch.setattr(gru_module, "fused_gru", lambda *_, columns: None)
    torch.testing.assert_close(ours, block(maps, columns=columns), rtol=0, atol=1e-5)


@needs_triton
@needs_gpu
@pytest.mark.gpu
def test_the_kernel_is_captured_in_a_cuda_graph(large):
    gru, pixels, upstream = large
    still = pixels.clone()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        found(gru, still, upstream, columns=True, autocast=torch.bfloat16)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = found(gru, still, upstream, columns=True, autocast=torch.bfloat16)
    still.copy_(pixels.flip(0))
    graph.replay()
    anew = found(gru, still, upstream, columns=True, autocast=torch.bfloat16)
    assert largest_difference(captured, anew) == 0
