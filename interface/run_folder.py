"""Where a run writes: one folder each, and nothing that is there is ever overwritten."""

import time
from pathlib import Path

from easydict import EasyDict

from interface.checkpoint import write_atomically, write_text
from interface.config import RUN_CONFIG, Settings, plain, to_yaml
from interface.resume import LAST, Resume


def choose_folder(settings: Settings, resume: Resume | None) -> Path:
    """The folder of this run: that of the run it continues, or a new one.

    Raises:
        FileExistsError: the folder holds another run.
    """
    train = settings.config.TRAIN
    own = resume is not None and resume.state is not None
    # A file other than last.pth is a start for something new: going on in its folder would overwrite a later state.
    named = Path(train.resume).is_dir() or Path(train.resume).name == LAST
    continued = resume.folder if resume is not None and own and named else None
    if continued is not None and "TRAIN.VAL.vis_dir" not in settings.given:
        return continued
    wanted = train.VAL.vis_dir if "TRAIN.VAL.vis_dir" in settings.given else ""
    name = wanted or f"{settings.config.arch}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = Path(train.ckpt_dir) / name
    if continued is not None and folder.resolve() == continued.resolve():
        return continued
    if list(folder.glob("*.pth")) or (folder / RUN_CONFIG).exists():
        raise FileExistsError(
            f"{folder} already holds a run ({', '.join(sorted(path.name for path in folder.iterdir())[:5])}); continue "
            f"it with --resume {folder}, or choose another name with --vis_dir"
        )
    return folder


def prepare_folder(folder: Path, config: EasyDict, step: int) -> None:
    """Create a run folder and write its configuration; an older, different one is kept under another name."""
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".*.pth.*.tmp"):  # a save that was killed
        leftover.unlink(missing_ok=True)
    saved = plain(config)
    # With --config the file repeats the run, in a folder of its own.
    saved["TRAIN"]["resume"] = saved["TRAIN"]["VAL"]["vis_dir"] = ""
    path, text = folder / RUN_CONFIG, to_yaml(saved)
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        path.replace(free_name(folder / f"config-until-step-{step}.yaml"))
    write_atomically(path, lambda temporary: write_text(temporary, text))


def free_name(path: Path) -> Path:
    """`path`, or the first of `stem-2`, `stem-3`, ... that is not there."""
    number, candidate = 1, path
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return candidate


def free_folder(folder: Path) -> Path:
    """`folder`, or the first of `folder-2`, `folder-3`, ... that is not there or empty; created."""
    number, candidate = 1, folder
    while candidate.exists() and (not candidate.is_dir() or any(candidate.iterdir())):
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    candidate.mkdir(parents=True, exist_ok=True)
    return candidate
