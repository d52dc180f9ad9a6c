import itertools

import pytest

from dataset.loading import OrderedBatches
from dataset.sampler import EpochBatches


def drawn(epoch=0, start=0, **kwargs):
    batches = EpochBatches(**kwargs)
    batches.seek(epoch, start)
    result = list(batches)
    assert len(batches) == len(result)
    return result


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("size", [48, 53])
def test_processes_together_draw_the_batches_of_one_process(world_size, size):
    alone = drawn(epoch=2, size=size, batch_size=4 * world_size, seed=7)
    parts = [
        drawn(epoch=2, size=size, batch_size=4, seed=7, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    assert [list(itertools.chain(*step)) for step in zip(*parts, strict=True)] == alone


def test_an_epoch_visits_every_sample_once():
    for drop_last in (True, False):
        batches = drawn(size=50, batch_size=8, drop_last=drop_last)
        visited = list(itertools.chain(*batches))
        assert len(set(visited)) == len(visited) == (48 if drop_last else 50)
        assert [len(batch) for batch in batches] == [8] * 6 + ([] if drop_last else [2])


def test_seek_continues_exactly():
    whole = drawn(epoch=5, size=40, batch_size=4, seed=1)
    for start in range(11):
        assert drawn(epoch=5, start=start, size=40, batch_size=4, seed=1) == whole[start:]


def test_seek_behind_the_end_is_an_empty_epoch():
    assert drawn(epoch=0, start=99, size=40, batch_size=4) == []


def test_batches_per_epoch_does_not_depend_on_the_start():
    batches = EpochBatches(size=41, batch_size=4)
    batches.seek(3, 6)
    assert (batches.batches_per_epoch, len(batches)) == (10, 4)


def test_order_depends_on_seed_and_epoch_only():
    assert drawn(epoch=1, size=60, batch_size=6, seed=3) == drawn(epoch=1, size=60, batch_size=6, seed=3)
    orders = {tuple(map(tuple, drawn(epoch=e, size=60, batch_size=6, seed=s))) for e in range(4) for s in range(-1, 4)}
    assert len(orders) == 20


def test_torchs_own_random_state_is_left_alone():
    import torch

    before = torch.get_rng_state()
    drawn(size=60, batch_size=6)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_shuffling_the_order_is_that_of_the_file():
    assert drawn(epoch=3, size=7, batch_size=3, shuffle=False, drop_last=False) == [[0, 1, 2], [3, 4, 5], [6]]


def test_fewer_samples_than_a_step_make_no_batch():
    assert drawn(size=7, batch_size=4, world_size=2) == []


@pytest.mark.parametrize("batch_size", [0, -3])
def test_batch_size_is_checked(batch_size):
    with pytest.raises(ValueError, match=f"batch_size={batch_size}"):
        EpochBatches(size=10, batch_size=batch_size)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [0, 1, 3, 12, 23])
def test_ordered_batches_cover_everything_once(world_size, size):
    parts = [OrderedBatches(size=size, batch_size=5, rank=rank, world_size=world_size) for rank in range(world_size)]
    visited = [number for part in parts for batch in part for number in batch]
    assert sorted(visited) == list(range(size))
    for part in parts:
        batches = list(part)
        assert len(part) == len(batches)
        assert all(0 < len(batch) <= 5 for batch in batches)
        assert list(itertools.chain(*batches)) == sorted(itertools.chain(*batches))
    assert list(parts[0]) == list(parts[0])  # it can be walked again
