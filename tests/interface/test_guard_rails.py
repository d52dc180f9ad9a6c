"""What keeps the design: arrows of import, no method names where none belong, no dead options, no large files."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from interface.config import (
    CONFIGS,
    RECOGNITION,
    ROOT,
    SUPER_RESOLUTION,
    arch_file,
    arch_names,
    flatten,
    read_yaml,
    schema_path,
)
from model import list_models, model_spec
from tests.interface.helpers import environment

PACKAGES = ("interface", "dataset", "model", "loss")
SOURCES = [ROOT / "main.py", *(path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py")))]
ALL_PYTHON = [*SOURCES, *sorted((ROOT / "scripts").rglob("*.py"))]
ALLOWED = {
    "main": {"interface"},
    "interface": {"interface", "dataset", "loss", "model"},
    "loss": {"loss", "model"},
    "model": {"model"},
    "dataset": {"dataset"},
}
LARGEST = 500_000  # bytes
INTERFACES = (SUPER_RESOLUTION, RECOGNITION)
EVERY_NETWORK = [*list_models(), *list_models(RECOGNITION)]


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports_of(path: Path) -> set[str]:
    """First names of everything a file imports, wherever in the file it does."""
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(path.relative_to(ROOT).parts[0] if node.level else str(node.module).split(".")[0])
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            found |= {str(a.value).split(".")[0] for a in node.args if isinstance(a, ast.Constant)}
    return found


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_imports_go_one_way(path):
    package = path.relative_to(ROOT).parts[0].removesuffix(".py")
    ours = imports_of(path) & {*PACKAGES, "main", "scripts", "tests", "benchmarks"}
    assert ours <= ALLOWED[package]


def test_the_two_bottom_packages_do_not_know_each_other_or_the_configuration():
    for path in SOURCES:
        if path.relative_to(ROOT).parts[0] in ("model", "dataset", "loss"):
            assert not imports_of(path) & {"yaml", "easydict", "argparse", "accelerate"}, relative(path)


def test_the_configuration_is_plain_data():
    heavy = {"torch", "numpy", "accelerate", "model", "dataset", "loss"}
    assert not imports_of(ROOT / "interface" / "config.py") & heavy
    assert "torch" not in imports_of(ROOT / "main.py")


def attributes_and_texts() -> tuple[set[str], set[str]]:
    attributes, texts = set(), set()
    for path in SOURCES:
        if path.name == "config.py":
            continue
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Attribute):
                attributes.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.add(node.value)
    return attributes, texts


# Read by name through a mapping, a loop over names, or in config.py itself.
READ_OTHERWISE: dict[str, str] = dict.fromkeys(
    (f"TRAIN.VAL.{key}" for key in ("crnn_pretrained", "rec_pretrained", "moran_pretrained")), "by key in readers.py"
)


@pytest.mark.parametrize("interface", INTERFACES)
def test_every_option_is_read_somewhere(interface):
    attributes, texts = attributes_and_texts()
    unread = []
    for path, _ in flatten(read_yaml(schema_path(interface))):
        name = path.rsplit(".", 1)[-1]
        by_term = path.startswith("LOSS.weights.") and name in texts
        if name not in attributes and not by_term and path not in READ_OTHERWISE:
            unread.append(path)
    assert not unread, "nobody reads these options"


def test_no_exception_is_left_over_for_an_option():
    attributes, _ = attributes_and_texts()
    known = {path for name in INTERFACES for path, _ in flatten(read_yaml(schema_path(name)))}
    assert set(READ_OTHERWISE) <= set(known)
    assert not {path for path in READ_OTHERWISE if path.rsplit(".", 1)[-1] in attributes}


# `bicubic` is also a row of every report; `rtsrn_release` is a schedule.
NAMED = {"bicubic"}
# Where recognisers are named as the judges of other networks.
JUDGES = {"anchors.py", "readers.py", "str_protocol.py", "flags.py", "listing.py"}


@pytest.mark.parametrize("path", [ROOT / "main.py", *sorted((ROOT / "interface").glob("*.py"))], ids=relative)
def test_no_method_is_named_in_the_trainer(path):
    judged = [] if path.name in JUDGES else list_models(RECOGNITION)
    names = {name.lower() for name in [*list_models(), *judged]} - NAMED
    tree = tree_of(path)
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            assert node.value.lower() not in names, f"line {node.lineno}: {node.value!r}"
        if isinstance(node, ast.Compare):
            compared = {c.value for c in ast.walk(node) if isinstance(c, ast.Constant)}
            assert not compared & {*names, *NAMED}, f"line {node.lineno}"
        if isinstance(node, ast.Name | ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            assert name.lower() not in names, f"line {node.lineno}: {name}"
        if isinstance(node, ast.ImportFrom):
            assert str(node.module).rsplit(".", 1)[-1] not in names, f"line {node.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_what_the_house_does_not_do(path):
    for node in ast.walk(tree_of(path)):
        line = f"line {getattr(node, 'lineno', '?')}"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{line}: bare except"
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        assert not (isinstance(node.func, ast.Name) and name in ("print", "eval", "exec", "breakpoint")), line
        assert name != "cuda", f"{line}: move to a device"
        if name == "load" and ast.unparse(node.func) == "torch.load":
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            assert "weights_only" in given, line
            assert ast.unparse(given["weights_only"]) == "True", line
        if ast.unparse(node.func) == "np.load":
            assert any(keyword.arg == "allow_pickle" for keyword in node.keywords), line
        assert not any(keyword.arg == "strict" and getattr(keyword.value, "value", None) is False
                       and name == "load_state_dict" for keyword in node.keywords), line  # fmt: skip


def test_yaml_is_read_safely():
    for path in ALL_PYTHON:
        assert not re.search(r"yaml\.(load|full_load|unsafe_load)\(", path.read_text(encoding="utf-8")), relative(path)


@pytest.mark.parametrize("name", EVERY_NETWORK)
def test_every_network_has_its_file_of_options_and_says_what_it_is(name):
    path = CONFIGS / f"{name}.yaml"
    assert path.is_file()
    assert path.read_text().startswith("#")
    assert arch_file(name)[0] == model_spec(name).task


def test_the_command_line_knows_every_network_and_no_other():
    assert arch_names() == sorted(EVERY_NETWORK)  # it must not import them, so it goes by the files in configs/


HELP = """
import sys
sys.argv = ["main.py", "--help"]
import main
try:
    main.main()
finally:
    heavy = {"torch", "numpy", "cv2", "accelerate", "PIL", "onnxruntime"} & set(sys.modules)
    assert not heavy, heavy
"""


@pytest.mark.slow
def test_help_imports_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-c", HELP], cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--go_test" in done.stdout


def test_no_tracked_file_is_large():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    allowed = re.compile(r"^(tests/vectors/.*\.npz|(rec_pth|ckpt/zoo)/.*\.(safetensors|onnx))$")
    large = {
        name: (ROOT / name).stat().st_size
        for name in listed.stdout.split("\0")
        if name and not allowed.match(name) and (ROOT / name).is_file() and (ROOT / name).stat().st_size > LARGEST
    }
    assert not large
