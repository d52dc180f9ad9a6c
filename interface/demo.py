"""`--demo`: pictures of words from a folder -> super-resolved pictures and what is read in them."""

import json
import logging
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from dataset.loading import LoaderSpec
from dataset.transforms import decode_image, resize_planes
from interface.evaluation import Evaluator
from interface.onnx_runtime import OnnxPath
from interface.systems import System
from interface.visualize import grid, save_png, strip, to_uint8
from model.bicubic import enlarge

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


def load_pictures(source: Path, spec: LoaderSpec) -> dict[Path, np.ndarray]:
    """LR planes (C, H, W) uint8 by file; what cannot be decoded is named in the log and left out.

    Args:
        source: folder of word crops, of any size: they are reduced to the LR size.
        spec: how the run reads pictures.

    Raises:
        ValueError: no picture can be decoded.
    """
    size = (spec.width // spec.scale, spec.height // spec.scale)
    planes = {}
    for path in find_pictures(source):
        try:
            planes[path] = resize_planes(decode_image(path.read_bytes()), size, spec.mask)
        except (OSError, ValueError) as error:
            log.warning("skipped %s: %s", path, error)
    if not planes:
        raise ValueError(f"--demo_dir {source}: none of its pictures can be decoded")
    return planes


def super_resolve_folder(
    pictures: dict[Path, np.ndarray], target: Path, system: System | OnnxPath, evaluator: Evaluator, scale: int
) -> None:
    """Write `<name>_sr.png` for each picture, `sheet.png` with all of them, and `readings.json`.

    Args:
        pictures: what `load_pictures` gave.
        target: an empty folder.
        system: in evaluation mode, or an exported one.
        evaluator: its readers, device and precision are used.
        scale: the magnification.
    """
    files = list(pictures)
    stems = Counter(path.stem for path in files)
    sheet, readings = [], {}
    for start in range(0, len(files), BATCH):
        planes = np.stack([pictures[path] for path in files[start : start + BATCH]])
        images_lr = torch.from_numpy(planes).float().to(evaluator.device) / 255
        with torch.inference_mode(), evaluator.autocast():
            if isinstance(system, OnnxPath):
                images_sr = system.super_resolve(images_lr)
            else:
                images_sr = evaluator.replays(system, images_lr)[-1].float()
        bicubic = enlarge(images_lr, scale)
        texts = {
            reader.name: [[text for text, _ in reader.read(images)] for images in (images_lr, images_sr)]
            for reader in evaluator.readers
        }
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
