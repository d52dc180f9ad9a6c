import numpy as np
import pytest
import torch
from PIL import Image

from interface.visualize import CAPTION_HEIGHT, enlarge, grid, png_bytes, safe_name, save_png, strip, to_uint8


def flat(height, width, colour):
    return np.full((height, width, 3), colour, np.uint8)


def test_to_uint8_clamps_rounds_and_drops_the_mask():
    images = torch.zeros(1, 4, 1, 2)
    images[0, :, 0, 0] = torch.tensor([-0.3, 1.7, 0.5, 1.0])  # 127.5 rounds to even
    images[0, :, 0, 1] = torch.tensor([100.4 / 255, 100.6 / 255, float("nan"), 0.0])
    pixels = to_uint8(images)
    assert pixels.shape == (1, 1, 2, 3) and pixels.dtype == np.uint8
    assert pixels[0, 0].tolist() == [[0, 255, 128], [100, 101, 0]]


def test_to_uint8_undoes_the_division_by_255():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert np.array_equal(to_uint8(levels / 255)[0, :, :, 0], levels[0, 0].numpy())


@pytest.mark.parametrize("shape", [(3, 4, 4), (1, 2, 4, 4)])
def test_to_uint8_names_the_wrong_shape(shape):
    with pytest.raises(ValueError, match="got"):
        to_uint8(torch.zeros(shape))


def test_strip_stacks_and_enlarges_like_the_published_one():
    picture = strip([flat(16, 64, 10), flat(32, 128, 20), flat(32, 128, 30)])
    assert picture.shape == (96, 128, 3) and picture.dtype == np.uint8
    assert [int(picture[y].min()) for y in (0, 40, 95)] == [10, 20, 30]
    assert [int(picture[y].max()) for y in (31, 63, 64)] == [10, 20, 30]


def test_strip_across():
    picture = strip([flat(16, 64, 10), flat(32, 128, 20)], across=True)
    assert picture.shape == (32, 256, 3)
    assert (picture[0, 0, 0], picture[0, 255, 0]) == (10, 20)


def test_strip_writes_each_text_below_its_picture():
    picture = strip([flat(32, 128, 50), flat(32, 128, 60)], texts=["abc", ""])
    height = 32 + CAPTION_HEIGHT
    assert picture.shape == (2 * height, 128, 3)
    assert (picture[:32] == 50).all() and (picture[height : height + 32] == 60).all()
    assert picture[32:height].min() < 100  # ink
    assert (picture[height + 32 :] == 255).all()  # an empty text leaves the paper white


def test_strip_takes_any_text():
    strip([flat(8, 8, 0)], texts=["<b>&\n漢字 \u202e عربى " + "x" * 500])


def test_strip_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="at least one"):
        strip([])
    with pytest.raises(ValueError, match="2 texts for 1 images"):
        strip([flat(8, 8, 0)], texts=["a", "b"])
    with pytest.raises(ValueError, match="uint8"):
        strip([np.zeros((8, 8, 3), np.float32)])


def test_nearest_pixel_enlarging_repeats_pixels():
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    assert np.array_equal(enlarge(image, height=4, width=6, pixelated=True), image.repeat(2, 0).repeat(2, 1))


def test_grid_places_row_by_row():
    sheet = grid([flat(2, 3, 10), flat(2, 3, 20), flat(1, 3, 30)], columns=2, gap=1)
    assert sheet.shape == (2 * 3 + 1, 2 * 4 + 1, 3)
    assert sheet[:, :, 0].tolist() == [
        [128] * 9,
        [128, 10, 10, 10, 128, 20, 20, 20, 128],
        [128, 10, 10, 10, 128, 20, 20, 20, 128],
        [128] * 9,
        [128, 30, 30, 30, 128, 128, 128, 128, 128],
        [128] * 9,
        [128] * 9,
    ]
    assert grid([flat(2, 3, 10)], columns=8, gap=0).shape == (2, 3, 3)
    with pytest.raises(ValueError, match="at least one picture"):
        grid([])


def test_png_keeps_every_pixel(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    save_png(tmp_path / "deep" / "x.png", image[:, ::-1])
    assert np.array_equal(np.asarray(Image.open(tmp_path / "deep" / "x.png")), image[:, ::-1])
    assert png_bytes(image).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("Hotel", "7_Hotel"),
        ("a/b", "7_a%2Fb"),
        ("../x", "7_..%2Fx"),
        ("50% off", "7_50%25%20off"),
        ('<>:"\\|?*\0\n', "7_%3C%3E%3A%22%5C%7C%3F%2A%00%0A"),
        ("café漢", "7_café漢"),
        ("€", "7_%E2%82%AC"),
        ("", "7_"),
    ],
)
def test_safe_names(label, name):
    assert safe_name(7, label) == name


def test_safe_name_cuts_between_characters():
    assert safe_name(1, "/" * 100, limit=10) == "1_%2F%2F%2F"
    assert len(safe_name(1, "漢" * 200).encode()) <= 122


def test_a_safe_name_is_a_file(tmp_path):
    path = tmp_path / f"{safe_name(3, 'a/b' + chr(0) + '漢?' * 100)}.png"
    save_png(path, flat(2, 2, 1))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
