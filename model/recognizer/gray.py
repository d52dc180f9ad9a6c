"""What recognisers take: RGB, or gray made of it as they were trained on."""

import torch.nn.functional as F
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def check_rgb(images: Tensor) -> None:
    """Refuse what is no batch of pictures with three channels or more.

    Raises:
        ValueError: it is none.
    """
    if images.ndim != 4 or images.shape[1] < 3:
        raise ValueError(f"images of shape {tuple(images.shape)}: expected (N, C, H, W), the first 3 channels RGB")
    if not images.is_floating_point():
        raise ValueError(f"images of {images.dtype}: expected floating point in [0, 1]; divide 8-bit pictures by 255")


def resized_gray(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, >=3, H, W) RGB in [0, 1] -> (N, 1, *size) gray: bicubic, unclamped, not normalised.

    Raises:
        ValueError: the images have fewer than three channels.
    """
    check_rgb(images)
    # Both steps are linear, but this order is the published one to the last bit, and cheap beside the network.
    resized = F.interpolate(images[:, :3], size, mode="bicubic", align_corners=False)
    red, green, blue = resized.split(1, dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
