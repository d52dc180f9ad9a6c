"""Convolutions with a twist: weight-normalised, deformable, and to few channels."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.blocks.triton_here import kernel_type, translated


class WeightNormConv2d(nn.Conv2d):
    """Convolution whose kernels are `weight_g * weight_v / ||weight_v||`, one length per output channel.

    The parameters carry the names of the first weight norm of torch, which published checkpoints use
    (https://arxiv.org/abs/1602.07868). At the start the kernels are those of a plain convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        padding = dilation * (kernel_size // 2)
        super().__init__(
            in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, groups=groups, bias=bias
        )
        direction = self.weight.detach()
        del self.weight
        self.weight_g = nn.Parameter(_length(direction))
        self.weight_v = nn.Parameter(direction)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H, W)."""
        kernels = self.weight_v * (self.weight_g / _length(self.weight_v))
        depthwise = self.groups == self.in_channels == self.out_channels and self.kernel_size == (3, 3)
        if x.device.type == "cpu" and self.dilation[0] > 1 and depthwise:
            return dilated_depthwise(x, kernels, self.bias, self.dilation[0])
        if depthwise and self.bias is not None and (fused := fused_depthwise(x)) is not None:
            return fused(x, kernels, self.bias, self.dilation[0])
        return self._conv_forward(x, kernels, self.bias)


def fused_depthwise(x: Tensor) -> Callable[..., Tensor] | None:
    """`convolve` of `depthwise_triton.py` where it can do so with this map (N, C, H, W), else None."""
    dtype, channels = kernel_type(x), x.shape[1]
    if dtype is None or dtype != x.dtype or channels % 16:
        return None
    case, without = (channels, dtype), "Depth-wise convolutions are done by cuDNN"
    depthwise_triton = translated("depthwise_triton", without, x.device, *case, backward=torch.is_grad_enabled())
    return depthwise_triton.convolve if depthwise_triton else None


def dilated_depthwise(x: Tensor, kernels: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """A dilated 3x3 depth-wise convolution that keeps the size, as one without dilation of every n-th pixel each.

    For CPUs. PyTorch 2.15 (oneDNN 3.13.3) returns wrong gradients of the kernels in bfloat16 with dilation 2 and 4 and
    channels last, 1e33 among them; in float32 this form is the faster one.

    Args:
        x: (N, C, H, W).
        kernels: (C, 1, 3, 3).
        bias: (C,) or None.
        dilation: if H or W is no multiple of it, the convolution is a plain one in the precision of `kernels`.

    Returns:
        (N, C, H, W).
    """
    count, channels, height, width = x.shape
    if height % dilation or width % dilation:
        with torch.autocast("cpu", enabled=False):
            wide = x.to(kernels.dtype)
            return F.conv2d(wide, kernels, bias, padding=dilation, dilation=dilation, groups=channels)
    rows, columns = height // dilation, width // dilation
    pixels = x.permute(0, 2, 3, 1).reshape(count, rows, dilation, columns, dilation, channels)
    parts = pixels.permute(0, 2, 4, 1, 3, 5).reshape(count * dilation**2, rows, columns, channels).permute(0, 3, 1, 2)
    mixed = F.conv2d(parts, kernels, bias, padding=1, groups=channels).permute(0, 2, 3, 1)
    mixed = mixed.reshape(count, dilation, dilation, rows, columns, channels).permute(0, 3, 1, 4, 2, 5)
    return mixed.reshape(count, height, width, channels).permute(0, 3, 1, 2)


class PictureConv2d(nn.Conv2d):
    """A convolution from many channels to the three or four of a picture, with a square kernel of odd size.

    A CPU computes 16 channels in float32 as fast as one. So here the products with each column of the kernel become
    channels of their own, which are then added up, each moved by its column. The order of the sum is another one.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H, W)."""
        plain = x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu")
        if plain or torch.compiler.is_compiling():
            return super().forward(x)
        size, width = self.kernel_size[0], x.shape[3]
        assert self.kernel_size == (size, size) and self.padding == (size // 2, size // 2)
        columns = self.weight.permute(3, 0, 1, 2).flatten(0, 1).unsqueeze(3)  # (size * out, in, size, 1)
        products = F.conv2d(x, columns, padding=(size // 2, 0))
        products = F.pad(products, (size // 2, size // 2)).unflatten(1, (size, self.out_channels))
        first, *others = (product[..., at : at + width] for at, product in enumerate(products.unbind(1)))
        total = first if self.bias is None else first + self.bias[:, None, None]
        for product in others:
            total = total + product
        return total


def _length(kernels: Tensor) -> Tensor:
    """(O, I, k, k) -> (O, 1, 1, 1), the Euclidean length of each output channel's kernel."""
    return torch.linalg.vector_norm(kernels, dim=(1, 2, 3), keepdim=True)


class DeformConv2d(nn.Conv2d):
    """3x3 deformable convolution with modulation (v2), https://arxiv.org/abs/1811.11168.

    Every channel group has its own offsets. Computed in float32 also under autocast: offsets are coordinates.
    """

    def __init__(self, in_channels: int, out_channels: int, *, groups: int) -> None:
        from torchvision.ops import deform_conv2d  # noqa: PLC0415 - takes 1.5 s, and few networks need it

        super().__init__(in_channels, out_channels, 3, padding=1, groups=groups)
        self._convolve: Callable[..., Tensor] = deform_conv2d

    def forward(self, x: Tensor, offsets: Tensor, modulation: Tensor) -> Tensor:  # type: ignore[override]
        """Convolve at shifted positions.

        Args:
            x: (N, in_channels, H, W).
            offsets: (N, groups * 9 * 2, H, W) in pixels, (dy, dx) for each tap of each group.
            modulation: (N, groups * 9, H, W), weight of each tap.

        Returns:
            (N, out_channels, H, W) float32.
        """
        with torch.autocast(x.device.type, enabled=False):
            return self._convolve(
                x.float(), offsets.float(), self.weight, self.bias, padding=self.padding, mask=modulation.float()
            )
