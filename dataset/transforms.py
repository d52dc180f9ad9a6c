"""Image file -> PIL image -> uint8 planes: resizing, the text mask and synthetic low resolution. Plain functions.

The published pipeline resizes with Pillow's bicubic filter and derives the mask from the resized picture, so all its
values are multiples of 1/255; uint8 planes hold them without loss in a quarter of the memory.
"""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError


def decode_image(data: bytes) -> Image.Image:
    """Decode an image file to RGB; an alpha channel is dropped, gray and palette pictures are expanded.

    Raises:
        OSError: Pillow cannot read the bytes, which may be cut off.
        ValueError: not a picture file, no pixels, or a size or data beyond what Pillow decodes safely.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if min(image.size) < 1:
                raise ValueError(f"the picture has no pixels: {image.size[0]}x{image.size[1]}")
            return image.convert("RGB")
    except UnidentifiedImageError:
        raise ValueError("not in a picture format that Pillow knows") from None  # its own message names an object
    except (SyntaxError, RuntimeError, Image.DecompressionBombError) as error:
        # Pillow's PNG reader raises SyntaxError on a damaged file, its AVIF reader RuntimeError
        raise ValueError(f"{type(error).__name__}: {error}") from error


def text_mask(image: Image.Image) -> np.ndarray:
    """(H, W) uint8, 255 where a pixel is not brighter than the mean brightness, else 0; dark strokes become 255.

    A constant picture is all 255.
    """
    gray = np.asarray(image.convert("L"))
    return np.where(gray > gray.mean(dtype=np.float64), 0, 255).astype(np.uint8)


def resize_planes(image: Image.Image, size: tuple[int, int], mask: bool) -> np.ndarray:
    """Resize to `size` and stack the planes.

    Args:
        image: RGB.
        size: (width, height) in pixels; the aspect ratio is not kept.
        mask: append the text mask of the resized picture as a fourth plane.

    Returns:
        (3, H, W) or (4, H, W) uint8; divided by 255 it is what the networks take.
    """
    image = image.resize(size, Image.Resampling.BICUBIC)
    planes = np.asarray(image).transpose(2, 0, 1)
    if mask:
        planes = np.concatenate([planes, text_mask(image)[None]])
    return np.ascontiguousarray(planes)


def synthetic_lr(image_hr: Image.Image) -> Image.Image:
    """Low-resolution picture of an HR-only data set: bicubic to half its width and height (at least one pixel)."""
    width, height = image_hr.size
    return image_hr.resize((max(1, width // 2), max(1, height // 2)), Image.Resampling.BICUBIC)
