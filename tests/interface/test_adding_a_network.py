"""The worked example of CONTRIBUTING: a file in model/, a file in configs/, nothing else."""

import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from interface.config import ROOT
from tests.interface.helpers import environment

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`((?:model|configs)/\S+)`:\n\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
(COMMANDS,) = re.findall(r"^```bash\n(python main.py --list\n.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
NAME = "detailnet"


@pytest.fixture
def checkout(tmp_path, tiny_dir):
    """A copy of this program with the example's files, and small data sets beside it."""
    folder = tmp_path / "checkout"
    without = shutil.ignore_patterns("__pycache__", "vectors", "*.pyc")
    for name in ("interface", "model", "loss", "dataset", "configs", "scripts", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=without)
    for name in ("main.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    for name, content in FILES.items():
        assert not (folder / name).exists()
        (folder / name).write_text(content, encoding="utf-8")
    (folder / "data").symlink_to(tiny_dir)
    return folder


def call(line, folder):
    """A command as the page has it; what it wrote."""
    program, *words = shlex.split(line)
    assert program == "python"
    variables = {**environment(), "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=variables, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def test_the_page_has_one_file_of_each_kind():
    assert set(FILES) == {f"model/{NAME}.py", f"configs/{NAME}.yaml"}


@pytest.mark.slow
def test_a_network_is_one_file_and_one_configuration(checkout):
    _, trained, continued, tested, exported, checked = COMMANDS.splitlines()
    # Its line of `--list`, without counting the others, which takes longer than all the rest.
    listed = call(f"python -c \"from interface.listing import row; print(*row('{NAME}', links=False))\"", checkout)
    assert re.match(rf"{NAME} 0\.1\d M 0\.1\d G - ", listed)
    call(trained, checkout)
    run = checkout / "ckpt" / "mine"
    call(continued, checkout)
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps if line["event"] == "train"] == [2, 4]
    assert "gradient" in (run / "log.txt").read_text()  # a term that its own file switches on
    assert "easy" in call(tested, checkout)
    call(exported, checkout)
    assert json.loads((checkout / f"{NAME}.json").read_text())["arch"] == NAME

    passed, skipped = map(int, re.search(r"(\d+) passed, (\d+) skipped", call(f"{checked} -v", checkout)).groups())
    assert skipped == 1  # only that of its golden keys
    golden = f"tests/golden/{NAME}.keys"
    (checkout / golden).write_text(call(f"python -m tests.model.published {NAME}", checkout))
    assert "detail.0.weight 64x3x3x3" in (checkout / golden).read_text().splitlines()
    assert passed >= 8
