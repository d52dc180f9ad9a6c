"""The part of `--doctor` about weights files: which an option can name, whether they fit, and how to get them.

What may be missing is imported inside of functions: this file itself needs the standard library alone.
"""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interface.doctor_rows import MISSING, OK, RENDERED, UNUSABLE, Problem, Row, size_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from interface.config import Settings


@dataclass(frozen=True)
class WeightsFile:
    """A weights file that an option can name.

    Attributes:
        option: the dotted key.
        flag: how the option is given.
        use: what does not work without the file.
        instead: how to do without it.
        network: `module:builder` of what has to fit; the builder `like` gets the weights and takes their sizes; empty:
            the table of `LOSS.confusion`.
        usual: where it is looked for if the option names none.
        systems: the recipes of the networks that read it; empty: any.
        command: what makes it at `{path}`, unless `--arch` trains its network.
        source: who publishes it.
    """

    option: str
    flag: str
    use: str
    instead: str
    network: str = ""
    usual: str = ""
    systems: tuple[str, ...] = ()
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
TRAINING = f"--arch X is trained by: python main.py --arch X --train_data_dir {RENDERED} --vis_dir X"
WEIGHTS = (
    WeightsFile(
        option="MODEL.tpg_pretrained",
        flag="--tpg_pretrained",
        use="the text prior",
        instead="--tpg_pretrained random --use_label trains one along (as --config synthetic.yaml does)",
        network="model.recognizer.crnn:CRNN",
        usual="./rec_pth/crnn.pth",
        systems=("clues", "prior_guided"),
        source="crnn.pth of https://github.com/meijieru/crnn.pytorch",
    ),
    WeightsFile(
        option="MODEL.tpg_pretrained",
        flag="--tpg_pretrained",
        use="the recogniser that guides the network",
        instead="--tpg_pretrained random trains one along",
        network="model.recognizer.svtr:SVTR",
        systems=("semantic",),
        source="rec_svtr_tiny_none_ctc_en of https://github.com/PaddlePaddle/PaddleOCR, converted by "
        "https://github.com/frotms/PaddleOCR2Pytorch",
    ),
    WeightsFile(
        option="MODEL.tpg_pretrained",
        flag="--tpg_pretrained",
        use="the recogniser that guides the network",
        instead="--tpg_pretrained random trains one along, with its language model",
        network="model.recognizer.abinet:Vision",
        systems=("semantic_attention",),
        source="best-pretrain-vision-model.pth of https://github.com/FangShancheng/ABINet",
    ),
    WeightsFile(
        option="MODEL.tpg_language",
        flag="--tpg_language",
        use="the language model of the recogniser that guides the network",
        instead='--tpg_language "" trains one along',
        network="model.language.bcn:BCN",
        systems=("semantic_attention",),
        source="pretrain-language-model.pth of https://github.com/FangShancheng/ABINet",
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
        flag="--text_focus_pretrained",
        use="--text_focus",
        instead="leave --text_focus out",
        network="model.recognizer.focus_transformer:FocusTransformer.like",
        source="pretrain_transformer.pth of https://github.com/FudanVI/FudanOCR (scene-text-telescope)",
    ),
    WeightsFile(
        option="LOSS.stroke_focus_pretrained",
        flag="--stroke_focus_pretrained",
        use="--stroke_loss",
        instead="leave --stroke_loss out",
        network="loss.stroke_focus:StrokeTransformer.like",
        command="python main.py --arch focus_transformer_small --charset strokes --rendered 200000 --vis_dir strokes, "
        "then --stroke_focus_pretrained ckpt/strokes/focus_transformer_small.safetensors",
        source="pretrain_transformer_stroke_decomposition.pth of https://github.com/FudanVI/FudanOCR (text-gestalt)",
    ),
    WeightsFile(
        option="LOSS.confusion",
        flag="--confusion",
        use="which confusions weigh more in --text_focus",
        instead="leave LOSS.confusion empty: all confusions weigh alike",
        usual="./rec_pth/confuse.npz",
        command="python scripts/make_confusion.py --out {path}",
        source="confuse.pkl of the published programs, by: python scripts/convert_confusion.py confuse.pkl {path}",
    ),
    WeightsFile(
        option="MODEL.language_model",
        flag="--language_model",
        use="a pre-trained language model for --triple_clues",
        instead="leave --language_model out: it learns from nothing",
        network="model.language.bcn:BCN",
        usual="./rec_pth/language_model.safetensors",
        systems=("clues",),
        command="python scripts/pretrain_language_model.py --out {path}",
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
    from interface.systems.recognizers import other_symbols  # noqa: PLC0415
    from loss.stroke_focus import as_focus_state  # noqa: PLC0415

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
            state = as_focus_state(state)  # other files have no such keys
            network = blueprint(file, state, settings)
            if file.option == "MODEL.pretrained":  # a training begins with those of another charset, too
                state |= other_symbols(network, state)
            load_weights(network, state, path, hint=f"{file.flag} names weights for {file.use}.")
    except (OSError, ValueError, SafetensorError) as error:
        return str(error)
    return ""


def known_hash(path: Path, sha256: str) -> str:
    """What the json beside a weights file says of its hash."""
    beside = path.with_suffix(".json")
    try:
        facts = json.loads(beside.read_text(encoding="utf-8"))
        other, stored = facts.get("file", path.name) != path.name, facts["sha256"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "hash not known"
    if other:  # crnn.json belongs to crnn.safetensors, not to crnn.pth
        return "hash not known"
    return f"hash as in {beside.name}" if stored == sha256 else f"hash NOT as in {beside.name}"


def facts_of(path: Path) -> tuple[str, ...]:
    """Size and hash of a file, and whether the hash is known."""
    from interface.checkpoint import file_sha256  # noqa: PLC0415

    sha256 = file_sha256(path)
    return size_of(path.stat().st_size), sha256[:12], known_hash(path, sha256)


def stand_ins(path: Path, file: WeightsFile, settings: Settings) -> list[Path]:
    """Files beside a missing one that fit its network."""
    there = sorted(path.parent.glob("*.safetensors")) if file.network else []
    return [other for other in there if not misfit(other, file, settings, header=True)]


def named_path(file: WeightsFile, settings: Settings) -> str:
    """What the option names; empty if no file."""
    from interface.config import get  # noqa: PLC0415
    from interface.systems.prior_guided import RANDOM  # noqa: PLC0415

    path = get(settings.config, file.option)
    return "" if path == RANDOM else path


def is_needed(file: WeightsFile, settings: Settings) -> bool:
    """Whether the job reads a file."""
    from interface.systems.clues import DISTILL  # noqa: PLC0415
    from interface.systems.prior_guided import RANDOM  # noqa: PLC0415
    from model import model_spec  # noqa: PLC0415

    config, training = settings.config, settings.verb == "train"
    fresh = training and not config.TRAIN.resume
    if file.option == "MODEL.tpg_language" and config.MODEL.tpg_pretrained == RANDOM:
        fresh = False  # the two are trained together
    if not named_path(file, settings) or (file.systems and model_spec(config.arch).system not in file.systems):
        return False
    if file.option.startswith(JUDGES):
        return file.reader in config.TEST.test_model
    if file.option == "LOSS.stroke_focus_pretrained":
        return training and config.LOSS.stroke_focus
    if file.option.startswith("LOSS."):
        return training and config.LOSS.text_focus
    if file.option == "MODEL.tpg_pretrained":  # neither the teacher nor a frozen student is in a checkpoint
        return (
            fresh
            or config.MODEL.freeze_tpg
            or (training and (config.LOSS.use_distill or config.LOSS.language == DISTILL))
        )
    return fresh


def ways_to_get(path: Path, file: WeightsFile) -> list[str]:
    """How a file is made here, and who publishes it."""
    from interface.config import arch_names  # noqa: PLC0415

    ways = [f"make it: {file.command.format(path=path)}"] if file.command else []
    archs = file.makers(arch_names())
    if archs:
        name = archs[0] if len(archs) == 1 else "X"
        made = given(file, f"ckpt/{name}/{name}.safetensors")
        ways.append(f"make it: train --arch {' or '.join(archs)} (below), then {made}")
    return [*ways, f"published: {file.source.format(path=path)}"] if file.source else ways


def given(file: WeightsFile, path: str | Path) -> str:
    """How an option names a path."""
    return f"{file.flag} {path}"


def use_of(file: WeightsFile) -> str:
    """What a file is for, with the option that names it."""
    from model import list_models, model_spec  # noqa: PLC0415

    archs = [name for name in list_models() if model_spec(name).system in file.systems]
    for_archs = f" of --arch {', '.join(archs)}" if archs else ""
    return f"{file.use}{for_archs}" + (f" ({file.flag})" if file.flag not in file.use else "")


def weights_row(path: Path, files: Sequence[WeightsFile], settings: Settings) -> Row:
    """One file, for all options that name it; they are of one network."""
    first, needing = files[0], [file for file in files if is_needed(file, settings)]
    uses = f"for: {'; '.join(map(use_of, files))}"
    ways = ways_to_get(path, first)
    others = [] if path.is_file() else stand_ins(path, first, settings)
    remedy = [f"{given(file, other)}, which is there and fits" for other in others for file in needing]
    remedy += dict.fromkeys(file.instead for file in needing)
    remedy += [f"make or fetch {path}: see Weights files"] if ways else []

    def lack(what: str) -> Problem | None:
        return Problem(what, "\n".join(remedy)) if needing else None

    if not path.is_file():
        flags = " or ".join(file.flag for file in files)
        fitting = [f"instead: {other} ({', '.join(facts_of(other))}) fits, name it by {flags}" for other in others]
        missing = lack(f"{path}, for {', '.join(map(use_of, needing))}")
        return Row((str(path), MISSING), (uses, *fitting, *ways), missing)
    about, wrong = facts_of(path), misfit(path, first, settings)
    if wrong:
        return Row((str(path), UNUSABLE, *about), (uses, wrong, *ways), lack(wrong))
    unnamed = not any(named_path(file, settings) for file in files)
    idle = (f"not used; to use it: {given(first, path)}",) if unnamed else ()
    return Row((str(path), OK, *about), (uses, *idle))


def reads_with_ppocr(settings: Settings) -> bool:
    """Whether the job reads with PP-OCR, whose packages nothing else needs."""
    return "PPOCR" in settings.config.TEST.get("test_model", [])


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


def options_by_file(settings: Settings) -> dict[tuple[Path, str], list[WeightsFile]]:
    """Every file that an option names or would be looked for: {(path, network): options}."""
    from interface.config import flatten  # noqa: PLC0415
    from model import model_spec  # noqa: PLC0415

    known, system = dict(flatten(settings.config)), model_spec(settings.config.arch).system
    by_option: dict[str, WeightsFile] = {}
    for file in WEIGHTS:  # of several recipes that take other networks by one option, that of the job, else the first
        if file.option not in by_option or system in file.systems:
            by_option[file.option] = file
    found: dict[tuple[Path, str], list[WeightsFile]] = {}
    for file in by_option.values():
        name = (named_path(file, settings) or file.usual) if file.option in known else ""
        if name:
            found.setdefault((Path(name), file.network), []).append(file)
    return found


def weights(settings: Settings) -> list[Row]:
    """Every weights file that an option can name, once for all options of one network."""
    rows = [weights_row(path, files, settings) for (path, _), files in options_by_file(settings).items()]
    return [*rows, ppocr_row(settings)] if "test_model" in settings.config.TEST else rows


def arch_needs(_: Settings) -> list[Row]:
    """Which `--arch` could be trained by its defaults, as far as weights files go; those in one state share a row."""
    from interface.config import arch_names, load_settings  # noqa: PLC0415

    looked_at: dict[tuple[Path, str], Row] = {}
    states: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for arch in arch_names():
        own, rows = load_settings(["--doctor", "--arch", arch]), []
        for key, files in options_by_file(own).items():
            needed = [file for file in files if is_needed(file, own)]
            if needed and key not in looked_at:
                looked_at[key] = weights_row(key[0], needed, own)
            rows += [looked_at[key]] if needed else []
        lacks = [row for row in rows if row.problem is not None]
        names = ", ".join(row.cells[0] for row in lacks or rows)
        state = f"lacks {names}" if lacks else f"ready, has {names}" if rows else "ready, needs none"
        ways = tuple(f"> {row.problem.remedy.splitlines()[0]}" for row in lacks if row.problem is not None)
        states.setdefault((state, ways), []).append(arch)
    return [Row((state, ", ".join(archs)), ways) for (state, ways), archs in states.items()]
