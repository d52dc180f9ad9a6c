"""What a report says about where its numbers come from."""

import time
from pathlib import Path
from typing import Any

import torch
from easydict import EasyDict

from interface.anchors import check_anchors
from interface.checkpoint import file_sha256
from interface.evaluation import BICUBIC, HR, LR, averages, stage_rows
from interface.provenance import command, environment
from interface.readers import Reader
from interface.resume import BEST, Resume
from model import model_spec

# Options of `MODEL` that tell one network from another.
SHOWN = ("STN", "mask", "srb", "hd_u", "triple_clues", "visual_clue", "sr_share", "tpg_share")
OPTIMISTIC = "best.pth was chosen on the test sets, as the published programs do: the result is optimistic."


def selection(config: EasyDict, resume: Resume | None, weights: Path | None) -> dict[str, str]:
    """What chose the weights: {"on": "test", "validation" or "unknown", "note": a sentence}."""
    if weights is None:
        return {"on": "validation", "note": "No trained weights: there was nothing to choose."}
    if resume is not None and resume.known is None:
        return {"on": "unknown", "note": "Published weights: how they were chosen is not recorded in the file."}
    trained = resume.known["config"]["TRAIN"] if resume is not None and resume.known else config.TRAIN
    val = trained["VAL"]
    validated = {Path(path).resolve() for path in val["val_data_dir"]}
    tested = {Path(path).resolve() for path in config.TEST.test_data_dir}
    if val.get("select_on") == "test" or validated & tested:
        return {"on": "test", "note": OPTIMISTIC}
    if {Path(path).resolve() for path in trained["train_data_dir"]} & tested:
        return {"on": "test", "note": "A test set was trained on: the result says nothing about new words."}
    chosen = resume.exported["chosen"] if resume is not None and resume.exported else weights.name
    if chosen != BEST:
        return {"on": "validation", "note": f"{weights.name}: the last state of the run, not chosen by any score."}
    return {"on": "validation", "note": "Weights were chosen on validation data, none of it one of these test sets."}


def describe(
    config: EasyDict,
    *,
    results: dict[str, dict[str, Any]],
    readers: list[Reader],
    stages: int,
    device: torch.device,
    weights: Path | None,
    step: int | None,
    resume: Resume | None,
) -> dict[str, Any]:
    """The whole report as one dict; `interface.report` says what it holds."""
    return {
        "format": 1,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": command(),
        "environment": environment(device),
        "system": {
            "arch": config.arch,
            "paper": model_spec(config.arch).paper or None,
            "stages": stages,
            "options": ", ".join(f"{key} {value}" for key, value in config.MODEL.items() if key in SHOWN),
            "weights": str(weights) if weights else None,
            "weights_sha256": file_sha256(weights) if weights is not None and weights.is_file() else None,
            "step": step,
        },
        "selection": selection(config, resume, weights),
        "protocol": {
            "compared as": "lower-case letters and digits",
            "psnr_batch_size": config.TEST.psnr_batch_size,
            "bootstrap_samples": config.TEST.bootstrap_samples,
            "mixed_precision": config.TRAIN.mixed_precision,
        },
        "readers": {
            reader.name: {"fingerprint": reader.fingerprint, "description": reader.description} for reader in readers
        },
        "rows": [LR, BICUBIC, *stage_rows(stages), HR],
        "splits": results,
        "average": averages(results),
        "anchors": check_anchors(results, readers),
    }
