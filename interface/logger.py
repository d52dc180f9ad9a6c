"""What a run says: log lines, `metrics.jsonl`, TensorBoard, a progress bar. Only the first process speaks."""

import json
import logging
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from tqdm import tqdm

LINE = logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S")


class _ConsoleHandler(logging.StreamHandler):
    """Writes above the progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


class _RunFileHandler(logging.FileHandler):
    """`log.txt` of a run."""


class _EarlyLines(logging.Handler):
    """Keeps the lines of the time before the run folder is known, for its `log.txt`."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


_OURS = (_ConsoleHandler, _RunFileHandler, _EarlyLines)


def setup_logging(rank: int) -> None:
    """Send the program's log lines to the terminal; processes other than the first only report warnings."""
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _OURS)]:
        root.removeHandler(handler)
        handler.close()
    for handler in (_ConsoleHandler(), _EarlyLines()):
        handler.setFormatter(LINE)
        root.addHandler(handler)
    root.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    # Lines of libraries at INFO are theirs, not the run's.
    for name in ("PIL", "accelerate", "torch", "tensorboard", "absl", "RapidOCR", "matplotlib", "fontTools"):
        logging.getLogger(name).setLevel(logging.WARNING)


def log_to_file(path: Path) -> None:
    """Append all log lines to `path` as well."""
    handler, root = _RunFileHandler(path, encoding="utf-8"), logging.getLogger()
    handler.setFormatter(LINE)
    for early in [other for other in root.handlers if isinstance(other, _EarlyLines)]:
        for record in early.records:
            handler.handle(record)
        root.removeHandler(early)
    root.addHandler(handler)


def pairs(values: Mapping[str, float]) -> str:
    """`key=value key=value`, as in log lines."""
    return " ".join(f"{key}={value:.4g}" for key, value in values.items())


def finite(value: Any) -> Any:
    """JSON has no infinity: numbers that are not finite become the strings "inf", "-inf" or "nan"."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


class RunLog:
    """`metrics.jsonl` (one event a line, appended) and TensorBoard; does nothing in processes other than the first.

    Args:
        folder: run folder; None writes nothing.
        logs_dir: folder of the TensorBoard events.
        step: where the run goes on; TensorBoard then hides what a killed run wrote beyond it.
    """

    def __init__(self, folder: Path | None, logs_dir: Path | None, step: int = 0) -> None:
        self._lines = None
        self._board: Any = None
        if folder is not None:
            self._lines = (folder / "metrics.jsonl").open("a", encoding="utf-8")
        if logs_dir is not None:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - takes a second to import

            self._board = SummaryWriter(str(logs_dir), purge_step=step)

    def event(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Append one line to `metrics.jsonl`."""
        if self._lines is not None:
            line = {"event": kind, "step": step, "time": round(time.time(), 3), **finite(values)}
            self._lines.write(json.dumps(line, ensure_ascii=False) + "\n")
            self._lines.flush()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers for TensorBoard, by tag."""
        if self._board is not None:
            for tag, value in values.items():
                self._board.add_scalar(tag, value, step)

    def picture(self, tag: str, step: int, pixels: np.ndarray) -> None:
        """(H, W, 3) uint8 for TensorBoard."""
        if self._board is not None:
            self._board.add_image(tag, pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Flush and close both."""
        if self._lines is not None:
            self._lines.close()
        if self._board is not None:
            self._board.close()


class Progress:
    """A progress bar that stays quiet when nobody watches a terminal.

    Args:
        total: number of units; the bar gives the time left.
        unit: its name.
        start: units done before.
        text: in front of the bar.
        show: False for processes other than the first.
    """

    def __init__(self, total: int, *, unit: str, start: int = 0, text: str = "", show: bool = True) -> None:
        quiet = not (show and sys.stderr.isatty())
        self._bar = tqdm(
            total=total, initial=start, unit=unit, desc=text, disable=quiet, leave=False, dynamic_ncols=True
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def advance(self, count: int = 1) -> None:
        """Count units."""
        self._bar.update(count)

    def note(self, **values: str) -> None:
        """Show values behind the bar."""
        if not self._bar.disable:
            self._bar.set_postfix(values, refresh=False)
