"""TextBase: configuration -> live parts. It builds, saves and restores them; it has no loop and knows no method."""

import logging
import os
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from dataset.loading import LoaderSpec, PairLoader, build_loader, split_held_out, split_names
from interface.checkpoint import load_checkpoint, save_checkpoint, write_atomically, write_text
from interface.config import RUN_CONFIG, Settings, flatten, to_yaml
from interface.evaluation import Evaluator, Split
from interface.logger import RunLog, log_to_file, setup_logging
from interface.optim import build_optimizer, learning_rate, release_learning_rate
from interface.provenance import code_version
from interface.readers import ReadingCache, build_readers
from interface.resume import BEST, LAST, Resume, open_resume
from interface.state import restore_rng, rng_state, seed_everything
from interface.systems import System, build_system

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
        os.environ["ACCELERATE_TORCH_DEVICE"] = device
    return Accelerator(cpu=device == "cpu", mixed_precision=mixed_precision)


class TextBase:
    """The parts of a run.

    Args:
        settings: what the command line means.

    Attributes:
        system: networks within their recipe; `engine` is the same, wrapped for precision and distribution.
        step: optimizer steps done; epoch, position: where the next batch lies in the training data.
        best: {"score": [...], "step": n} of the best validation so far, or None.
    """

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
        seed_everything(train.seed)
        self.step = self.epoch = self.position = 0
        self.best: dict[str, Any] | None = None
        self.folder: Path | None = None
        self.run_log = RunLog(None, None)

    # Parts.

    def build_system(self, *, training: bool) -> None:
        """Networks, with the weights of `--resume` if there is one, on the device."""
        pretrained = training and self.resume is None
        self.system: System = build_system(self.config, training=training, pretrained=pretrained)
        if self.resume is not None:
            self.resume.load_system(self.system)
        # Convolutions are a fifth faster on CPU, and take tensor cores on GPU, when channels lie together.
        self.system.to(self.device)
        self.system.to(memory_format=torch.channels_last)

    def loader_spec(self) -> LoaderSpec:
        """How this run reads pictures."""
        train = self.config.TRAIN
        return LoaderSpec(
            width=train.width,
            height=train.height,
            scale=train.down_sample_scale,
            mask=self.config.MODEL.mask,
            voc_type=train.voc_type,
            synthetic=train.syn,
            cache=train.cache,
            workers=train.workers,
            batch_size=train.batch_size,
            seed=train.seed,
            rank=self.rank,
            world_size=self.world_size,
            pin_memory=self.device.type == "cuda",
        )

    def build_training_data(self) -> tuple[PairLoader, list[Split]]:
        """The training loader, and the validation sets that choose `best.pth`."""
        spec, val = self.loader_spec(), self.config.TRAIN.VAL
        pairs = spec.pairs(self.config.TRAIN.train_data_dir)
        if val.select_on == "test":
            splits = self.build_splits(self.config.TEST.test_data_dir)
        elif val.val_data_dir:
            splits = self.build_splits(val.val_data_dir)
        else:
            kept, held = split_held_out(pairs, val.held_out)
            paths = self.config.TRAIN.train_data_dir
            pairs, held_pairs = spec.pairs(paths, kept), spec.pairs(paths, held)
            splits = [self.split("held_out", ", ".join(paths), build_loader(held_pairs, spec, train=False))]
        return build_loader(pairs, spec, train=True), splits

    def build_splits(self, paths: list[str]) -> list[Split]:
        """Data sets to evaluate on, named after their folders."""
        spec = self.loader_spec()
        loaders = [build_loader(spec.pairs([path]), spec, train=False) for path in paths]
        return [self.split(*entry) for entry in zip(split_names(paths), paths, loaders, strict=True)]

    def split(self, name: str, path: str, loader: PairLoader) -> Split:
        """A data set with the fingerprint of its pictures as this run prepares them."""
        spec = loader.pairs
        prepared = f"{spec.width}x{spec.height}/{spec.scale}-{'syn' if self.config.TRAIN.syn else 'pair'}"
        return Split(name, path, loader, f"{spec.fingerprint()}-{prepared}")

    def build_evaluator(self) -> Evaluator:
        """The recognisers of `--test_model` and how results are counted."""
        test = self.config.TEST
        return Evaluator(
            readers=build_readers(test.test_model, self.config, self.device),
            device=self.device,
            cache=ReadingCache(Path(test.cache_dir) if test.cache_dir else None),
            bootstrap_samples=test.bootstrap_samples,
            psnr_batch_size=test.psnr_batch_size,
            gather=gather_object if self.world_size > 1 else lambda records: records,
            autocast=self.accelerator.autocast,
        )

    def build_optimizers(self) -> None:
        """One optimizer per phase of the recipe; wraps system and optimizers for precision and distribution.

        Raises:
            ValueError: the network has nothing to train.
        """
        parameters = {phase: self.system.params(phase) for phase in self.system.phases}
        if not all(parameters.values()):
            raise ValueError(f"--arch {self.config.arch} has no parameters to train; evaluate it with --go_test")
        optimizers = [build_optimizer(group, self.config.TRAIN) for group in parameters.values()]
        self.engine, *wrapped = self.accelerator.prepare(self.system, *optimizers)
        self.optimizers = dict(zip(parameters, wrapped, strict=True))

    def learning_rate(self, total: int, samples: int, steps_per_epoch: int) -> float:
        """The rate of the next step."""
        train = self.config.TRAIN
        if train.schedule == "rtsrn_release":
            return release_learning_rate(self.step, peak=train.lr, samples=samples, steps_per_epoch=steps_per_epoch)
        warmup = round(train.warmup * total)
        return learning_rate(self.step, schedule=train.schedule, peak=train.lr, warmup=warmup, total=total)

    # Run folder.

    def claim_folder(self) -> Path:
        """Choose and create the run folder; nothing that is there is overwritten.

        Raises:
            FileExistsError: the folder holds another run.
        """
        train = self.config.TRAIN
        continued = self.resume.folder if self.resume is not None and self.resume.state is not None else None
        if continued is not None and "TRAIN.VAL.vis_dir" not in self.settings.given:
            folder = continued
        else:
            name = train.VAL.vis_dir or f"{self.config.arch}-{time.strftime('%Y%m%d-%H%M%S')}"
            folder = Path(self.shared(str(Path(train.ckpt_dir) / name)))
        if (continued is None or folder.resolve() != continued.resolve()) and list(folder.glob("*.pth")):
            raise FileExistsError(
                f"{folder} already holds a run; continue it with --resume {folder}, or choose another name with "
                "--vis_dir"
            )
        self.folder = folder
        self.accelerator.wait_for_everyone()
        if self.rank == 0:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / RUN_CONFIG, lambda path: write_text(path, to_yaml(self.config)))
            log_to_file(folder / "log.txt")
            logs = Path(train.logs_dir) / folder.name if train.logs_dir else folder / "tensorboard"
            self.run_log = RunLog(folder, logs)
        return folder

    def shared(self, value: Any) -> Any:
        """The first process's `value`, in every process."""
        return broadcast_object_list([value])[0] if self.world_size > 1 else value

    # Saving and restoring.

    def save(self, name: str) -> None:
        """Write the whole state of the run to a file of the run folder; every process must call it."""
        generators = gather_object([rng_state()]) if self.world_size > 1 else [rng_state()]
        if self.rank == 0:
            assert self.folder is not None
            scaler = self.accelerator.scaler
            state = {
                "system": self.system.trained_state(),
                "optimizers": {phase: optimizer.state_dict() for phase, optimizer in self.optimizers.items()},
                "scaler": scaler.state_dict() if scaler is not None else None,
                "step": self.step,
                "epoch": self.epoch,
                "position": self.position,
                "best": self.best,
                "rng": generators,
                "config": _plain(self.config),
                "code": code_version(),
            }
            save_checkpoint(self.folder / name, state)
        self.accelerator.wait_for_everyone()

    def restore(self) -> None:
        """Take over optimizers, counters and random generators of the run that `--resume` names."""
        state = self.resume.state if self.resume is not None else None
        if state is None:
            return
        for phase, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][phase])
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step, self.epoch, self.position = state["step"], state["epoch"], state["position"]
        self.best = state["best"]
        if len(state["rng"]) == self.world_size:
            restore_rng(state["rng"][self.rank])
        else:
            log.warning("saved by %d process(es), continued by %d: other numbers", len(state["rng"]), self.world_size)
        changed = _changed(state["config"], self.config)
        if changed:
            log.warning("continued with other options than saved, so not bit-identical: %s", ", ".join(changed))

    def load_best(self) -> int | None:
        """Put the weights of `best.pth` into the system; returns the step they are from."""
        assert self.folder is not None
        path = self.folder / BEST
        if not path.is_file():
            return None
        state = load_checkpoint(path)
        self.system.load_trained_state(state["system"], str(path))
        return int(state["step"])


def _plain(config: Any) -> Any:
    if isinstance(config, dict):
        return {key: _plain(value) for key, value in config.items()}
    return [_plain(value) for value in config] if isinstance(config, list | tuple) else config


# Options that do not change what a training step computes.
FREE = tuple(
    "TRAIN.resume TRAIN.device TRAIN.workers TRAIN.cache TRAIN.ckpt_dir TRAIN.logs_dir TRAIN.saveInterval "
    "TRAIN.displayInterval TRAIN.VAL.n_vis TRAIN.VAL.vis TRAIN.VAL.valInterval TEST.".split()
)


def _changed(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    before = dict(flatten(old))
    return [
        f"{key} {before.get(key)!r} -> {value!r}"
        for key, value in flatten(_plain(new))
        if before.get(key) != value and not key.startswith(FREE)
    ]


__all__ = ["BEST", "LAST", "TextBase", "build_accelerator"]
