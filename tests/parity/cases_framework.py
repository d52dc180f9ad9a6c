"""Data, labels and schedule: the `framework` cases that need no network, and the learning-rate trace of `rtsrn`."""

import io
import tempfile
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image

from dataset.charset import encode_ctc, filter_text, one_hot_labels
from dataset.loading import LoaderSpec, collate
from dataset.synthtext import split_words, without_punctuation, word_box
from dataset.textzoom import TextZoomWriter
from dataset.transforms import resize_planes
from interface.optim import release_learning_rate
from tests.parity.vectors import Case, handles


@handles("framework/strfilt")
def check_filter(case: Case) -> None:
    words = [str(word) for word in case.inputs["words"]]
    for voc_type in ("digit", "lower", "upper", "all", "chinese"):
        assert [filter_text(word, voc_type) for word in words] == case.outputs[voc_type].tolist(), voc_type
    normalized = [filter_text(word, "upper").lower() for word in words]  # ASTER's order: filter, then lower
    assert normalized == case.outputs["normalize_text"].tolist()


def _picture(data: np.ndarray) -> Image.Image:
    return Image.open(io.BytesIO(data.tobytes())).convert("RGB")


def assert_pixels(actual: np.ndarray, expected: np.ndarray, what: str = "") -> None:
    """Equal (..., planes, H, W) of 0 to 255.

    The cases were made with Pillow 13. Earlier versions resize otherwise, a fifth of all values by 1 and some by more.
    """
    exact = int(PIL.__version__.split(".")[0]) >= 13
    apart = np.abs(actual.astype(np.int64) - expected.astype(np.int64))
    mask = apart[..., 3:, :, :]  # empty without
    assert apart[..., :3, :, :].mean() <= (0 if exact else 0.5), what
    assert (mask > 0).sum() <= (0 if exact else 0.01 * mask.size), what


@handles("framework/resize_mask", "rtsrn/resize_mask")
def check_resize_and_mask(case: Case) -> None:
    if "rgb" in case.inputs:
        expected = case.outputs["tensor4"]
        planes = resize_planes(Image.fromarray(case.inputs["rgb"]), expected.shape[:0:-1], mask=True)
        assert_pixels(planes, np.rint(expected * 255))
        return
    pictures = [array for name, array in sorted(case.inputs.items()) if name.startswith("png_")]
    outputs = [array for name, array in case.outputs.items() if name.startswith("out_")]
    for picture, expected in zip(pictures, outputs, strict=True):
        planes = resize_planes(_picture(picture), expected.shape[:0:-1], mask=True)
        assert_pixels(planes, expected)
    flat = case.outputs["flat_image_128x32"]
    colour = tuple(int(value) for value in flat[:3, 0, 0])
    planes = resize_planes(Image.new("RGB", (128, 32), colour), (128, 32), mask=True)
    assert np.array_equal(planes[:, : flat.shape[1], : flat.shape[2]], flat)


@handles("framework/collate")
def check_collate(case: Case) -> None:
    labels = [str(label) for label in case.inputs["labels"]]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "set"
        with TextZoomWriter(path) as writer:
            for number, label in enumerate(labels):
                hr, lr = (case.inputs[f"{kind}_{number}"].tobytes() for kind in ("hr", "lr"))
                writer.add(hr=hr, lr=lr, label=label)
        for mask in (True, False):
            pairs = LoaderSpec(mask=mask).pairs([path])
            batch = collate(pairs.__getitems__(range(len(labels))))
            planes = 4 if mask else 3
            for images, name in ((batch.images_hr, "train_hr_u8"), (batch.images_lr, "train_lr_u8")):
                expected = torch.from_numpy(case.outputs[name][:, :planes]).float() / 255
                assert_pixels(np.rint(images.numpy() * 255), np.rint(expected.numpy() * 255), name)
            assert batch.labels == case.outputs["label_str"].tolist() == case.outputs["train_label_strs"].tolist()
        source = pairs.sources[0]
        pictures = [source.images(source.raw(index)) for index in range(len(labels))]
    sums = [[int(np.asarray(image).sum()) for image in pair] for pair in pictures]
    assert sums == case.outputs["decoded_sum"].tolist()
    assert [[*pair[0].size, *pair[1].size] for pair in pictures] == case.outputs["decoded_size"].tolist()
    targets = encode_ctc(batch.labels, hyphen="blank")
    assert targets.targets.tolist() == case.outputs["train_weighted_masks"].tolist()
    assert targets.valid.tolist() == case.outputs["train_weighted_tics"].tolist()
    assert targets.lengths.tolist() == case.outputs["train_text_len"].tolist()
    rows = one_hot_labels(batch.labels, hyphen="blank").numpy()
    assert np.array_equal(rows, case.outputs["train_label_vecs"])


@handles("framework/corrupt_sample")
def check_corrupt_samples(case: Case) -> None:
    labels, bad = [str(label) for label in case.inputs["labels"]], set(case.inputs["bad_zero_based"].tolist())
    data = io.BytesIO()
    Image.new("RGB", (16, 8), (200, 30, 30)).save(data, "PNG")
    picture = data.getvalue()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "set"
        with TextZoomWriter(path) as writer:
            for number, label in enumerate(labels):
                writer.add(hr=picture, lr=b"no picture" if number in bad else picture, label=label)
        published, skipping = (LoaderSpec(corrupt=way).pairs([path]) for way in ("published", "skip"))
        samples = published.__getitems__(range(len(labels)))
        batch = collate(skipping.__getitems__(range(len(labels))))
    assert [sample.label for sample in samples] == case.outputs["returned_label"].tolist()
    assert batch.labels == [label for number, label in enumerate(labels) if number not in bad]
    assert {skipped.index for skipped in batch.skipped} == bad


@handles("framework/crop_rule")
def check_crops(case: Case) -> None:
    height, width = case.inputs["image_hw"].tolist()
    boxes = [word_box(corners, height, width) for corners in np.moveaxis(case.inputs["wordBB"], 2, 0)]
    expected = case.outputs["crop_x0_x1_y0_y1"]
    assert [(box.left, box.right, box.top, box.bottom) for box in boxes] == [tuple(row) for row in expected.tolist()]
    words = split_words(str(text) for text in case.inputs["txt"])
    assert words == case.outputs["labels"].tolist()
    assert [without_punctuation(word) for word in words] == case.outputs["file_name_labels"].tolist()


@handles("framework/lr_schedule", "rtsrn/lr_trace")
def check_learning_rate(case: Case) -> None:
    meta = case.meta
    peak = meta.get("lr", meta.get("base"))
    steps = meta.get("iterations_per_epoch", meta.get("iters_per_epoch"))
    settings = {"peak": peak, "samples": meta.get("samples", meta.get("n_data")), "steps_per_epoch": steps}
    expected = case.outputs["lr_at_epoch_end"] if "lr_at_epoch_end" in case.outputs else case.outputs["used"]
    trace = [release_learning_rate((epoch + 1) * steps - 1, **settings) for epoch in range(len(expected))]
    np.testing.assert_allclose(trace, expected, rtol=1e-9, atol=1e-15)
    first = case.outputs.get("lr_first_iterations")
    if first is not None:  # its first value is that before any step
        np.testing.assert_allclose(
            [release_learning_rate(step, **settings) for step in range(len(first) - 1)], first[1:], rtol=1e-12
        )
