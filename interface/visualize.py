"""Pictures of results: strips of LR, SR and HR with the texts read in them, contact sheets, safe file names.

Everything here takes and gives uint8 RGB arrays of shape (H, W, 3) and needs only numpy and Pillow; `to_uint8` is the
one door from tensors. Enlarging is Pillow's bicubic (a = -0.5), where the published visualisation used OpenCV's
(a = -0.75): good for looking, never for measuring.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from torch import Tensor

CAPTION_HEIGHT = 16  # pixels below a picture for one line of text
BACKGROUND = 128  # gray between the pictures of a sheet: neither the paper nor the ink of most signs


def to_uint8(images: Tensor) -> np.ndarray:
    """Turn a batch of images into pixels.

    Args:
        images: (N, C, H, W) with C >= 3, nominally in [0, 1]; channels after RGB (a text mask) are dropped, values
            outside are clamped, NaN becomes black.

    Returns:
        (N, H, W, 3) uint8, rounded to the nearest level.

    Raises:
        ValueError: if the shape is another one.
    """
    if images.ndim != 4 or images.shape[1] < 3:
        raise ValueError(f"expected images of shape (N, >=3, H, W), got {tuple(images.shape)}")
    rgb = images.detach()[:, :3].float().nan_to_num(nan=0.0).clamp(0, 1).mul(255).round()
    return rgb.permute(0, 2, 3, 1).cpu().numpy().astype(np.uint8)


def enlarge(image: np.ndarray, *, height: int, width: int, pixelated: bool = False) -> np.ndarray:
    """Resize (H, W, 3) uint8 to (height, width, 3): bicubic, or the nearest pixel so that the original pixels show."""
    _check(image)
    if image.shape[:2] == (height, width):
        return image
    method = Image.Resampling.NEAREST if pixelated else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(image).resize((width, height), method))


def strip(
    images: Sequence[np.ndarray],
    *,
    height: int = 32,
    width: int = 128,
    texts: Sequence[str] | None = None,
    across: bool = False,
) -> np.ndarray:
    """Put versions of one image together, as the published `--vis` does with LR, SR and HR.

    Args:
        images: uint8 arrays (H, W, 3) of any sizes, at least one.
        height: height of each picture, in pixels.
        width: width of each picture, in pixels.
        texts: what was read in each picture, written below it on a line of its own; too long a text is cut.
        across: side by side instead of stacked.

    Returns:
        uint8 (K * h, width, 3) stacked or (h, K * width, 3) across, with h = height, plus CAPTION_HEIGHT with texts.

    Raises:
        ValueError: if there is no image, or not one text per image.
    """
    if not images:
        raise ValueError("a strip needs at least one image")
    if texts is not None and len(texts) != len(images):
        raise ValueError(f"{len(texts)} texts for {len(images)} images; give one text per image")
    parts = [enlarge(image, height=height, width=width) for image in images]
    if texts is not None:
        parts = [np.concatenate([part, _caption(text, width)]) for part, text in zip(parts, texts, strict=True)]
    return np.concatenate(parts, axis=1 if across else 0)


def grid(pictures: Sequence[np.ndarray], *, columns: int = 4, gap: int = 4) -> np.ndarray:
    """Lay pictures out on a contact sheet, row by row (TensorBoard: `add_image(tag, sheet, step, dataformats="HWC")`).

    Args:
        pictures: uint8 arrays (H, W, 3), at least one; smaller ones sit at the upper left of their place.
        columns: pictures per row.
        gap: gray pixels between the pictures and around them.

    Returns:
        uint8 (H, W, 3).

    Raises:
        ValueError: if there is no picture or no column.
    """
    if not pictures or columns < 1:
        raise ValueError(f"a sheet needs at least one picture and one column, got {len(pictures)} and {columns}")
    for picture in pictures:
        _check(picture)
    columns = min(columns, len(pictures))
    step_y = max(picture.shape[0] for picture in pictures) + gap
    step_x = max(picture.shape[1] for picture in pictures) + gap
    rows = math.ceil(len(pictures) / columns)
    sheet = np.full((rows * step_y + gap, columns * step_x + gap, 3), BACKGROUND, np.uint8)
    for place, picture in enumerate(pictures):
        top, left = gap + place // columns * step_y, gap + place % columns * step_x
        sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return sheet


def png_bytes(image: np.ndarray) -> bytes:
    """Encode (H, W, 3) uint8 as a PNG file, without loss."""
    _check(image)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def save_png(path: Path, image: np.ndarray) -> None:
    """Write (H, W, 3) uint8 to a PNG file and make the folders on the way to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png_bytes(image))


def safe_name(number: int, label: str, *, limit: int = 120) -> str:
    """Name a file after an image: `<number>_<label>`, without extension.

    Letters and digits of every script stay, and so do `-`, `_` and `.`; every other character is percent-escaped like
    in an address (`a/b` -> `a%2Fb`), so that the label can be read back from any name that was not cut.

    Args:
        number: the position of the image; it keeps equal labels apart.
        label: any text.
        limit: longest label part in bytes; file systems allow 255 for the whole name. What is longer is cut between
            characters.
    """
    name = ""
    for character in label:
        keep = character.isalnum() or character in "-_."
        piece = character if keep else "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
        if len((name + piece).encode()) > limit:
            break
        name += piece
    return f"{number}_{name}"


def _caption(text: str, width: int) -> np.ndarray:
    """One line of black text on white, uint8 (CAPTION_HEIGHT, width, 3)."""
    line = Image.new("RGB", (width, CAPTION_HEIGHT), "white")
    font = ImageFont.load_default(size=CAPTION_HEIGHT - 4)
    ImageDraw.Draw(line).text((3, CAPTION_HEIGHT // 2), " ".join(text.split()), fill="black", font=font, anchor="lm")
    return np.asarray(line)


def _check(image: np.ndarray) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected a uint8 image of shape (H, W, 3), got {image.dtype} {image.shape}; see to_uint8")
