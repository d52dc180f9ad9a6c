"""Which list of labels `--images` and `--gt` stand for."""

from pathlib import Path

import pytest

from dataset.listing import ListError, find_list


def test_the_list_beside_the_pictures_comes_before_that_of_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = tmp_path / "images"
    images.mkdir()
    (tmp_path / "gt.txt").touch()
    with pytest.raises(ListError, match=r"--gt .*images/gt.txt: no such file"):
        find_list(images, None)
    (images / "gt.txt").touch()
    assert find_list(images, None) == (images, images / "gt.txt")
    other = images / "other.txt"
    other.touch()
    assert find_list(images, other) == find_list(images, Path("other.txt")) == (images, other)
    assert find_list(None, None)[1].name == "gt.txt"
    with pytest.raises(ListError, match="--images none: no such folder"):
        find_list(Path("none"), None)
