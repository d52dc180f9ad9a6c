"""Rendered words as a stream: a function of seed and number, others in each epoch, in any alphabet a face has."""

# ruff: noqa: RUF001 - letters that look like Latin ones are the point

import logging
import os
import pickle
import signal
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pytest
import torch

from dataset import synthetic
from dataset.loading import LOOKED_AT, LoaderSpec, build_loader
from dataset.rendered import VALIDATION_SEED, RenderedWords, drawable_list, find_faces, undrawable
from dataset.rendering import glyphs
from dataset.rendering.fonts import Face
from dataset.rendering.glyphs import choose_face, draws
from dataset.sampler import EpochBatches
from dataset.synthetic import label_of, make_sample
from dataset.transforms import resize_planes
from dataset.words import WordList, random_label, read_word_list
from tests.dataset.pictures import WORDS

# On one core torch advises against two workers; here they are the point.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
DEJAVU = Face("DejaVuSans", str(FONTS / "DejaVuSans.ttf"))
STIX = Face("STIXGeneral", str(FONTS / "STIXGeneral.ttf"))
AILERON, PEN = Face("Aileron", "pillow"), Face("Penround", "pen:round", 6)
FACES = (AILERON, Face("Penbrush", "pen:brush", 9), Face("Pennib", "pen:nib", 6), Face("Penround", "pen:round", 4))


def stream(size=5, seed=3, words=None):
    return RenderedWords(size, seed=seed, fonts=(AILERON, PEN), words=words)


def spec(**changes):
    return LoaderSpec(**{"batch_size": 2, "mask": False, "voc_type": "", "seed": 1, **changes})


def batches_of(loader, epochs=(0, 1)):
    found = []
    for epoch in epochs:
        loader.batches.seek(epoch)
        found += list(loader)
    loader.close()
    return found


def content(batches):
    """What three lists of batches must have in common to be the same."""
    return [(b.indices.tolist(), b.labels, b.images_hr.sum().item(), b.images_lr.sum().item()) for b in batches]


# ------------------------------------------------------------------------------------------- samples


PINNED = [  # stream 5 of version 0.1.0: label, size of HR, mean of HR and of LR
    ("(STRAIGLOUCKBERG)", (40, 322), 128.4, 142.2),
    ("Still", (62, 106), 104.2, 124.8),
    ("GAS", (50, 104), 114.4, 112.4),
    ("LAW", (54, 96), 90.5, 104.7),
    ("*jewelry", (58, 124), 95.4, 100.1),
    ("69763", (34, 146), 154.9, 152.4),
    ("summit", (38, 112), 147.1, 159.6),
    ("NINE", (30, 64), 142.0, 142.0),
]


@pytest.mark.parametrize(("index", "expected"), list(enumerate(PINNED)), ids=[entry[0] for entry in PINNED])
def test_the_words_of_earlier_versions_can_be_made_again(index, expected):
    """All choices hang on one chain of random numbers: with one more or less of them all that follows is another."""
    sample = make_sample(5, index, fonts=FACES)
    assert (sample.label, sample.hr.shape[:2]) == expected[:2]
    # libraries of another version may round in another way, which moves no mean that far
    assert (sample.hr.mean(), sample.lr.mean()) == pytest.approx(expected[2:], abs=0.5)


def test_a_label_is_known_without_its_picture(monkeypatch):
    words = WordList(["eins", "zwei", "drei"], [1, 2, 3])
    expected = [(make_sample(7, n, fonts=FACES).label, make_sample(7, n, fonts=FACES, labels=words.draw).label)
                for n in range(6)]  # fmt: skip
    monkeypatch.setattr(synthetic, "render_word", None)
    assert [(label_of(7, n), label_of(7, n, words.draw)) for n in range(6)] == expected
    assert [stream(seed=7, words=words).label(n) for n in range(6)] == [own for _, own in expected]


def test_a_pair_is_the_sample_of_its_seed_and_number():
    image_hr, image_lr, label = stream(seed=2).pair(9)
    sample = make_sample(2, 9, fonts=(AILERON, PEN))
    assert label == sample.label
    assert (np.asarray(image_hr) == sample.hr).all()
    assert (np.asarray(image_lr) == sample.lr).all()


def test_neighbours_on_a_sign_are_of_the_same_list():
    """A list of one word: nothing else is drawn, in whatever place."""
    asked = []

    def labels(rng):
        asked.append(rng.random())
        return "ξ"

    for index in range(8):
        assert make_sample(0, index, fonts=(DEJAVU,), labels=labels).label == "ξ"
    assert len(asked) > 8


# ------------------------------------------------------------------------------------------- epochs


def test_endless_samples_are_others_in_each_epoch():
    """Samples 0 to 2 are those of a file, 3 to 7 are rendered: in epoch e they are 3 + 8 e to 7 + 8 e."""
    batches = EpochBatches(size=8, endless=5, batch_size=2, seed=4)
    plain = EpochBatches(size=8, batch_size=2, seed=4)
    for epoch in (0, 1, 5):
        batches.seek(epoch)
        plain.seek(epoch)
        drawn = [number for batch in batches for number in batch]
        assert sorted(drawn) == [0, 1, 2, *(number + 8 * epoch for number in range(3, 8))]
        assert [number if number < 3 else number - 8 * epoch for number in drawn] == [
            n for batch in plain for n in batch
        ]
    batches.seek(5, 3)
    assert list(batches) == [drawn[6:]]


def test_numbers_of_later_epochs_are_later_words_of_the_stream(tiny_pairs):
    pairs = spec().pairs([tiny_pairs], selection=[4, 11], stream=stream(3))
    assert len(pairs) == 5
    names = [pairs.name_of(number) for number in (0, 1, 2, 4, 2 + 5, 4 + 5, 3 + 10)]
    assert names[:2] == [f"{tiny_pairs} sample 000000005", f"{tiny_pairs} sample 000000012"]
    assert names[2:] == [f"rendered words of seed 3, number {number}" for number in (0, 2, 3, 5, 7)]
    sample = pairs[13]
    assert sample.index == 13
    assert sample.label == label_of(3, 7)
    assert (sample.hr == resize_planes(stream().pair(7)[0], (128, 32), mask=False)).all()
    assert pairs[1].label == WORDS[11]


def test_no_word_comes_twice():
    batches = batches_of(build_loader(spec().pairs([], stream=stream(4)), spec(), train=True), range(5))
    numbers = [number for batch in batches for number in batch.indices.tolist()]
    assert sorted(numbers) == list(range(20))
    assert len({batch.images_hr.sum().item() for batch in batches}) == len(batches) == 10


def test_workers_and_their_number_change_nothing(tiny_pairs):
    def made(**changes):
        settings = spec(**changes)
        return content(batches_of(build_loader(settings.pairs([tiny_pairs], stream=stream()), settings, train=True)))

    expected = made(workers=0)
    assert len(expected) == 16
    assert made(workers=1) == made(workers=2) == made(workers=2, cache=False) == expected
    assert {label for _, labels, *_ in expected for label in labels} > set(WORDS[:12])


def test_processes_share_the_words(tiny_pairs):
    def made(**changes):
        settings = spec(**changes)
        return batches_of(build_loader(settings.pairs([tiny_pairs], stream=stream(4)), settings, train=True), [1])

    together = made(batch_size=4)
    parts = [made(rank=rank, world_size=2) for rank in range(2)]
    assert [a.labels + b.labels for a, b in zip(*parts, strict=True)] == [batch.labels for batch in together]
    assert torch.equal(torch.cat([part[0].images_lr for part in parts]), together[0].images_lr)


def test_workers_begin_in_the_middle_of_an_epoch():
    settings = spec(workers=2)
    loader = build_loader(settings.pairs([], stream=stream(8)), settings, train=True)
    whole = content(batches_of(loader, [3]))
    loader.batches.seek(3, 2)
    assert content(list(loader)) == whole[2:]
    loader.close()


def test_training_words_are_not_kept_and_validation_words_are(monkeypatch):
    rendered = []
    original = RenderedWords.pair
    monkeypatch.setattr(RenderedWords, "pair", lambda self, index: rendered.append(index) or original(self, index))
    unseen = build_loader(spec().of_sources([stream(3, seed=VALIDATION_SEED)]), spec(), train=False)
    assert content(list(unseen)) == content(list(unseen))
    assert rendered == [0, 1, 2]
    assert unseen.pairs.name_of(1) == "rendered words, held out, number 1"
    assert not spec().pairs([], stream=stream()).cache


def test_labels_of_a_stream_are_looked_at_to_some_extent(monkeypatch, tiny_pairs):
    monkeypatch.setattr(RenderedWords, "pair", None)
    pairs = spec().pairs([tiny_pairs], selection=[0, 1], stream=stream(3))
    assert list(pairs.labels()) == [*WORDS[:2], *(label_of(3, number) for number in range(3))]
    many = spec().pairs([], stream=stream(LOOKED_AT + 5, words=WordList(["a"], [1])))
    assert len(list(many.labels())) == LOOKED_AT


def test_a_stream_can_be_sent_to_a_process_that_was_not_forked(tiny_pairs):
    pairs = spec().pairs([tiny_pairs], stream=stream(words=WordList(["eins", "zwei"], [1, 1])))
    copy = pickle.loads(pickle.dumps(pairs))
    assert (copy[15].hr == pairs[15].hr).all()
    assert copy[15].label in ("eins", "zwei")


def test_a_fingerprint_is_of_what_is_drawn():
    one, other = WordList(["a", "b"], [1, 1]), WordList(["a", "b"], [1, 2])
    kinds = [stream(), stream(size=6), stream(seed=4), stream(words=one), stream(words=other)]
    kinds.append(RenderedWords(5, seed=3, fonts=(AILERON,)))
    assert len({kind.fingerprint() for kind in kinds}) == len(kinds)
    assert stream(words=one).fingerprint() == stream(words=WordList(["a", "b"], [1, 1])).fingerprint()


def state(seed, index):
    return np.random.default_rng((seed, index)).bit_generator.state["state"]["state"]


def test_no_training_comes_to_a_word_of_validation():
    """NumPy joins the 32-bit digits of seed and index: with another choice some --seed would have the same words."""
    assert state(0, (1 << 32) * 9 + 5) == state(5 * (1 << 32), 9)  # the trap
    held_out = {state(VALIDATION_SEED, index) for index in range(2000)}
    assert len(held_out) == 2000
    seeds = [0, 1, (1 << 32) - 1, 1 << 32, 5 << 32, (1 << 63) - 1]
    indices = [*range(2000), 1 << 32, 7 << 32, 1 << 48, (1 << 63) - 1]
    assert not held_out & {state(seed, index) for seed in seeds for index in indices}


# ------------------------------------------------------------------------------------------- loader processes


def processes_of(loader):
    return [worker.pid for worker in loader._loader._iterator._workers]


def running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="asks Linux about processes")
def test_loader_processes_end_when_they_are_told_to():
    settings = spec(workers=2)
    loader = build_loader(settings.pairs([], stream=stream(4)), settings, train=True)
    list(loader)
    pids = processes_of(loader)
    assert all(map(running, pids))
    loader.close()
    loader.close()
    assert not any(map(running, pids))


def test_loader_processes_are_no_part_of_the_group_that_ctrl_c_ends():
    settings = spec(workers=1)
    loader = build_loader(settings.pairs([], stream=stream(8)), settings, train=True)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as a fork would have it
    try:
        batches = iter(loader)
        next(batches)
    finally:
        signal.signal(signal.SIGTERM, before)
    (pid,) = processes_of(loader)
    assert os.getpgid(pid) != os.getpgid(0)
    if Path("/proc/self/status").is_file():
        ignored = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "SigIgn" in line)
        assert not int(ignored.split()[1], 16) >> (signal.SIGTERM - 1) & 1
    loader.close()


def test_loader_processes_do_not_wait_for_threads_of_opencv():
    """Of those that the forking process had; a forked process would never see them end."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(4)
    try:
        cv2.GaussianBlur(np.zeros((2000, 2000), np.float32), (0, 0), 5)  # now there are some
        settings = spec(workers=1)
        assert len(batches_of(build_loader(settings.pairs([], stream=stream(4)), settings, train=True), [0])) == 2
    finally:
        cv2.setNumThreads(before)


def test_torchs_own_random_state_is_left_alone():
    before = torch.get_rng_state()
    settings = spec(workers=2)
    batches_of(build_loader(settings.pairs([], stream=stream(4)), settings, train=True), [0])
    assert torch.equal(torch.get_rng_state(), before)


# ------------------------------------------------------------------------------------------- characters


@pytest.mark.parametrize(
    ("face", "has", "lacks"),
    [
        (DEJAVU, ["Ω", "ώ", "Ж", "ß", "€", "ე", "a?"], ["語", "ก", "\ue123", "\uffff"]),
        (STIX, ["Ω", "Ж", "ß"], ["א", "語", "ე"]),  # a missing character is an empty picture there
        (AILERON, ["Az09", "?"], ["Ω", "é", "ß", "€", "AΩ"]),
        (PEN, ["Az09"], ["Ω", "é", "?"]),
        (Face("cmr", str(FONTS / "cmr10.ttf")), ["Az09"], ["Γ", "¡", "?"]),  # "¡" is another character in TeX's order
    ],
    ids=["DejaVu", "STIX", "Aileron", "pen", "TeX"],
)
def test_a_face_is_known_by_what_it_can_draw(face, has, lacks):
    assert [text for text in has + lacks if draws(face, text)] == has


def test_what_cannot_be_set_letter_by_letter_is_not_drawn_at_all():
    """DejaVu has all of them, but Hebrew and Arabic run to the left, and marks stack."""
    for text in ("שלום", "مرحبا", "e\u0301", "ab cd", "a\u00a0b", "\u200b", "a\tb"):
        assert not draws(DEJAVU, text), text


def test_every_ascii_character_is_as_it_was():
    for face in (*FACES, DEJAVU, STIX):
        own = {chr(code) for code in range(128) if draws(face, chr(code))}
        assert own == glyphs.drawable(face)


@pytest.mark.skipif(not hasattr(glyphs.cv2, "FontFace"), reason="OpenCV 5 brings these faces")
def test_opencvs_faces_show_a_question_mark_for_what_they_lack():
    face = Face("Rubik", "opencv:sans", 400)
    assert draws(face, "Ωж?")
    assert not draws(face, "अ")
    assert not draws(face, "\ue123")


def test_faces_without_letters_draw_nothing(tmp_path):
    (tmp_path / "broken.ttf").write_bytes(b"not a font")
    broken = Face("broken", str(tmp_path / "broken.ttf"))
    assert not draws(broken, "Ω")
    assert choose_face("Ω", [broken, PEN, DEJAVU], np.random.default_rng(0)) == DEJAVU


def test_rare_letters_are_drawn_by_all_faces_that_have_them():
    """Two of fifty can: chance seldom finds them in twelve tries, and then it is between them."""
    poor = [Face(f"Aileron{number}", "pillow") for number in range(48)]
    bold = Face("DejaVuSansBold", str(FONTS / "DejaVuSans-Bold.ttf"))
    rng = np.random.default_rng(0)
    chosen = [choose_face("Ω", [*poor, DEJAVU, bold], rng) for _ in range(60)]
    assert {face.source for face in chosen} == {DEJAVU.source, bold.source}
    assert min(chosen.count(DEJAVU), chosen.count(bold)) > 10


def test_a_character_no_face_has_is_named():
    with pytest.raises(ValueError, match=r"none of 2 fonts can draw 'Ω' of 'AΩ'; .*--fonts.*--font_dirs"):
        choose_face("AΩ", [AILERON, PEN], np.random.default_rng(0))


# ------------------------------------------------------------------------------------------- word lists


def write(folder, text, name="words.txt"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return path


def test_a_list_has_words_and_how_often(tmp_path):
    words = read_word_list(write(tmp_path, "\ufeffΑθήνα\t2.5\r\n\r\n  ταξί \nA b\t1e3\n" + "e\u0301te\n"))
    assert words.words == ("Αθήνα", "ταξί", "A b", "\u00e9te")
    assert words.weights.tolist() == [2.5, 1, 1000, 1]
    assert len(words) == 4


def test_words_are_drawn_as_often_as_the_list_says():
    words = WordList(["never", "seldom", "often"], [1e-12, 1, 3])
    rng = np.random.default_rng(0)
    drawn = [words.draw(rng) for _ in range(4000)]
    assert drawn.count("never") == 0
    assert drawn.count("often") / 4000 == pytest.approx(0.75, abs=0.03)
    huge = WordList(["a", "b"], [1e308, 1e308])
    assert {huge.draw(rng) for _ in range(50)} == {"a", "b"}


class Chance:
    def __init__(self, value):
        self.value = value

    def random(self):
        return self.value


def test_the_ends_of_chance_are_the_ends_of_the_list():
    words = WordList(["a", "b", "c"], [1, 1, 2])
    assert [words.draw(Chance(value)) for value in (0.0, 0.2499, 0.25, 0.5, 1 - 2**-53)] == ["a", "a", "b", "c", "c"]
    thirds = WordList([str(number) for number in range(49)], [0.1] * 49)
    assert thirds.draw(Chance(1 - 2**-53)) == "48"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file; one word a line was expected"),
        ("", "is empty; one word a line"),
        ("\n \n", "is empty"),
        ("a\n\n\t3\n", "line 3: "),
        ("a\t1\tx\n", "line 1: "),
        ("a\nb\t0\n", "line 2: '0' is no positive number"),
        ("a\t-1\n", "'-1' is no positive number"),
        ("a\tinf\n", "'inf' is no positive number"),
        ("a\tnan\n", "'nan' is no positive number"),
        ("a\tmany\n", "'many' is no positive number"),
        ("a\t\n", "'' is no positive number"),
        ("ä".encode("latin-1"), "is not UTF-8"),
    ],
)
def test_a_list_that_is_none_is_explained(tmp_path, text, message):
    path = tmp_path / "words.txt"
    if text is not None:
        write(tmp_path, text)
    with pytest.raises(ValueError, match=message) as error:
        read_word_list(path)
    assert str(path) in str(error.value)


def test_words_no_face_can_draw_are_left_out_and_counted(tmp_path, caplog):
    path = write(tmp_path, "taxi\t5\n東京\nΑθήνα\nשלום\n東京\nend\n")
    with caplog.at_level(logging.WARNING):
        words = drawable_list(path, (AILERON, DEJAVU))
    assert words.words == ("taxi", "Αθήνα", "end")
    assert words.weights.tolist() == [5, 1, 1]
    assert [record.getMessage() for record in caplog.records] == [
        f"word list {path}: 3 of 6 words are left out, no face can draw them; the first is '東京', for '東京'"
    ]
    caplog.clear()
    assert len(drawable_list(write(tmp_path, "taxi\n"), (AILERON,))) == 1
    assert not caplog.records


def test_a_list_that_no_face_can_draw_is_an_error(tmp_path):
    path = write(tmp_path, "Αθήνα\nταξί\n")
    with pytest.raises(
        ValueError, match=r"none of its 2 words can be drawn by any of 2 faces.*'Αθήνα', for 'Αθήνα'.*--font"
    ):
        drawable_list(path, (AILERON, PEN))


def test_one_face_must_have_the_whole_word():
    assert undrawable(["ab", "Ω", "a-b", "a?b", "%Ω"], (PEN, DEJAVU)) == {}
    # '?' is in the face of Pillow alone, the Georgian letter in none of these two
    face = Face("cmr", str(FONTS / "cmr10.ttf"))
    lost = undrawable(["a?", "ე", "é"], (AILERON, face))
    assert lost == {"ე": "'ე'", "é": "'é'"}


def test_half_a_word_in_each_of_two_faces_is_no_word(monkeypatch):
    monkeypatch.setattr("dataset.rendered.draws", lambda face, text: set(text) <= set(face.family))
    faces = (Face("abc", "x"), Face("cde", "y"))
    assert undrawable(["abc", "cd", "ad", "af"], faces) == {
        "ad": "want of one face with all of its letters",
        "af": "'f'",
    }


@pytest.mark.parametrize("text", ["ΑΘΗΝΑ", "φαρμακείο", "ЖИЗНЬ", "Straße", "Łódź"])
def test_other_alphabets_are_rendered(text):
    image_hr, image_lr, label = RenderedWords(1, seed=0, fonts=(DEJAVU,), words=WordList([text], [1])).pair(0)
    assert label == text
    assert np.asarray(image_hr).std() > 1
    assert image_lr.width == image_hr.width // 2


def test_folders_of_fonts_must_have_some(tmp_path):
    assert {face.source for face in find_faces([str(FONTS)])} >= {DEJAVU.source}
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(ValueError, match=rf"fonts {folder}: no \.ttf or \.otf file"):
            find_faces([str(folder)])


def test_without_a_list_words_are_english():
    rng, other = np.random.default_rng(5), np.random.default_rng(5)
    assert [stream()._labels(rng) for _ in range(5)] == [random_label(other) for _ in range(5)]
