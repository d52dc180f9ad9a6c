import logging
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from dataset import loading
from dataset.loading import Batch, LoaderSpec, Skipped, WordPairs, build_loader, collate, split_held_out, split_names
from dataset.textzoom import DataError, TextZoomLMDB
from dataset.transforms import decode_image, resize_planes, synthetic_lr
from tests.dataset.pictures import WORDS, entries_of, word_pair, write_entries, write_pairs

# On one core torch advises against two workers; here they are the point.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


def spec(**changes):
    return LoaderSpec(**{"batch_size": 4, "voc_type": "all", **changes})


@pytest.fixture
def damaged(tmp_path):
    """Eight pairs; number 2 has no LR, the LR of number 5 is garbage, the label of number 6 is missing."""
    entries = entries_of(word_pair(number) for number in range(8))
    del entries["image_lr-000000002"], entries["label-000000006"]
    entries["image_lr-000000005"] = b"garbage"
    return write_entries(tmp_path / "damaged", entries)


def equal(one: Batch, other: Batch) -> bool:
    same = one.labels == other.labels and one.skipped == other.skipped
    return same and all(torch.equal(getattr(one, k), getattr(other, k)) for k in ("images_hr", "images_lr", "indices"))


# ------------------------------------------------------------------------------------------- samples and batches


def test_a_batch_is_what_pillow_makes_of_the_files(tiny_pairs):
    batch = next(iter(build_loader(spec().pairs([tiny_pairs]), spec(), train=False)))
    assert batch.images_hr.shape == (4, 4, 32, 128)
    assert batch.images_lr.shape == (4, 4, 16, 64)
    assert batch.images_hr.dtype == batch.images_lr.dtype == torch.float32
    assert batch.labels == list(WORDS[:4])
    assert batch.indices.tolist() == [0, 1, 2, 3]
    assert batch.skipped == ()
    for index in range(4):
        hr, lr, _ = word_pair(index)
        for images, data, size in ((batch.images_hr, hr, (128, 32)), (batch.images_lr, lr, (64, 16))):
            planes = resize_planes(decode_image(data), size, mask=True)
            assert torch.equal(images[index], torch.from_numpy(planes).float() / 255)
            assert set(images[index, 3].unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize(
    ("changes", "shape_hr", "shape_lr"),
    [
        ({"mask": False}, (3, 32, 128), (3, 16, 64)),
        ({"scale": 4}, (4, 32, 128), (4, 8, 32)),
        ({"width": 256, "height": 64}, (4, 64, 256), (4, 32, 128)),
    ],
)
def test_sizes_follow_the_spec(tiny_pairs, changes, shape_hr, shape_lr):
    sample = spec(**changes).pairs([tiny_pairs])[0]
    assert sample.hr.shape == shape_hr
    assert sample.lr.shape == shape_lr
    assert sample.hr.dtype == sample.lr.dtype == np.uint8


def test_labels_are_filtered_by_the_vocabulary(tiny_pairs):
    pairs = spec(voc_type="lower").pairs([tiny_pairs])
    assert [pairs[index].label for index in (0, 4, 5)] == ["hotel", "no1", "email"]


def test_synthetic_lr_is_pillows_bicubic_twice(tiny_pairs):
    sample = spec(synthetic=True).pairs([tiny_pairs])[3]
    image = decode_image(word_pair(3)[0])
    half = image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC)
    assert (sample.lr == resize_planes(half, (64, 16), mask=True)).all()
    assert (sample.lr == resize_planes(synthetic_lr(image), (64, 16), mask=True)).all()
    assert (sample.hr == spec().pairs([tiny_pairs])[3].hr).all()


def test_several_lmdbs_are_one_after_the_other(tiny_dir):
    paths = [tiny_dir / "test" / "easy", tiny_dir / "train", tiny_dir / "test" / "medium"]
    pairs = spec().pairs(paths)
    assert len(pairs) == 24
    assert [pairs[index].label for index in range(24)] == [*WORDS[12:18], *WORDS[:12], *WORDS[18:24]]
    assert pairs.name_of(5) == f"{paths[0]} sample 000000006"
    assert pairs.name_of(6) == f"{paths[1]} sample 000000001"
    assert pairs.name_of(23) == f"{paths[2]} sample 000000006"


def test_a_selection_keeps_its_order_and_its_names(tiny_dir):
    pairs = spec().pairs([tiny_dir / "test" / "easy", tiny_dir / "train"], selection=[17, 6, 0])
    assert [pairs[index].label for index in range(3)] == [WORDS[11], WORDS[0], WORDS[12]]
    assert [pairs[index].index for index in range(3)] == [0, 1, 2]
    assert pairs.name_of(0).endswith("train sample 000000012")


def test_no_data_set_is_an_error():
    with pytest.raises(DataError, match="no data set was named"):
        spec().pairs([])


def test_collate_leaves_unreadable_samples_out(tiny_pairs):
    pairs, bad = spec().pairs([tiny_pairs]), Skipped(7, "why")
    batch = collate([pairs[3], bad, pairs[1]])
    assert (batch.labels, batch.indices.tolist(), batch.skipped) == ([WORDS[3], WORDS[1]], [3, 1], (bad,))


def test_a_batch_of_unreadable_samples_is_empty_and_can_be_moved():
    bad = [Skipped(number, "why") for number in range(3)]
    batch = collate(bad).to("cpu")
    assert len(batch) == len(batch.images_hr) == len(batch.indices) == 0
    assert batch.skipped == tuple(bad)


def test_batch_to_keeps_values_and_puts_channels_last(tiny_pairs):
    batch = next(iter(build_loader(spec().pairs([tiny_pairs]), spec(), train=False)))
    moved = batch.to("cpu")
    assert equal(batch, moved)
    assert moved.images_hr.is_contiguous(memory_format=torch.channels_last)
    assert moved.images_lr.is_contiguous(memory_format=torch.channels_last)
    assert moved is not batch
    assert batch.to("meta").images_lr.device.type == "meta"


# ------------------------------------------------------------------------------------------- loaders


def test_workers_and_cache_do_not_change_the_batches(tiny_pairs):
    def epochs(**changes):
        settings = spec(seed=3, **changes)
        loader = build_loader(settings.pairs([tiny_pairs]), settings, train=True)
        found = []
        for epoch in range(2):
            loader.batches.seek(epoch)
            found += list(loader)
        return found

    expected = epochs(cache=False, workers=0)
    assert len(expected) == 6
    for changes in ({"cache": False, "workers": 2}, {"cache": True, "workers": 0}, {"cache": True, "workers": 2}):
        found = epochs(**changes)
        assert all(equal(one, other) for one, other in zip(found, expected, strict=True)), changes


def test_workers_can_be_left_in_the_middle_of_an_epoch(tiny_pairs):
    settings = spec(batch_size=2, cache=False, workers=2)
    loader = build_loader(settings.pairs([tiny_pairs]), settings, train=True)
    loader.batches.seek(0)
    first = next(iter(loader))
    loader.batches.seek(0, 3)
    rest = list(loader)
    loader.batches.seek(0)
    whole = list(loader)
    assert equal(first, whole[0])
    assert [batch.indices.tolist() for batch in rest] == [batch.indices.tolist() for batch in whole[3:]]
    assert loader.drawn == 6


@pytest.mark.parametrize(("cache", "workers"), [(True, 0), (True, 2), (False, 0)])
def test_a_cached_data_set_is_decoded_once(tiny_pairs, monkeypatch, cache, workers):
    calls = []

    def counted(image, size, mask):
        calls.append(size)
        return resize_planes(image, size, mask)

    monkeypatch.setattr(loading, "resize_planes", counted)
    settings = spec(cache=cache, workers=workers)
    loader = build_loader(settings.pairs([tiny_pairs]), settings, train=False)
    for _ in range(3):
        assert sum(map(len, loader)) == 12
    assert len(calls) == 2 * 12 * (1 if cache else 3)


@pytest.mark.parametrize("train", [True, False])
def test_batches_made_on_the_device_are_the_same_once_all_is_read(damaged, monkeypatch, train):
    there = spec(batch_size=3, device=torch.device("cpu"))
    hosts = build_loader(spec(batch_size=3).pairs([damaged]), spec(batch_size=3), train=train)
    device = build_loader(there.pairs([damaged]), there, train=train)
    gathered = []
    original = device._gathered
    monkeypatch.setattr(device, "_gathered", lambda numbers: gathered.append(numbers) or original(numbers))
    device.pairs.__getitems__(range(8))
    for epoch in range(2):
        for loader in (hosts, device) if train else ():
            loader.batches.seek(epoch, 0)
        batches = list(zip(hosts, device, strict=True))
        assert batches
        assert all(equal(one, other) for one, other in batches)
    assert len(gathered) == 2 * device.drawn
    assert device.skipped == hosts.skipped
    assert device.skipped


def test_batches_are_made_by_the_host_until_all_is_read_and_where_it_does_not_fit(tiny_pairs, monkeypatch):
    there = spec(device=torch.device("cpu"))
    pairs = there.pairs([tiny_pairs])
    loader = build_loader(pairs, there, train=False)
    list(loader)
    assert loader._resident is None
    monkeypatch.setattr(loading, "free_memory", lambda device: 4 * sum(plane.nbytes for plane in pairs.planes()) - 4)
    list(loader)
    assert loader._resident is None
    monkeypatch.undo()
    fits = build_loader(pairs, there, train=False)
    list(fits)
    assert fits._resident is not None


def test_kept_pictures_take_the_room_of_their_pixels(tiny_pairs):
    pairs = spec().pairs([tiny_pairs])
    samples = pairs.__getitems__(range(len(pairs)))
    for sample, high, low in zip(samples, *pairs.planes(), strict=True):
        assert np.shares_memory(sample.hr, high)
        assert np.shares_memory(sample.lr, low)
    assert sum(plane.nbytes for plane in pairs.planes()) == len(pairs) * 4 * (32 * 128 + 16 * 64)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_sample_asked_for_twice_in_a_batch_is_read_once(tiny_pairs, monkeypatch, threads):
    pairs = WordPairs([TextZoomLMDB(tiny_pairs)], threads=threads)
    read, calls = pairs.read, []

    def counted(index):
        calls.append(index)
        return read(index)

    monkeypatch.setattr(pairs, "read", counted)
    samples = pairs.__getitems__([4, 2, 4, 0])
    assert [sample.index for sample in samples] == [4, 2, 4, 0]
    assert sorted(calls) == [0, 2, 4]


def test_pairs_can_be_pickled_with_and_without_their_cache(tiny_pairs):
    for cache in (True, False):
        pairs = spec(cache=cache).pairs([tiny_pairs])
        sample = pairs[2]
        assert (pickle.loads(pickle.dumps(pairs))[2].hr == sample.hr).all()


def test_the_last_short_batch_is_tested_but_not_trained_on(tiny_pairs):
    settings = spec(batch_size=5)
    pairs = settings.pairs([tiny_pairs])
    assert [len(batch) for batch in build_loader(pairs, settings, train=False)] == [5, 5, 2]
    assert [len(batch) for batch in build_loader(pairs, settings, train=True)] == [5, 5]


def test_too_few_training_samples_name_the_batch_size(tiny_pairs):
    settings = spec(batch_size=7, world_size=2)
    with pytest.raises(DataError, match=r"12 training samples are fewer .* batch_size 7 x 2 process.*--batch_size"):
        build_loader(settings.pairs([tiny_pairs]), settings, train=True)


def test_processes_share_the_test_samples(tiny_pairs):
    visited = []
    for rank in range(3):
        settings = spec(batch_size=3, rank=rank, world_size=3)
        for batch in build_loader(settings.pairs([tiny_pairs]), settings, train=False):
            visited += batch.indices.tolist()
    assert sorted(visited) == list(range(12))


# ------------------------------------------------------------------------------------------- unreadable samples


@pytest.mark.parametrize("changes", [{"cache": True}, {"cache": False}, {"cache": False, "workers": 2}])
def test_unreadable_samples_are_skipped_named_and_never_replaced(damaged, caplog, changes):
    settings = spec(batch_size=3, **changes)
    loader = build_loader(settings.pairs([damaged]), settings, train=False)
    with caplog.at_level(logging.WARNING):
        batches = list(loader)
        list(loader)
    assert [label for batch in batches for label in batch.labels] == [WORDS[n] for n in (0, 2, 3, 6, 7)]
    assert torch.cat([batch.indices for batch in batches]).tolist() == [0, 2, 3, 6, 7]
    for batch in batches:
        for row, index in enumerate(batch.indices.tolist()):
            planes = resize_planes(decode_image(word_pair(index)[0]), (128, 32), mask=True)
            assert torch.equal(batch.images_hr[row], torch.from_numpy(planes).float() / 255)
    assert sorted(loader.skipped) == [1, 4, 5]
    assert loader.skipped[1] == f"{damaged} sample 000000002: image_lr-000000002 is missing"
    assert "LR picture (7 bytes) cannot be decoded" in loader.skipped[4]
    assert "label-000000006 is missing" in loader.skipped[5]
    assert len([record for record in caplog.records if "skipped (" in record.message]) == 3  # once each


def test_the_published_stand_in_is_the_sample_after_next(damaged):
    pairs = spec(corrupt="published").pairs([damaged])
    samples = pairs.__getitems__(range(4))
    assert [sample.label for sample in samples] == [WORDS[n] for n in (0, 3, 2, 3)]
    assert [sample.index for sample in samples] == [0, 1, 2, 3]
    assert pairs.read(5).label == WORDS[7]
    short = spec(corrupt="published").pairs([damaged, damaged])
    assert short.read(4).label == WORDS[6]  # within its own LMDB


def test_no_stand_in_beyond_the_end(tmp_path):
    entries = entries_of(word_pair(number) for number in range(3))
    folder = write_entries(tmp_path / "set", {**entries, "image_lr-000000002": b"garbage"})
    with pytest.raises(DataError, match=r"sample 000000002: .*no sample after next.*TRAIN.corrupt to skip"):
        spec(corrupt="published").pairs([folder]).read(1)


def test_a_batch_without_a_readable_sample_is_left_out(damaged, caplog):
    settings = spec(batch_size=1)
    loader = build_loader(settings.pairs([damaged]), settings, train=False)
    assert [batch.labels for batch in loader] == [[WORDS[n]] for n in (0, 2, 3, 6, 7)]
    assert loader.drawn == 8
    assert "a batch of 1 unreadable samples is left out" in caplog.text


def test_such_a_batch_stops_a_run_of_several_processes(damaged):
    settings = spec(batch_size=1, world_size=2)
    loader = build_loader(settings.pairs([damaged]), settings, train=True)
    with pytest.raises(DataError, match="all 1 samples of a batch are unreadable"):
        for epoch in range(8):
            loader.batches.seek(epoch)
            list(loader)


def test_synthetic_lr_does_not_need_the_stored_one(damaged):
    settings = spec(synthetic=True)
    loader = build_loader(settings.pairs([damaged]), settings, train=False)
    assert sum(map(len, loader)) == 7
    assert sorted(loader.skipped) == [5]


# ------------------------------------------------------------------------------------------- fingerprint


def test_fingerprint_of_several_sets_and_selections(tiny_dir, tmp_path):
    easy, medium = tiny_dir / "test" / "easy", tiny_dir / "test" / "medium"
    found = [
        spec().pairs([easy]).fingerprint(),
        spec().pairs([medium]).fingerprint(),
        spec().pairs([easy, medium]).fingerprint(),
        spec().pairs([medium, easy]).fingerprint(),
        spec().pairs([easy], selection=[0, 1, 2]).fingerprint(),
        spec().pairs([easy], selection=[0, 1, 3]).fingerprint(),
    ]
    assert len(set(found)) == len(found)
    assert spec().pairs([write_pairs(tmp_path / "copy", range(12, 18))]).fingerprint() == found[0]
    assert spec().pairs([easy], selection=range(6)).fingerprint() == found[0]


# ------------------------------------------------------------------------------------------- held-out split


def write_photos(path, photos):
    """An LMDB in which sample i is made of HR photo `photos[i]`, each with its own LR."""
    return write_entries(path, entries_of((word_pair(p)[0], word_pair(n)[1], WORDS[p]) for n, p in enumerate(photos)))


def photos_of(pairs, numbers):
    return {pairs.sources[0].raw(number).hr for number in numbers}


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.3, 0.6])
@pytest.mark.parametrize("draw", range(4))
def test_held_out_photos_are_in_no_training_pair(tmp_path, fraction, draw):
    photos = np.random.default_rng(draw).integers(0, 9, 24)
    pairs = spec().pairs([write_photos(tmp_path / "set", photos)])
    kept, held = split_held_out(pairs, fraction)
    assert sorted(kept + held) == list(range(24))
    assert kept == sorted(kept)
    assert held == sorted(held)
    assert len(held) >= max(1, round(fraction * 24))
    assert not photos_of(pairs, kept) & photos_of(pairs, held)


def test_held_out_photos_depend_on_the_photos_alone(tmp_path):
    order = np.random.default_rng(0).permutation(24)
    ways = [spec(seed=1).pairs([write_photos(tmp_path / "a", range(24))])]
    ways.append(spec(seed=2, batch_size=3).pairs([write_photos(tmp_path / "b", range(24))]))
    ways.append(spec().pairs([write_photos(tmp_path / "c", order)]))
    found = [photos_of(pairs, split_held_out(pairs, 0.25)[1]) for pairs in ways]
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 6


def test_unreadable_samples_stay_together_in_the_split(damaged):
    kept, held = split_held_out(spec().pairs([damaged]), 0.2)
    assert sorted(kept + held) == list(range(8))
    assert len({1, 5} & set(held)) in (0, 2)


def test_a_set_of_one_photo_cannot_be_split(tmp_path):
    pairs = spec().pairs([write_photos(tmp_path / "set", [3, 3, 3])])
    with pytest.raises(DataError, match=r"3 training samples \(of 1 photos\) are too few .*10%.*--val_data_dir"):
        split_held_out(pairs, 0.1)


# ------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["d/test/easy", "d/test/hard/"], ["easy", "hard"]),
        (["a/easy", "b/easy"], ["a/easy", "b/easy"]),
        (["a/x/easy", "b/x/easy", "b/x/hard"], ["a/x/easy", "b/x/easy", "b/x/hard"]),
        (["only"], ["only"]),
        ([], []),
    ],
)
def test_split_names_are_as_short_as_they_can_be(paths, names):
    assert split_names(paths) == names


def test_split_names_at_the_root_of_the_disk():
    names = split_names(["/easy", "/data/easy"])
    assert len(set(names)) == 2
    assert names[1] == "data/easy"


def test_a_set_named_twice_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "easy").mkdir()
    for twice in (["easy", "easy/"], ["easy", tmp_path / "easy"], ["easy", "x/../easy"]):
        with pytest.raises(DataError, match="named twice: easy, "):
            split_names(twice)


def test_a_link_gives_the_split_its_name(tmp_path):
    for target, name in (("store/0001", "easy"), ("store/0002", "hard")):
        (tmp_path / target).mkdir(parents=True)
        (tmp_path / name).symlink_to(tmp_path / target)
    assert split_names([tmp_path / "easy", tmp_path / "hard"]) == ["easy", "hard"]
    with pytest.raises(DataError, match="named twice"):
        split_names([tmp_path / "easy", tmp_path / "store" / "0001"])
