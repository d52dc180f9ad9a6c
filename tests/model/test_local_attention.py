"""Local attention, image by image, against the whole batch at once."""

import pytest
import torch

from model.blocks.attention import LocalAttention
from model.blocks.local_attention import attend


def differ(ours, theirs):
    return ((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max()).item()


def both_ways(module, x, *, autocast=False):
    """Output and gradients of both forms, drawn with the same random numbers."""
    torch.manual_seed(0)
    keep = module.dropout(torch.ones(len(x), 9, *x.shape[2:], dtype=x.dtype)) if module.training else None
    results = []
    for forward in (module, lambda x: module._attend_at_once(x, keep)):
        torch.manual_seed(0)
        leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            out = forward(leaf)
        upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
        grads = torch.autograd.grad(out, (leaf, module.trans.weight), upstream.to(out.dtype))
        results.append((out, *grads))
    return results


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", [(3, 8, 5, 7), (1, 40, 1, 1), (2, 3, 1, 6), (2, 1, 4, 1)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_image_by_image_is_the_whole_batch(training, shape, layout):
    torch.manual_seed(0)
    module = LocalAttention(shape[1]).double().train(training)
    x = torch.randn(shape, dtype=torch.double).contiguous(memory_format=layout)
    ours, theirs = both_ways(module, x)
    assert ours[0].stride() == x.stride()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("threads", [1, 2])
def test_images_beside_each_other_do_not_mix(threads):
    torch.manual_seed(0)
    module, x = LocalAttention(4).double(), torch.randn(5, 4, 6, 9, dtype=torch.double)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        ours, theirs = both_ways(module, x)
    finally:
        torch.set_num_threads(before)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_under_autocast_both_are_as_exact(layout):
    torch.manual_seed(0)
    module, x = LocalAttention(64), torch.randn(2, 64, 8, 16).contiguous(memory_format=layout)
    exact = both_ways(module, x)[1]
    ours, theirs = both_ways(module, x, autocast=True)
    assert ours[0].dtype == torch.bfloat16
    assert ours[2].dtype == torch.float32
    for a, b, c in zip(ours, theirs, exact, strict=True):
        assert differ(a, c) < 0.02
        assert differ(a, c) < 1.5 * differ(b, c)


def test_gradients_are_the_slopes():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 3, 4, dtype=torch.double, requires_grad=True)
    weight = torch.randn(9, 3, 1, 1, dtype=torch.double, requires_grad=True)
    keep = torch.rand(2, 9, 3, 4, dtype=torch.double)
    assert torch.autograd.gradcheck(lambda x, weight: attend(x, weight, keep), (x, weight))


def test_views_of_other_maps_will_do():
    torch.manual_seed(0)
    module, wide = LocalAttention(4).eval(), torch.randn(3, 2, 6, 14, 4)
    x = wide[::2, 1].permute(0, 3, 1, 2)[..., ::2]
    torch.testing.assert_close(module(x), module(x.contiguous()))
    constant = torch.randn(1, 4, 1, 1).expand(2, 4, 6, 7)
    torch.testing.assert_close(module(constant), module(constant.contiguous()))


@pytest.mark.parametrize("training", [False, True])
def test_no_images_make_none(training):
    module, x = LocalAttention(4).train(training), torch.zeros(0, 4, 6, 7, requires_grad=True)
    out = module(x)
    assert out.shape == (0, 4, 6, 7)
    out.sum().backward()
    assert not module.trans.weight.grad.any()


def test_without_gradients_the_same():
    torch.manual_seed(0)
    module, x = LocalAttention(4).eval(), torch.randn(2, 4, 6, 7)
    expected = module(x)
    assert expected.requires_grad
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            torch.testing.assert_close(module(x), expected)
    torch.testing.assert_close(module.requires_grad_(False)(x), expected)


def test_only_what_wants_a_gradient_gets_one():
    module, x = LocalAttention(4), torch.randn(2, 4, 6, 7)
    module(x).sum().backward()
    assert module.trans.weight.grad is not None
    module.requires_grad_(False)
    leaf = x.clone().requires_grad_()
    module(leaf).sum().backward()
    assert leaf.grad is not None


def test_a_second_derivative_is_refused():
    module, x = LocalAttention(4), torch.randn(1, 4, 3, 3, requires_grad=True)
    with pytest.raises(NotImplementedError, match="second derivative"):
        torch.autograd.grad(module(x).sum(), x, create_graph=True)
