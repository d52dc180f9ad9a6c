"""`--doctor`: what is installed and found, what is missing for the job that the options describe, and the way out.

Nothing is trained, downloaded or written. Each section is a function that returns rows of data; `report` writes them.
What may be missing is imported inside of functions: this file itself needs the standard library alone.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shlex
import shutil
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from interface.config import Settings

ROOT = Path(__file__).resolve().parents[1]
LOWEST_PYTHON = "3.10"
INSTALL = "pip install -r requirements.txt"
# Import names of packages that are installed under more than one name, such as onnxruntime-gpu.
MODULES = {"opencv-python-headless": "cv2", "pillow": "PIL", "pyyaml": "yaml"}
PPOCR_PACKAGES = {"rapidocr", "onnxruntime"}

OK, MISSING, UNUSABLE, OLD = "ok", "missing", "unusable", "too old"
TEXTZOOM = "TextZoom"
# Samples of TextZoom's sets, https://arxiv.org/abs/2005.03341.
TEXTZOOM_SIZES = {"train1": 14573, "train2": 2794, "easy": 1619, "medium": 1411, "hard": 1343}
RENDERED = "data/synthetic/train1 data/synthetic/train2"
DATA_SOURCES = (
    "TextZoom: LMDBs from https://github.com/WenjiaWang0312/TextZoom, in ./textzoom",
    "a rendered stand-in: python scripts/make_synthetic.py --out data/synthetic --pairs 20000 --test_pairs 500",
)


@dataclass(frozen=True)
class Problem:
    """Something the job needs and does not have, and what to do about it: one of the lines of `remedy`."""

    what: str
    remedy: str


@dataclass(frozen=True)
class Row:
    """A line of a section: its columns, what is to be said below it, and why the job cannot run, if it is that.

    That of a data set has its number of samples, too.
    """

    cells: tuple[str, ...]
    notes: tuple[str, ...] = ()
    problem: Problem | None = None
    samples: int = 0


@dataclass(frozen=True)
class Section:
    """Rows under a title; `footer` is said once below all of them."""

    title: str
    rows: list[Row]
    footer: tuple[str, ...] = ()


@dataclass(frozen=True)
class WeightsFile:
    """A weights file that an option can name.

    Attributes:
        option: the dotted key.
        flag: how the option is given; for keys without a flag the key itself.
        use: what does not work without the file.
        instead: how to do without it.
        network: `module:builder` of what has to fit; the builder `like` gets the weights and takes their sizes; empty:
            the table of `LOSS.confusion`.
        usual: where it is looked for if the option names none.
        system: the recipe of the networks that read it; empty: any.
        command: what makes it, unless `--arch` trains its network.
        source: who publishes it.
    """

    option: str
    flag: str
    use: str
    instead: str
    network: str = ""
    usual: str = ""
    system: str = ""
    command: str = ""
    source: str = ""

    @property
    def reader(self) -> str:
        """What `--test_model` calls its network."""
        return self.network.rpartition(":")[2]

    def makers(self, archs: Iterable[str]) -> list[str]:
        """Which of these `--arch` train such a network; where sizes are free, those with a size in their name, too."""
        own = self.network.partition(":")[0].rpartition(".")[2]
        return [name for name in archs if name == own or (self.free_size and name.startswith(f"{own}_"))]

    @property
    def free_size(self) -> bool:
        """Whether the network takes the sizes of the weights."""
        return self.network.endswith(".like")


JUDGES = "TRAIN.VAL."
WITHOUT_JUDGE = "--test_model PPOCR needs no file"
WEIGHTS = (
    WeightsFile(
        option="MODEL.tpg_pretrained",
        flag="--tpg_pretrained",
        use="the text prior",
        instead="--tpg_pretrained random --use_label trains one along (as --config synthetic.yaml does)",
        network="model.recognizer.crnn:CRNN",
        usual="./rec_pth/crnn.pth",
        system="clues",
        source="crnn.pth of https://github.com/meijieru/crnn.pytorch",
    ),
    WeightsFile(
        option="TRAIN.VAL.crnn_pretrained",
        flag="--crnn_pretrained",
        use="--test_model CRNN",
        instead=WITHOUT_JUDGE,
        network="model.recognizer.crnn:CRNN",
        source="crnn.pth of https://github.com/meijieru/crnn.pytorch",
    ),
    WeightsFile(
        option="TRAIN.VAL.rec_pretrained",
        flag="--rec_pretrained",
        use="--test_model ASTER",
        instead=WITHOUT_JUDGE,
        network="model.recognizer.aster:ASTER",
        source="demo.pth.tar of https://github.com/ayumiymk/aster.pytorch",
    ),
    WeightsFile(
        option="TRAIN.VAL.moran_pretrained",
        flag="--moran_pretrained",
        use="--test_model MORAN",
        instead=WITHOUT_JUDGE,
        network="model.recognizer.moran:MORAN",
        source="demo.pth of https://github.com/Canjie-Luo/MORAN_v2",
    ),
    WeightsFile(
        option="LOSS.text_focus_pretrained",
        flag="LOSS.text_focus_pretrained",
        use="--text_focus",
        instead="leave --text_focus out",
        network="model.recognizer.focus_transformer:FocusTransformer.like",
        source="pretrain_transformer.pth of https://github.com/FudanVI/FudanOCR (scene-text-telescope)",
    ),
    WeightsFile(
        option="LOSS.confusion",
        flag="LOSS.confusion",
        use="weights of confusions in --text_focus",
        instead="leave LOSS.confusion empty: all confusions weigh alike",
        usual="./rec_pth/confuse.npz",
        command="python scripts/convert_confusion.py confuse.pkl rec_pth/confuse.npz",
        source="confuse.pkl comes with the published programs",
    ),
    WeightsFile(
        option="MODEL.language_model",
        flag="--language_model",
        use="a pre-trained language model for --triple_clues",
        instead="leave --language_model out: it learns from nothing",
        network="model.language.bcn:BCN",
        usual="./rec_pth/language_model.safetensors",
        system="clues",
        command="python scripts/pretrain_language_model.py --out rec_pth/language_model.safetensors",
    ),
    WeightsFile(
        option="MODEL.pretrained",
        flag="--pretrained",
        use="weights to begin the training with",
        instead="leave --pretrained out to train from nothing",
        network="model:build_model",
        command="python main.py --arch ARCH ... ends with ckpt/<run>/ARCH.safetensors",
    ),
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
    """Python and the packages of requirements.txt."""
    rows = [requirement("python", platform.python_version(), LOWEST_PYTHON)]
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines():
        name, _, lowest = line.partition("#")[0].strip().partition(">=")
        if name:
            rows.append(requirement(name, version_of(name), lowest))
    unread = set() if settings is None or reads_with_ppocr(settings) else PPOCR_PACKAGES
    return [Row(row.cells) if row.cells[0] in unread else row for row in rows]


def reads_with_ppocr(settings: Settings) -> bool:
    """Whether the job reads with PP-OCR, whose packages nothing else needs."""
    return "PPOCR" in settings.config.TEST.get("test_model", [])


# ---- machine


def size_of(size: float) -> str:
    """Bytes in GiB, or what is less in MiB."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


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


# ---- weights files


def blueprint(file: WeightsFile, state: Mapping[str, Tensor], settings: Settings) -> nn.Module:
    """The network that weights have to fit, without memory for its own."""
    import torch  # noqa: PLC0415

    from dataset.charset import read_charset  # noqa: PLC0415

    module, _, name = file.network.partition(":")
    build: Callable[..., nn.Module] = attrgetter(name)(importlib.import_module(module))
    options: dict[str, Any] = {"state": state} if file.free_size else {}
    if file.option == "MODEL.pretrained":
        options = {"name": settings.config.arch, "charset": read_charset(settings.config.MODEL.charset)}
    with torch.device("meta"):
        return build(**options).to("meta")  # some buffers are made elsewhere whatever the default is


def misfit(path: Path, file: WeightsFile, settings: Settings, *, header: bool = False) -> str:
    """Why a file cannot be used; empty if it can. With `header`, of a `.safetensors` file, only shapes are read."""
    import torch  # noqa: PLC0415
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415

    from interface.checkpoint import load_weights, read_weights  # noqa: PLC0415
    from interface.confusion import read_confusion  # noqa: PLC0415

    try:
        if not file.network:
            read_confusion(path)
            return ""
        if header:
            with safe_open(path, framework="pt") as opened:
                shapes = {key: opened.get_slice(key).get_shape() for key in opened.keys()}  # noqa: SIM118 - no mapping
            state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
        else:
            state = read_weights(path, option=file.flag, purpose=file.use, remedy=file.instead)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that nothing is copied into a network without memory is intended
            network = blueprint(file, state, settings)
            load_weights(network, state, path, hint=f"{file.flag} names weights for {file.use}.")
    except (OSError, ValueError, SafetensorError) as error:
        return str(error)
    return ""


def known_hash(path: Path, sha256: str) -> str:
    """What the json beside a weights file says of its hash."""
    beside = path.with_suffix(".json")
    try:
        stored = json.loads(beside.read_text(encoding="utf-8"))["sha256"]
    except FileNotFoundError:
        return "unknown file"
    except (OSError, ValueError, KeyError, TypeError):
        return f"unknown file ({beside.name} names no sha256)"
    return f"as {beside.name} says" if stored == sha256 else f"NOT the file of {beside.name}"


def stand_ins(path: Path, file: WeightsFile, settings: Settings) -> list[Path]:
    """Files beside a missing one that fit its network."""
    there = sorted(path.parent.glob("*.safetensors")) if file.network else []
    return [other for other in there if not misfit(other, file, settings, header=True)]


def named_path(file: WeightsFile, settings: Settings) -> str:
    """What the option names; empty if no file."""
    from interface.config import get  # noqa: PLC0415
    from interface.systems.clues import RANDOM  # noqa: PLC0415

    path = get(settings.config, file.option)
    return "" if path == RANDOM else path


def is_needed(file: WeightsFile, settings: Settings) -> bool:
    """Whether the job reads a file."""
    from interface.systems.clues import DISTILL  # noqa: PLC0415
    from model import model_spec  # noqa: PLC0415

    config, training = settings.config, settings.verb == "train"
    fresh = training and not config.TRAIN.resume
    if not named_path(file, settings) or file.system not in ("", model_spec(config.arch).system):
        return False
    if file.option.startswith(JUDGES):
        return file.reader in config.TEST.test_model
    if file.option.startswith("LOSS."):
        return training and config.LOSS.text_focus
    if file.option == "MODEL.tpg_pretrained":  # the teacher is in no checkpoint
        return fresh or (training and (config.LOSS.use_distill or config.LOSS.language == DISTILL))
    return fresh


def ways_to_get(file: WeightsFile) -> list[str]:
    """How a file is made here, and who publishes it."""
    from interface.config import arch_names  # noqa: PLC0415

    ways = [f"make it: {file.command}"] if file.command else []
    for arch in file.makers(arch_names()):
        made = f"ckpt/{arch}/{arch}.safetensors"
        ways.append(
            f"make it: python main.py --arch {arch} --train_data_dir {RENDERED} --vis_dir {arch}\n  "
            f"then {given(file, made)}"
        )
    if file.source:
        ways.append(f"published: {file.source}" + ("" if ways else "; it cannot be made here yet"))
    return ways


def given(file: WeightsFile, path: str | Path) -> str:
    """How an option names a path."""
    return f"{file.flag} {path}" if file.flag.startswith("--") else f"{file.flag} = {path} in a file for --config"


def use_of(file: WeightsFile) -> str:
    """What a file is for, with the option that names it."""
    from model import list_models, model_spec  # noqa: PLC0415

    archs = [name for name in list_models() if model_spec(name).system == file.system]
    for_archs = f" of --arch {', '.join(archs)}" if archs else ""
    return f"{file.use}{for_archs}" + (f" ({file.flag})" if file.flag not in file.use else "")


def weights_row(path: Path, files: Sequence[WeightsFile], settings: Settings) -> Row:
    """One file, for all options that name it; they are of one network."""
    from interface.checkpoint import file_sha256  # noqa: PLC0415

    first, needing = files[0], [file for file in files if is_needed(file, settings)]
    uses = "; ".join(use_of(file) for file in files)
    ways = ways_to_get(first)
    remedy = "\n".join([*ways, *(file.instead for file in needing)])
    if not path.is_file():
        others = stand_ins(path, first, settings)
        fitting = [f"{other} is there and fits: {', '.join(given(file, other) for file in files)}" for other in others]
        missing = Problem(f"{path}, for {', '.join(map(use_of, needing))}", "\n".join([*fitting, remedy]))
        return Row((str(path), MISSING), (f"for: {uses}", *fitting, *ways), missing if needing else None)
    sha256 = file_sha256(path)
    about = (size_of(path.stat().st_size), sha256[:12], known_hash(path, sha256))
    wrong = misfit(path, first, settings)
    if wrong:
        problem = Problem(wrong, remedy) if needing else None
        return Row((str(path), UNUSABLE, *about), (f"for: {uses}", wrong), problem)
    unnamed = not any(named_path(file, settings) for file in files)
    idle = (f"not used: {first.option} names none",) if unnamed else ()
    return Row((str(path), OK, *about), (f"for: {uses}", *idle))


def ppocr_row(settings: Settings) -> Row:
    """The recogniser that comes inside a package."""
    from interface.checkpoint import file_sha256  # noqa: PLC0415
    from model.recognizer.ppocr import PPOCR  # noqa: PLC0415

    name, use = "PP-OCR (in the package rapidocr)", "for: --test_model PPOCR"
    try:
        path = PPOCR(threads=1).path
    except Exception as error:  # ONNX Runtime has kinds of its own, and packages may be missing
        problem = Problem(f"{name}: {error}", "pip install --force-reinstall 'rapidocr>=3.4' onnxruntime")
        return Row((name, UNUSABLE), (use, str(error)), problem if reads_with_ppocr(settings) else None)
    return Row((name, OK, size_of(path.stat().st_size), file_sha256(path)[:12], path.name), (use,))


def weights(settings: Settings) -> list[Row]:
    """Every weights file that an option can name, once for all options of one network."""
    from interface.config import flatten  # noqa: PLC0415

    known = dict(flatten(settings.config))
    found: dict[tuple[Path, str], list[WeightsFile]] = {}
    for file in WEIGHTS:
        name = (named_path(file, settings) or file.usual) if file.option in known else ""
        if name:
            found.setdefault((Path(name), file.network), []).append(file)
    rows = [weights_row(path, files, settings) for (path, _), files in found.items()]
    return [*rows, ppocr_row(settings)] if "TEST.test_model" in known else rows


# ---- the job


def trained_weights(settings: Settings) -> list[Row]:
    """What `--resume` names, and whether the job can do without."""
    from interface.config import RECOGNITION  # noqa: PLC0415
    from interface.resume import open_resume  # noqa: PLC0415
    from interface.systems import build_system  # noqa: PLC0415

    config, training = settings.config, settings.verb == "train"
    if config.TRAIN.resume:
        try:
            resume = open_resume(settings)
            assert resume is not None, "a path is given"
            resume.load_system(build_system(settings.config, training=False, pretrained=False))
        except (OSError, ValueError) as error:
            problem = Problem(str(error), "name another run or file with --resume")
            return [Row((config.TRAIN.resume, UNUSABLE), (str(error),), problem)]
        step = f"step {resume.state['step']}" if resume.state else "published weights"
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
    title: str, look: Callable[[Settings], list[Row]], settings: Settings, footer: tuple[str, ...] = ()
) -> Section:
    """A section; one that cannot be made because an import fails says so."""
    try:
        rows = look(settings)
        return Section(title, rows, footer if any(MISSING in row.cells for row in rows) else ())
    except (ImportError, OSError, RuntimeError) as error:  # a missing package, or a broken installation
        text = f"not looked at: {error}"
        return Section(title, [Row((text,), problem=Problem(f"{title.lower()}: {error}", INSTALL))])


def examine(settings: Settings) -> list[Section]:
    """All sections for one job."""
    resumed = looked_at("Weights of --resume", trained_weights, settings)  # first: it brings options of its own
    sections = [
        Section("Requirements", requirements(settings)),
        looked_at("Machine", machine, settings),
        looked_at("Data sets", data_sets, settings, DATA_SOURCES),
        *([looked_at("Pictures", demo_pictures, settings)] if settings.verb == "demo" else []),
        looked_at("Weights files", weights, settings),
        resumed,
        Section("Notes", [Row((note,)) for note in settings.notes]),
    ]
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
        first, *more = [line for thing in things for line in thing.splitlines()]
        lines += [f"  lacks {first}", *(f"        {line}" for line in more)]
        lines += [f"      > {line}" if line == line.lstrip() else f"      {line}" for line in remedy.splitlines()]
    return [*lines, f"First: {INSTALL}" if INSTALL in lacks else "Can be run now: bash scripts/quickstart.sh"]


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
