"""TextBase: configuration -> live parts. It builds, saves and restores them; it has no loop and knows no method."""

import contextlib
import logging
import os
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from interface.checkpoint import load_checkpoint, save_checkpoint
from interface.compiling import compile_networks
from interface.config import Settings, changed_options, plain
from interface.data import cache_folder, loader_spec
from interface.evaluation import Evaluator
from interface.inference import lay_channels_together, lower_weights
from interface.late_checks import LateChecks
from interface.logger import RunLog, log_to_file, setup_logging
from interface.optim import (
    build_optimizer,
    learning_rate,
    load_optimizer,
    lr_factor,
    release_learning_rate,
    step_learning_rate,
)
from interface.provenance import code_version
from interface.readers import ReadingCache, build_readers
from interface.replays import RecordedSteps, Replays
from interface.resume import BEST, Resume, open_resume
from interface.run_folder import choose_folder, free_folder, prepare_folder
from interface.state import StopSignals, restore_rng, rng_state, seed_everything
from interface.systems import System, build_system, unused_options

log = logging.getLogger(__name__)


def build_accelerator(device: str, mixed_precision: str) -> Accelerator:
    """Accelerate on the device of the configuration: "auto", "cpu", "cuda", "cuda:N" or "mps".

    Raises:
        ValueError: that device is not there.
    """
    if device.startswith("cuda"):
        count = torch.cuda.device_count()
        if int(device.partition(":")[2] or 0) >= count:
            raise ValueError(f"--device {device}: this machine has {count} CUDA device(s); use --device cpu or auto")
    if device == "mps" and not torch.backends.mps.is_available():
        raise ValueError("--device mps: this machine has none; use --device cpu or auto")
    if ":" in device:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ValueError(f"--device {device}: with several processes each takes its own GPU; use --device cuda")
        torch.cuda.set_device(device)
    # TF32 rounds inputs to 10 bits: SSIM, a difference of nearly equal numbers, would be off in its second digit.
    torch.backends.cudnn.allow_tf32 = False
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device.partition(":")[0]
    if mixed_precision == "fp16" and kind != "cuda":
        raise ValueError(f"--mixed_precision fp16 has no effect on {kind}; use bf16, or no mixed precision")
    return Accelerator(cpu=kind == "cpu", mixed_precision=mixed_precision)


class StopRequested(Exception):
    """A signal asks the run to save and end."""


class TextBase:
    """The parts of a run.

    Args:
        settings: what the command line means.

    Attributes:
        system: networks within their recipe; `engine` is the same, wrapped for precision and distribution.
        spec: how pictures are read.
        step: optimizer steps done; epoch, position: where the next batch lies in the training data.
        best: {"score": [...], "step": n, "rule": what it depends on} of the best validation so far, or None.
        folder: the run folder, once it is claimed.
    """

    signals: StopSignals

    def __init__(self, settings: Settings) -> None:
        self.settings, self.config = settings, settings.config
        train = self.config.TRAIN
        self.accelerator = build_accelerator(train.device, train.mixed_precision)
        self.device = self.accelerator.device
        self.rank, self.world_size = self.accelerator.process_index, self.accelerator.num_processes
        setup_logging(self.rank)
        for note in settings.notes:
            log.warning("%s", note)
        self.resume: Resume | None = open_resume(settings)
        self.spec = loader_spec(self.config, rank=self.rank, world_size=self.world_size, device=self.device)
        seed_everything(train.seed)
        self.step = self.epoch = self.position = 0
        self.validated = -1  # the step of the last validation
        self.best: dict[str, Any] | None = None
        self.folder: Path | None = None
        self.run_log = RunLog(None, None)
        self.checks = LateChecks(self.device)
        self._stop_noted = False
        self.at_end = contextlib.ExitStack()  # what is to be closed when the work is done, or has failed

    def build_system(self, *, training: bool) -> None:
        """Networks, with the weights of `--resume` if there is one, on the device."""
        seed_everything(self.config.TRAIN.seed)  # whatever was built before must not change the weights
        pretrained = training and self.resume is None
        self.system: System = build_system(self.config, training=training, pretrained=pretrained)
        unused = {f"MODEL.{key}" for key in unused_options(self.config)} & self.settings.given
        if unused:
            log.warning("%s has no use for %s", self.config.arch, ", ".join(sorted(unused)))
        if self.resume is not None:
            self.resume.load_system(self.system)
        self.system.to(self.device)
        lay_channels_together(self.system)
        if self.config.TRAIN.compile:
            networks = [part for parts in self.system.published_parts().values() for part in parts]
            compile_networks(networks, self.system.method)
        elif training and self._may_record():
            for network in self.system.called_once():
                RecordedSteps.install(network)
        self.system.train(training)  # a fresh module is in training mode to its last part, frozen ones included

    def _may_record(self) -> bool:
        """Whether steps may be recorded: this process alone takes them, and of one batch."""
        train = self.config.TRAIN
        return self._replays() and self.device.type == "cuda" and self.world_size == 1 and train.accumulate == 1

    def _replays(self) -> bool:
        train = self.config.TRAIN
        return "cuda_graphs" in train and train.cuda_graphs  # recognisers have no such option

    def build_trained_system(self) -> None:
        """The system with the weights of `--resume`, for tests and demos.

        Raises:
            ValueError: there are none, although the network has some.
        """
        self.build_system(training=False)
        if self.resume is None and next(self.system.parameters(), None) is not None:
            raise ValueError(
                f"--arch {self.config.arch} would be evaluated with random weights; name trained ones with --resume"
            )
        self.system.eval()
        precision = self.accelerator.mixed_precision
        if precision != "no":
            lower_weights(self.system, torch.bfloat16 if precision == "bf16" else torch.float16)

    def build_evaluator(self) -> Evaluator:
        """The recognisers of `--test_model` and how results are counted."""
        test = self.config.TEST
        return Evaluator(
            readers=build_readers(test.test_model, self.config, self.device),
            device=self.device,
            cache=ReadingCache(cache_folder(self.config)),
            bootstrap_samples=test.bootstrap_samples,
            psnr_batch_size=test.psnr_batch_size,
            gather=gather_object if self.world_size > 1 else list,
            autocast=self.accelerator.autocast,
            replays=Replays(enabled=self._replays()),
        )

    def build_optimizers(self) -> None:
        """One optimizer per phase of the recipe; wraps system and optimizers for precision and distribution.

        Raises:
            ValueError: the network has nothing to train.
        """
        groups = {phase: self.system.rate_groups(phase) for phase in self.system.phases}
        if not all(self.system.params(phase) for phase in groups):
            raise ValueError(f"--arch {self.config.arch} has no parameters to train; evaluate it with --go_test")
        optimizers = [
            build_optimizer([{"params": params, "share": share} for params, share in parts], self.config.TRAIN)
            for parts in groups.values()
        ]
        # A hint for speed at 1x1 convolutions, whose channels-last layout can be written in two ways.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        # Steps are recorded aside: where gradients are added up, streams wait for each other, but not the program.
        warnings.filterwarnings("ignore", message="The AccumulateGrad node's stream does not match")
        self.engine, *wrapped = self.accelerator.prepare(self.system, *optimizers)
        self.optimizers = dict(zip(groups, wrapped, strict=True))

    def learning_rate(self, total: int, samples: int, steps_per_epoch: int) -> float:
        """The rate of the next step."""
        train = self.config.TRAIN
        images = train.batch_size * train.accumulate * self.world_size
        peak = train.lr * lr_factor(images, scaling=train.lr_scaling, reference=train.lr_images)
        if train.schedule == "rtsrn_release":
            return release_learning_rate(self.step, peak=peak, samples=samples, steps_per_epoch=steps_per_epoch)
        if train.schedule == "step":
            period = train.step_epochs * steps_per_epoch
            return step_learning_rate(self.step, peak=peak, period=period, factor=train.step_factor)
        warmup = round(train.warmup * total)
        return learning_rate(self.step, schedule=train.schedule, peak=peak, warmup=warmup, total=total)

    def claim_folder(self) -> None:
        """Choose and create the run folder, and write the configuration and the log there.

        Raises:
            FileExistsError: the folder holds another run.
        """
        self.folder = Path(self.shared(str(choose_folder(self.settings, self.resume))))
        self.accelerator.wait_for_everyone()  # nobody may write before everybody has looked
        if self.rank == 0:
            prepare_folder(self.folder, self.config, self.step)
            log_to_file(self.folder / "log.txt")
            train = self.config.TRAIN
            name = os.path.relpath(self.folder, train.ckpt_dir)
            logs = Path(train.logs_dir) / name if train.logs_dir else self.folder / "tensorboard"
            self.run_log = RunLog(self.folder, logs, self.step)

    def stop_requested(self) -> bool:
        """Whether any process got a signal; all of them agree on the step."""
        if self.world_size == 1:
            return bool(self.signals.received)
        flag = torch.tensor([float(bool(self.signals.received))]).to(self.device, non_blocking=True)
        self.checks.ask(self.accelerator.reduce(flag, "sum")[0] == 0, self._note_stop)
        return self._stop_noted

    def _note_stop(self) -> None:
        self._stop_noted = True

    def shared(self, value: Any) -> Any:
        """The first process's `value`, in every process."""
        return broadcast_object_list([value])[0] if self.world_size > 1 else value

    def save(self, name: str) -> None:
        """Write the whole state of the run to a file of the run folder; every process must call it."""
        assert self.folder is not None, "claim_folder comes first"
        self.system.targets.sync()
        generators = gather_object([rng_state()]) if self.world_size > 1 else [rng_state()]
        if self.rank == 0:
            scaler = self.accelerator.scaler
            state = {
                "system": self.system.trained_state(),
                "optimizers": {phase: optimizer.state_dict() for phase, optimizer in self.optimizers.items()},
                "scaler": scaler.state_dict() if scaler is not None else None,
                "step": self.step,
                "epoch": self.epoch,
                "position": self.position,
                "best": self.best,
                "validated": self.validated,
                "rng": generators,
                "config": plain(self.config),
                "code": code_version(),
            }
            save_checkpoint(self.folder / name, state)
        self.accelerator.wait_for_everyone()

    def restore(self) -> None:
        """Take over optimizers, counters and random generators of the run that `--resume` names."""
        if self.resume is None or self.resume.state is None:
            return
        state = self.resume.state
        kind = state["config"]["TRAIN"]["optimizer"]
        if kind != self.config.TRAIN.optimizer:
            raise ValueError(
                f"{self.resume.path} was made with the optimizer {kind}, whose state {self.config.TRAIN.optimizer} "
                f"cannot take over; leave TRAIN.optimizer at {kind}"
            )
        for phase, optimizer in self.optimizers.items():
            load_optimizer(optimizer, state["optimizers"][phase])
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step, self.epoch, self.position = state["step"], state["epoch"], state["position"]
        self.best, self.validated = state["best"], state["validated"]
        if len(state["rng"]) == self.world_size:
            restore_rng(state["rng"][self.rank])
        else:
            log.warning("saved by %d process(es), continued by %d: other numbers", len(state["rng"]), self.world_size)
        changed = changed_options(state["config"], self.config)
        if changed:
            log.warning("continued with other options than saved, so other numbers: %s", ", ".join(changed))
        self.resume.forget_tensors()

    def output_folder(self, kind: str) -> Path:
        """A new folder for a report or a demo: `--report_dir`, or one in the run folder."""
        named = self.config.TEST.report_dir
        train = self.config.TRAIN
        base = self.folder
        if base is None and "TRAIN.VAL.vis_dir" in self.settings.given and train.VAL.vis_dir:
            base = Path(train.ckpt_dir) / train.VAL.vis_dir
        if base is None:
            own = self.resume is not None and self.resume.exported is None  # others lie where they are kept
            base = self.resume.folder if self.resume and own else Path(train.ckpt_dir) / self.config.arch
        return free_folder(Path(named) if named else base / f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}")

    def load_best(self) -> tuple[Path, int]:
        """Put the weights of `best.pth` into the system; returns the file and the step it was saved at."""
        assert self.folder is not None, "claim_folder comes first"
        path = self.folder / BEST
        state = load_checkpoint(path)
        self.system.load_trained_state(state["system"], str(path))
        return path, int(state["step"])
