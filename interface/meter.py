"""Means of losses and the speed of training between two log lines."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from torch import Tensor

from interface.logger import Progress, RunLog, pairs

log = logging.getLogger(__name__)

GRAD_NORM = "grad_norm"
Item = TypeVar("Item")


class Meter:
    """Sums what each step reports; sums stay on the device, so that logging waits for it only once per line.

    Args:
        weights: factor of each loss term, to give terms unweighted as well.
        images_per_step: of all processes.
        step: steps done before.
    """

    def __init__(self, weights: Mapping[str, float], images_per_step: int, step: int) -> None:
        self.weights, self.images_per_step = weights, images_per_step
        self._sums: dict[str, Tensor] = {}
        self._step, self._started, self._waited = step, time.perf_counter(), 0.0

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add the values of one step, by `phase/term`."""
        for name, value in values.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def waiting_for(self, items: Iterable[Item]) -> Iterator[Item]:
        """The same items; the time until each is there, or there is none left, counts as waiting."""
        iterator = iter(items)
        while True:
            started = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self._waited += time.perf_counter() - started
            yield item

    def leave_out(self, seconds: float) -> None:
        """Time that was no training does not count for the speed."""
        self._started += seconds

    def write(self, run_log: RunLog, bar: Progress, *, step: int, total: int, epoch: int, rate: float) -> None:
        """Means since the last line, to the log, `metrics.jsonl`, TensorBoard and the bar; then start anew."""
        now, steps = time.perf_counter(), step - self._step
        means = {name: (value / steps).item() for name, value in self._sums.items()}
        terms = {name: value for name, value in means.items() if not name.endswith(f"/{GRAD_NORM}")}
        factors = {name: self.weights[name.rpartition("/")[2]] for name in terms}
        raw = {name: value / factors[name] for name, value in terms.items() if factors[name]}
        seconds = max(1e-9, now - self._started)
        speed, waited = self.images_per_step * steps / seconds, self._waited / seconds
        loss = sum(terms.values())
        place = f"step {step}/{total} loss={loss:.4g} {pairs(means)} lr={rate:.3g}"
        log.info("%s images/s=%.3g waiting_for_data=%.1f%%", place, speed, 100 * waited)
        values = {"loss": loss, "lr": rate, "images_per_second": speed, "waiting_for_data": waited, **means}
        run_log.event("train", step, {"epoch": epoch, **values, "unweighted": raw})
        run_log.scalars(step, {f"train/{name}": value for name, value in values.items()})
        run_log.scalars(step, {f"unweighted/{name}": value for name, value in raw.items()})
        bar.note(loss=f"{loss:.4g}", lr=f"{rate:.2g}")
        self._sums, self._step, self._started, self._waited = {}, step, now, 0.0
