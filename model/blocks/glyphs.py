"""Text drawn as a picture: the visual clue of C3-STISR.

Paper: https://arxiv.org/abs/2204.14044. The published code holds, but never calls, a Pillow program that draws word by
word: bold type of 32 px, black on white, a margin of 2 px, squeezed to the size of the LR image, in lower and in upper
case. Here all characters are drawn once and the words of a batch are put together by tensor operations on its device.
Differences: the type is Pillow's own and not bold, because the published font file is not public; all words have the
same base line; pixels are exact averages along the row.
"""

import string
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

CHARACTERS = string.digits + string.ascii_lowercase  # classes 1, 2, ...; class 0 is no character
FONT_SIZE, MARGIN = 32, 2  # pixels, as published
ROWS, COLUMNS = 36, 48  # room of one character: a line of 32 px type with its margins, and a wide W


def greedy_text(probabilities: Tensor) -> Tensor:
    """Best text of CTC class probabilities, the blank being class 0.

    Args:
        probabilities: (N, K, 1, T). If all classes of a column are equal, as in a prior of zeros, it is a blank.

    Returns:
        (N, T) int64: the classes of the text from the left, then zeros.
    """
    best = probabilities.squeeze(2).argmax(dim=1)  # the first of equal classes, which is the blank
    kept = best != 0
    kept[:, 1:] &= best[:, 1:] != best[:, :-1]
    columns = best.shape[1]
    place = torch.where(kept, kept.cumsum(dim=1) - 1, columns)  # what is dropped goes to one more column
    text = best.new_zeros(len(best), columns + 1).scatter(1, place, best)
    return text[:, :columns]


class GlyphRenderer(nn.Module):
    """Words (N, T) -> pictures (N, 6, H, W) in [0, 1], black on white: lower case in RGB, then upper case in RGB.

    A word is a row of classes: 1..10 are digits, 11..36 letters, 0 (at the end) nothing. It fills the width of its
    picture, so a short word has wide letters. The drawn characters are part of the state dict: another version of
    Pillow or FreeType draws other pixels, and a network should go on reading the type it was trained with.

    Args:
        font: TrueType or OpenType file; None is the font within Pillow (Aileron).

    Raises:
        ValueError: the characters of the font need more room than the atlas has.
        OSError: the font cannot be read.
    """

    constant_buffers = ("atlas", "widths")
    atlas: Tensor
    widths: Tensor

    def __init__(self, *, font: str | Path | None = None) -> None:
        super().__init__()
        atlas, widths = _draw_characters(font)
        self.register_buffer("atlas", atlas)  # (74, ROWS, COLUMNS) uint8, 255 is black: nothing, 0-9, a-z twice
        self.register_buffer("widths", widths)  # (74,) float32 pixels

    def forward(self, words: Tensor, size: tuple[int, int]) -> Tensor:
        """Draw `words` as pictures of `size` (H, W).

        The ink between two points of a line is the difference of how much there is left of them. So only the ink left
        of each edge between pixels is looked up, and their differences are exact averages.
        """
        height, width = size
        ink = self._ink(height)
        glyphs = torch.stack([words, words + len(self.atlas) // 2], dim=1)  # (N, 2, T)
        advance = self.widths[glyphs]
        ends = advance.cumsum(dim=2)
        length = ends[..., -1:] + 2 * MARGIN
        edges = torch.arange(width + 1, device=words.device) * (length / width) - MARGIN  # (N, 2, W + 1) of the line

        at = torch.searchsorted(ends, edges, right=True).clamp(max=words.shape[1] - 1)  # the character at an edge
        glyph, start = glyphs.gather(2, at), (ends - advance).gather(2, at)
        inside = (edges - start).clamp(0, COLUMNS)
        column = inside.long().clamp(max=COLUMNS - 1)
        within = torch.lerp(ink[glyph, column], ink[glyph, column + 1], (inside - column)[..., None])
        whole = ink[glyphs, -1]  # (N, 2, T, H)
        before = (whole.cumsum(dim=2) - whole).gather(2, at[..., None].expand(-1, -1, -1, height))
        share = (before + within).diff(dim=2) / (length / width)[..., None]  # (N, 2, W, H) of each pixel
        return (1 - share.clamp(0, 1)).transpose(2, 3).repeat_interleave(3, dim=1)

    def _ink(self, height: int) -> Tensor:
        """(74, COLUMNS + 1, height): how much ink each row of a character has left of each column."""
        characters = self.atlas[:, None].float() / 255
        rows = F.interpolate(characters, (height, COLUMNS), mode="bilinear", antialias=True)[:, 0]
        return F.pad(rows.cumsum(dim=2), (1, 0)).transpose(1, 2)


def _draw_characters(path: str | Path | None) -> tuple[Tensor, Tensor]:
    """Pictures (74, ROWS, COLUMNS) uint8 and widths (74,) of nothing and all characters, in lower and in upper case."""
    font = ImageFont.load_default(FONT_SIZE) if path is None else ImageFont.truetype(str(path), FONT_SIZE)
    characters = ["", *CHARACTERS, "", *CHARACTERS.upper()]
    boxes = [font.getbbox(character) for character in characters]  # left, top, right, bottom of the ink
    inked = [box for box, character in zip(boxes, characters, strict=True) if character]
    top, bottom = min(box[1] for box in inked), max(box[3] for box in inked)
    # Where ink reaches beyond the advance width, the character gets as much more room.
    lengths = [font.getlength(character) for character in characters]
    widths = [max(length, box[2]) - min(0, box[0]) for length, box in zip(lengths, boxes, strict=True)]
    if bottom - top > ROWS or max(widths) > COLUMNS:
        raise ValueError(
            f"font {path}: its characters at {FONT_SIZE} px are up to {bottom - top:g} high and {max(widths):g} wide, "
            f"but there is room for {ROWS} x {COLUMNS}; use a font that is less tall or wide"
        )
    atlas = torch.zeros(len(characters), ROWS, COLUMNS, dtype=torch.uint8, device="cpu")
    above = (ROWS - (bottom - top)) // 2
    for index, (character, box) in enumerate(zip(characters, boxes, strict=True)):
        cell = Image.new("L", (COLUMNS, ROWS))
        ImageDraw.Draw(cell).text((-min(0, box[0]), above - top), character, fill=255, font=font)
        atlas[index] = torch.frombuffer(bytearray(cell.tobytes()), dtype=torch.uint8).view(ROWS, COLUMNS)
    return atlas, torch.tensor(widths, dtype=torch.float32, device="cpu")
