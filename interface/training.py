"""Training: the loop that all systems share; what is seen, and how it is judged, is said by those who inherit it."""

import contextlib
import logging
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dataset.loading import Batch
from interface.base import StopRequested, TextBase
from interface.data import training_data
from interface.logger import Progress, pairs
from interface.meter import GRAD_NORM, Meter
from interface.provenance import command
from interface.resume import BEST, LAST
from interface.run_folder import free_name
from interface.state import StopSignals, seed_everything

log = logging.getLogger(__name__)


class Training(TextBase):
    """The verb train: steps, each followed by what is due after it."""

    def run(self) -> int:
        """Do what the command line asks for; returns the exit code."""
        try:
            return int(getattr(self, self.settings.verb)())
        except FloatingPointError as error:
            log.error("%s", error)
            return 1
        finally:
            self.at_end.close()
            self.run_log.close()
            self.accelerator.end_training()

    def before_building(self) -> None:
        """Build what judges a validation."""

    def after_building(self) -> None:
        """Complete the system with what depends on the training data."""

    def prepare(self, batch: Batch, number: int) -> Any:
        """What the system takes, on its device; `number` counts the batches of a step from 1."""
        return batch.to(self.device)

    def judge(self) -> tuple[dict[str, float], Sequence[float]]:
        """Evaluate on the validation sets: numbers for the log, and the score by which `best.pth` is chosen.

        Raises:
            StopRequested: a signal came.
        """
        raise NotImplementedError

    def show_validation(self) -> None:
        """Pictures of a validation, for TensorBoard."""

    def selection_rule(self) -> str:
        """What scores of validations depend on; only scores of one rule can be compared."""
        raise NotImplementedError

    def test_sets(self, paths: list[str]) -> list[Any]:
        """Open the test sets."""
        raise NotImplementedError

    def test(self) -> int:
        """Evaluate the weights of `--resume` on the test sets."""
        raise NotImplementedError

    def report(self, sets: list[Any], *, weights: Path | None, step: int | None) -> None:
        """Evaluate on test sets and write the report."""
        raise NotImplementedError

    def train(self) -> int:
        """Train to the last step, or to a signal; then test `best.pth` if the test sets are there."""
        self.build_training()
        with StopSignals() as self.signals, self._bar() as bar:
            try:
                self.train_steps(bar)
            except StopRequested:
                self.save(LAST)
                received = self.signals.received
                name = signal.Signals(received).name if received else "a signal to another process"
                log.warning("%s at step %d: saved; go on with --resume %s", name, self.step, self.folder)
                return 128 + (received or signal.SIGTERM)
        log.info("trained %d steps; run folder %s", self.step, self.folder)
        self.test_best()
        return 0

    def train_steps(self, bar: Progress) -> None:
        """All steps that are left, each followed by what is due after it.

        Raises:
            StopRequested: a signal came; the step it came in is complete, a validation may not be.
        """
        if self.step >= self.total_steps:
            log.warning("already at step %d of %d; give more --steps to train on", self.step, self.total_steps)
        self.validate_if_due()  # a signal may have cut the validation of the step that was saved
        for batches in self.steps_left():
            try:
                self.train_step(batches)
            except RuntimeError:  # what a GPU makes of numbers that the step before has spoilt
                self.checks.finish()
                raise
            self.after_step(bar)
            if self.stop_requested():
                raise StopRequested
        self.save(LAST)
        if self.validated != self.step:
            self.validate()
            self.save(LAST)

    def build_training(self) -> None:
        """All parts that training needs, restored from `--resume`; what cannot work is refused before any work."""
        train = self.config.TRAIN
        self.loader, self.splits = training_data(self.config, self.spec)
        for loader in (self.loader, *(split.loader for split in self.splits)):
            self.at_end.callback(loader.close)
        self.steps_per_epoch = self.loader.batches.batches_per_epoch // train.accumulate
        if not self.steps_per_epoch:
            raise ValueError(f"--accumulate {train.accumulate} is more than the {len(self.loader)} batches of an epoch")
        self.total_steps = train.steps or train.epochs * self.steps_per_epoch
        self.before_building()
        self.build_system(training=True)
        self.after_building()
        self.build_optimizers()
        seed_everything(train.seed + self.rank)  # weights are equal in all processes, dropout is not
        self.restore()
        if self.total_steps < self.step:
            raise ValueError(
                f"{self.step} steps are taken already, more than the {self.total_steps} asked for; give more --steps "
                "or --epochs, or leave them out"
            )
        self.claim_folder()
        self.check_best()
        images = train.batch_size * train.accumulate * self.world_size
        self.meter = Meter(self.system.weights, images, self.step)
        trained = sum(p.numel() for phase in self.system.phases for p in self.system.params(phase))
        validation = ", ".join(f"{split.name} ({len(split.loader.pairs)})" for split in self.splits)
        log.info(
            f"{self.config.arch}: {trained:,} trained parameters, {self.loader.pairs.size()}, validation on "
            f"{validation}, {self.total_steps} steps of {images} images, {self.device}, run folder {self.folder}"
        )
        self.run_log.event("resume" if self.step else "start", self.step, {"command": command()})
        if not self.step:
            self.save(LAST)  # from the first moment on there is something to go on from

    def steps_left(self) -> Iterator[list[Batch]]:
        """The batches of each step that is still to be taken; keeps the position in the data.

        Raises:
            ValueError: a whole epoch gives no step, because its samples cannot be read.
        """
        while self.step < self.total_steps:
            before, start = self.step, self.position
            self.loader.batches.seek(self.epoch, start)
            batches: list[Batch] = []
            for batch in self.meter.waiting_for(self.loader):
                batches.append(batch)
                if len(batches) == self.config.TRAIN.accumulate:
                    self.position = start + self.loader.drawn
                    yield batches
                    if self.step >= self.total_steps:
                        return
                    batches = []
            if start == 0 and self.step == before:
                bad = len(self.loader.skipped)
                raise ValueError(f"no step could be taken in epoch {self.epoch}: {bad} samples cannot be read")
            self.epoch, self.position = self.epoch + 1, 0

    def train_step(self, batches: list[Batch]) -> None:
        """One step of every optimizer; the gradient is the mean over the batches."""
        self.rate = self.learning_rate(self.total_steps, len(self.loader.pairs), self.steps_per_epoch)
        for phase, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.rate * group["share"]
            for number, batch in enumerate(batches, start=1):
                last = number == len(batches)
                with contextlib.nullcontext() if last else self.accelerator.no_sync(self.engine):
                    losses = self.engine(self.prepare(batch, number), phase)
                    total = torch.stack(list(losses.values())).sum()
                    self._check_loss(total, losses, batch, phase)
                    self.accelerator.backward(total / len(batches))
                self.meter.add({f"{phase}/{name}": value.detach() / len(batches) for name, value in losses.items()})
            self.accelerator.unscale_gradients(optimizer)
            self._check_gradient(batches, phase)
            self.meter.add({f"{phase}/{GRAD_NORM}": self._clip(phase)})
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.checks.next_step()

    def save(self, name: str) -> None:
        """As `TextBase.save`, of a run whose numbers are all finite."""
        self.checks.finish()
        super().save(name)

    def _check_loss(self, total: Tensor, losses: dict[str, Tensor], batch: Batch, phase: str) -> None:
        step, loss = self.step, total.detach()  # a graph kept until the answer is there would keep its maps
        kept = {name: value.detach() for name, value in losses.items()}

        def refuse() -> None:
            terms = pairs({name: value.item() for name, value in kept.items()})
            raise self._breakdown(step, f"phase {phase}: the loss is {loss.item()}; terms: {terms}", [batch])

        self.checks.ask(torch.isfinite(loss), refuse)

    def _check_gradient(self, batches: list[Batch], phase: str) -> None:
        """A step with a gradient that is not finite spoils the weights; no checkpoint may hold them."""
        if self.accelerator.scaler is not None:  # fp16: the scaler leaves such a step out and lowers its factor
            return
        gradients = [parameter.grad for parameter in self.system.params(phase) if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        step = self.step

        def refuse() -> None:
            what = f"phase {phase}: the loss is finite, but the norm of its gradient is {norm}"
            raise self._breakdown(step, what, batches)

        self.checks.ask(torch.isfinite(norm), refuse)

    def _breakdown(self, step: int, what: str, batches: list[Batch]) -> FloatingPointError:
        names = "; ".join(self.loader.pairs.name_of(index) for batch in batches for index in batch.indices.tolist())
        return FloatingPointError(
            f"step {step}, {what}. {self.folder}/{LAST} is unharmed and can be resumed. Samples of this step, "
            f"numbered as in the LMDB keys: {names}"
        )

    def _clip(self, phase: str) -> Tensor:
        limit = self.config.TRAIN.clip_grad or float("inf")
        norms = [torch.nn.utils.clip_grad_norm_(group, limit) for group in self.system.clip_groups(phase)]
        return torch.linalg.vector_norm(torch.stack(norms))

    def after_step(self, bar: Progress) -> None:
        """Log, validate and save when it is time."""
        train = self.config.TRAIN
        bar.advance()
        if self.step % train.displayInterval == 0 or self.step == self.total_steps:
            place = {"step": self.step, "total": self.total_steps, "epoch": self.epoch}
            self.meter.write(self.run_log, bar, **place, rate=self.rate)
        self.validate_if_due()
        if self.step % train.saveInterval == 0:
            self.save(LAST)

    def validate_if_due(self) -> None:
        """Validate after every `valInterval` steps, or every epoch, once."""
        interval = self.config.TRAIN.VAL.valInterval or self.steps_per_epoch
        if self.step and self.step % interval == 0 and self.validated != self.step:
            self.validate()

    def _bar(self) -> Progress:
        return Progress(self.total_steps, unit="step", start=self.step, text=self.config.arch, show=self.rank == 0)

    def validate(self) -> None:
        """Evaluate on the validation sets and keep the best weights in `best.pth`."""
        started = time.perf_counter()
        self.checks.finish()
        self.share_buffers()
        numbers, score = self.judge()
        score = self.shared(list(score))
        improved = self.best is None or score > self.best["score"]
        log.info("validation at step %d: %s%s", self.step, pairs(numbers), " (best so far)" if improved else "")
        self.run_log.event("validation", self.step, {"epoch": self.epoch, **numbers, "best": improved})
        self.run_log.scalars(self.step, {f"validation/{name}": value for name, value in numbers.items()})
        self.show_validation()
        if improved:
            self.best = {"score": score, "step": self.step, "rule": self.selection_rule()}
        self.validated = self.step
        if improved:
            self.save(BEST)
        self.meter.leave_out(time.perf_counter() - started)

    def check_best(self) -> None:
        """Forget a best score that cannot be compared any more; its file is kept under another name."""
        assert self.folder is not None, "claim_folder comes first"
        file = self.folder / BEST
        if self.best is not None and self.best["rule"] != self.selection_rule() and file.is_file():
            kept = free_name(self.folder / f"best-{self.best['step']}.pth")
            log.warning("validation has changed, so the best model is chosen anew; the old one is kept: %s", kept)
            if self.rank == 0:
                file.replace(kept)
            self.accelerator.wait_for_everyone()
        if not file.is_file():
            self.best = None  # it lies in another folder, or is lost

    def share_buffers(self) -> None:
        """Give all processes the first one's BatchNorm statistics, which are those that a checkpoint holds."""
        if self.world_size > 1:
            for buffer in self.system.buffers():
                torch.distributed.broadcast(buffer, 0)

    def test_best(self) -> None:
        """After training: the report of `best.pth` on the test sets, unless none was named and none is there."""
        assert self.folder is not None, "claim_folder comes first"
        paths = self.config.TEST.test_data_dir
        named = {"TEST.test_data_dir", "TRAIN.VAL.val_data_dir"} & self.settings.given
        if not named and not all(Path(path).exists() for path in paths):
            log.info("no test sets at %s; to test: --go_test --resume %s --test_data_dir ...", paths[0], self.folder)
            return
        path, step = self.load_best() if (self.folder / BEST).is_file() else (self.folder / LAST, self.step)
        self.report(self.test_sets(paths), weights=path, step=step)
