"""Command line and YAML -> one checked configuration. Plain data: nothing here imports torch.

`configs/super_resolution.yaml` is the schema and holds the defaults; a network whose file in configs/ says
`interface: recognition` has those of `configs/recognition.yaml`. Over it come, in this order:
`configs/<arch>.yaml`, the configuration of the run that `--resume` names, the file of `--config`, the flags.
"""

import argparse
import copy
import difflib
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml
from easydict import EasyDict

from interface.exported import SIZES, exported_facts
from interface.flags import CHOICES, FLAGS, HIGHEST, LOSS_TERMS, LOWEST, NOT_YET, RETIRED_FLAGS, RETIRED_KEYS, Flag

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
DEFAULTS = CONFIGS / "super_resolution.yaml"
RUN_CONFIG = "config.yaml"  # written into every run folder

SUPER_RESOLUTION, RECOGNITION = "super_resolution", "recognition"
INTERFACE = "interface"  # key of a network's file: which of the two it is for; not an option

MANY = 20  # names that are too many for one message


class ConfigError(ValueError):
    """An option that does not exist, or a value it cannot have."""


@dataclass
class Settings:
    """What a command line means.

    Attributes:
        verb: "train", "test" or "demo".
        config: all options; `config.TRAIN.batch_size` and so on.
        given: dotted keys that the user set, by flag or file (not by the resumed run).
        notes: things the user should read in the log, such as ignored keys.
        interface: what the network is for, "super_resolution" or "recognition"; options differ.
        doctor: only say what is missing for it (`--doctor`).
    """

    verb: str
    config: EasyDict
    given: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    interface: str = SUPER_RESOLUTION
    doctor: bool = False


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of the leaves."""
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:  # an empty one is a value: it must not slip through unseen
            yield from flatten(value, f"{path}.")
        else:
            yield path, value


def get(tree: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted key."""
    for key in path.split("."):
        tree = tree[key]
    return tree


def put(tree: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a dotted key."""
    *parents, last = path.split(".")
    for key in parents:
        tree = tree[key]
    tree[last] = value


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """`; did you mean X?` for the nearest known name, or the known names."""
    lowered = {other.lower(): other for other in known}
    near = difflib.get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.5)
    if near:
        return f"; did you mean {lowered[near[0]]}?"
    files = f"{CONFIGS.name}/{{{SUPER_RESOLUTION},{RECOGNITION}}}.yaml"
    return f"; known: {', '.join(sorted(known))}" if len(known) <= MANY else f"; see {files}"


def coerce(path: str, value: Any, default: Any, source: str) -> Any:
    """`value` as the type of `default`, checked against the choices and limits of its key.

    Raises:
        ConfigError: it is not of that type, or not allowed.
    """
    where = f"{source}: {path}"
    if isinstance(default, list):
        values = value.split(",") if isinstance(value, str) else value
        if not isinstance(values, list | tuple) or not all(isinstance(item, str) for item in values):
            raise ConfigError(f"{where} is {value!r}; a list of names or paths was expected")
        value = [item.strip() for item in values if item.strip()]
    elif isinstance(default, bool):
        if not isinstance(value, bool):
            raise ConfigError(f"{where} is {value!r}; true or false was expected")
    elif isinstance(default, int | float):
        value = _number(value, type(default), where)
    elif isinstance(value, bool) and path == "TRAIN.mixed_precision":
        value = "no" if value is False else value  # YAML reads a bare `no` as false
    elif isinstance(value, int) and path == "MODEL.charset":
        value = str(value)  # and a bare 36 as a number
    if isinstance(default, str) and not isinstance(value, str):
        raise ConfigError(f"{where} is {value!r}; a text was expected")
    _check_value(path, value, where)
    return value


def _number(value: Any, kind: type, where: str) -> int | float:
    expected = "a whole number" if kind is int else "a number"
    try:  # PyYAML reads 1e-4 as a text; a whole number is not taken through float, which would round it
        whole = isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d+\s*", value)
        number = int(value) if whole else float(value) if isinstance(value, str) else value
        usable = math.isfinite(number) and not isinstance(value, bool)
    except (ValueError, TypeError, OverflowError):
        usable = False
    if not usable or (kind is int and number != int(number)):
        raise ConfigError(f"{where} is {value!r}; {expected} was expected")
    return kind(number)


def _check_value(path: str, value: Any, where: str) -> None:
    if path in CHOICES:
        for item in value if isinstance(value, list) else [value]:
            if item in NOT_YET.get(path, ()):
                raise ConfigError(f"{where}: {item} is not built yet; this version has {', '.join(CHOICES[path])}")
            if item not in CHOICES[path]:
                raise ConfigError(f"{where} is {item!r}{did_you_mean(str(item), CHOICES[path])}")
    if path in LOWEST:
        low, allowed = LOWEST[path]
        if value < low or (value == low and not allowed):
            raise ConfigError(f"{where} is {value}; it must be {'at least' if allowed else 'more than'} {low}")
    if path in HIGHEST and value > HIGHEST[path]:
        raise ConfigError(f"{where} is {value}; it must be at most {HIGHEST[path]}")
    if path == "TRAIN.device" and not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
        raise ConfigError(f"{where} is {value!r}; use auto, cpu, cuda, cuda:N or mps")


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as a dict.

    Raises:
        ConfigError: it is missing, not YAML, or not a mapping.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        names = sorted(p.name for p in CONFIGS.glob("*.yaml"))
        raise ConfigError(f"no configuration file {path}{did_you_mean(path.name, names)}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds a {type(tree).__name__}; sections such as TRAIN: were expected")
    return tree


def merge(base: dict[str, Any], update: Mapping[str, Any], source: str, notes: list[str] | None = None) -> set[str]:
    """Write `update` over `base`, in place, and return the dotted keys it set.

    Raises:
        ConfigError: a key that `base` does not have, or a value of another type.
    """
    known = dict(flatten(base))
    sections = {path.rsplit(".", depth)[0] for path in known for depth in range(1, path.count(".") + 1)}
    done = set()
    for path, value in flatten(update):
        retired = next((key for key in RETIRED_KEYS if path == key or path.startswith(f"{key}.")), None)
        if retired:
            if notes is not None:
                notes.append(f"{source}: {path} is not used ({RETIRED_KEYS[retired]})")
            continue
        if path in sections:
            if value is None or value == {}:  # an empty section
                continue
            raise ConfigError(f"{source}: {path} is a section; it was given {value!r}")
        if path not in known:
            near = did_you_mean(path, list(known)) if "." in path or path not in sections else ""
            raise ConfigError(f"{source}: {path} is not an option{near}")
        put(base, path, coerce(path, value, known[path], source))
        done.add(path)
    return done


def _flags_of(defaults: Mapping[str, Any]) -> list[Flag]:
    """The flags of a schema."""
    known = dict(flatten(defaults))
    return [flag for flag in FLAGS if flag.path in known]


def _add_flags(parser: argparse.ArgumentParser, defaults: Mapping[str, Any]) -> None:
    for flag in _flags_of(defaults):
        default = get(defaults, flag.path)
        text = f"{flag.help} ({flag.path}"
        text += ")" if default in ("", []) or isinstance(default, bool) else f"; default {_show(default)})"
        # SUPPRESS: an absent flag leaves no trace, so it cannot overwrite a value of a file.
        kwargs: dict[str, Any] = {"dest": flag.path, "default": argparse.SUPPRESS, "help": text.replace("%", "%%")}
        if isinstance(default, bool):
            parser.add_argument(f"--{flag.name}", action=argparse.BooleanOptionalAction, **kwargs)
        elif isinstance(default, list):
            names = CHOICES.get(flag.path)
            metavar = "{" + ",".join(names) + "}" if names else flag.metavar
            parser.add_argument(f"--{flag.name}", nargs="+", metavar=metavar, **kwargs)
        else:
            choices = tuple(arch_names()) if flag.path == "arch" else CHOICES.get(flag.path)
            metavar = flag.metavar or ("{" + ",".join(choices) + "}" if choices else type(default).__name__.upper())
            parser.add_argument(f"--{flag.name}", metavar=metavar, **kwargs)


def _show(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


class _Parser(argparse.ArgumentParser):
    """argparse whose complaint about an unknown flag names the nearest one."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)

    def unknown(self, arguments: Sequence[str]) -> NoReturn:
        name = arguments[0].split("=")[0]
        if name in RETIRED_FLAGS:
            raise ConfigError(f"{name} is not offered: {RETIRED_FLAGS[name]}")
        if not name.startswith("-"):
            raise ConfigError(f"unexpected argument {name!r}; flags begin with --")
        known = [option for action in self._actions for option in action.option_strings]
        if name.removeprefix("--").removeprefix("no-") in (*(flag.name for flag in FLAGS), "demo", "loss"):
            raise ConfigError(f"{name} is no option of this network; what it has: main.py --arch NAME --help")
        raise ConfigError(f"unknown flag {name}{did_you_mean(name, [option for option in known if option])}")


DESCRIPTIONS = {
    SUPER_RESOLUTION: "Scene-text image super-resolution: train (default), test (--go_test) or try (--demo) a system. "
    "Recognisers have options of their own: main.py --arch crnn --help",
    RECOGNITION: "Scene-text recognition: train (default) or test (--go_test) a recogniser.",
}


def build_parser(defaults: Mapping[str, Any], interface: str = SUPER_RESOLUTION) -> _Parser:
    """The command line: every flag with the key it sets and its default."""
    parser = _Parser(
        prog="main.py",
        description=DESCRIPTIONS[interface],
        epilog=f"All options, flags or not, are in configs/{interface}.yaml, whose defaults are shown; the recipe of a "
        "network changes some of them, see configs/<arch>.yaml. Give your own file with --config.",
        allow_abbrev=False,
    )
    verbs = parser.add_mutually_exclusive_group()
    verbs.add_argument("--go_test", "--test", action="store_true", help="evaluate; needs no training data")
    if interface == SUPER_RESOLUTION:
        verbs.add_argument("--demo", action="store_true", help="super-resolve the pictures of --demo_dir")
    parser.add_argument(
        "--doctor", action="store_true", help="only say what is there, and what this command line lacks"
    )
    parser.add_argument(  # main.py answers it before anything else is read
        "--list", nargs="?", const="text", metavar="FORM", help="only list all networks, as text or markdown"
    )
    if interface == SUPER_RESOLUTION:
        text = f"train with exactly these terms, joined by commas: {', '.join(LOSS_TERMS)}"
        parser.add_argument("--loss", metavar="TERM,...", default=argparse.SUPPRESS, help=text)
    parser.add_argument("--config", metavar="FILE", default="", help="YAML file; a bare name is looked up in configs/")
    _add_flags(parser, defaults)
    return parser


def _config_path(name: str) -> Path | None:
    """The user's YAML file; the defaults themselves are no file of the user's."""
    if not name:
        return None
    path = Path(name)
    if not path.exists() and path.parent == Path():
        path = CONFIGS / name
    return None if path.exists() and path.resolve() in map(schema_path, (SUPER_RESOLUTION, RECOGNITION)) else path


def schema_path(interface: str) -> Path:
    """The file with all options of an interface and their defaults."""
    return DEFAULTS if interface == SUPER_RESOLUTION else CONFIGS / f"{interface}.yaml"


def arch_file(arch: str) -> tuple[str, dict[str, Any]]:
    """What `configs/<arch>.yaml` says: the interface of the network, and the options in which it differs."""
    options = read_yaml(CONFIGS / f"{arch}.yaml")
    return options.pop(INTERFACE, SUPER_RESOLUTION), options


def arch_names() -> list[str]:
    """Networks that can be asked for: each has a file of its own in configs/."""
    others = {SUPER_RESOLUTION, RECOGNITION, "synthetic", "quickstart", "starter", "text_gestalt"}  # for --config
    return sorted(path.stem for path in CONFIGS.glob("*.yaml") if path.stem not in others)


def resumed_config(resume: str) -> Path | None:
    """Where the options of what `--resume` names are: `config.yaml` of a run of this program, or exported weights."""
    if not resume:
        return None
    path = Path(resume)
    if exported_facts(path) is not None:
        return path
    if path.is_file() and path.name not in ("last.pth", "best.pth"):  # what lies beside it may be anybody's
        return None
    candidate = (path if path.is_dir() else path.parent) / RUN_CONFIG
    return candidate if candidate.is_file() else None


def resumed_options(file: Path) -> dict[str, Any]:
    """All options of a run; of exported weights those of the network, since what is done with them is something new.

    Weights name the files they need by paths below this program's folder, which need not be the working folder.
    """
    facts = exported_facts(file)
    if facts is None:
        return read_yaml(file)
    model, train = dict(facts["config"]["MODEL"]), facts["config"]["TRAIN"]
    prior = str(model.get("tpg_pretrained", ""))
    if not Path(prior).exists() and (ROOT / prior).is_file():
        model["tpg_pretrained"] = str(ROOT / prior)
    sizes = {name: train[name] for name in SIZES}
    return {"arch": facts["arch"], "MODEL": model, "TRAIN": sizes}


def _known_part(run: Mapping[str, Any], tree: dict[str, Any], source: str, notes: list[str]) -> dict[str, Any]:
    """What this version knows of the configuration that another version may have written."""
    known = dict(flatten(tree))
    part: dict[str, Any] = copy.deepcopy(tree)
    for path, value in flatten(run):
        if path in known:
            put(part, path, value)
        else:
            notes.append(f"{source}: {path} is not an option of this version, so it is left out")
    return part


def find_interface(argv: Sequence[str]) -> str:
    """What the network of a command line is for; if nothing is known about it, super-resolution.

    It says which options there are, so it is found before they are read; what is wrong with them is said afterwards.
    """
    early = _Parser(add_help=False, allow_abbrev=False)
    for name in ("arch", "config", "resume"):
        early.add_argument(f"--{name}", default="")
    try:
        flags, _ = early.parse_known_args(argv)
        user_file = _config_path(flags.config)
        user = read_yaml(user_file) if user_file else {}
        resume = flags.resume or (user.get("TRAIN") or {}).get("resume")
        run_file = resumed_config(resume or "")
        run = resumed_options(run_file) if run_file else {}
        arch = spelled_arch(flags.arch or user.get("arch") or run.get("arch"))
        return arch_file(arch)[0] if arch in arch_names() else SUPER_RESOLUTION
    except (ConfigError, AttributeError, TypeError):  # such as a file whose TRAIN is a list
        return SUPER_RESOLUTION


def spelled_arch(name: Any) -> str:
    """The name of a network as files have it; published programs write some in capitals, with a hyphen."""
    plain_name = re.sub(r"[^a-z0-9]", "", str(name).lower())
    return plain_name if name not in arch_names() and plain_name in arch_names() else name


def _parse(argv: Sequence[str], parser: _Parser) -> tuple[str, dict[str, Any]]:
    """The verb and the flags of a command line."""
    arguments, rest = parser.parse_known_args(argv)
    if rest:
        parser.unknown(rest)
    flags = vars(arguments)
    test, demo = flags.pop("go_test"), flags.pop("demo", False)
    return "test" if test else "demo" if demo else "train", flags


def loss_switches(terms: str, flags: Mapping[str, Any]) -> dict[str, Any]:
    """The options that `--loss TERM,...` stands for: those of the listed terms on, all others off.

    Args:
        terms: what was listed.
        flags: keys that other flags set.

    Raises:
        ConfigError: a term is unknown, terms exclude each other, none is listed, or another flag says otherwise.
    """
    names = [name for name in (term.strip() for term in terms.split(",")) if name]
    unknown = [name for name in names if name not in LOSS_TERMS]
    if unknown or not names:
        raise ConfigError(f"--loss {terms!r}: unknown term{did_you_mean(unknown[0] if unknown else '', [*LOSS_TERMS])}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"--loss {terms}: {', '.join(twice)} is listed twice; its weight is LOSS.weights of --config")
    switches: dict[str, Any] = {path: off for path, _, off in LOSS_TERMS.values()}
    pixel = sorted({name for name in names if LOSS_TERMS[name][0] == "LOSS.pixel"})
    if len(pixel) > 1:
        raise ConfigError(f"--loss {terms}: pixels are compared in one way; keep one of {', '.join(pixel)}")
    switches |= {LOSS_TERMS[name][0]: LOSS_TERMS[name][1] for name in names}
    for flag in FLAGS:
        if flag.path in switches and flags.get(flag.path, switches[flag.path]) != switches[flag.path]:
            raise ConfigError(
                f"--loss {terms} lists all terms, and another flag ({flag.name}) says otherwise; drop one"
            )
    return switches


def load_settings(argv: Sequence[str] | None = None) -> Settings:
    """Read the command line and all files it names.

    Raises:
        ConfigError: anything in them that is not understood or cannot be.
        SystemExit: `--help` was asked for.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    interface = find_interface(argv)
    tree = read_yaml(schema_path(interface))
    verb, flags = _parse(argv, build_parser(tree, interface))
    doctor = flags.pop("doctor")
    flags.pop("list")
    if "loss" in flags:
        flags |= loss_switches(flags.pop("loss"), flags)
    user_file = _config_path(flags.pop("config"))
    user = read_yaml(user_file) if user_file else {}
    notes: list[str] = []

    asked = copy.deepcopy(tree)  # the user's file alone, checked before anything in it is believed
    merge(asked, user, str(user_file))
    resume = flags.get("TRAIN.resume") or get(asked, "TRAIN.resume")
    run_file = resumed_config(resume)
    run = resumed_options(run_file) if run_file else {}
    arch = flags.get("arch") or user.get("arch") or run.get("arch") or tree["arch"]
    known_archs = arch_names()
    spelled = spelled_arch(arch)
    if spelled != arch:
        notes.append(f"--arch {arch} is taken as {spelled}; what it is: configs/{spelled}.yaml")
        arch = spelled
    if arch in NOT_YET["arch"] or re.sub(r"[^a-z0-9]", "", str(arch).lower()) in NOT_YET["arch"]:
        raise ConfigError(f"--arch {arch} is not built yet; this version has {', '.join(known_archs)}")
    if arch not in known_archs:
        raise ConfigError(f"--arch: unknown network {arch!r}{did_you_mean(str(arch), known_archs)}")
    merge(tree, arch_file(arch)[1], f"configs/{arch}.yaml")
    if run_file:
        merge(tree, _known_part(run, tree, str(run_file), notes), str(run_file))
    given = merge(tree, user, str(user_file), notes)
    known = dict(flatten(tree))
    for path, value in flags.items():
        flag = next((flag.name for flag in FLAGS if flag.path == path), "loss")
        if path == "TEST.test_model":  # names may stand apart, or together with commas
            value = ",".join(value)  # noqa: PLW2901
        put(tree, path, coerce(path, value, known[path], f"--{flag}"))
        given.add(path)
    tree["arch"] = arch
    settings = Settings(verb, EasyDict(tree), given, notes, interface, doctor)
    check(settings)
    return settings


def check(settings: Settings) -> None:
    """Refuse combinations that cannot work, and fill in what follows from others.

    Raises:
        ConfigError: naming the options and the way out.
    """
    train, test = settings.config.TRAIN, settings.config.TEST
    for name in ("width", "height"):
        if train[name] % train.down_sample_scale:
            scale = train.down_sample_scale
            raise ConfigError(f"TRAIN.{name} = {train[name]} is not a multiple of down_sample_scale = {scale}")
    named = train.train_data_dir or train.get("rendered")  # recognisers alone have the latter
    if settings.verb == "train" and not named and not settings.doctor:
        others = ", or words to render with --rendered" if "rendered" in train else ""
        raise ConfigError(f"training needs data: give one or more LMDBs with --train_data_dir{others}")
    if not test.test_data_dir:
        fallback = [f"./textzoom/test/{split}" for split in ("easy", "medium", "hard")]
        test.test_data_dir = list(train.VAL.val_data_dir) or fallback
    vis_dir = train.VAL.vis_dir
    if vis_dir and (Path(vis_dir).is_absolute() or ".." in Path(vis_dir).parts):
        raise ConfigError(f"--vis_dir {vis_dir!r} is a name below {train.ckpt_dir}; choose the place with --ckpt_dir")
    if settings.interface == SUPER_RESOLUTION:
        _check_super_resolution(settings)
        _check_clues(settings)
        _check_terms(settings)
    else:
        _check_recognition(settings)


def _check_recognition(settings: Settings) -> None:
    """What recognisers need."""
    train = settings.config.TRAIN
    if train.schedule == "rtsrn_release":
        raise ConfigError("--schedule rtsrn_release is the trace of a super-resolution program; use cosine")
    if train.schedule == "step":
        raise ConfigError("--schedule step is for super-resolution, which has TRAIN.step_epochs; use cosine")
    for name in ("word_list", "font_dirs"):
        if train[name] and not train.rendered and f"TRAIN.{name}" in settings.given and settings.verb == "train":
            raise ConfigError(f"--{name} is for words that are rendered; add --rendered N, or leave it out")


def _check_super_resolution(settings: Settings) -> None:
    """What the networks of super-resolution need."""
    config = settings.config
    train, model = config.TRAIN, config.MODEL
    low_size = (train.height // train.down_sample_scale, train.width // train.down_sample_scale)
    if model.STN and low_size != (16, 64):
        raise ConfigError(
            f"--STN rectifies 16x64 pictures only, but LR is {low_size[0]}x{low_size[1]} here; "
            "use --width 128 --height 32, or --no-STN"
        )
    if settings.verb == "train" and model.STN and train.batch_size == 1:
        raise ConfigError("--STN normalises over the batch, so one picture is not enough; use --batch_size 2 or more")
    if config.LOSS.ssim_loss and min(train.width, train.height) < 11:
        raise ConfigError(f"--ssim_loss needs pictures of at least 11x11 pixels, not {train.width}x{train.height}")


def _check_terms(settings: Settings) -> None:
    """A network learns only from what looks at its pictures."""
    loss = settings.config.LOSS
    on = (loss.gradient, loss.ssim_loss, loss.lca and loss.lca_gradient, loss.text_focus, loss.stroke_focus)
    if settings.verb == "train" and loss.pixel == "none" and not any(on):
        raise ConfigError(
            "no term of the loss teaches the super-resolution network; add at least one of mse, l1, charbonnier, "
            "gradient, ssim, text_focus, stroke, or lca with LOSS.lca_gradient"
        )
    if loss.training_stablize and loss.pixel == "none" and not loss.gradient:
        raise ConfigError(
            "--training_stablize leaves pictures out of the pixel and gradient terms, and both are off; add one of "
            "mse, l1, charbonnier, gradient, or leave it out"
        )


def _check_clues(settings: Settings) -> None:
    """What the text clues of a system need."""
    loss, model = settings.config.LOSS, settings.config.MODEL
    untrained = settings.verb == "train" and model.tpg_pretrained == "random"
    if untrained and loss.use_distill:
        raise ConfigError(
            "--use_distill needs a trained teacher, but MODEL.tpg_pretrained is random; give its weights with "
            "--tpg_pretrained FILE, or leave --use_distill out (--use_label trains the student by the labels)"
        )
    if untrained and loss.language == "distill":
        raise ConfigError(
            "--language_loss distill needs a trained teacher, but MODEL.tpg_pretrained is random; give its weights "
            "with --tpg_pretrained FILE, or use --language_loss ctc, which needs the labels alone"
        )
    if untrained and model.tpg_language and "MODEL.tpg_language" in settings.given:
        raise ConfigError(
            "MODEL.tpg_pretrained random trains the language model from nothing, too; leave --tpg_language out, or "
            "give the weights of both"
        )
    if loss.tssim_loss and not settings.config.TRAIN.rotate_train:
        raise ConfigError("--tssim_loss compares with a picture that was turned; add --rotate_train 5, or leave it out")
    if settings.verb == "train" and model.freeze_tpg:
        _check_frozen_students(settings)
    if settings.verb == "train" and loss.confusion and not loss.text_focus:
        raise ConfigError("LOSS.confusion weighs a term of --text_focus; add that, or leave the table out")
    asked = {"--visual_clue": model.visual_clue, "--language_model": model.language_model}
    asked["--language_loss distill"] = loss.language == "distill"
    for flag, on in asked.items():
        if on and not model.triple_clues:
            raise ConfigError(f"{flag} works beside the linguistic clue; add --triple_clues, or leave it out")


def _check_frozen_students(settings: Settings) -> None:
    """A student that learns nothing has to read already, and a loss of its own would change nothing."""
    loss, model = settings.config.LOSS, settings.config.MODEL
    if model.tpg_pretrained == "random":
        raise ConfigError(
            "--freeze_tpg keeps a trained recogniser as it is; give its weights with --tpg_pretrained FILE"
        )
    for flag, on in {"--use_distill": loss.use_distill, "--use_label": loss.use_label}.items():
        if on:
            raise ConfigError(f"{flag} teaches the text-prior generator, which --freeze_tpg leaves as it is; drop one")


def switch_arch(settings: Settings, arch: str) -> None:
    """Go on with another network, and the options of its file that the user did not set.

    Raises:
        ConfigError: they contradict what the user set.
    """
    interface, options = arch_file(arch)
    if interface != settings.interface:
        raise ConfigError(f"{arch} is a network for {interface.replace('_', '-')}; give --arch {arch}")
    known = dict(flatten(read_yaml(schema_path(interface))))
    before = {path: known[path] for path, _ in flatten(arch_file(settings.config.arch)[1])}
    for path, value in {**before, **dict(flatten(options))}.items():
        if path not in settings.given:
            put(settings.config, path, coerce(path, value, known[path], f"configs/{arch}.yaml"))
    settings.config.arch = arch
    check(settings)


# Options that do not change what a training step computes, but for rounding.
FREE = tuple(
    "TRAIN.resume TRAIN.device TRAIN.cuda_graphs TRAIN.workers TRAIN.cache TRAIN.ckpt_dir TRAIN.logs_dir "
    "TRAIN.saveInterval TRAIN.displayInterval TRAIN.VAL.rendered TRAIN.VAL.n_vis TRAIN.VAL.vis TRAIN.VAL.valInterval "
    "TEST.".split()
)


def changed_options(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """`key old -> new` for the options that make a continued run compute something else.

    Options that there were not yet count as if they had had the values that they have by default.
    """
    interface, recipe = arch_file(str(new["arch"]))
    before = {
        **dict(flatten(read_yaml(schema_path(interface)))),
        **dict(flatten(recipe)),
        **dict(flatten(old)),
    }
    same = {"memory", "disk"}  # where targets are kept; what is kept is the same
    return [
        f"{key} {before.get(key)!r} -> {value!r}"
        for key, value in flatten(plain(new))
        if before.get(key) != value and not key.startswith(FREE) and not {str(before.get(key)), str(value)} <= same
    ]


def plain(value: Any) -> Any:
    """Nested dicts and lists without EasyDict or tuples, as files hold them."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def to_yaml(config: Mapping[str, Any]) -> str:
    """The whole configuration as YAML that `--config` reads back."""
    return yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True, width=120)
