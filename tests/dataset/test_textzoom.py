import multiprocessing
import os
import pickle
import re
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from dataset import textzoom
from dataset.textzoom import CorruptSampleError, DataError, LmdbFolder, TextZoomLMDB, TextZoomWriter, key_of
from dataset.transforms import decode_image, synthetic_lr
from tests.dataset.pictures import WORDS, entries_of, word_pair, write_entries, write_pairs


def pairs(count=4):
    return [word_pair(number) for number in range(count)]


def write(path, samples):
    with TextZoomWriter(path) as writer:
        for hr, lr, label in samples:
            writer.add(hr=hr, lr=lr, label=label)
    return path


# ------------------------------------------------------------------------------------------- reading


def test_samples_come_back_as_they_were_stored(tiny_pairs):
    data = TextZoomLMDB(tiny_pairs)
    assert len(data) == 12
    for index in range(len(data)):
        raw = data.raw(index)
        assert (raw.hr, raw.lr, raw.label) == word_pair(index)
        hr, lr = data.images(raw)
        assert (hr.mode, lr.mode) == ("RGB", "RGB")
        assert (hr.width // 2, hr.height // 2) == lr.size


@pytest.mark.parametrize("index", [-1, 12])
def test_there_is_nothing_outside(tiny_pairs, index):
    with pytest.raises(IndexError, match=f"sample {index} of 12"):
        TextZoomLMDB(tiny_pairs).raw(index)


def test_keys_are_nine_digits_from_one():
    assert key_of("image_hr", 0) == b"image_hr-000000001"


def test_a_missing_path_lists_what_is_near(tiny_dir):
    with pytest.raises(DataError, match=r"nothing there; .*test holds easy, medium; .*lmdb_tool.py build"):
        TextZoomLMDB(tiny_dir / "test" / "hard")
    with pytest.raises(DataError, match=r"holds test, train"):
        TextZoomLMDB(tiny_dir / "no" / "such" / "place")


def test_a_folder_of_lmdbs_names_them(tiny_dir):
    with pytest.raises(DataError, match=r"a folder of LMDBs; name one or more of them: \S+easy, \S+medium"):
        TextZoomLMDB(tiny_dir / "test")


def test_a_file_and_another_folder_are_described(tiny_pairs, tmp_path):
    with pytest.raises(DataError, match=r"data.mdb: a file of \d+ bytes; expected a TextZoom LMDB: a folder"):
        TextZoomLMDB(tiny_pairs / "data.mdb")
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(DataError, match=r"a folder with photo.jpg; expected"):
        TextZoomLMDB(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", bytes(100_000), b"garbage " * 5000])
def test_garbage_is_refused(tmp_path, content):
    (tmp_path / "data.mdb").write_bytes(content)
    with pytest.raises(DataError, match=rf"\({len(content)} bytes\) cannot be opened as an LMDB"):
        TextZoomLMDB(tmp_path)
    assert sorted(child.name for child in tmp_path.iterdir()) == ["data.mdb"]  # nothing was created


def test_a_truncated_file_is_an_error_not_a_crash(tiny_pairs, tmp_path):
    whole = (tiny_pairs / "data.mdb").read_bytes()
    for share in (0.02, 0.1, 0.5, 0.9, 0.9999):
        (tmp_path / "data.mdb").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(DataError, match=rf"truncated: \d+ bytes found, {len(whole)} expected|cannot be opened"):
            TextZoomLMDB(tmp_path)


def test_a_file_with_holes_is_an_error_or_a_skipped_sample(tiny_pairs, tmp_path):
    """A cut download may have its full size, with zeros where nothing has arrived."""
    whole = bytearray((tiny_pairs / "data.mdb").read_bytes())
    for page in range(2, len(whole) // 4096):
        folder = tmp_path / str(page)
        folder.mkdir()
        hole = slice(page * 4096, (page + 1) * 4096)
        (folder / "data.mdb").write_bytes(bytes(whole[: hole.start]) + bytes(4096) + bytes(whole[hole.stop :]))
        try:
            data = TextZoomLMDB(folder)
        except DataError as error:
            assert str(folder) in str(error)
            continue
        for index in range(len(data)):
            try:
                data.images(data.raw(index))
            except CorruptSampleError as error:
                assert re.search(r"looked up|missing|decoded", str(error))
        assert len(data.fingerprint()) == 64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num-samples": b"0"}, r"the data set is empty \(num-samples = 0\)"),
        ({"num-samples": b"-2"}, r"the data set is empty"),
        ({"num-samples": b"many"}, r"num-samples is b'many', a decimal number"),
        ({"num-samples": None}, r"no key num-samples \(keys found: image_hr-000000001, "),
        (
            {"num-samples": b"9"},
            r"says 9, but the last sample lacks label-000000009, image_hr-000000009.*lmdb_tool.py check",
        ),
        ({"label-000000004": None}, r"the last sample lacks label-000000004"),
    ],
)
def test_unusable_sets_say_what_is_wrong(tmp_path, change, message):
    entries = {**entries_of(pairs()), **change}
    path = write_entries(tmp_path / "data", {key: value for key, value in entries.items() if value is not None})
    with pytest.raises(DataError, match=message):
        TextZoomLMDB(path)


def test_an_empty_lmdb_has_no_keys(tmp_path):
    with pytest.raises(DataError, match=r"no key num-samples \(keys found: none\)"):
        TextZoomLMDB(write_entries(tmp_path / "data", {}))


def test_another_format_lists_its_keys(tmp_path):
    path = write_entries(tmp_path / "data", {"num-samples": b"3", "feature-1": b"x", "feature-2": b"x"})
    with pytest.raises(DataError, match=r"neither image_hr-000000001 nor image-000000001 exists"):
        TextZoomLMDB(path)


@pytest.mark.parametrize("prefix", ["image", "image_hr", "image_HR"])
def test_hr_only_sets_point_to_syn_and_can_be_read_with_it(tmp_path, prefix):
    entries = {key.replace("image_hr", prefix): value for key, value in entries_of(pairs()).items() if "lr" not in key}
    path = write_entries(tmp_path / "data", entries)
    with pytest.raises(DataError, match=rf"holds {prefix}-... but no image_lr-... \(HR-only\); add --syn"):
        TextZoomLMDB(path)
    data = TextZoomLMDB(path, synthetic=True)
    raw = data.raw(2)
    assert (raw.hr, raw.lr, raw.label) == (word_pair(2)[0], None, WORDS[2])


def test_synthetic_lr_is_made_from_hr_even_if_there_is_one(tiny_pairs):
    data = TextZoomLMDB(tiny_pairs, synthetic=True)
    hr, lr = data.images(data.raw(1))
    assert (np.asarray(lr) == np.asarray(synthetic_lr(decode_image(word_pair(1)[0])))).all()
    assert lr.size == (hr.width // 2, hr.height // 2)


@pytest.mark.parametrize("key", ["image_hr", "image_lr", "label"])
def test_a_missing_key_in_the_middle_is_one_corrupt_sample(tmp_path, key):
    entries = entries_of(pairs())
    del entries[f"{key}-000000002"]
    data = TextZoomLMDB(write_entries(tmp_path / "data", entries))
    assert [data.raw(index).label for index in (0, 2, 3)] == [WORDS[0], WORDS[2], WORDS[3]]
    with pytest.raises(CorruptSampleError, match=f"^{key}-000000002 is missing$"):
        data.raw(1)


@pytest.mark.parametrize(("key", "name"), [("image_hr", "HR"), ("image_lr", "LR")])
def test_an_undecodable_picture_is_one_corrupt_sample(tmp_path, key, name):
    entries = {**entries_of(pairs()), f"{key}-000000002": b"?" * 50}
    data = TextZoomLMDB(write_entries(tmp_path / "data", entries))
    with pytest.raises(CorruptSampleError, match=rf"its {name} picture \(50 bytes\) cannot be decoded"):
        data.images(data.raw(1))


def test_a_label_that_is_not_utf8_is_one_corrupt_sample(tmp_path):
    data = TextZoomLMDB(write_entries(tmp_path / "data", {**entries_of(pairs()), "label-000000002": b"caf\xe9"}))
    with pytest.raises(CorruptSampleError, match="label-000000002 is not UTF-8"):
        data.raw(1)


def test_keys_of_any_lmdb_can_be_listed(tmp_path):
    folder = LmdbFolder(write_entries(tmp_path / "data", {"b": b"2", "a": b"1"}))
    assert list(folder.keys()) == ["a", "b"]
    assert folder.get(b"b") == b"2"
    assert folder.get(b"c") is None


# ------------------------------------------------------------------------------------------- processes and threads


def labels_of(data, results=None):
    labels = [data.raw(index).label for index in range(len(data))]
    for index in range(len(data)):
        data.images(data.raw(index))
    if results is not None:
        results.put(labels)
    return labels


def test_two_readers_of_one_folder_in_one_process(tiny_pairs):
    first, second = TextZoomLMDB(tiny_pairs), TextZoomLMDB(tiny_pairs.parent / "." / tiny_pairs.name, synthetic=True)
    assert labels_of(first) == labels_of(second)
    del first
    assert second.raw(3).label == WORDS[3]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_read_while_this_one_does(tiny_pairs, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    data = TextZoomLMDB(tiny_pairs)
    expected = labels_of(data)
    context = multiprocessing.get_context(method)
    results = context.SimpleQueue()
    processes = [context.Process(target=labels_of, args=(data, results)) for _ in range(2 if method == "fork" else 1)]
    for process in processes:
        process.start()
    assert labels_of(data) == expected
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
        assert results.get() == expected
    assert labels_of(data) == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_two_inherited_readers_of_one_folder_share_a_new_handle(tiny_pairs):
    first, second = TextZoomLMDB(tiny_pairs), TextZoomLMDB(tiny_pairs)
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()

    def both():
        third = TextZoomLMDB(tiny_pairs)
        labels = [labels_of(first), labels_of(second), labels_of(third)]
        handles = {first._handle, second._handle, third._handle}
        results.put((labels, [handle.owner for handle in handles if handle]))

    process = context.Process(target=both)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert results.get() == ([labels_of(first)] * 3, [process.pid])


def test_a_pickled_reader_opens_anew(tiny_pairs):
    data = TextZoomLMDB(tiny_pairs)
    stored = pickle.dumps(data)
    assert len(stored) < 1000
    copy = pickle.loads(stored)
    assert labels_of(copy) == labels_of(data)
    assert copy.fingerprint() == data.fingerprint()


def test_threads_may_open_a_reader_at_once(tiny_pairs, monkeypatch):
    data = pickle.loads(pickle.dumps(TextZoomLMDB(tiny_pairs)))
    found: list[list[str]] = []
    opened = textzoom._open

    def slowly(folder):
        time.sleep(0.05)
        return opened(folder)

    monkeypatch.setattr(textzoom, "_open", slowly)
    threads = [threading.Thread(target=lambda: found.append(labels_of(data))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [list(WORDS[:12])] * 4


# ------------------------------------------------------------------------------------------- fingerprint


def test_fingerprint_depends_on_the_content_alone(tmp_path):
    same = {TextZoomLMDB(write(tmp_path / name, pairs())).fingerprint() for name in ("a", "b")}
    same.add(TextZoomLMDB(write_pairs(tmp_path / "c", range(4))).fingerprint())
    assert len(same) == 1


def test_every_change_changes_the_fingerprint(tmp_path):
    hr, lr, label = word_pair(1)
    other = word_pair(5)
    variants = [
        pairs(),
        pairs()[:3],
        pairs()[::-1],
        [*pairs()[:1], (hr, lr, label + "x"), *pairs()[2:]],
        [*pairs()[:1], (hr, other[1], label), *pairs()[2:]],
        [*pairs()[:1], (other[0], lr, label), *pairs()[2:]],
        [*pairs()[:1], (lr, hr, label), *pairs()[2:]],
    ]
    found = {TextZoomLMDB(write(tmp_path / str(n), samples)).fingerprint() for n, samples in enumerate(variants)}
    assert len(found) == len(variants)


def test_fingerprint_knows_where_a_part_ends(tmp_path):
    ways = [(b"bcd", b"ef", "a"), (b"cd", b"ef", "ab"), (b"bcde", b"f", "a")]
    assert (
        len({TextZoomLMDB(write(tmp_path / way[2] / str(n), [way])).fingerprint() for n, way in enumerate(ways)}) == 3
    )


def test_fingerprint_tells_missing_parts_apart(tmp_path):
    entries = entries_of(pairs())
    whole = TextZoomLMDB(write_entries(tmp_path / "a", entries)).fingerprint()
    del entries["image_lr-000000002"]
    assert TextZoomLMDB(write_entries(tmp_path / "b", entries)).fingerprint() != whole


# ------------------------------------------------------------------------------------------- writing


def test_written_sets_are_whole_and_plain(tmp_path):
    path = write(tmp_path / "deep" / "set", pairs(3))
    assert sorted(child.name for child in path.iterdir()) == ["data.mdb"]
    assert [child.name for child in path.parent.iterdir()] == ["set"]
    assert sorted(LmdbFolder(path).keys()) == sorted(entries_of(pairs(3)))


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "set").mkdir()
    assert len(TextZoomLMDB(write(tmp_path / "set", pairs(2)))) == 2


def test_nothing_is_overwritten(tmp_path, tiny_pairs):
    for existing in (tiny_pairs, tiny_pairs / "data.mdb"):
        with pytest.raises(FileExistsError, match="nothing is overwritten"):
            TextZoomWriter(existing)


def test_an_exception_leaves_nothing_behind(tmp_path):
    with pytest.raises(RuntimeError, match="power"), TextZoomWriter(tmp_path / "set") as writer:
        hr, lr, label = word_pair(0)
        writer.add(hr=hr, lr=lr, label=label)
        raise RuntimeError("power")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_set_is_not_written(tmp_path):
    with pytest.raises(DataError, match="no sample was added"), TextZoomWriter(tmp_path / "set"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_is_replaced_but_nothing_else(tmp_path):
    partial = tmp_path / "set.partial"
    partial.mkdir()
    (partial / "data.mdb").write_bytes(b"half")
    assert len(TextZoomLMDB(write(tmp_path / "set", pairs(2)))) == 2
    assert not partial.exists()
    shutil.rmtree(tmp_path / "set")
    partial.mkdir()
    (partial / "thesis.tex").touch()
    with pytest.raises(FileExistsError):
        write(tmp_path / "set", pairs(2))
    assert (partial / "thesis.tex").is_file()


@pytest.mark.parametrize("commit_every", [1, 3, 1000])
def test_the_map_grows_with_the_data(tmp_path, monkeypatch, commit_every):
    monkeypatch.setattr(TextZoomWriter, "FIRST_MAP_SIZE", 1 << 15)
    monkeypatch.setattr(TextZoomWriter, "COMMIT_EVERY", commit_every)
    samples = [(os.urandom(20_000), None, f"word{number}") for number in range(20)]
    data = TextZoomLMDB(write(tmp_path / "set", samples), synthetic=True)
    assert [(data.raw(n).hr, None, data.raw(n).label) for n in range(20)] == samples
    assert (tmp_path / "set" / "data.mdb").stat().st_size < 4 * 20 * 20_000


def test_what_is_written_is_not_kept_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(TextZoomWriter, "COMMIT_EVERY", 2)
    with TextZoomWriter(tmp_path / "set") as writer:
        for number in range(5):
            writer.add(hr=b"x", lr=b"x", label=str(number))
            assert len(writer._pending) <= 3


def test_labels_keep_every_character(tmp_path):
    labels = ["naïve", "小吃", " a\tb\n", "", "\N{FOUR LEAF CLOVER}"]
    data = TextZoomLMDB(write(tmp_path / "set", [(*word_pair(n)[:2], label) for n, label in enumerate(labels)]))
    assert [data.raw(index).label for index in range(5)] == labels


def test_relative_paths_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(TextZoomLMDB(write(Path("set"), pairs(2)))) == 2
    with pytest.raises(DataError, match=r"nothing there; \S+ holds set"):
        TextZoomLMDB("other")
