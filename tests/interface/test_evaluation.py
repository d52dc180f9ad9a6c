import json
import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dataset.loading import LoaderSpec, build_loader
from interface import evaluation
from interface.alignment import distance
from interface.config import load_settings
from interface.evaluation import Evaluator, Split, averages, selection_score, stage_rows
from interface.metrics import batch_psnr, is_correct
from interface.readers import Reader, ReadingCache, build_readers
from interface.systems import build_system
from interface.systems.base import System
from model.bicubic import enlarge
from tests.dataset.pictures import WORDS
from tests.interface.helpers import LIGHT, Reads, tensors_of, write_damaged

CPU = torch.device("cpu")
FIXED = ("lr", "bicubic", "hr")


class Sharpen(System):
    """Two stages: enlarged, and enlarged with an offset; with a dropout that must be off."""

    stages = 2

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def cascade(self, images_lr: Tensor) -> list[Tensor]:
        assert not self.training
        assert torch.is_inference_mode_enabled()
        first = self.dropout(enlarge(images_lr))
        return [first, first + 0.1]


class Counting(Reads):
    """A recogniser whose reading is a number made of the picture."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def read(self, images: Tensor) -> list[str]:
        self.shapes.append(tuple(images.shape))
        return [str(int(1e6 * image[:3].double().mean().abs())) for image in images]


def counting(fingerprint="COUNT-1", name="COUNT") -> Any:
    recognizer: Any = Counting()
    return Reader(name, recognizer, fingerprint, "counts")


def split(path, **options):
    spec = LoaderSpec(**{"batch_size": 4, **options})
    pairs = spec.pairs([path])
    return Split(path.name, str(path), build_loader(pairs, spec, train=False), pairs.fingerprint())


def evaluate(path, reader=None, cache=None, **options):
    evaluator = Evaluator([reader or counting()], CPU, cache or ReadingCache(None), bootstrap_samples=50)
    return evaluator.run(Sharpen().train(), split(path, **options))


def test_the_numbers_of_a_small_set_by_hand(tiny_dir):
    reader = counting()
    found = evaluate(tiny_dir / "train", reader)
    assert found["images"] == 12
    assert found["skipped"] == 0
    images = found["per_image"]
    assert images["index"] == list(range(12))
    assert images["label"][:3] == list(WORDS[:3])
    assert images["target"][3:6] == ["24h", "no1", "email"]
    assert list(images["readings"]["COUNT"]) == ["lr", "bicubic", "sr_1", "sr_2", "hr"]
    assert list(found["psnr"]) == ["bicubic", "sr_1", "sr_2"]
    assert images["psnr"]["bicubic"] == images["psnr"]["sr_1"]
    assert found["psnr"]["sr_2"]["value"] == pytest.approx(sum(images["psnr"]["sr_2"]) / 12)
    assert found["psnr"]["sr_2"]["value"] != found["psnr"]["sr_1"]["value"]
    for row, entry in found["accuracy"]["COUNT"].items():
        texts = images["readings"]["COUNT"][row]
        hits = sum(is_correct(text, label) for text, label in zip(texts, images["label"], strict=True))
        assert (entry["correct"], entry["value"]) == (hits, hits / 12)


def test_accuracy_counts_what_is_read(tiny_dir):
    class Knows(Reads):
        def read(self, images):
            return [f"{word}!" if k % 2 else "wrong" for k, word in enumerate(WORDS[: len(images)])]

    knows: Any = Knows()
    reader = Reader("KNOWS", knows, "KNOWS-1", "")
    found = evaluate(tiny_dir / "train", reader, batch_size=12)
    assert found["accuracy"]["KNOWS"]["sr_2"]["correct"] == 6
    assert found["accuracy"]["KNOWS"]["sr_2"]["value"] == 0.5
    images = found["per_image"]
    close = [1.0 if k % 2 else 1 - distance(target, "wrong") for k, target in enumerate(images["target"])]
    assert images["character_accuracy"]["KNOWS"]["sr_2"] == pytest.approx(close, abs=1e-4)
    assert found["character_accuracy"]["KNOWS"]["sr_2"]["value"] == pytest.approx(sum(close) / 12)
    # The confidence is that of all that was read, punctuation included.
    assert images["confidences"]["KNOWS"]["sr_2"][:2] == [round(1 / 6, 4), round(1 / 6, 4)]
    assert found["per_image"]["readings"]["KNOWS"]["sr_1"][:2] == ["wrong", "open"]


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 1},
        {"batch_size": 7},
        {"batch_size": 48, "workers": 2},
        {"cache": False},
        {"cache": False, "workers": 2, "batch_size": 5},
    ],
    ids=str,
)
def test_results_do_not_depend_on_how_the_set_is_cut(tiny_dir, options):
    assert evaluate(tiny_dir / "train", **options) == evaluate(tiny_dir / "train", batch_size=4)


def test_results_do_not_depend_on_order_or_on_the_number_of_processes(tiny_dir):
    """Two ranks, one after the other, whose records meet in the wrong order."""
    whole = evaluate(tiny_dir / "train")
    collected: list[list] = []

    def keep(records):
        collected.append(records)
        return records

    for rank in (0, 1):
        Evaluator([counting()], CPU, gather=keep, bootstrap_samples=50).run(
            Sharpen(), split(tiny_dir / "train", rank=rank, world_size=2, batch_size=2)
        )
    records = [record for part in reversed(collected[1::2]) for record in reversed(part)]
    assert len(records) == 12
    gathered = iter([[0, 0], records])
    again = Evaluator([counting()], CPU, gather=lambda _: next(gathered), bootstrap_samples=50).run(
        Sharpen(), split(tiny_dir / "train", rank=1, world_size=2, batch_size=2)
    )
    assert again == whole


def test_a_rank_without_any_image_does_no_harm(tiny_dir):
    loader = split(tiny_dir / "train", rank=20, world_size=30)
    evaluator = Evaluator([counting()], CPU, bootstrap_samples=50)
    with pytest.raises(ValueError, match="no image of the data set could be read"):
        evaluator.run(Sharpen(), loader)


def test_psnr_as_published_depends_on_its_batch_and_not_on_that_of_the_loader(tiny_dir):
    found = [
        Evaluator([], CPU, psnr_batch_size=size, bootstrap_samples=50).run(
            Sharpen(), split(tiny_dir / "train", batch_size=batch)
        )
        for size, batch in ((1, 4), (5, 4), (5, 3), (48, 4))
    ]
    one, five, again, all_ = (entry["psnr_batch"]["sr_1"] for entry in found)
    assert five == again
    assert one == pytest.approx(found[0]["psnr"]["sr_1"]["value"], abs=0.2)  # but for clamping: the mean over images
    assert all_ < one
    assert five not in (one, all_)
    assert found[0]["ssim_batch"]["sr_1"] == pytest.approx(found[3]["ssim_batch"]["sr_1"])
    assert found[1]["ssim_batch"]["sr_1"] != found[3]["ssim_batch"]["sr_1"]


def test_batch_psnr_is_made_of_unclamped_errors(tiny_dir):
    with torch.inference_mode():
        records = list(Evaluator([], CPU)._records(Sharpen().eval(), split(tiny_dir / "train"), {}, None))
    errors = [record["metrics"]["sr_2"]["mse_raw"] for record in records]
    assert evaluate(tiny_dir / "train")["psnr_batch"]["sr_2"] == batch_psnr(errors, 48)


def test_the_mode_of_the_system_is_restored(tiny_dir):
    for training in (True, False):
        system = Sharpen().train(training)
        Evaluator([], CPU, bootstrap_samples=50).run(system, split(tiny_dir / "test" / "easy"))
        assert system.training is training


def test_progress_counts_every_image(tiny_dir):
    counted: list[int] = []
    Evaluator([], CPU, bootstrap_samples=50).run(Sharpen(), split(tiny_dir / "train", batch_size=5), counted.append)
    assert counted == [5, 5, 2]


@pytest.mark.parametrize("size", [1, 7])
def test_the_real_baseline_and_reader_do_not_depend_on_the_batch(tiny_dir, size):
    settings = load_settings(["--arch", "bicubic", "--go_test"])
    system = build_system(settings.config, training=False)
    path = tiny_dir / "train"
    readers = build_readers(["PPOCR", "PPOCR"], settings.config, CPU)
    assert len(readers) == 1  # named twice, read once
    found = [
        Evaluator(readers, CPU, bootstrap_samples=50).run(system, split(path, batch_size=count, mask=False))
        for count in (size, 12)
    ]
    assert found[0] == found[1]
    images = found[0]["per_image"]
    assert found[0]["accuracy"]["PPOCR"]["hr"]["correct"] >= 6  # the words are well legible
    assert images["psnr"]["sr_1"] == images["psnr"]["bicubic"]
    assert images["readings"]["PPOCR"]["sr_1"] == images["readings"]["PPOCR"]["bicubic"]


def test_a_real_network_gives_the_same_numbers_in_every_batch(tiny_dir):
    """Up to rounding, which some processors do otherwise in other batches; a batch of one comes with 5 and with 11."""
    torch.manual_seed(0)
    system = build_system(load_settings([*LIGHT, "--triple_clues"]).config, training=False)
    system.to(memory_format=torch.channels_last)
    found = [
        Evaluator([], CPU, bootstrap_samples=10).run(system, split(tiny_dir / "train", batch_size=size))
        for size in (12, 1, 5, 11)
    ]
    first = tensors_of(found[0])
    for other in map(tensors_of, found[1:]):
        assert other == {
            name: pytest.approx(value, rel=1e-6, abs=1e-8) if isinstance(value, float) else value
            for name, value in first.items()
        }


# Corrupt samples.


def test_samples_that_cannot_be_read_are_left_out_counted_and_named(tmp_path, caplog):
    path = write_damaged(tmp_path / "damaged", 9, bad=[0, 4, 5])
    found = evaluate(path, batch_size=2)
    assert found["images"] == 6
    assert found["skipped"] == 3
    assert found["per_image"]["index"] == [1, 2, 3, 6, 7, 8]
    assert found["per_image"]["label"] == [WORDS[k] for k in (1, 2, 3, 6, 7, 8)]
    for number in (1, 5, 6):
        assert f"{path} sample {number:09d}" in caplog.text


def test_a_set_of_which_nothing_can_be_read_is_an_error(tmp_path):
    path = write_damaged(tmp_path / "damaged", 3, bad=[0, 1, 2])
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate(path)


# Kept readings.


def rows_read(reader, path, cache):
    """How many pictures of the two sizes were read."""
    reader.recognizer.shapes.clear()
    evaluate(path, reader, cache)
    small = sum(shape[0] for shape in reader.recognizer.shapes if shape[-1] == 64)
    return small, sum(shape[0] for shape in reader.recognizer.shapes) - small


def test_readings_of_what_does_not_change_are_kept(tiny_dir, tmp_path):
    reader, path = counting(), tiny_dir / "train"
    assert rows_read(reader, path, ReadingCache(tmp_path)) == (12, 4 * 12)
    first = evaluate(path, reader)
    assert rows_read(reader, path, ReadingCache(tmp_path)) == (0, 2 * 12)  # the two stages only
    assert evaluate(path, reader, ReadingCache(tmp_path)) == first
    assert rows_read(counting("COUNT-2"), path, ReadingCache(tmp_path)) == (12, 4 * 12)  # another reader
    assert rows_read(reader, tiny_dir / "test" / "easy", ReadingCache(tmp_path))[0] == 6  # other data
    assert rows_read(reader, path, ReadingCache(None)) == (12, 4 * 12)


def test_fingerprints_that_begin_alike_are_not_mixed_up(tiny_dir, tmp_path):
    path = tiny_dir / "train"
    one, other = counting("COUNT-" + 30 * "a" + "1"), counting("COUNT-" + 30 * "a" + "2")
    rows_read(one, path, ReadingCache(tmp_path))
    assert rows_read(other, path, ReadingCache(tmp_path)) == (12, 4 * 12)


@pytest.mark.parametrize(
    "content",
    ["", "not json", "[]", "null", "{}", '{"reader": "COUNT-1"}', b"\xff\xfe", "whole:answers", "whole:numbers"],
    ids=str,
)
def test_a_damaged_file_of_kept_readings_is_ignored_with_a_warning(tiny_dir, tmp_path, caplog, content):
    path = tiny_dir / "test" / "easy"
    good = evaluate(path, cache=ReadingCache(tmp_path))
    kept = sorted(tmp_path.glob("*.json"))
    assert len(kept) == len(FIXED)
    for file in kept:
        if isinstance(content, bytes):
            file.write_bytes(content)
        elif content.startswith("whole:"):
            stored = json.loads(file.read_text())
            stored["answers"] = {"answers": 5, "numbers": {"x": "y"}}[content.removeprefix("whole:")]
            file.write_text(json.dumps(stored))
        else:
            file.write_text(content)
    with caplog.at_level(logging.WARNING):
        assert evaluate(path, cache=ReadingCache(tmp_path)) == good
    assert "not a file of kept readings" in caplog.text
    caplog.clear()
    assert evaluate(path, cache=ReadingCache(tmp_path)) == good  # it was written anew
    assert not caplog.text


def test_kept_readings_of_too_few_samples_are_completed(tiny_dir, tmp_path):
    path = tiny_dir / "test" / "easy"
    good = evaluate(path, cache=ReadingCache(tmp_path))
    for file in tmp_path.glob("*.json"):
        stored = json.loads(file.read_text())
        del stored["answers"]["5"]
        file.write_text(json.dumps(stored))
    assert evaluate(path, cache=ReadingCache(tmp_path)) == good


# Averages and selection.


def entry(images, accuracy, psnr):
    return {
        "images": images,
        "accuracy": {"A": {"sr_1": {"value": accuracy}}},
        "character_accuracy": {"A": {"sr_1": {"value": accuracy / 2}}},
        "psnr": {"sr_1": {"value": psnr}},
        "ssim": {"sr_1": {"value": psnr / 100}},
        "psnr_batch": {"sr_1": psnr - 1},
        "ssim_batch": {"sr_1": psnr / 50},
    }


def test_averages_by_hand():
    found = averages({"easy": entry(30, 0.9, 24.0), "hard": entry(10, 0.5, 20.0)})
    assert found["plain"]["accuracy"]["A"]["sr_1"] == pytest.approx(0.7)
    assert found["weighted"]["accuracy"]["A"]["sr_1"] == pytest.approx(0.8)
    assert found["weighted"]["character_accuracy"]["A"]["sr_1"] == pytest.approx(0.4)
    assert found["plain"]["psnr"]["sr_1"] == pytest.approx(22)
    assert found["weighted"]["psnr"]["sr_1"] == pytest.approx(23)
    assert found["weighted"]["psnr_batch"]["sr_1"] == pytest.approx(22)
    assert found["weighted"]["ssim"]["sr_1"] == pytest.approx(0.23)
    assert found["plain"]["ssim_batch"]["sr_1"] == pytest.approx(0.44)


def test_the_published_averages_of_the_table():
    """Sizes and accuracies of the low-resolution row: the table mixes both means."""
    sizes, values = (1619, 1411, 1343), (0.364, 0.211, 0.211)
    found = averages({str(size): entry(size, value, 1.0) for size, value in zip(sizes, values, strict=True)})
    assert found["plain"]["accuracy"]["A"]["sr_1"] == pytest.approx(sum(values) / 3)
    expected = sum(size * value for size, value in zip(sizes, values, strict=True)) / 4373
    assert found["weighted"]["accuracy"]["A"]["sr_1"] == pytest.approx(expected)


def test_the_best_weights_are_those_of_the_higher_accuracy_then_of_the_higher_psnr():
    def score(accuracy, psnr, published=False):
        return selection_score({"a": entry(3, accuracy, psnr), "b": entry(9, 0.5, 10.0)}, "sr_1", published=published)

    assert score(0.6, 20) > score(0.5, 30)
    assert score(0.6, 21) > score(0.6, 20)
    assert score(0.6, 21, published=True) == score(0.6, 20, published=True) == (pytest.approx(1.1),)
    assert score(0.60001, 20, published=True) == score(0.6, 20, published=True)  # rounded, as published


def test_without_a_reader_psnr_chooses():
    low, high = ({"a": {**entry(3, 0, psnr), "accuracy": {}}} for psnr in (20.0, 21.0))
    assert selection_score(high, "sr_1", published=False) > selection_score(low, "sr_1", published=False)
    assert selection_score(high, "sr_1", published=True) > selection_score(low, "sr_1", published=True)


def test_names_of_stages():
    assert stage_rows(1) == ["sr_1"]
    assert stage_rows(3) == ["sr_1", "sr_2", "sr_3"]


def test_bicubic_pictures_are_measured_once(tiny_dir, monkeypatch):
    measured = []
    metrics = evaluation.image_metrics
    monkeypatch.setattr(evaluation, "image_metrics", lambda *args: measured.append(args) or metrics(*args))
    evaluator = Evaluator([counting()], CPU, ReadingCache(None), bootstrap_samples=50)
    first, again = (evaluator.run(Sharpen(), split(tiny_dir / "train", batch_size=6)) for _ in range(2))
    assert len(measured) == 2 * 3 + 2 * 2  # bicubic and two stages of two batches, then the stages
    assert first["per_image"] == again["per_image"]
    other = evaluator.run(Sharpen(), split(tiny_dir / "test" / "easy", batch_size=6))
    assert len(measured) == 2 * 3 + 2 * 2 + 3
    assert other["psnr"]["bicubic"] != first["psnr"]["bicubic"]
