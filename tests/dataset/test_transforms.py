import random

import numpy as np
import pytest
from PIL import Image

from dataset.transforms import decode_image, resize_planes, synthetic_lr, text_mask
from tests.dataset.pictures import encode, word_picture


def gray(rows):
    return Image.fromarray(np.array(rows, dtype=np.uint8)).convert("RGB")


def test_mask_is_255_where_a_pixel_is_not_brighter_than_the_mean():
    assert text_mask(gray([[0, 100, 200]])).tolist() == [[255, 255, 0]]  # 100 is the mean: a tie is dark
    assert text_mask(gray([[0, 101, 200]])).tolist() == [[255, 0, 0]]  # the mean is 100.33


@pytest.mark.parametrize("value", [0, 1, 127, 255])
def test_mask_of_a_constant_picture_is_all_255(value):
    assert (text_mask(Image.new("RGB", (31, 7), (value,) * 3)) == 255).all()


def test_mask_marks_the_dark_word():
    image = word_picture(0)
    pixels = np.asarray(image.convert("L"))
    mask = text_mask(image)
    assert mask.shape == pixels.shape
    assert pixels[mask == 255].max() <= pixels.mean() < pixels[mask == 0].min()


def test_planes_are_pillows_bicubic_and_the_mask_of_the_resized_picture():
    image = word_picture(3)
    small = image.resize((64, 16), Image.Resampling.BICUBIC)
    planes = resize_planes(image, (64, 16), mask=True)
    assert planes.dtype == np.uint8
    assert planes.flags.c_contiguous
    assert planes.shape == (4, 16, 64)
    assert (planes[:3].transpose(1, 2, 0) == np.asarray(small)).all()
    assert (planes[3] == text_mask(small)).all()
    assert (resize_planes(image, (64, 16), mask=False) == planes[:3]).all()


def test_planes_of_a_picture_of_the_right_size_are_its_pixels():
    image = word_picture(1).resize((128, 32))
    assert (resize_planes(image, (128, 32), mask=False).transpose(1, 2, 0) == np.asarray(image)).all()


@pytest.mark.parametrize(
    ("size", "half"), [((40, 20), (20, 10)), ((41, 21), (20, 10)), ((1, 9), (1, 4)), ((1, 1), (1, 1))]
)
def test_synthetic_lr_halves_and_keeps_a_pixel(size, half):
    image = word_picture(2).resize(size)
    low = synthetic_lr(image)
    assert low.size == half
    assert (np.asarray(low) == np.asarray(image.resize(half, Image.Resampling.BICUBIC))).all()


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "I;16", "CMYK"])
def test_every_mode_becomes_rgb(mode):
    picture = (
        word_picture(4).convert("L").convert("I").convert("I;16") if mode == "I;16" else word_picture(4).convert(mode)
    )
    decoded = decode_image(encode(picture, "TIFF" if mode == "CMYK" else "PNG"))
    assert decoded.mode == "RGB"
    assert decoded.size == picture.size


def test_alpha_is_dropped_not_blended():
    picture = Image.new("RGBA", (4, 3), (200, 100, 50, 0))
    assert (np.asarray(decode_image(encode(picture))) == [200, 100, 50]).all()


@pytest.mark.parametrize(
    "data", [b"", b"no picture", encode(word_picture(0), "JPEG")[:300], encode(word_picture(0))[:-40]]
)
def test_unreadable_bytes_raise_what_readers_expect(data):
    with pytest.raises((OSError, ValueError)) as caught:
        decode_image(data)
    assert "object at 0x" not in str(caught.value)


def test_a_decompression_bomb_is_refused(monkeypatch):
    data = encode(word_picture(0))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match="DecompressionBombError"):
        decode_image(data)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("picture_format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "PPM"])
def test_damaged_files_never_raise_anything_else(picture_format):
    try:
        whole = encode(word_picture(5), picture_format)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow cannot write {picture_format}")
    generator = random.Random(picture_format)
    for _ in range(80):
        data = bytearray(whole)
        for _ in range(generator.choice([1, 2, 5])):
            data[generator.randrange(min(len(data), generator.choice([30, 300, 10**6])))] = generator.randrange(256)
        if generator.random() < 0.3:
            del data[generator.randrange(len(data)) :]
        try:
            image = decode_image(bytes(data))
        except (OSError, ValueError):
            continue
        assert image.mode == "RGB"
