"""The literature's numbers for LR and HR: checked for TextZoom with published weights, and loud if they differ."""

import pytest

from interface.anchors import PUBLISHED, TEXTZOOM, check_anchors
from interface.readers import Reader
from interface.report import screen_table, write_report
from interface.report_text import facts, warnings_of
from tests.interface.test_report import report  # noqa: F401 - a fixture

READERS = [
    Reader("CRNN", None, "CRNN-1", "", "rec_pth/crnn.pth"),  # type: ignore[arg-type]
    Reader("ASTER", None, "ASTER-1", "", "rec_pth/demo.pth.tar"),  # type: ignore[arg-type]
    Reader("MORAN", None, "MORAN-1", "", "elsewhere/demo.pth"),  # type: ignore[arg-type]
    Reader("PPOCR", None, "PPOCR-1", ""),  # type: ignore[arg-type]
]


def results(off=0, skipped=0):
    """What published weights read, `off` pictures more of each kind."""
    found = {}
    for place, (name, size) in enumerate(TEXTZOOM.items()):
        images = size - skipped
        accuracy = {
            reader: {row: {"value": values[place] / 100 + off / images} for row, values in published.rows.items()}
            for reader, published in PUBLISHED.items()
        }
        accuracy["PPOCR"] = {row: {"value": 0.9} for row in ("lr", "hr")}
        found[name] = {"images": images, "skipped": skipped, "accuracy": accuracy}
    return found


def test_the_published_numbers_fit():
    found = check_anchors(results(), READERS)
    assert len(found) == 3 * 3 * 2
    assert all(anchor["fits"] and anchor["pictures"] == 0 for anchor in found)
    easy = found[0]
    assert (easy["split"], easy["reader"], easy["row"], easy["published"]) == ("easy", "CRNN", "lr", 0.3749)


@pytest.mark.parametrize(("off", "fits"), [(5, True), (-5, True), (6.5, False), (-6.5, False)])
def test_a_handful_of_pictures_is_allowed(off, fits):
    found = check_anchors(results(off), READERS)
    assert {anchor["fits"] for anchor in found} == {fits}
    assert {anchor["pictures"] for anchor in found} == {off}


def test_skipped_pictures_belong_to_the_set():
    assert len(check_anchors(results(skipped=2), READERS)) == 18


def test_other_data_and_other_weights_have_no_anchor():
    other = {name: {**entry, "images": entry["images"] - 1} for name, entry in results().items()}
    assert check_anchors(other, READERS) == []
    renamed = {f"mine_{name}": entry for name, entry in results().items()}
    assert check_anchors(renamed, READERS) == []
    assert len(check_anchors({f"test/{name}": entry for name, entry in results().items()}, READERS)) == 18
    own = [Reader("CRNN", None, "", "", "ckpt/mine/crnn.safetensors"), READERS[3]]  # type: ignore[arg-type]
    assert check_anchors(results(), own) == []


def test_a_deviation_is_loud(report, tmp_path):  # noqa: F811 - the fixture
    wrong = report | {"anchors": check_anchors(results(-40), READERS[:1])}
    assert len(warnings_of(wrong)) >= 6
    screen = screen_table(wrong)
    assert "WARNING: CRNN reads 35.02 % of easy's LR pictures, the published 37.49 %: 40 pictures fewer." in screen
    written = write_report(tmp_path, wrong)
    for kind in ("md", "html"):
        assert "40 pictures fewer" in written[kind].read_text()
    calm = report | {"anchors": check_anchors(results(2), READERS[:1])}
    assert "pictures fewer" not in screen_table(calm)
    group = dict(facts(calm))["LR and HR against the literature"]
    assert ("CRNN on easy, LR", "37.61 %, published 37.49 % (+2 pictures: as published)") in group
