"""Fixtures for all tests: small data sets, one thread."""

from pathlib import Path

import pytest

from tests.dataset.pictures import write_pairs


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Test runs share their machine, and sums keep their order."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_pairs(tmp_path_factory) -> Path:
    """A TextZoom LMDB of 12 pairs; read only."""
    return write_pairs(tmp_path_factory.mktemp("pairs") / "tiny", range(12))


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory) -> Path:
    """A folder with the LMDBs train (12 pairs), test/easy and test/medium (6 each); read only."""
    folder = tmp_path_factory.mktemp("data")
    for name, numbers in {"train": range(12), "test/easy": range(12, 18), "test/medium": range(18, 24)}.items():
        write_pairs(folder / name, numbers)
    return folder
