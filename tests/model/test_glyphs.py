"""Drawn words: by hand with characters that are bars, and against Pillow with those of its font."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from model.blocks import glyphs
from model.blocks.glyphs import CHARACTERS, COLUMNS, MARGIN, ROWS, GlyphRenderer, greedy_text


@pytest.fixture(scope="module")
def renderer() -> GlyphRenderer:
    return GlyphRenderer()


def classes_of(*words: str) -> torch.Tensor:
    rows = [[CHARACTERS.index(character) + 1 for character in word] + [0] * (26 - len(word)) for word in words]
    return torch.tensor(rows)


@pytest.fixture
def bars() -> GlyphRenderer:
    """Class 1 is 16 px wide with a black bar from 4 to 12, class 2 is 4 px wide and white; as upper case all black."""
    renderer = GlyphRenderer()
    renderer.atlas.zero_()
    renderer.widths[1:3] = torch.tensor([16.0, 4.0])
    renderer.widths[38:40] = torch.tensor([16.0, 4.0])
    renderer.atlas[1, :, 4:12] = 255
    renderer.atlas[38, :, :16] = 255
    renderer.atlas[39, :, :4] = 255
    return renderer


@pytest.mark.parametrize(
    ("word", "width", "lower"),
    [
        # margin 2, character 16, margin 2: 20 px; the bar is between 6 and 14
        ([1], 20, [0] * 6 + [1] * 8 + [0] * 6),
        ([1], 10, [0] * 3 + [1] * 4 + [0] * 3),
        ([1], 8, [0, 0, 0.6, 1, 1, 0.6, 0, 0]),  # a pixel is 2.5 px wide
        # 24 px: a pixel is 1.5 px wide, the bar is between 10 and 18
        ([2, 1, 0, 0], 16, [0] * 6 + [1 / 3] + [1] * 5 + [0] * 4),
        ([1, 1], 9, [0, 0.5, 1, 0.5, 0, 0.5, 1, 0.5, 0]),  # 36 px: bars at 6-14 and 22-30
    ],
)
def test_bars_by_hand(bars, word, width, lower):
    picture = bars(torch.tensor([word]), (16, width))
    assert picture.shape == (1, 6, 16, width)
    expected = 1 - torch.tensor(lower, dtype=torch.float32)
    torch.testing.assert_close(picture[0, :3], expected.expand(3, 16, -1), atol=1e-5, rtol=0)


def test_upper_case_comes_from_its_own_half(bars):
    picture = bars(torch.tensor([[1, 2]]), (16, 24))[0]  # 24 px: a pixel is a pixel
    expected = torch.tensor([1.0] * 2 + [0.0] * 20 + [1.0] * 2)
    torch.testing.assert_close(picture[3:], expected.expand(3, 16, -1), atol=1e-5, rtol=0)


def test_nothing_is_white_and_lost_ink_is_none(renderer):
    assert torch.equal(renderer(torch.zeros(2, 26, dtype=torch.long), (16, 64)), torch.ones(2, 6, 16, 64))
    words = torch.randint(1, 37, (5, 26), generator=torch.Generator().manual_seed(0))
    words[1, 7:] = 0
    pictures = renderer(words, (ROWS, 64))
    for case, planes in ((0, pictures[:, 0]), (37, pictures[:, 3])):
        length = renderer.widths[words + case].sum(dim=1) + 2 * MARGIN
        ink = (renderer.atlas[words + case].double() / 255).sum(dim=(1, 2, 3))
        drawn = (1 - planes.double()).sum(dim=(1, 2)) * length / 64
        torch.testing.assert_close(drawn, ink, rtol=1e-4, atol=0)


# No ink of the first letters reaches beyond its advance width; W and A get a pixel more room than Pillow gives them.
@pytest.mark.parametrize(
    ("word", "worst", "mean"),
    [("hello", 0.02, 0.01), ("hi2020", 0.02, 0.01), ("0" * 15, 0.02, 0.01), ("w1i", 1, 0.05), ("a", 1, 0.05)],
)
def test_a_word_is_what_pillow_draws(renderer, word, worst, mean):
    picture = renderer(classes_of(word), (16, 64))[0]
    font = ImageFont.load_default(32)
    _, top, _, bottom = font.getbbox(CHARACTERS + CHARACTERS.upper())  # the line, which is centred in 36 rows
    for text, planes in ((word, picture[:3]), (word.upper(), picture[3:])):
        whole = Image.new("L", (round(font.getlength(text)) + 4, 36), 255)
        ImageDraw.Draw(whole).text((2, (36 - (bottom - top)) // 2 - top), text, fill=0, font=font)
        low = whole.resize((whole.width, 16), Image.Resampling.BILINEAR)
        # Exact averages along the row: each pixel 64 times, then one of as many as the word is wide.
        squeezed = low.resize((64 * whole.width, 16), Image.Resampling.NEAREST).reduce((whole.width, 1))
        expected = np.asarray(squeezed, dtype=np.float32) / 255
        assert expected.min() < 0.5
        for plane in planes:
            difference = np.abs(plane.numpy() - expected)
            assert difference.max() < worst  # Pillow rounds between its steps
            assert difference.mean() < mean


def test_cases_differ_where_letters_do(renderer):
    lower, upper = renderer(classes_of("i", "2020"), (16, 64)).split(3, dim=1)
    dot = lower[0, 0, :, 28:34].mean(dim=1)  # the gap beneath the dot is brighter than dot and stem
    assert any(dot[row - 1] + 0.1 < dot[row] > dot[row + 1] + 0.1 for row in range(1, 15))
    column = upper[0, 0, :, 32]
    assert not bool((column.diff().sign().unique_consecutive() != 0).sum() > 2)  # I: dark once from top to bottom
    assert torch.equal(lower[1], upper[1])


def test_a_picture_does_not_depend_on_its_batch(renderer):
    words = classes_of("hello", "", "internationally", "x")
    pictures = renderer(words, (32, 48))
    for index in range(4):
        assert torch.equal(renderer(words[index : index + 1], (32, 48))[0], pictures[index])


def test_the_type_travels_with_the_weights(renderer):
    bold = Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans-Bold.ttf"
    trained, fresh, word = GlyphRenderer(font=bold), GlyphRenderer(), classes_of("stop")
    drawn = trained(word, (16, 64))
    assert float(drawn.mean()) < float(renderer(word, (16, 64)).mean()) - 0.05
    assert torch.equal(fresh(word, (16, 64)), renderer(word, (16, 64)))
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh(word, (16, 64)), drawn)
    assert {key: value.dtype for key, value in fresh.state_dict().items()} == {
        "atlas": torch.uint8,
        "widths": torch.float32,
    }


def test_every_character_has_its_room(renderer):
    assert renderer.atlas.shape == (74, ROWS, COLUMNS)
    empty = [0, 37]
    drawn = [index for index in range(74) if index not in empty]
    assert renderer.widths[empty].tolist() == [0, 0]
    assert not renderer.atlas[empty].any()
    assert renderer.atlas[drawn].flatten(1).any(dim=1).all()
    inside = torch.arange(COLUMNS) < renderer.widths[:, None]
    assert not renderer.atlas.masked_fill(inside[:, None], 0).any()
    for rows in (slice(0, MARGIN), slice(-MARGIN, None)):
        assert not renderer.atlas[:, rows].any()


def test_a_font_that_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr(glyphs, "COLUMNS", 20)
    with pytest.raises(ValueError, match=r"font None: .* room for 36 x 20"):
        GlyphRenderer()
    with pytest.raises(OSError, match=r"nowhere\.ttf|resource"):
        GlyphRenderer(font="nowhere.ttf")


def collapsed(best: list[int]) -> list[int]:
    text, before = [], 0
    for index in best:
        if index not in (0, before):
            text.append(index)
        before = index
    return text + [0] * (len(best) - len(text))


@pytest.mark.parametrize("classes", [2, 3, 37])  # few classes repeat often
def test_greedy_text_equals_a_plain_loop(classes):
    generator = torch.Generator().manual_seed(classes)
    probabilities = torch.rand(40, classes, 1, 26, generator=generator).softmax(dim=1)
    expected = [collapsed(row) for row in probabilities[:, :, 0].argmax(dim=1).tolist()]
    assert greedy_text(probabilities).tolist() == expected


def test_greedy_text_by_hand():
    best = torch.tensor([[5, 5, 0, 5, 6, 6], [0, 0, 0, 0, 0, 1], [1, 2, 3, 4, 5, 6]])
    probabilities = torch.nn.functional.one_hot(best, 37).transpose(1, 2)[:, :, None].float()
    assert greedy_text(probabilities).tolist() == [[5, 5, 6, 0, 0, 0], [1, 0, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6]]
    assert not greedy_text(torch.zeros(2, 37, 1, 26)).any()  # a dropped prior says nothing
    assert not greedy_text(torch.full((2, 37, 1, 26), 1 / 37)).any()
