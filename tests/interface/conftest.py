import pytest

from tests.interface.helpers import write_pairs


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    write_pairs(root / "train", 12, 1)
    write_pairs(root / "test" / "easy", 7, 2)
    write_pairs(root / "test" / "medium", 5, 3)
    return root
