"""Small deterministic data sets for the tests: words drawn with Pillow's own font. Imports neither torch nor ours."""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path

import lmdb
import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Both cases, digits and punctuation; one is longer than the 15 characters that CTC keeps.
WORDS = (
    *("Hotel", "OPEN", "cafe", "24h", "No.1", "e-mail", "Sale!", "50%", "Bakery&Co", "x", "Strassenbahnhof7", "(exit)"),
    *("Pizza", "MARKT", "rent", "1984", "St.", "to-go", "Yes?", "7/11", "R&B", "Z", "Kindergarten", "#one"),
)  # fmt: skip


def encode(image: Image.Image, picture_format: str = "PNG") -> bytes:
    """The picture as a file of that format."""
    buffer = io.BytesIO()
    image.save(buffer, picture_format)
    return buffer.getvalue()


def word_picture(number: int) -> Image.Image:
    """An RGB picture of `WORDS[number]`, of its own size and colours."""
    word, rng = WORDS[number % len(WORDS)], np.random.default_rng(number)
    height = 24 + 2 * (number % 5)
    width = 16 + 12 * len(word) + 2 * (number % 3)
    paper, ink = (tuple(int(value) for value in rng.integers(*ends, 3)) for ends in ((150, 256), (0, 100)))
    image = Image.new("RGB", (width, height), paper)
    ImageDraw.Draw(image).text((6, 3), word, fill=ink, font=ImageFont.load_default(18))
    return image


def word_pair(number: int) -> tuple[bytes, bytes, str]:
    """(HR file, LR file, label) number `number`; the HR is a JPEG, the LR a PNG of half its size."""
    image = word_picture(number)
    small = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    return encode(image, "JPEG"), encode(small), WORDS[number % len(WORDS)]


def entries_of(pairs: Iterable[tuple[bytes, bytes | None, str]]) -> dict[str, bytes]:
    """The keys and values of a TextZoom LMDB with these (HR, LR, label)."""
    entries: dict[str, bytes] = {}
    for number, (hr, lr, label) in enumerate(pairs, start=1):
        entries |= {f"image_hr-{number:09d}": hr, f"label-{number:09d}": label.encode()}
        if lr is not None:
            entries[f"image_lr-{number:09d}"] = lr
    return {**entries, "num-samples": str(len([key for key in entries if key.startswith("label")])).encode()}


def write_entries(path: Path, entries: Mapping[str, bytes]) -> Path:
    """Write any keys and values as an LMDB, without our own writer."""
    path.mkdir(parents=True)
    env = lmdb.open(str(path), map_size=1 << 24)
    with env.begin(write=True) as transaction:
        for key, value in entries.items():
            transaction.put(key.encode(), value)
    env.close()
    return path


def write_pairs(path: Path, numbers: Iterable[int]) -> Path:
    """A TextZoom LMDB of the word pairs with these numbers."""
    return write_entries(path, entries_of(word_pair(number) for number in numbers))
