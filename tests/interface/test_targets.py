import json
import logging
import signal

import pytest
import torch
from torch import nn

from dataset.loading import Batch, LoaderSpec
from interface import data as data_module
from interface import targets as targets_module
from interface.checkpoint import load_checkpoint
from interface.config import load_settings
from interface.data import loader_spec, target_cache
from interface.super_resolution import TextSR
from interface.systems import build_system
from interface.systems.base import ImageLosses
from interface.targets import TargetCache, Targets, memory_share
from loss.text_focus import TextFocus, encode_labels
from tests.dataset.pictures import entries_of, word_pair, write_entries
from tests.interface.helpers import LIGHT, SmallFocus, assert_identical, run, shrink_recognisers, task

IMAGES = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Reader:
    """A frozen network that counts what it is asked."""

    def __init__(self, seed=0):
        torch.manual_seed(seed)
        self.network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5)).requires_grad_(False)
        self.asked = []

    def of(self, targets, numbers):
        numbers = torch.tensor(numbers)

        def compute(rows):
            self.asked.append(numbers[rows].tolist())
            return self.network(IMAGES[numbers[rows]])

        return targets.get("reading", self.network, numbers, compute)


def cache(folder=None, *, key="data", dtype="float32", limit=1e9, at_once=None):
    return TargetCache(6, longest=3, key=lambda: key, folder=folder, dtype=dtype, limit=limit, at_once=at_once)


def test_without_a_cache_every_batch_is_computed_at_once():
    reader = Reader()
    for _ in range(2):
        torch.testing.assert_close(reader.of(Targets(), [4, 1]), reader.network(IMAGES[[4, 1]]))
    assert reader.asked == [[4, 1], [4, 1]]


def test_each_sample_is_computed_once():
    reader, targets = Reader(), cache()
    first = reader.of(targets, [4, 1, 0])
    assert reader.asked == [[4], [4], [1], [0]]  # the very first says what a value looks like
    torch.testing.assert_close(first, reader.network(IMAGES[[4, 1, 0]]))
    assert torch.equal(reader.of(targets, [0, 2, 4]), torch.stack([first[2], reader.of(targets, [2])[0], first[0]]))
    assert reader.asked[4:] == [[2]]


def test_a_gpu_computes_the_new_samples_of_a_batch_at_once():
    reader, targets = Reader(), cache(at_once=True)
    torch.testing.assert_close(reader.of(targets, [4, 1, 0]), reader.network(IMAGES[[4, 1, 0]]))
    torch.testing.assert_close(reader.of(targets, [0, 2]), reader.network(IMAGES[[0, 2]]))
    reader.of(targets, [2, 4, 1])
    assert reader.asked == [[4], [4, 1, 0], [0, 2]]


@pytest.mark.parametrize("at_once", [False, True])
def test_kept_attention_has_rows_for_the_longest_label_of_all(at_once):
    torch.manual_seed(0)
    focus = TextFocus(SmallFocus())
    losses = ImageLosses(load_settings(["--arch", "tsrn"]).config.LOSS, focus)
    images = torch.rand(2, 3, 32, 128)
    targets = TargetCache(6, longest=5, key=str, folder=None, limit=1e9, at_once=at_once)
    batch = Batch(images, images, ["ab", "c"], torch.tensor([3, 1]))
    sharp = losses.sharp(batch, targets)
    assert sharp.text.inputs.shape == (2, 3)
    assert sharp.attention.shape[2] == 6
    expected = focus.attention_targets(images, encode_labels(batch.labels))
    torch.testing.assert_close(sharp.attention[:, :, :3], expected)


def test_values_do_not_depend_on_who_asked_first():
    one, other = cache(), cache()
    for batch in ([0, 1, 2, 3], [4, 5]):
        Reader().of(one, batch)
    for batch in ([5, 3], [1], [4, 2, 0]):
        Reader().of(other, batch)
    everything = list(range(6))
    assert torch.equal(Reader().of(one, everything), Reader().of(other, everything))


def test_no_gradient_leaves_a_target():
    reader = Reader()
    reader.network.requires_grad_(True)
    assert not reader.of(cache(), [0]).requires_grad
    assert not reader.of(Targets(), [0]).requires_grad


def test_a_file_serves_later_runs(tmp_path):
    reader, targets = Reader(), cache(tmp_path)
    first = reader.of(targets, [3, 5])
    targets.sync()
    later = Reader()
    assert torch.equal(later.of(cache(tmp_path), [5, 3]), first.flip(0))
    assert later.asked == [[5]]  # what a value looks like
    assert [path.name.rpartition("-")[0] for path in tmp_path.iterdir()] == ["reading"]


def test_what_was_not_brought_to_disk_is_not_believed(tmp_path):
    Reader().of(cache(tmp_path), [3])
    later = Reader()
    later.of(cache(tmp_path), [3])
    assert later.asked == [[3], [3]]


def test_two_processes_fill_one_file(tmp_path):
    one, other = cache(tmp_path), cache(tmp_path)
    Reader().of(one, [0, 1])
    Reader().of(other, [2, 3])
    one.sync()
    other.sync()
    one.sync()
    reader = Reader()
    reader.of(cache(tmp_path), [0, 1, 2, 3])
    assert reader.asked == [[0]]
    reader = Reader()
    reader.of(one, [2, 3])
    assert reader.asked == []


@pytest.mark.parametrize("change", [{"key": "other data"}, {"dtype": "float16"}, {"seed": 1}])
def test_values_of_other_circumstances_are_not_taken(tmp_path, change):
    seed = change.pop("seed", 0)
    targets = cache(tmp_path)
    Reader().of(targets, [3])
    targets.sync()
    reader = Reader(seed)
    value = reader.of(cache(tmp_path, **change), [3])
    assert reader.asked == [[3], [3]]
    torch.testing.assert_close(value, reader.network(IMAGES[[3]]), rtol=1e-3, atol=1e-3)
    assert value.dtype is torch.float32


def test_a_damaged_file_is_made_anew(tmp_path, caplog):
    targets = cache(tmp_path)
    Reader().of(targets, [3])
    targets.sync()
    file = next(tmp_path.iterdir())
    file.write_bytes(file.read_bytes()[:-10])
    reader = Reader()
    reader.of(cache(tmp_path), [3])
    assert reader.asked == [[3], [3]]
    assert f"{file} is damaged" in caplog.text


def test_what_does_not_fit_is_computed_every_time_and_said(caplog):
    reader, targets = Reader(), cache(limit=6 * 5 * 4 - 1)
    for _ in range(2):
        reader.of(targets, [4, 1])
    assert reader.asked == [[4], [4, 1], [4, 1]]
    assert "reading of 6 samples" in caplog.text
    assert "TRAIN.target_cache_gb" in caplog.text
    reader, targets = Reader(), cache(limit=6 * 5 * 4)
    reader.of(targets, [4, 1])
    assert reader.asked == [[4], [4], [1]]
    reader.asked.clear()
    targets.get("more", reader.network, torch.tensor([0]), lambda rows: reader.network(IMAGES[rows]))  # all is taken
    assert "more of 6 samples" in caplog.text


def test_no_room_on_disk_is_an_error_before_anything_is_mapped(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match=r"No space left.*--target_cache memory"):
        Reader().of(cache(tmp_path), [0])
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_hard_links_will_do(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("pathlib.Path.hardlink_to", refuse)
    targets = cache(tmp_path)
    Reader().of(targets, [3])
    targets.sync()
    reader = Reader()
    reader.of(cache(tmp_path), [3])
    assert reader.asked == [[3]]
    assert len(list(tmp_path.iterdir())) == 1


def test_processes_of_a_machine_share_its_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(targets_module, "MEMORY_LIMITS", (tmp_path / "none", tmp_path / "max"))
    (tmp_path / "max").write_text("max\n")
    whole = memory_share(1)
    assert whole > 1e8
    assert memory_share(4) == pytest.approx(whole / 4)
    (tmp_path / "max").write_text("8000000\n")  # of a container
    assert memory_share(2) == 2e6


# What a run keeps, and under which key.


def made(arguments, folder, *, processes=1):
    """The cache of a run, and its key."""
    arguments = [*LIGHT, "--text_focus", "--tpg_pretrained", "x", "--target_cache", "disk", *map(str, arguments)]
    config = load_settings([*map(str, arguments), "--ckpt_dir", str(folder)]).config
    spec = loader_spec(config, rank=0, world_size=1)
    pairs = spec.pairs(config.TRAIN.train_data_dir)
    return target_cache(config, pairs, spec, processes=processes)


def test_everything_that_values_depend_on_is_in_the_key(tmp_path, tiny_dir):
    data = ["--train_data_dir", tiny_dir / "train"]
    relabelled = write_entries(
        tmp_path / "relabelled", entries_of((hr, lr, label + "x") for hr, lr, label in map(word_pair, range(12)))
    )
    (tmp_path / "digits.yaml").write_text("TRAIN: {voc_type: digit}\n")
    keys = [
        made(arguments, tmp_path).key()
        for arguments in (
            data,
            ["--train_data_dir", tiny_dir / "test" / "easy"],
            ["--train_data_dir", relabelled],
            [*data, "--no-mask"],
            [*data, "--width", "64"],
            [*data, "--syn"],
            [*data, "--mixed_precision", "bf16"],
            [*data, "--loss_precision", "bf16"],
            [*data, "--loss_precision", "bf16", "--mixed_precision", "bf16"],  # of the teacher, which is in no loss
            [*data, "--config", tmp_path / "digits.yaml"],
        )
    ]
    assert len(set(keys)) == len(keys)
    assert made([*data, "--batch_size", "3", "--seed", "5", "--no-cache"], tmp_path).key() == keys[0]
    parts = LoaderSpec(mask=True).pairs([tiny_dir / "train"], [0, 2]), LoaderSpec(mask=True).pairs([tiny_dir / "train"])
    assert parts[0].fingerprint() != parts[1].fingerprint()


def test_limits_and_places_are_those_of_the_options(tmp_path, tiny_dir, monkeypatch):
    monkeypatch.setattr(data_module, "memory_share", lambda processes: 12e9 / processes)
    data = ["--train_data_dir", tiny_dir / "train"]
    kept = made([*data, "--target_cache", "memory"], tmp_path)
    assert (kept.folder, kept.free) == (None, 8 * 2**30)
    assert made([*data, "--target_cache", "memory"], tmp_path, processes=4).free == 2 * 2**30
    (tmp_path / "much.yaml").write_text("TRAIN: {target_cache_gb: 100, target_cache_dtype: float16}\n")
    much = [*data, "--config", tmp_path / "much.yaml"]
    assert made([*much, "--target_cache", "memory"], tmp_path, processes=4).free == 3e9
    on_disk = made(much, tmp_path, processes=4)
    assert (on_disk.folder, on_disk.free) == (tmp_path / ".cache" / "targets", 100 * 2**30)
    assert on_disk.dtype == "float16"
    assert type(made([*data, "--target_cache", "none"], tmp_path)) is Targets


def test_the_longest_label_counts_what_a_recogniser_of_letters_sees(tmp_path):
    pairs = [word_pair(number) for number in range(3)]
    labels = ["ab-c!", "http://a.b", "x"]
    folder = write_entries(
        tmp_path / "lmdb", entries_of((hr, lr, label) for (hr, lr, _), label in zip(pairs, labels, strict=True))
    )
    assert LoaderSpec().pairs([folder]).longest_label() == len("httpab")
    assert LoaderSpec().pairs([folder], [0, 2]).longest_label() == len("abc")
    assert made(["--train_data_dir", folder], tmp_path).longest == len("httpab")
    bad = entries_of((hr, lr, "ok") for hr, lr, _ in pairs)
    del bad["label-000000002"]
    bad["num-samples"] = b"3"
    assert LoaderSpec().pairs([write_entries(tmp_path / "bad", bad)]).longest_label() == 2


# In a training.


@pytest.fixture
def trained(tmp_path, monkeypatch, tiny_dir):
    """Arguments of a training with teacher and text focus: 11 pairs in batches of 2, so an epoch has 5 steps."""
    monkeypatch.setattr(TextSR, "test_best", lambda self: None)
    arguments = [*LIGHT, *shrink_recognisers(monkeypatch, tmp_path)]
    arguments += ["--use_distill", "--text_focus", "--schedule", "constant", "--steps", "7"]
    arguments += ["--train_data_dir", tiny_dir / "train", "--ckpt_dir", tmp_path / "ckpt"]
    return [*arguments, "--test_model", "", "--val_interval", "100"]


def trained_state(folder):
    state = load_checkpoint(folder / "last.pth")
    return {key: state[key] for key in ("system", "optimizers", "rng", "position")}


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_a_training_that_was_cut_in_its_second_epoch_is_bit_identical(trained, tmp_path, monkeypatch, where):
    """The resumed process knows no target, and first asks for each in another batch than the whole run did."""
    arguments = [*trained, "--target_cache", where]
    run([*arguments, "--vis_dir", "whole"])
    after = TextSR.after_step

    def stop(self, bar):
        after(self, bar)
        if self.step == 6:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(TextSR, "after_step", stop)
        assert task([*arguments, "--vis_dir", "cut"]).run() == 143
    run([*arguments, "--resume", tmp_path / "ckpt" / "cut"])
    assert_identical(trained_state(tmp_path / "ckpt" / "whole"), trained_state(tmp_path / "ckpt" / "cut"))


def test_kept_and_recomputed_targets_train_alike(trained, tmp_path):
    for where in ("memory", "disk", "none"):
        run([*trained, "--target_cache", where, "--vis_dir", where, "--log_interval", "1"])
    assert_identical(trained_state(tmp_path / "ckpt" / "memory"), trained_state(tmp_path / "ckpt" / "disk"))
    # In a batch of one sums are rounded in another order, and Adam's first steps make much of the last bit.
    assert losses(tmp_path / "ckpt" / "memory") == pytest.approx(losses(tmp_path / "ckpt" / "none"), rel=1e-3)
    files = sorted(path.name.rpartition("-")[0] for path in (tmp_path / "ckpt" / ".cache" / "targets").iterdir())
    assert files == ["attention", "teacher_prior"]


def losses(folder):
    """All terms of the first two steps."""
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [event for event in events if event["event"] == "train"][:2]
    return {f"{event['step']} {name}": event[name] for event in steps for name in event if name.startswith("main/")}


def test_frozen_networks_stay_as_they_are_in_a_run(trained):
    made = run([*trained, "--steps", "2"])
    fresh = build_system(made.config, training=True, pretrained=True)
    for name in ("teacher", "losses.text_focus.recognizer"):
        frozen = made.system.get_submodule(name)
        assert not any(module.training for module in frozen.modules())
        assert_identical(dict(frozen.state_dict()), dict(fresh.get_submodule(name).state_dict()))
    counters = [value for key, value in made.system.teacher.state_dict().items() if key.endswith("num_batches_tracked")]
    assert counters
    assert not any(counters)


def test_teachers_work_once_a_sample(trained, monkeypatch):
    counted = {"teacher": 0, "focus": 0}
    build = TextSR.build_training

    def counting(self):
        build(self)
        self.system.teacher.register_forward_hook(lambda *_: counted.update(teacher=counted["teacher"] + 1))
        focus = self.system.losses.text_focus
        attend = focus.attention_targets
        monkeypatch.setattr(
            focus, "attention_targets", lambda *a: counted.update(focus=counted["focus"] + 1) or attend(*a)
        )

    monkeypatch.setattr(TextSR, "build_training", counting)
    run([*trained, "--stu_iter", "2", "--steps", "10"])
    assert counted == {"teacher": 12, "focus": 12}  # 11 samples, and the first to see its shape


def test_attention_rows_are_those_of_the_longest_label():
    """Rows beyond a label enter the loss, so a kept value must be right for any batch."""
    torch.manual_seed(0)
    small = SmallFocus().eval()
    long, short = encode_labels(["ab"], 9), encode_labels(["ab"])
    assert (long.inputs.shape[1], short.inputs.shape[1]) == (9, 3)
    with torch.no_grad():
        _, padded = small(IMAGES[:1, :1], long.inputs)
        _, exact = small(IMAGES[:1, :1], short.inputs)
    torch.testing.assert_close(padded[:, :, :3], exact)


def test_the_size_of_what_is_kept_is_said(trained, caplog):
    caplog.set_level(logging.INFO)
    run([*trained, "--steps", "1"])
    assert "kept in memory once computed: teacher_prior of 11 samples, 0.0404 MiB in float32" in caplog.text


def test_what_is_known_stays_when_its_batch_has_something_new():
    cache = TargetCache(4, longest=0, key=lambda: "", folder=None, limit=1e6, at_once=True)
    taken = []

    def compute(number):
        return lambda rows: torch.full((2, 3), float(number))[rows]

    for number, indices in enumerate([[0, 1], [1, 2]]):
        taken.append(cache.get("x", nn.Linear(1, 1), torch.tensor(indices), compute(number)))
    assert torch.equal(taken[0], torch.zeros(2, 3))
    assert taken[1][:, 0].tolist() == [0.0, 1.0]
