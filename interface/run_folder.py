"""Where a run writes: one folder each, and nothing that is there is ever overwritten."""

import time
from pathlib import Path

from interface.config import RUN_CONFIG, Settings
from interface.resume import Resume


def choose_folder(settings: Settings, resume: Resume | None) -> Path:
    """The folder of this run: that of the run it continues, or a new one.

    Raises:
        FileExistsError: the folder holds another run.
    """
    train = settings.config.TRAIN
    continued = resume.folder if resume is not None and resume.state is not None else None
    if continued is not None and "TRAIN.VAL.vis_dir" not in settings.given:
        return continued
    name = train.VAL.vis_dir or f"{settings.config.arch}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = Path(train.ckpt_dir) / name
    if continued is not None and folder.resolve() == continued.resolve():
        return continued
    if list(folder.glob("*.pth")) or (folder / RUN_CONFIG).exists():
        raise FileExistsError(
            f"{folder} already holds a run ({', '.join(sorted(path.name for path in folder.iterdir())[:5])}); continue "
            f"it with --resume {folder}, or choose another name with --vis_dir"
        )
    return folder


def free_folder(folder: Path) -> Path:
    """`folder`, or the first of `folder-2`, `folder-3`, ... that is not there or empty; created."""
    number, candidate = 1, folder
    while candidate.exists() and (not candidate.is_dir() or any(candidate.iterdir())):
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    candidate.mkdir(parents=True, exist_ok=True)
    return candidate
