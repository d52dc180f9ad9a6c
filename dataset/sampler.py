"""Which samples make which batch: a function of (seed, epoch, rank), so a resumed run draws what it would have."""

from collections.abc import Iterator

import torch


class EpochBatches:
    """Batches of sample numbers for one process.

    The permutation of an epoch depends on (seed, epoch) alone. It is cut into global batches of `batch_size *
    world_size`; each process takes its own part of every global batch, so two processes with batch 24 see the same
    global batches as one process with batch 48.

    Args:
        size: number of samples in the data set.
        batch_size: images per process and step.
        endless: how many of the last samples are others in each epoch: in epoch e they have their number plus e * size.
        seed: any integer.
        shuffle: draw a new order each epoch; otherwise file order.
        drop_last: leave out the last, short global batch.
        rank: number of this process.
        world_size: number of processes.
    """

    def __init__(
        self,
        *,
        size: int,
        batch_size: int,
        endless: int = 0,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}; it must be at least 1")
        self.size, self.batch_size, self.endless, self.seed = size, batch_size, endless, seed
        self.shuffle, self.drop_last = shuffle, drop_last
        self.rank, self.world_size = rank, world_size
        self.epoch, self.start = 0, 0

    def seek(self, epoch: int, start: int = 0) -> None:
        """Make the next iteration that of `epoch`, leaving out its first `start` batches."""
        self.epoch, self.start = epoch, start

    @property
    def batches_per_epoch(self) -> int:
        """Batches of a whole epoch, whatever `start` is; the same in every process."""
        step = self.batch_size * self.world_size
        return self.size // step if self.drop_last else -(-self.size // step)

    def __len__(self) -> int:
        return max(0, self.batches_per_epoch - self.start)

    def order(self) -> list[int]:
        """The sample numbers of the current epoch, all processes together."""
        if not self.shuffle:
            return list(range(self.size))
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % (1 << 63))
        return torch.randperm(self.size, generator=generator).tolist()

    def __iter__(self) -> Iterator[list[int]]:
        order = self.order()
        step = self.batch_size * self.world_size
        same, ahead = self.size - self.endless, self.epoch * self.size
        for number in range(self.start, self.batches_per_epoch):
            share = order[number * step : (number + 1) * step]
            own = share[self.rank * self.batch_size : (self.rank + 1) * self.batch_size]
            yield [sample if sample < same else sample + ahead for sample in own]
