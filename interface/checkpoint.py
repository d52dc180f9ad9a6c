"""Checkpoints and weights files: written whole or not at all, checked when read, refused with an explanation.

A checkpoint is one `torch.save` dict of tensors and plain values with a digest of its content inside, so that file and
checksum cannot part. Foreign files are read with `weights_only=True`: nothing in them is executed.
"""

import hashlib
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

FORMAT = 1
DIGEST = "sha256"
# Numbers as NumPy pickles them, under its names before and after version 2: published files hold scores like that.
SCALAR: Any = np.float64(0).__reduce__()[0]
NUMBERS: list[Any] = [(SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
NUMBERS += [np.dtype, *{type(np.dtype(name)) for name in ("f2", "f4", "f8", "i4", "i8", "bool")}]
# What FLOP counters left in published files.
LEFTOVERS = re.compile(r"(^|\.)total_(ops|params)$")
COUNTERS = re.compile(r"(^|\.)num_batches_tracked$")


class CheckpointError(ValueError):
    """A checkpoint or weights file that cannot be used; the message says why and what to do."""


def content_digest(state: Any) -> str:
    """sha256 over the structure and all values of nested dicts and lists of tensors and plain values."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, Mapping):
            digest.update(b"{")
            for key in value:
                digest.update(repr(key).encode())
                add(value[key])
            digest.update(b"}")
        elif isinstance(value, list | tuple):
            digest.update(b"[")
            for item in value:
                add(item)
            digest.update(b"]")
        elif isinstance(value, Tensor):
            digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        else:
            digest.update(repr(value).encode())
        digest.update(b",")  # sets neighbours apart: [1, 23] is not [12, 3]

    add(state)
    return digest.hexdigest()


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Have `write` fill a temporary file beside `path`, then move it there; a crash leaves the old file or the new."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # the data must be on disk before the name points to it
        temporary.replace(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file; for `write_atomically`."""
    path.write_text(text, encoding="utf-8")


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state` with its digest, atomically.

    Raises:
        OSError: the disk is full, or the folder cannot be written; an older file of that name is unharmed.
    """
    whole = {"format": FORMAT, **state}
    whole[DIGEST] = content_digest(whole)
    try:
        write_atomically(path, lambda temporary: torch.save(whole, temporary))
    except (OSError, RuntimeError) as error:  # PyTorch's writer reports a full disk as RuntimeError
        free = shutil.disk_usage(path.parent).free
        raise OSError(
            f"{path} cannot be written ({str(error).splitlines()[0]}); {free / 2**20:.0f} MiB are free there. What was "
            "saved before is unharmed: make room and go on with --resume"
        ) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote and check its digest.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is no checkpoint of this program, or damaged.
    """
    return verified(read_any(path), path)


def verified(state: Any, path: Path) -> dict[str, Any]:
    """The content of a checkpoint file, once its format and digest are checked.

    Raises:
        CheckpointError: it is no checkpoint of this program, or damaged.
    """
    if not isinstance(state, dict) or DIGEST not in state:
        raise CheckpointError(f"{path} is not a checkpoint of this program (no {DIGEST} in it)")
    if state.get("format") != FORMAT:
        raise CheckpointError(f"{path} has checkpoint format {state.get('format')}; this program reads format {FORMAT}")
    stored = state.pop(DIGEST)
    if content_digest(state) != stored:
        raise CheckpointError(f"{path} is damaged: its content does not match its checksum; use another checkpoint")
    return state


def read_any(path: Path) -> Any:
    """Whatever tensors and plain values a `torch.save` or safetensors file holds; nothing in it is executed.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is damaged, or holds more than that.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    if path.suffix == ".safetensors":
        return read_safetensors(path, str(path))
    with path.open("rb") as file:
        start = file.read(16)
    if start and start[:2] != b"PK" and start[:1] != b"\x80":  # zip, or the pickle of PyTorch before 1.6
        raise CheckpointError(f"{path} is no PyTorch file: it begins with {start!r}; download or copy it again")
    try:
        with torch.serialization.safe_globals(NUMBERS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL\W+([\w.]+)", str(error))
        wanted = f" It asks for {found[1]}." if found else ""
        raise CheckpointError(
            f"{path} holds more than tensors and plain values (a whole pickled model?); reading it would run code "
            f"from the file, so it is refused. Save its state_dict() instead.{wanted}"
        ) from error
    except (RuntimeError, EOFError, zipfile.BadZipFile, OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} ({path.stat().st_size} bytes) cannot be read; it is truncated or no PyTorch file: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error


def read_safetensors(path: Path, what: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file; `what` names it in messages.

    Raises:
        CheckpointError: it is none, or damaged.
    """
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{what} is no safetensors file: {error}") from error


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256(file)


def _sha256(file: Any) -> str:  # Python 3.10
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def read_weights(path: str | Path, *, option: str, purpose: str, remedy: str) -> dict[str, Tensor]:
    """A state dict from a `.safetensors` file, or from a `.pth` as this family of programs writes them.

    Taken apart are {"state_dict_G": ...}, {"state_dict": ...}, {"model": ...} (ABINet's) and one-element lists of them;
    `module.` in front of the keys and the leftovers of FLOP counters are removed.

    Args:
        path: the file.
        option: configuration key that sets the path, for messages.
        purpose: what the weights are for, for messages.
        remedy: what the user can do without them, for messages.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it holds no weights, or more than weights.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no weights file {path} ({option}), which is needed for {purpose}. What it is and where it comes from: "
            f"rec_pth/README.md; without it: {remedy}"
        )
    if path.suffix == ".safetensors":
        return read_safetensors(path, f"{path} ({option})")
    return clean_state(read_any(path), str(path))


def clean_state(loaded: Any, source: str) -> dict[str, Tensor]:
    """The bare state dict within what a `.pth` file holds; see `read_weights`.

    Raises:
        CheckpointError: there is none.
    """
    if isinstance(loaded, list | tuple) and len(loaded) == 1:
        loaded = loaded[0]
    if isinstance(loaded, Mapping):
        for name in ("state_dict_G", "state_dict", "model"):
            if isinstance(loaded.get(name), Mapping):
                loaded = loaded[name]
                break
    tensors = isinstance(loaded, Mapping) and {
        str(key).removeprefix("module."): value for key, value in loaded.items() if isinstance(value, Tensor)
    }
    if not tensors:
        found = f"the keys {list(loaded)[:5]}" if isinstance(loaded, Mapping) else f"a {type(loaded).__name__}"
        raise CheckpointError(f"{source} holds no network weights: found {found}; a state_dict was expected")
    return {key: value for key, value in tensors.items() if not LEFTOVERS.search(key)}


OTHER_FLAGS = (
    "If the file was made with other flags (--STN, --mask, --triple_clues, --srb, --charset ...), give the same here."
)


def load_weights(
    module: nn.Module, state: Mapping[str, Tensor], source: str | Path, *, hint: str = OTHER_FLAGS
) -> None:
    """Load a state dict strictly, and say what does not fit.

    Only BatchNorm's counters may be missing (old files have none), and only what the published network holds but never
    uses may be there beyond the module's own keys (its `published_shapes()` or `unused_published_keys` say what).

    Args:
        module: takes the weights.
        state: keys and tensors.
        source: file name, for messages.
        hint: what may be wrong, for the last line of the message.

    Raises:
        CheckpointError: keys are missing or left over, or a shape differs.
    """
    own = module.state_dict()
    published = module.published_shapes() if hasattr(module, "published_shapes") else {}  # type: ignore[operator]
    unused = set(getattr(module, "unused_published_keys", ())) | (set(published) - set(own))
    missing = [key for key in own if key not in state and not COUNTERS.search(key)]
    extra = [key for key in state if key not in own and key not in unused]
    wrong = [
        f"{key}: {tuple(state[key].shape)} in the file, {tuple(own[key].shape)} expected"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    wrong += [
        f"{key}: {tuple(state[key].shape)} in the file, {tuple(shape)} expected"
        for key, shape in published.items()
        if key in unused and key in state and state[key].shape != shape
    ]
    if missing or extra or wrong:
        lines = [f"{source} does not fit {type(module).__name__}."]
        for title, names in (("missing", missing), ("left over", extra), ("of another shape", wrong)):
            if names:
                lines.append(f"  {title} ({len(names)}): {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}")
        lines.append(f"  {hint}")
        raise CheckpointError("\n".join(lines))
    module.load_state_dict({key: state.get(key, value) for key, value in own.items()})


PUBLISHED_SR = ("model_best_acc_{}.pth", "model_best_{}.pth", "model_best.pth")
PUBLISHED_STUDENT = ("recognizer_best_acc_{}.pth", "recognizer_best_{}.pth")


def published_files(folder: Path, part: str, count: int) -> list[Path]:
    """Files of one part of a published run folder, one for each of `count` stages.

    Args:
        folder: the run folder, or one SR file in it.
        part: "model_best_acc" (SR networks) or "recognizer_best_acc" (students).
        count: how many are needed.

    Raises:
        CheckpointError: one is missing; the published program went on without it.
    """
    patterns = PUBLISHED_STUDENT if part.startswith("recognizer") else PUBLISHED_SR
    given = None
    if folder.is_file():
        given, folder = folder, folder.parent
    if given is not None and count == 1 and not part.startswith("recognizer"):
        return [given]
    files = []
    for index in range(count):
        names = [pattern.format(index) for pattern in patterns]
        if index:
            names = [name for name, pattern in zip(names, patterns, strict=True) if "{}" in pattern]
        found = next((folder / name for name in names if (folder / name).is_file()), None)
        if found is None:
            there = ", ".join(sorted(path.name for path in folder.glob("*.pth"))) or "no .pth files"
            raise CheckpointError(
                f"{folder} has no {' or '.join(names)} for stage {index + 1} of {count} (found: {there}); "
                "if the run had another number of stages, or shared them, give its --stu_iter, --sr_share, --tpg_share"
            )
        files.append(found)
    return files
