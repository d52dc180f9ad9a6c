"""The Triton kernels of dilated depth-wise convolutions: on a CPU by Triton's interpreter, and on a GPU."""

import pytest
import torch

from model.blocks import convolution as convolution_module
from model.blocks.convolution import WeightNormConv2d, fused_depthwise
from tests.model.interpreted_depthwise import convolution, expected, found
from tests.model.interpreted_gru import largest_difference
from tests.model.with_triton import check_interpreted, needs_gpu, needs_triton


@needs_triton
def test_the_kernels_compute_what_pytorch_does():
    check_interpreted("interpreted_depthwise")


def test_other_devices_do_not_use_them():
    assert fused_depthwise(torch.zeros(1, 16, 2, 3)) is None
    assert fused_depthwise(torch.zeros(1, 16, 2, 3, device="meta")) is None


@pytest.mark.parametrize(
    ("kernel", "groups", "bias", "asked"),
    [(3, 16, True, True), (3, 16, False, False), (3, 8, True, False), (1, 16, True, False)],
)
def test_only_depthwise_3x3_convolutions_with_a_bias_ask_for_them(kernel, groups, bias, asked, monkeypatch):
    calls = []
    monkeypatch.setattr(convolution_module, "fused_depthwise", calls.append)
    WeightNormConv2d(16, 16, kernel, groups=groups, bias=bias)(torch.zeros(1, 16, 2, 3))
    assert len(calls) == asked


@needs_triton
@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("dilation", [1, 2, 4, 8])
@pytest.mark.parametrize("channels", [16, 48, 64, 128])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 2e-2)])
def test_a_gpu_computes_what_pytorch_does(dilation, channels, dtype, tolerance):
    torch.manual_seed(0)
    values = convolution(channels, 24, 16, 64, dtype=dtype, device="cuda")
    ours = found(*values, dilation=dilation)
    assert [value.dtype for value in ours] == [dtype, dtype, torch.float32, torch.float32]
    for pair in zip(ours, expected(*values, dilation=dilation), strict=True):
        assert largest_difference([pair[0]], [pair[1]]) < tolerance


@needs_triton
@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("autocast", "tolerance"), [(None, 1e-5), (torch.bfloat16, 2e-2)])
def test_a_layer_uses_the_kernels_on_a_gpu(layout, autocast, tolerance, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    layer = WeightNormConv2d(64, 64, 3, dilation=4, groups=64).to("cuda")
    maps = torch.randn(3, 64, 9, 20, device="cuda", dtype=autocast).contiguous(memory_format=layout).requires_grad_()
    upstream = torch.randn(3, 64, 9, 20, device="cuda")

    def results():
        with torch.autocast("cuda", dtype=autocast, enabled=autocast is not None):
            out = layer(maps)
        return out, *torch.autograd.grad(out, (maps, *layer.parameters()), upstream.to(out.dtype))

    with torch.autocast("cuda", dtype=autocast, enabled=autocast is not None):
        assert fused_depthwise(maps) is not None
    ours = results()
    monkeypatch.setattr(convolution_module, "fused_depthwise", lambda x: None)
    theirs = results()
    assert [value.dtype for value in ours] == [value.dtype for value in theirs]
    assert largest_difference(ours, theirs) < tolerance


@needs_triton
@needs_gpu
@pytest.mark.gpu
def test_the_kernels_are_captured_in_a_cuda_graph():
    torch.manual_seed(0)
    still, *others = convolution(64, 8, 16, 64, dtype=torch.bfloat16, device="cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        found(still, *others, dilation=2)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = found(still, *others, dilation=2)
    still.copy_(still.flip(0))
    graph.replay()
    anew = found(still, *others, dilation=2)
    assert largest_difference(captured, anew) == 0
