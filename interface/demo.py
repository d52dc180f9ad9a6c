"""`--demo`: pictures of words from a folder -> super-resolved pictures and what is read in them."""

import json
import logging
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from dataset.transforms import decode_image, resize_planes
from interface.visualize import grid, save_png, strip, to_uint8
from model.bicubic import enlarge

if TYPE_CHECKING:
    from interface.super_resolution import TextSR

log = logging.getLogger(__name__)

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif"}
BATCH = 32


def find_pictures(folder: Path) -> list[Path]:
    """Picture files in a folder, or the one file that is named, by name.

    Raises:
        ValueError: there is none.
    """
    if folder.is_file():
        return [folder]
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not found:
        there = "it has no picture files" if folder.is_dir() else "there is no such folder"
        raise ValueError(f"--demo_dir {folder}: {there}; put word crops there ({', '.join(sorted(SUFFIXES))})")
    return found


def super_resolve_folder(task: "TextSR", source: Path) -> None:
    """Write `<name>_sr.png` for each picture, `sheet.png` with all of them, and `readings.json`, to a new folder.

    Args:
        task: holds the system and the readers.
        source: folder of word crops, of any size: they are reduced to the LR size first.

    Raises:
        ValueError: it holds no picture that can be decoded.
    """
    train = task.config.TRAIN
    size = (train.width // train.down_sample_scale, train.height // train.down_sample_scale)
    files, planes = [], []
    for path in find_pictures(source):
        try:
            planes.append(resize_planes(decode_image(path.read_bytes()), size, task.config.MODEL.mask))
            files.append(path)
        except (OSError, ValueError) as error:
            log.warning("skipped %s: %s", path, error)
    if not files:
        raise ValueError(f"--demo_dir {source}: none of its pictures can be decoded")
    target = task.output_folder("demo")
    stems = Counter(path.stem for path in files)
    sheet, readings = [], {}
    for start in range(0, len(files), BATCH):
        images_lr = torch.from_numpy(np.stack(planes[start : start + BATCH])).float().to(task.device) / 255
        with torch.inference_mode(), task.accelerator.autocast():
            images_sr = task.system.super_resolve(images_lr).float()
        bicubic = enlarge(images_lr, train.down_sample_scale)
        texts = {r.name: (r.read(images_lr), r.read(images_sr)) for r in task.evaluator.readers}
        shown = zip(files[start:], to_uint8(images_lr), to_uint8(bicubic), to_uint8(images_sr), strict=False)
        for number, (path, low, middle, high) in enumerate(shown):
            name = path.stem if stems[path.stem] == 1 else path.name  # a.png and a.jpg are two pictures
            save_png(target / f"{name}_sr.png", high)
            read = {name: {"lr": lr[number], "sr": sr[number]} for name, (lr, sr) in texts.items()}
            readings[path.name] = read
            first = next(iter(read.values()), {"lr": "", "sr": ""})
            sheet.append(strip([low, middle, high], texts=[first["lr"], "bicubic", first["sr"]]))
            said = "  ".join(f"{name}: {pair['lr']} -> {pair['sr']}" for name, pair in read.items())
            sys.stdout.write(f"{path.name}  {said}\n")
    save_png(target / "sheet.png", grid(sheet))
    (target / "readings.json").write_text(json.dumps(readings, indent=1, ensure_ascii=False), encoding="utf-8")
    sys.stdout.flush()
    log.info("%d pictures super-resolved: %s", len(files), target)
