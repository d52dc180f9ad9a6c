import shlex
from typing import Any

import pytest
import yaml

from interface import config as module
from interface.config import (
    CHOICES,
    CONFIGS,
    DEFAULTS,
    FLAGS,
    HIGHEST,
    LOWEST,
    RECOGNITION,
    RETIRED_FLAGS,
    SUPER_RESOLUTION,
    ConfigError,
    arch_file,
    coerce,
    flatten,
    get,
    load_settings,
    merge,
    read_yaml,
    schema_path,
    to_yaml,
)

KNOWN = dict(flatten(read_yaml(DEFAULTS)))
SCHEMAS = {name: dict(flatten(read_yaml(schema_path(name)))) for name in (SUPER_RESOLUTION, RECOGNITION)}
EVERY = {**SCHEMAS[RECOGNITION], **KNOWN}
BASE = {SUPER_RESOLUTION: [], RECOGNITION: ["--arch", "crnn", "--train_data_dir", "words"]}

SINGLE_STAGE = (
    "--arch rtsrn --test_model CRNN --batch_size 48 --STN --sr_share --gradient --use_distill --stu_iter 1 "
    "--vis_dir X --mask --triple_clues --text_focus --lca"
)
THREE_STAGES = (
    "--arch rtsrn --test_model CRNN --batch_size 48 --STN --gradient --use_distill --stu_iter 3 "
    "--vis_dir X --mask --triple_clues --text_focus --lca"
)


def settings(*arguments):
    return load_settings([str(argument) for argument in arguments])


def user_file(folder, text, name="mine.yaml"):
    path = folder / name
    path.write_text(text)
    return path


# Precedence.


@pytest.fixture
def layers(tmp_path, monkeypatch):
    """Where each of the five sources can set TRAIN.lr; the first entry of the result is the weakest."""
    folder = tmp_path / "configs"
    folder.mkdir()
    defaults = folder / "super_resolution.yaml"
    defaults.write_text(DEFAULTS.read_text())
    (folder / "rtsrn.yaml").touch()
    monkeypatch.setattr(module, "CONFIGS", folder)
    monkeypatch.setattr(module, "DEFAULTS", defaults)
    (tmp_path / "run").mkdir()
    return {
        "arch": lambda: (folder / "rtsrn.yaml").write_text("TRAIN: {lr: 0.2}"),
        "run": lambda: (tmp_path / "run" / "config.yaml").write_text("TRAIN: {lr: 0.3}"),
        "user": lambda: (tmp_path / "mine.yaml").write_text("TRAIN: {lr: 0.4}"),
    }


ORDER = ["default", "arch", "run", "user", "flag"]
RATES = {"default": 0.001, "arch": 0.2, "run": 0.3, "user": 0.4, "flag": 0.5}


@pytest.mark.parametrize(("weak", "strong"), [(w, s) for k, w in enumerate(ORDER) for s in ORDER[k + 1 :]])
def test_the_later_source_wins(layers, tmp_path, weak, strong):
    arguments = []
    for source in (weak, strong):
        if source in layers:
            layers[source]()
        if source == "run":
            arguments += ["--resume", tmp_path / "run"]
        if source == "user":
            arguments += ["--config", tmp_path / "mine.yaml"]
        if source == "flag":
            arguments += ["--learning_rate", "0.5"]
    found = settings(*arguments)
    assert found.config.TRAIN.lr == RATES[strong]
    assert ("TRAIN.lr" in found.given) == (strong in ("user", "flag"))


def test_resume_named_in_the_users_file_brings_the_configuration_of_that_run(tmp_path):
    (tmp_path / "run").mkdir()
    user_file(tmp_path / "run", "TRAIN: {batch_size: 7}", "config.yaml")
    mine = user_file(tmp_path, f"TRAIN: {{resume: {tmp_path / 'run'}}}")
    assert settings("--config", mine).config.TRAIN.batch_size == 7


def test_the_architecture_of_a_resumed_run_chooses_its_defaults(tmp_path):
    user_file(tmp_path, "arch: bicubic", "config.yaml")
    config = settings("--resume", tmp_path, "--go_test").config
    assert config.arch == "bicubic"
    assert not config.MODEL.mask  # which configs/rtsrn.yaml would switch on


def test_a_flag_switches_off_what_a_file_switches_on(tmp_path):
    assert settings().config.MODEL.mask
    assert not settings("--no-mask").config.MODEL.mask
    mine = user_file(tmp_path, "MODEL: {mask: false}")
    assert not settings("--config", mine).config.MODEL.mask
    assert settings("--config", mine, "--mask").config.MODEL.mask


# Types.


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ("TRAIN: {lr: 1e-4}", "TRAIN.lr", 1e-4),  # which PyYAML reads as a text
        ("TRAIN: {lr: 1}", "TRAIN.lr", 1.0),
        ("TRAIN: {batch_size: 8.0}", "TRAIN.batch_size", 8),
        ("TRAIN: {batch_size: '8'}", "TRAIN.batch_size", 8),
        ("TRAIN: {mixed_precision: no}", "TRAIN.mixed_precision", "no"),  # which PyYAML reads as false
        ("TRAIN: {train_data_dir: ./one}", "TRAIN.train_data_dir", ["./one"]),
        ("TRAIN: {train_data_dir: './one, ./two'}", "TRAIN.train_data_dir", ["./one", "./two"]),
        ("TEST: {test_model: CRNN}", "TEST.test_model", ["CRNN"]),
        ("TRAIN: {seed: 9007199254740993}", "TRAIN.seed", 9007199254740993),  # 2^53 + 1 is no float
        ("TRAIN: {VAL: }", "TRAIN.batch_size", 48),
        ("", "TRAIN.batch_size", 48),
    ],
)
def test_values_take_the_type_of_the_default(tmp_path, text, path, expected):
    value = get(settings("--config", user_file(tmp_path, text)).config, path)
    assert value == expected
    assert type(value) is type(expected)


def test_whole_numbers_of_flags_stay_exact():
    assert settings("--seed", "9007199254740993").config.TRAIN.seed == 9007199254740993


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("TRAIN: {batch_size: true}", ["TRAIN.batch_size", "True", "whole number"]),
        ("TRAIN: {lr: true}", ["TRAIN.lr", "a number"]),
        ("TRAIN: {lr: fast}", ["TRAIN.lr", "'fast'", "a number"]),
        ("TRAIN: {lr: .nan}", ["TRAIN.lr", "a number"]),
        ("TRAIN: {lr: .inf}", ["TRAIN.lr", "a number"]),
        ("TRAIN: {steps: .inf}", ["TRAIN.steps", "a whole number"]),
        ("TRAIN: {steps: '1e999'}", ["TRAIN.steps", "a whole number"]),
        ("TRAIN: {batch_size: 8.5}", ["TRAIN.batch_size", "8.5", "whole number"]),
        ("TRAIN: {batch_size: [8]}", ["TRAIN.batch_size", "whole number"]),
        ("TRAIN: {batch_size: }", ["TRAIN.batch_size", "None"]),
        ("MODEL: {mask: 1}", ["MODEL.mask", "true or false"]),
        ("MODEL: {mask: 'yes'}", ["MODEL.mask", "true or false"]),
        ("TRAIN: {device: 0}", ["TRAIN.device", "a text"]),
        ("TRAIN: {resume: 5}", ["TRAIN.resume", "a text"]),
        ("TRAIN: {train_data_dir: 5}", ["TRAIN.train_data_dir", "list"]),
        ("TRAIN: {train_data_dir: [5]}", ["TRAIN.train_data_dir", "list"]),
        ("TRAIN: {lr: {peak: 1}}", ["TRAIN.lr.peak", "not an option"]),
        ("TRAIN: {lr: {}}", ["TRAIN.lr", "a number"]),
        ("TRAIN: 5", ["TRAIN", "section"]),
        ("TRAIN: [1, 2]", ["TRAIN", "section"]),
        ("TRAIN: {VAL: no}", ["TRAIN.VAL", "section"]),
        ("arch: 5", ["arch", "a text"]),
        ("arch: [rtsrn]", ["arch", "a text"]),
        ("- 1\n- 2", ["list", "sections"]),
        ("TRAIN: {lr: 1", ["YAML"]),
        ("just words", ["str", "sections"]),
        ("a: !!python/object/apply:os.getcwd []", ["YAML"]),
    ],
)
def test_a_wrong_value_is_refused_by_name(tmp_path, text, words):
    path = user_file(tmp_path, text)
    with pytest.raises(ConfigError) as refused:
        settings("--config", path)
    for word in [*words, "mine.yaml"]:
        assert word in str(refused.value)


def test_a_file_in_another_encoding_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes("# größer\nTRAIN: {lr: 1}".encode("latin-1"))
    with pytest.raises(ConfigError, match="cannot be read as YAML"):
        settings("--config", path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--batch_size", "many"], ["--batch_size", "whole number"]),
        (["--batch_size", "0"], ["--batch_size", "at least 1"]),
        (["--batch_size", "-3"], ["at least 1"]),
        (["--batch_size", "1e999"], ["whole number"]),
        (["--batch_size", "1" + 400 * "0"], ["whole number"]),
        (["--learning_rate", "1" + 400 * "0"], ["a number"]),
        (["--learning_rate", "0"], ["--learning_rate", "more than 0"]),
        (["--learning_rate", "inf"], ["--learning_rate", "a number"]),
        (["--seed", "36893488147419103232"], ["--seed", "at most"]),  # 2^65: no generator takes it
        (["--device", "gpu"], ["--device", "cuda"]),
        (["--device", "cuda:x"], ["--device"]),
        (["--schedule", "cosin"], ["--schedule", "did you mean cosine"]),
        (["--select_on", "tests"], ["did you mean test"]),
        (["--tpg", "OPT"], ["CRNN"]),
        (["--test_model", "crnn"], ["did you mean CRNN"]),
        (["--test_model", "CRNN,PPOCRR"], ["did you mean PPOCR"]),
        (["--mixed_precision", "fp8"], ["did you mean"]),
        (["--mask", "true"], ["unexpected argument 'true'"]),
        (["--batchsize", "4"], ["unknown flag --batchsize", "did you mean --batch_size"]),
        (["--batch", "4"], ["unknown flag --batch"]),  # no abbreviations: they change meaning as flags are added
        (["--batch_size"], ["--batch_size"]),
        (["--arch", "rtsrm"], ["--arch", "'rtsrm'", "did you mean rtsrn"]),
        (["--arch", "super_resolution"], ["--arch", "unknown network"]),
        (["--arch", "../configs/rtsrn"], ["--arch", "unknown network"]),
        (["--go_test", "--demo"], ["not allowed with"]),
        (["train"], ["unexpected argument 'train'"]),
        (["--config", "rtsrm.yaml"], ["no configuration file", "did you mean rtsrn.yaml"]),
        (["--config", "/"], ["cannot be read"]),
        (["--width", "129"], ["TRAIN.width", "not a multiple"]),
        (["--STN", "--width", "256"], ["--STN", "16x128"]),
        (["--vis_dir", "../other"], ["--vis_dir", "--ckpt_dir"]),
        (["--vis_dir", "/tmp/other"], ["--vis_dir", "--ckpt_dir"]),
        (["--train_data_dir", ""], ["--train_data_dir"]),
        (["--use_distill", "--tpg_pretrained", "random"], ["--use_distill", "teacher"]),
        (["--language_loss", "distill", "--tpg_pretrained", "random"], ["--language_loss distill", "teacher", "ctc"]),
        (["--language_loss", "distill", "--no-triple_clues"], ["--language_loss distill", "--triple_clues"]),
        (["--visual_clue", "--no-triple_clues"], ["--visual_clue", "--triple_clues"]),
        (["--language_model", "lm.pth", "--no-triple_clues"], ["--language_model", "--triple_clues"]),
        (["--target_cache", "ram"], ["--target_cache", "memory"]),
        (["--ssim_loss", "--height", "8"], ["--ssim_loss"]),
    ],
)
def test_a_wrong_flag_is_refused_by_name(arguments, words):
    with pytest.raises(ConfigError) as refused:
        settings(*arguments)
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize("key", LOWEST)
def test_lower_limits(key):
    low, allowed = LOWEST[key]
    kind = type(EVERY[key])
    if allowed:
        assert coerce(key, kind(low), EVERY[key], "here") == low
    else:
        with pytest.raises(ConfigError, match="must be more than"):
            coerce(key, kind(low), EVERY[key], "here")
    with pytest.raises(ConfigError, match="must be"):
        coerce(key, kind(low - 1), EVERY[key], "here")


@pytest.mark.parametrize("key", HIGHEST)
def test_upper_limits(key):
    kind = type(EVERY[key])
    assert coerce(key, kind(HIGHEST[key]), EVERY[key], "here") == HIGHEST[key]
    with pytest.raises(ConfigError, match="must be at most"):
        coerce(key, kind(HIGHEST[key] + 1), EVERY[key], "here")


@pytest.mark.parametrize("key", CHOICES)
def test_choices(key):
    default = EVERY[key]
    for choice in CHOICES[key]:
        value = [choice] if isinstance(default, list) else choice
        assert coerce(key, value, default, "here") == value
    with pytest.raises(ConfigError, match="is 'bogus'"):
        coerce(key, "bogus", default, "here")
    for value in default if isinstance(default, list) else [default]:
        assert value in CHOICES[key]


def test_limits_and_choices_name_keys_that_exist():
    assert {*LOWEST, *HIGHEST, *CHOICES} <= set(EVERY)


# Keys.


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("TRIAN: {lr: 1}", ["TRIAN.lr", "did you mean TRAIN.lr"]),
        ("batch_size: 4", ["batch_size is not an option", "TRAIN.batch_size"]),
        ("TRAIN: {batchsize: 4}", ["TRAIN.batchsize is not an option; did you mean TRAIN.batch_size?"]),
        ("TRAIN: {VAL: {valinterval: 4}}", ["did you mean TRAIN.VAL.valInterval?"]),
        ("LOSS: {weights: {mes: 4}}", ["did you mean LOSS.weights.mse?"]),
        ("TRAIN: {crnn_pretrained: x}", ["did you mean TRAIN.VAL.crnn_pretrained?"]),  # right key, wrong section
        ("TRAIN: {mask: true}", ["TRAIN.mask is not an option"]),
        ("TEST: {VAL: {n_vis: 3}}", ["did you mean TRAIN.VAL.n_vis?"]),
        ("FOO: {}", ["FOO is not an option"]),
        ("FOO: ", ["FOO is not an option"]),
        ("1: 2", ["1 is not an option"]),
        ("TRAIN: {1: 2}", ["TRAIN.1 is not an option"]),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(tmp_path, text, words):
    with pytest.raises(ConfigError) as refused:
        settings("--config", user_file(tmp_path, text))
    for word in words:
        assert word in str(refused.value)


def test_keys_of_published_files_are_noted_and_not_refused(tmp_path):
    text = """
TRAIN: {cuda: true, ngpu: 1, adadelta: false, adam: true, manualSeed: 1234, keep_ratio: false, max_len: 100, lr: 0.01}
TEST: {checkpoint: ''}
CONVERT: {path: [a, b], image: {x: 1}}
"""
    found = settings("--config", user_file(tmp_path, text))
    assert found.config.TRAIN.lr == 0.01
    notes = "\n".join(found.notes)
    for key in ("TRAIN.cuda", "TRAIN.ngpu", "TRAIN.manualSeed", "TEST.checkpoint", "CONVERT.path", "CONVERT.image.x"):
        assert key in notes
    assert "--device" in notes
    assert not found.given & set(module.RETIRED_KEYS)


@pytest.mark.parametrize("flag", RETIRED_FLAGS)
def test_flags_that_did_nothing_are_refused_with_their_reason(flag):
    with pytest.raises(ConfigError) as refused:
        settings(flag)
    assert str(refused.value) == f"{flag} is not offered: {RETIRED_FLAGS[flag]}"


def test_retired_names_are_not_in_use():
    assert not {flag.removeprefix("--") for flag in RETIRED_FLAGS} & {flag.name for flag in FLAGS}
    assert not set(module.RETIRED_KEYS) & set(KNOWN)


def test_every_flag_sets_an_existing_key_and_every_name_is_used_once():
    assert {flag.path for flag in FLAGS} <= set(EVERY)
    for attribute in ("name", "path"):
        names = [getattr(flag, attribute) for flag in FLAGS]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("interface", SCHEMAS)
def test_every_flag_named_in_the_defaults_exists_and_sets_the_key_beside_it(interface):
    for line in schema_path(interface).read_text().splitlines():
        comment = line.partition("#")[2].split()
        if comment and comment[-1].startswith("--") and not line.startswith("#"):
            key = line.split(":")[0].strip()
            flag = next(flag for flag in FLAGS if flag.name == comment[-1].removeprefix("--"))
            assert flag.path.split(".")[-1] == key or flag.path == "LOSS.text_focus"


@pytest.mark.parametrize("interface", SCHEMAS)
@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_every_flag_changes_its_key_and_no_other(flag, interface):
    if flag.path not in SCHEMAS[interface] or (
        interface == RECOGNITION and flag.path in ("arch", "TRAIN.train_data_dir")
    ):
        return
    default, given = SCHEMAS[interface][flag.path], BASE[interface]
    needs = {"tssim_loss": ["--rotate_train", "5"], "confusion": ["--text_focus"]}  # are refused alone
    needs |= {name: ["--rendered", "5"] for name in ("word_list", "font_dirs")}
    given = [*given, *needs.get(flag.name, [])]
    before = settings(*given)
    base = dict(flatten(before.config))
    expected: Any
    if isinstance(default, bool):
        arguments, expected = [f"--{'no-' if base[flag.path] else ''}{flag.name}"], not base[flag.path]
    elif isinstance(default, int):
        arguments, expected = [f"--{flag.name}", str(2 * default + 2)], 2 * default + 2
    elif isinstance(default, float):
        arguments, expected = [f"--{flag.name}", str(default / 2)], default / 2
    elif flag.path in CHOICES:
        value = next((choice for choice in CHOICES[flag.path] if choice not in default), default)
        arguments, expected = [f"--{flag.name}", value], [value] if isinstance(default, list) else value
    else:
        text = {"TRAIN.device": "cpu", "arch": "bicubic"}.get(flag.path, "some_name")
        arguments, expected = [f"--{flag.name}", text], [text] if isinstance(default, list) else text
    found = settings(*given, *arguments)
    changed = {key for key, value in flatten(found.config) if value != base[key]}
    assert get(found.config, flag.path) == expected
    both = {"arch", "TRAIN.train_data_dir"}
    assert found.given - before.given - both == {flag.path} - both
    follows = {"TEST.test_data_dir"} if flag.name == "val_data_dir" else set()
    follows |= {"MODEL.mask", "MODEL.triple_clues", "TRAIN.epochs"} if flag.name == "arch" else set()
    assert changed - follows <= {flag.path}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_key_of_every_shipped_file_exists(path):
    notes: list[str] = []
    interface, options = (path.stem, read_yaml(path)) if path.stem in SCHEMAS else arch_file(path.stem)
    merge(read_yaml(schema_path(interface)), options, path.name, notes)
    assert not notes


@pytest.mark.parametrize("interface", SCHEMAS)
def test_defaults_pass_their_own_checks(interface):
    tree, path = read_yaml(schema_path(interface)), schema_path(interface)
    assert merge(tree, read_yaml(path), "itself") == set(SCHEMAS[interface])
    assert tree == read_yaml(path)


# Files and published calls.


@pytest.mark.parametrize("path", sorted(module.CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_file_with_its_own_batch_says_that_its_rate_is_for_that(path):
    """Or --lr_scaling would change the rate of the published recipe."""
    train = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("TRAIN", {})
    assert train.get("lr_images") == train.get("batch_size")


def test_the_whole_configuration_survives_a_round_trip(tmp_path):
    found = settings(*shlex.split(THREE_STAGES), "--learning_rate", "1e-7", "--val_data_dir", "a b", "ü:#")
    again = settings("--config", user_file(tmp_path, to_yaml(found.config)))
    assert dict(flatten(again.config)) == dict(flatten(found.config))
    types = [(key, type(value)) for key, value in flatten(found.config)]
    assert [(key, type(value)) for key, value in flatten(again.config)] == types
    assert yaml.safe_load(to_yaml(again.config)) == yaml.safe_load(to_yaml(found.config))


def test_config_by_bare_name_is_one_of_ours_and_the_users_own_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert settings("--config", "super_resolution.yaml").given == set()  # as in the published call
    assert "MODEL.mask" in settings("--config", "rtsrn.yaml").given
    user_file(tmp_path, "TRAIN: {batch_size: 5}", "rtsrn.yaml")
    assert settings("--config", "rtsrn.yaml").given == {"TRAIN.batch_size"}


def test_config_by_path(tmp_path, monkeypatch):
    user_file(tmp_path, "TRAIN: {batch_size: 5}")
    for name in (tmp_path / "mine.yaml", f"{tmp_path}/../{tmp_path.name}/mine.yaml"):
        assert settings("--config", name).config.TRAIN.batch_size == 5
    monkeypatch.chdir(tmp_path)
    assert settings("--config", "mine.yaml").config.TRAIN.batch_size == 5
    assert settings("--config", "./mine.yaml").config.TRAIN.batch_size == 5


@pytest.mark.parametrize(
    ("arguments", "verb"),
    [("", "train"), ("--go_test", "test"), ("--test", "test"), ("--demo", "demo"), ("--go_test --test", "test")],
)
def test_verbs(arguments, verb):
    assert settings(*arguments.split()).verb == verb


def test_test_needs_no_training_data():
    assert settings("--test", "--train_data_dir", "").config.TRAIN.train_data_dir == []


@pytest.mark.parametrize("line", [SINGLE_STAGE, THREE_STAGES])
@pytest.mark.parametrize("more", ["", " --go_test --resume ckpt/X", " --config super_resolution.yaml", " --test --vis"])
def test_published_commands(line, more):
    found = settings(*shlex.split(line + more))
    config = found.config
    assert found.verb == ("test" if "test " in more else "train")
    assert config.arch == "rtsrn"
    assert config.TEST.test_model == ["CRNN"]
    assert config.TRAIN.batch_size == 48
    assert config.TRAIN.VAL.vis_dir == "X"
    assert config.MODEL.sr_share == ("--sr_share" in line)
    assert config.MODEL.stu_iter == (3 if line is THREE_STAGES else 1)
    assert all(config.MODEL[name] for name in ("STN", "mask", "triple_clues"))
    assert all(config.LOSS[name] for name in ("gradient", "use_distill", "text_focus", "lca"))
    assert not any(config.LOSS[name] for name in ("use_label", "ssim_loss"))
    assert config.TRAIN.resume == ("ckpt/X" if "--resume" in more else "")


@pytest.mark.parametrize("names", [["CRNN,PPOCR"], ["CRNN", "PPOCR"], ["CRNN,", "PPOCR"], ["CRNN, PPOCR"]])
def test_lists_of_test_models(names):
    assert settings("--test_model", *names).config.TEST.test_model == ["CRNN", "PPOCR"]


def test_a_path_with_a_comma_stays_one_path():
    assert settings("--train_data_dir", "a,b", "c").config.TRAIN.train_data_dir == ["a,b", "c"]


def test_test_sets_follow_the_validation_sets():
    assert settings("--val_data_dir", "a", "b").config.TEST.test_data_dir == ["a", "b"]
    assert settings("--val_data_dir", "a", "--test_data_dir", "c").config.TEST.test_data_dir == ["c"]
    assert settings().config.TEST.test_data_dir == [f"./textzoom/test/{name}" for name in ("easy", "medium", "hard")]


@pytest.mark.parametrize("interface", SCHEMAS)
def test_help_names_every_flag_and_no_other(capsys, interface):
    with pytest.raises(SystemExit) as stopped:
        settings(*BASE[interface], "--help")
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    for flag in FLAGS:
        assert any(f"({flag.path}{end}" in shown for end in ");") == (flag.path in SCHEMAS[interface])
        assert f"--{flag.name}" in shown or flag.path not in SCHEMAS[interface]


def test_a_confusion_table_without_its_term_is_refused(tmp_path):
    (tmp_path / "mine.yaml").write_text("LOSS: {confusion: table.npz}\n")
    with pytest.raises(ConfigError, match=r"LOSS.confusion weighs a term of --text_focus; add that"):
        settings("--config", str(tmp_path / "mine.yaml"))
    settings("--config", str(tmp_path / "mine.yaml"), "--text_focus")
    settings("--config", str(tmp_path / "mine.yaml"), "--go_test")
