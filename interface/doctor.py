"""`--doctor`: what is installed and found, what is missing for the job that the options describe, and the way out.

Nothing is trained, downloaded or written. Each section is a function that returns rows of data; `report` writes them.
What may be missing is imported inside of functions: this file itself needs the standard library alone.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from interface import starter
from interface.doctor_rows import MISSING, OK, OLD, RENDERED, UNUSABLE, Problem, Row, Section, size_of
from interface.doctor_weights import TRAINING, arch_needs, reads_with_ppocr, weights

if TYPE_CHECKING:
    from interface.config import Settings

ROOT = Path(__file__).resolve().parents[1]
LOWEST_PYTHON = "3.10"
INSTALL = "pip install -r requirements.txt"
ANOTHER_RUN = "name another run or file with --resume"
# Import names of packages that are installed under more than one name, such as onnxruntime-gpu.
MODULES = {"opencv-python-headless": "cv2", "pillow": "PIL", "pyyaml": "yaml"}
PPOCR_PACKAGES = {"rapidocr", "onnxruntime"}

TEXTZOOM = "TextZoom"
# Samples of TextZoom's sets, https://arxiv.org/abs/2005.03341.
TEXTZOOM_SIZES = {"train1": 14573, "train2": 2794, "easy": 1619, "medium": 1411, "hard": 1343}
DATA_SOURCES = (
    "TextZoom: LMDBs from https://github.com/WenjiaWang0312/TextZoom, in ./textzoom",
    "a rendered stand-in: python scripts/make_synthetic.py --out data/synthetic --pairs 20000 --test_pairs 500",
)


# ---- requirements


def version_of(package: str) -> str | None:
    """The installed version of a package, also of one that brings the same module under another name; or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        module = MODULES.get(package, package)
    if importlib.util.find_spec(module) is None:
        return None
    names = importlib.metadata.packages_distributions().get(module)
    return importlib.metadata.version(names[0]) if names else "unknown"


def _numbers(version: str) -> tuple[int, ...]:
    leading = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, leading[0].split("."))) if leading else ()


def requirement(name: str, found: str | None, lowest: str) -> Row:
    """One package against its lower bound; an unknown version passes."""
    state = MISSING if found is None else OK
    if found is not None and _numbers(found) and _numbers(found) < _numbers(lowest):
        state = OLD
    problem = None if state == OK else Problem(f"{name} >= {lowest} ({state})", INSTALL)
    return Row((name, found or "-", f">= {lowest}", state), problem=problem)


def requirements(settings: Settings | None) -> list[Row]:
    """Python and the packages of requirements.txt: a row for each that is not as it should be, one for all others."""
    rows = [requirement("python", platform.python_version(), LOWEST_PYTHON)]
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        name, _, lowest = line.partition("#")[0].strip().partition(">=")
        if name:
            rows.append(requirement(name, version_of(name), lowest))
    unread = set() if settings is None or reads_with_ppocr(settings) else PPOCR_PACKAGES
    bad = [row for row in rows if row.cells[-1] != OK]
    unneeded = ("only --test_model PPOCR needs it",)
    bad = [Row(row.cells, unneeded) if row.cells[0] in unread else row for row in bad]
    good = ", ".join(f"{row.cells[0]} {row.cells[1]}" for row in rows if row.cells[-1] == OK)
    first, *more = textwrap.wrap(good, width=100)
    return [*bad, Row((OK, first), tuple(more))]


# ---- machine


def free_memory() -> float | None:
    """Bytes that a new process may take, within the limit of a container; None if the system does not say."""
    free = None
    with contextlib.suppress(OSError, ValueError):  # not Linux
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="utf-8"))
        free = float(found[1]) * 1024 if found else None
    with contextlib.suppress(OSError, ValueError):  # no container, or no limit
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text(encoding="utf-8") for name in ("max", "current"))
        free = min(float("inf") if free is None else free, float(limit) - float(used))
    return free


def cpu_bf16() -> str:
    """Whether the CPU computes in bf16 itself."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "bf16: not known"
    native = re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", flags)
    return "bf16 in hardware" if native else "bf16 works, but is emulated"


def devices() -> list[Row]:
    """CPU, GPUs and MPS as PyTorch sees them."""
    import torch  # noqa: PLC0415

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    rows = [Row(("CPU", f"threads {torch.get_num_threads()}, cores {cores}, {cpu_bf16()}"))]
    for index in range(torch.cuda.device_count()):
        with torch.cuda.device(index):
            bf16 = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no bf16"
        about = torch.cuda.get_device_properties(index)
        rows.append(Row((f"cuda:{index}", f"{about.name}, {size_of(about.total_memory)}, {bf16}")))
    if torch.backends.mps.is_available():
        rows.append(Row(("mps", "available")))
    if len(rows) == 1:
        built = f"PyTorch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "PyTorch is built without"
        rows.append(Row(("GPU", f"none is seen; {built}")))
    return rows


def device_problem(settings: Settings) -> Problem | None:
    """Why `--device` or `--mixed_precision` cannot be had."""
    import torch  # noqa: PLC0415

    train = settings.config.TRAIN
    kind, _, index = train.device.partition(":")
    count = torch.cuda.device_count()
    if kind == "cuda" and int(index or 0) >= count:
        return Problem(f"--device {train.device}: {count} CUDA devices are seen", "--device cpu or auto")
    if kind == "mps" and not torch.backends.mps.is_available():
        return Problem("--device mps: this machine has none", "--device cpu or auto")
    if train.mixed_precision == "fp16" and (kind in ("cpu", "mps") or not count):
        return Problem("--mixed_precision fp16 needs a CUDA device", "--mixed_precision bf16, or no")
    return None


def machine(settings: Settings) -> list[Row]:
    """Devices, free memory, and free disk where runs are written."""
    problem = device_problem(settings)
    rows = devices()
    if problem is not None:
        rows.append(Row(("asked for", problem.what), problem=problem))
    free = free_memory()
    rows.append(Row(("memory", "not known" if free is None else f"{size_of(free)} free")))
    folder = Path(settings.config.TRAIN.ckpt_dir)
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    disk = f"{size_of(shutil.disk_usage(there).free)} free at {folder}"
    if there.is_dir() and os.access(there, os.W_OK):
        return [*rows, Row(("disk", disk))]
    denied = Problem(f"{there} cannot be written", "--ckpt_dir DIR with a folder of your own")
    return [*rows, Row(("disk", f"{disk}, which cannot be written"), problem=denied)]


# ---- data sets


def describe_set(path: Path) -> tuple[str, int, str]:
    """(kind, number of samples, remark) of an LMDB.

    Raises:
        DataError: it cannot be used.
    """
    from dataset.str_sets import STR_PREFIX, check_count, find_benchmark  # noqa: PLC0415
    from dataset.textzoom import TextZoomLMDB  # noqa: PLC0415
    from interface.reading import has_lr  # noqa: PLC0415

    source = TextZoomLMDB(path, synthetic=True)  # which only says that LR is not asked for
    count, name = len(source), path.absolute().name
    if has_lr(path):
        own = TEXTZOOM_SIZES.get(name)
        remark = "complete" if own == count else f"TextZoom's own {name} has {own:,}" if own else ""
        return TEXTZOOM, count, remark
    if source.hr_prefix != STR_PREFIX:
        return "HR-only", count, ""
    benchmark = find_benchmark(name)
    return "STR", count, check_count(benchmark, count).text if benchmark else ""


def data_row(role: str, path: Path, *, synthetic: bool, needed: bool, remedy: str) -> Row:
    """One data set.

    Args:
        role: what it is for, with its flag.
        path: the LMDB.
        synthetic: it needs no LR.
        needed: the job cannot run without it.
        remedy: what to do if it is missing.
    """
    from dataset.textzoom import DataError, TextZoomLMDB  # noqa: PLC0415

    name = role.partition(" ")[0]
    if not path.exists():
        return Row((name, str(path), MISSING), problem=Problem(f"{role}: {path}", remedy) if needed else None)
    try:
        kind, count, remark = describe_set(path)
        TextZoomLMDB(path, synthetic=synthetic)
    except DataError as error:
        problem = Problem(f"{role}: {error}", "see there, or name another data set")
        return Row((name, str(path), UNUSABLE), (str(error),), problem if needed else None)
    return Row((name, str(path), OK, kind, f"{count:,} samples", remark), samples=count)


def test_paths(settings: Settings) -> tuple[list[Path], bool]:
    """The test sets, folders of them taken apart where the program does so, and whether they need no LR."""
    from dataset.str_sets import find_sets  # noqa: PLC0415
    from dataset.textzoom import DataError  # noqa: PLC0415
    from interface.str_testing import are_str_sets  # noqa: PLC0415

    paths, synthetic = settings.config.TEST.test_data_dir, settings.config.TRAIN.syn
    if settings.interface == "recognition":
        return find_sets(paths), True
    try:
        photos = settings.verb != "train" and not synthetic and are_str_sets(paths)
    except DataError:  # each of them is looked at below
        photos = False
    return (find_sets(paths), True) if photos else ([Path(path) for path in paths], synthetic)


def data_remedy(settings: Settings) -> str:
    """What to do when a data set is missing."""
    there = all(Path(name, "data.mdb").is_file() for name in RENDERED.split())
    if settings.interface == "recognition":
        use = f"--train_data_dir {RENDERED}"
        first = f"{use}: rendered data are there" if there else f"render data (see above), then {use}"
        return f"{first}\n--rendered 100000: words are rendered while it trains"
    use = "--config synthetic.yaml"
    return f"{use}: rendered data are there" if there else f"get TextZoom (see above)\nrender data, then {use}"


def too_few(samples: int, settings: Settings) -> Problem | None:
    """Whether one process could take a step with so many training samples."""
    train = settings.config.TRAIN
    held_out = samples and not train.VAL.val_data_dir and train.VAL.get("select_on") != "test"
    held = max(1, round(train.VAL.held_out * samples)) if held_out else 0
    samples += train.get("rendered", 0)
    if settings.verb != "train" or not samples or samples - held >= train.batch_size * train.accumulate:
        return None
    step = f"--batch_size {train.batch_size}, --accumulate {train.accumulate}"
    return Problem(f"{samples} training samples, {held} of them held out, for a step of {step}", "lower them")


def rendered_row(settings: Settings) -> Row:
    """The words that a training renders."""
    from interface.data import rendered_words  # noqa: PLC0415

    train = settings.config.TRAIN
    try:
        stream = rendered_words(settings.config)
    except ValueError as error:  # of the word list or the fonts
        return Row(("train", "--rendered", UNUSABLE), (str(error),), Problem(str(error), "see there"))
    assert stream is not None, "some are asked for"
    kind = f"{len(stream.words):,} words of {train.word_list}" if stream.words is not None else "English words"
    return Row(("train", "rendered", OK, kind, f"{len(stream):,} an epoch", f"{len(stream.fonts)} faces"))


def validation_rows(settings: Settings) -> list[Row]:
    """What is validated on if no set is named for that."""
    train = settings.config.TRAIN
    if train.VAL.get("select_on") == "test":
        return [Row(("validation", "the test sets"))]
    rendered = [f"{train.VAL.rendered:,} rendered words, held out"] if train.get("rendered") else []
    share = [f"{train.VAL.held_out:.0%} of the training data"] if train.train_data_dir or not rendered else []
    return [Row(("validation", text)) for text in (*share, *rendered)]


def data_sets(settings: Settings) -> list[Row]:
    """What the options name for training, validation and tests."""
    config, training = settings.config, settings.verb == "train"
    train, on_test = config.TRAIN, config.TRAIN.VAL.get("select_on") == "test"
    remedy = data_remedy(settings)
    rows = []
    for path in train.train_data_dir:
        rows.append(
            data_row("train (--train_data_dir)", Path(path), synthetic=train.syn, needed=training, remedy=remedy)
        )
    rows += [rendered_row(settings)] if train.get("rendered") and training else []
    if not rows:
        none = Problem("train: no data set is named (--train_data_dir)", remedy)
        rows.append(Row(("train", "none named", MISSING), problem=none if training else None))
    few = too_few(sum(row.samples for row in rows), settings)
    rows += [Row(("train", few.what), problem=few)] if few else []
    for path in train.VAL.val_data_dir:
        role, needed = "validation (--val_data_dir)", training and not on_test
        rows.append(data_row(role, Path(path), synthetic=train.syn, needed=needed, remedy="name another, or none"))
    rows += validation_rows(settings) if not train.VAL.val_data_dir else []
    named = bool({"TEST.test_data_dir", "TRAIN.VAL.val_data_dir"} & settings.given)
    needed = settings.verb == "test" or (training and (named or on_test))
    paths, synthetic = test_paths(settings)
    for path in paths:
        rows.append(data_row("test (--test_data_dir)", path, synthetic=synthetic, needed=needed, remedy=remedy))
    return rows


# ---- the job


def trained_weights(settings: Settings) -> list[Row]:
    """What `--resume` names, and whether the job can do without."""
    from interface.config import RECOGNITION  # noqa: PLC0415
    from interface.resume import open_resume  # noqa: PLC0415
    from interface.systems import build_system  # noqa: PLC0415

    config, training = settings.config, settings.verb == "train"
    if config.TRAIN.resume:
        resume = None
        try:
            resume = open_resume(settings)
            assert resume is not None, "a path is given"
            step = "published weights" if resume.step is None else f"step {resume.step}"
            resume.load_system(build_system(settings.config, training=False, pretrained=False))
        except FileNotFoundError as error:
            if resume is not None:  # it is there, but needs another file, which the weights files lack
                return [Row((str(resume.path), OK, step), ("for: --resume",))]
            return [Row((config.TRAIN.resume, MISSING), (str(error),), Problem(str(error), ANOTHER_RUN))]
        except (OSError, ValueError) as error:
            problem = Problem(str(error), ANOTHER_RUN)
            return [Row((config.TRAIN.resume, UNUSABLE), (str(error),), problem)]
        return [Row((str(resume.path), OK, step), ("for: --resume",))]
    if settings.interface == RECOGNITION or _has_parameters(settings):
        lack = Problem(f"trained weights of --arch {config.arch}", "--resume RUN (train one first)")
        return [] if training else [Row(("--resume", MISSING), problem=lack)]
    nothing = Problem(f"--arch {config.arch} has no parameters to train", "evaluate it with --go_test")
    return [Row(("--resume", "not needed"), problem=nothing if training else None)]


def _has_parameters(settings: Settings) -> bool:
    import torch  # noqa: PLC0415

    from interface.systems.base import build_network  # noqa: PLC0415

    with torch.device("meta"):
        return next(build_network(settings.config).parameters(), None) is not None


def demo_pictures(settings: Settings) -> list[Row]:
    """The pictures of `--demo_dir`."""
    from interface.demo import find_pictures  # noqa: PLC0415

    folder = Path(settings.config.TEST.demo_dir)
    try:
        return [Row(("demo", str(folder), OK, f"{len(find_pictures(folder))} pictures"))]
    except ValueError as error:
        return [Row(("demo", str(folder), MISSING), problem=Problem(str(error), "--demo_dir DIR"))]


# ---- the report


def looked_at(
    title: str,
    look: Callable[[Settings], list[Row]],
    settings: Settings,
    footer: tuple[str, ...] = (),
    lost: Collection[str] = (),
) -> Section:
    """A section; one that cannot be made because an import fails says so.

    Args:
        title: its title.
        look: what makes its rows.
        settings: the job.
        footer: what is said below them if something is missing.
        lost: modules that are known to be missing; a section that needs one of them is skipped.
    """
    try:
        rows = look(settings)
        return Section(title, rows, footer if any({MISSING, UNUSABLE} & {*row.cells} for row in rows) else ())
    except (ImportError, OSError, RuntimeError) as error:  # a missing package, or a broken installation
        if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in lost:
            return Section(title, [], skipped=True)
        return Section(
            title, [Row((f"not looked at: {error}",), problem=Problem(f"{title.lower()}: {error}", INSTALL))]
        )


def examine(settings: Settings) -> list[Section]:
    """All sections for one job."""
    required = requirements(settings)
    lost = {MODULES.get(row.cells[0], row.cells[0]) for row in required if row.problem is not None}

    def look(title: str, rows: Callable[[Settings], list[Row]], *footer: str) -> Section:
        return looked_at(title, rows, settings, footer, lost)

    resumed = look("Weights of --resume", trained_weights)  # first: it brings options of its own
    sections = [
        Section("Requirements", required),
        look("Machine", machine),
        look("Data sets", data_sets, *DATA_SOURCES),
        *([look("Pictures", demo_pictures)] if settings.verb == "demo" else []),
        look("Weights files", weights, TRAINING),
        look("Weights files that each --arch needs, by default", arch_needs),
        resumed,
        Section("Notes", [Row((note,)) for note in settings.notes]),
    ]
    skipped = [Row((section.title,)) for section in sections if section.skipped]
    sections.append(Section("Not looked at while packages are missing", skipped))
    return [section for section in sections if section.rows]


def lines_of(section: Section) -> list[str]:
    """A section as text, its columns aligned."""
    # A row's last column does not count: what is long stands there.
    table = [row.cells[:-1] for row in section.rows]
    widths = [max(map(len, column)) for column in zip_longest(*table, fillvalue="")]
    lines = [section.title]
    for row in section.rows:
        *cells, last = row.cells
        padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=False)]
        lines.append(f"  {'  '.join([*padded, last])}".rstrip())
        lines += [f"      {line}" for note in row.notes for line in note.splitlines()]
    return [*lines, *(f"  {line}" for line in section.footer), ""]


def verdict(sections: Iterable[Section], job: str) -> list[str]:
    """What the job lacks, grouped by what to do about it, and what can be run now."""
    lacks: dict[str, list[str]] = {}
    for section in sections:
        for row in section.rows:
            if row.problem is not None:
                lacks.setdefault(row.problem.remedy, []).append(row.problem.what)
    if not lacks:
        return [f"Nothing is missing. Can be run now: {job}"]
    lines = [f"This cannot run yet: {job}"]
    for remedy, things in lacks.items():
        if remedy == INSTALL:
            things = textwrap.wrap(", ".join(things), width=100)  # noqa: PLW2901
        first, *more = [line for thing in things for line in thing.splitlines()]
        lines += [f"  lacks {first}", *(f"        {line}" for line in more)]
        lines += [f"     {'or' if number else ' >'} {line}" for number, line in enumerate(remedy.splitlines())]
    return [*lines, f"First: {INSTALL}" if INSTALL in lacks else quickstart()]


def quickstart() -> str:
    """What can be run on a fresh clone, unless files that come along are gone."""
    lost = [name for name in starter.ALL if not (ROOT / name).is_file()]
    command = "bash scripts/quickstart.sh"
    return f"For {command}, first: git checkout {' '.join(lost)}" if lost else f"Can be run now: {command}"


def run(argv: Sequence[str] | None = None) -> int:
    """Write the report to standard output; returns 0 if the job can run, 1 if something is missing.

    Raises:
        ConfigError: an option is not understood.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    job = shlex.join(["python", "main.py", *(word for word in argv if word != "--doctor")])
    try:
        from interface.config import load_settings  # noqa: PLC0415
    except ImportError:  # the packages that read options are missing themselves
        sections = [Section("Requirements", requirements(None))]
    else:
        sections = examine(load_settings(argv))
    conclusion = verdict(sections, job)
    text = "\n".join([line for section in sections for line in lines_of(section)] + conclusion)
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
    return int(len(conclusion) > 1)
