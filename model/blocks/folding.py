"""Normalisations of networks that do not learn any more become a part of the convolutions before them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


def fold_batch_norms(network: nn.Module, run: Callable[[], object]) -> int:
    """Multiply each BatchNorm into the convolution whose output it takes, in place; what is left of it is the identity.

    The network is watched while it works once. The output of such a convolution must go nowhere else.

    Args:
        network: in evaluation mode, with its final weights.
        run: lets it work on anything.

    Returns:
        How many there were.
    """
    assert not network.training
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # the tensors are kept, so that no other takes their address
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def note_output(convolution: nn.Module, _: object, output: Tensor) -> None:
        assert isinstance(convolution, nn.Conv2d)
        made[id(output)] = (convolution, output)

    def note_input(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        if id(inputs[0]) in made:
            pairs.append((made[id(inputs[0])][0], norm))

    hooks = [m.register_forward_hook(note_output) for m in network.modules() if type(m) is nn.Conv2d]
    hooks += [m.register_forward_pre_hook(note_input) for m in network.modules() if type(m) is nn.BatchNorm2d]
    try:
        with torch.no_grad():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    for convolution, norm in pairs:
        _fold(convolution, norm)
    folded = {norm for _, norm in pairs}
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if child in folded:
                setattr(parent, name, nn.Identity())
    return len(pairs)


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    trained = convolution.weight.requires_grad
    convolution.weight = nn.Parameter(weight.detach(), requires_grad=trained)
    convolution.bias = nn.Parameter(bias.detach(), requires_grad=trained)
