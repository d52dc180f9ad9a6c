import pytest
import torch

from loss.stroke_focus import STROKES, StrokeFocus, as_focus_state, encode_strokes, stroke_transformer
from loss.weighted_ce import IGNORED
from model.recognizer.focus_transformer import FocusTransformer


def small_recognizer() -> FocusTransformer:
    torch.manual_seed(0)
    return FocusTransformer(widths=(4, 4, 8, 8, 16), blocks=(1, 1), heads=4, charset="123456789")


def images(seed: int, planes: int = 3) -> torch.Tensor:
    return torch.rand(2, planes, 16, 32, generator=torch.Generator().manual_seed(seed))


def test_every_letter_and_digit_has_strokes():
    assert len(STROKES) == 62
    assert all(set(strokes) <= set("123456789") and strokes for strokes in STROKES.values())
    assert (STROKES["M"], STROKES["m"], STROKES["0"], STROKES["8"]) == ("2432", "66", "89", "8989")


def test_labels_as_strokes():
    encoded = encode_strokes(["Al-1", ""])
    assert encoded.inputs.tolist() == [[0, 3, 4, 1, 2, 2], [0, 0, 0, 0, 0, 0]]
    no = IGNORED
    assert encoded.targets.tolist() == [[3, 4, 1, 2, 2, 0], [0, no, no, no, no, no]]
    assert encoded.lengths.tolist() == [6, 1]
    assert encode_strokes(["x"], length=9).inputs.shape == (1, 9)
    assert encode_strokes(["x"], strokes={"x": "7"}).inputs.tolist() == [[0, 7]]
    with pytest.raises(ValueError, match="one label per image"):
        encode_strokes([])


def test_the_loss_is_the_distance_of_the_maps():
    focus = StrokeFocus(small_recognizer())
    sr, hr, labels = images(1), images(2, planes=4), ["Ab", "x"]
    targets = encode_strokes(labels)
    maps = [focus.read(side, targets.inputs)[1] for side in (sr, hr)]
    terms = focus(sr, hr[:, :3], labels)
    assert list(terms) == ["attention"]
    torch.testing.assert_close(terms["attention"], (maps[0] - maps[1]).abs().mean())
    kept = focus.attention_targets(hr, targets)
    assert torch.equal(focus(sr, None, targets, attention_hr=kept)["attention"], terms["attention"])
    assert focus(hr, hr, labels)["attention"] == 0


def test_gradients_reach_the_image_and_not_the_recognizer():
    focus = StrokeFocus(small_recognizer()).train()
    assert not focus.recognizer.training
    sr = images(1).requires_grad_()
    focus(sr, images(2), ["Ab", "x"])["attention"].backward()
    assert sr.grad.abs().sum() > 0
    assert all(value.grad is None for value in focus.parameters())


def test_keys_of_the_published_file():
    with torch.device("meta"):
        network = stroke_transformer()
    assert sum(value.numel() for value in network.parameters()) == 62_273_452 - 2 * (16 + 1)  # less what is never used
    ours = dict.fromkeys(network.state_dict())
    theirs = {
        key.replace("embedding_word.", "embedding_word_with_upperword.").replace(
            "generator_word.", "generator_word_with_upperword."
        )
        for key in ours
    }
    assert len(theirs - set(ours)) == 3
    assert set(as_focus_state(dict.fromkeys(theirs))) == set(ours)


def test_what_is_missing_is_said():
    focus = StrokeFocus(small_recognizer())
    with pytest.raises(ValueError, match="HR images or their kept attention"):
        focus(images(1), None, ["a", "b"])
    with pytest.raises(ValueError, match="1 labels for 2 images"):
        focus(images(1), images(2), ["a"])
