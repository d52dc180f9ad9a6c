"""The Triton kernel that mixes waves against grouped convolutions: on a CPU by Triton's interpreter, and on a GPU."""

import logging

import pytest
import torch

from model.blocks import wave as wave_module
from model.blocks.triton_here import translated
from model.blocks.wave import WaveBlock, fused_waves
from tests.model.interpreted_gru import largest_difference
from tests.model.interpreted_wave import expected, found, mixer_of, waves_of
from tests.model.with_triton import check_interpreted, needs_gpu, needs_triton


@needs_triton
def test_the_kernel_computes_what_convolutions_do():
    check_interpreted("interpreted_wave")


def test_other_devices_do_not_use_it():
    for device in ("cpu", "meta"):
        waves = torch.zeros(1, 16, 2, 3, device=device)
        assert fused_waves(waves, waves, columns=False) is None


def test_a_block_asks_for_rows_and_for_columns(monkeypatch):
    asked = []
    monkeypatch.setattr(wave_module, "fused_waves", lambda *_, columns: asked.append(columns))
    WaveBlock(8)(torch.zeros(1, 8, 2, 3))
    assert asked == [False, True]  # kernels (1, 7) along the rows, then (7, 1) along the columns


@needs_triton
def test_a_gpu_where_triton_does_not_work_is_named_once(monkeypatch, caplog):
    from model.blocks import wave_triton

    def rehearse(*case, backward):
        raise OSError(f"no C compiler for {case[1:]}, backward {backward}")

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(wave_triton, "rehearse", rehearse)
    translated.cache_clear()
    case = "wave_triton", "Waves are mixed by cuDNN", torch.device("cuda"), 16, 7
    with caplog.at_level(logging.WARNING):
        assert translated(*case, backward=True) is None
        assert translated(*case, backward=True) is None
    assert [record.getMessage() for record in caplog.records] == [
        "Waves are mixed by cuDNN, which is slower, since Triton does not work here: "
        "no C compiler for (16, 7), backward True"
    ]
    translated.cache_clear()


@needs_triton
@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("channels", [16, 32, 48, 64, 128])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 2e-2)])
def test_a_gpu_computes_what_the_grouped_convolution_does(columns, channels, dtype, tolerance):
    torch.manual_seed(0)
    mixer = mixer_of(channels, columns=columns, device="cuda")
    waves = [x.to(dtype) for x in waves_of(24, channels, 16, 64, device="cuda")]
    ours = found(mixer, *waves)
    assert [x.dtype for x in ours] == [dtype, dtype, dtype, torch.float32]
    for pair in zip(ours, expected(mixer, *waves), strict=True):
        assert largest_difference([pair[0]], [pair[1]]) < tolerance


@needs_triton
@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("autocast", "tolerance"), [(None, 1e-4), (torch.bfloat16, 5e-2)])
def test_a_block_uses_the_kernel_on_a_gpu(layout, autocast, tolerance, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    block = WaveBlock(32).to("cuda").eval()
    maps = torch.randn(2, 32, 5, 40, device="cuda").contiguous(memory_format=layout)
    used = []

    def watched(amplitude, phase, *, columns):
        used.append(fused_waves(amplitude, phase, columns=columns))
        return used[-1]

    monkeypatch.setattr(wave_module, "fused_waves", watched)
    with torch.autocast("cuda", dtype=autocast, enabled=autocast is not None):
        ours = block(maps)
        monkeypatch.setattr(wave_module, "fused_waves", lambda *_, columns: None)
        theirs = block(maps)
    assert len(used) == 2 and None not in used
    assert ours.dtype == theirs.dtype
    assert largest_difference([ours], [theirs]) < tolerance


@needs_triton
@needs_gpu
@pytest.mark.gpu
def test_the_kernel_is_captured_in_a_cuda_graph():
    torch.manual_seed(0)
    mixer = mixer_of(64, columns=False, device="cuda")
    still, phase, upstream = (x.bfloat16() for x in waves_of(8, 64, 16, 64, device="cuda"))
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        found(mixer, still, phase, upstream)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = found(mixer, still, phase, upstream)
    still.copy_(still.flip(0))
    graph.replay()
    anew = found(mixer, still, phase, upstream)
    assert largest_difference(captured, anew) == 0
