"""Try every network as a user would: train a few steps, stop, resume, test; a table says how each of them did.

    python scripts/try_networks.py --data textzoom/train1 textzoom/train2 --test textzoom/test/easy --out ckpt/tried
    python scripts/try_networks.py --data data/train --test data/test/easy --out tried --arch tsrn tpgsr --steps 10

Each network runs main.py three times in processes of its own: half of the steps, --resume to all of them, --go_test.
Its recipe is that of its file in configs/, only shorter. OUT gets table.md and table.json, written anew after each
network, the run folders, and what each process said. The exit status is 1 if a network failed.

Images/s of training are those of the log at the last step, validation left out. Images/s of the test count from the
opened test sets to the end of the process: super-resolution, PSNR and SSIM with their intervals, the report. Peak
memory is the largest resident size of one of the three processes. PSNR is the mean over all test pictures.
"""

# ruff: noqa: PLC0415 - imports that take long wait for the arguments: --help is instant

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OPENED = "testing on"  # what the program says once the test sets are open
HEAD = {
    "arch": "--arch",
    "parameters": "trained parameters",
    "train": "train, images/s",
    "test": "test, images/s",
    "memory": "peak memory, MB",
    "losses": "loss before the stop -> at the end",
    "resumed": "resumed",
    "psnr": "PSNR, dB (bicubic)",
    "result": "result",
}


class Failed(Exception):
    """A process ended with an error; the message is what it said last."""


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="try_networks.py", description=__doc__, formatter_class=raw)
    parser.add_argument("--data", type=Path, nargs="+", required=True, metavar="DIR", help="training sets")
    parser.add_argument("--test", type=Path, nargs="+", required=True, metavar="DIR", help="test sets")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a new folder for everything")
    parser.add_argument("--arch", nargs="+", metavar="NAME", help="networks to try (default: all)")
    parser.add_argument("--steps", type=int, default=20, help="training steps, the stop is half way (default: 20)")
    parser.add_argument("--batch_size", type=int, default=16, help="pictures a step (default: 16)")
    parser.add_argument(
        "--tpg_pretrained",
        type=Path,
        default=ROOT / "rec_pth" / "crnn.safetensors",
        metavar="FILE",
        help="CRNN for networks that one guides (default: the one that comes along); other guides begin at random",
    )
    parser.add_argument(
        "--text_focus_pretrained",
        type=Path,
        default=ROOT / "rec_pth" / "focus_transformer_small.safetensors",
        metavar="FILE",
        help="recogniser for recipes with text focus (default: the small one that comes along)",
    )
    parser.add_argument("--flags", default="", help='further options of main.py, such as "--device cpu --workers 0"')
    args = parser.parse_args(argv)
    if args.steps < 2:
        parser.error(f"--steps {args.steps}: a stop in the middle needs at least 2")
    if args.out.exists() and any(args.out.iterdir()):
        parser.error(f"--out {args.out} is not empty; name a new folder")
    return args


def recipe_flags(arch: str, args: argparse.Namespace) -> list[str]:
    """The weights files that the recipe of a network begins with."""
    from interface.doctor_weights import WEIGHTS
    from interface.listing import default_config
    from model import model_spec

    flags: list[str] = []
    for file in WEIGHTS:
        if file.option == "MODEL.tpg_pretrained" and model_spec(arch).system in file.systems:
            flags += ["--tpg_pretrained", str(args.tpg_pretrained.resolve()) if file.reader == "CRNN" else "random"]
    if default_config(arch).LOSS.text_focus:
        flags += ["--text_focus_pretrained", str(args.text_focus_pretrained.resolve())]
    return flags


def call(name: str, arguments: list[str], out: Path) -> dict[str, float]:
    """Run main.py in `out`, and keep what it says in `<name>.log`.

    Returns:
        "memory": largest resident size in MB, "seconds": from the opened test sets to the end.

    Raises:
        Failed: it ended with an error.
    """
    started, last = time.perf_counter(), ""
    command = [sys.executable, str(ROOT / "main.py"), *arguments]
    with (out / f"{name}.log").open("w", encoding="utf-8") as log:
        log.write(shlex.join(command) + "\n")
        log.flush()
        with subprocess.Popen(command, cwd=out, stdout=log, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603
            assert process.stderr is not None, "it is a pipe"
            for line in process.stderr:
                log.write(line)
                last = line.strip() or last
                if OPENED in line:
                    started = time.perf_counter()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise Failed(f"{name}: {last}")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes in what is counted
    return {"memory": usage.ru_maxrss * unit / 1e6, "seconds": time.perf_counter() - started}


def numbers_of(run: Path, half: int) -> dict[str, Any]:
    """What the log of a run says of its two halves."""
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [event for event in events if event["event"] == "train"]
    losses = {event["step"]: event["loss"] for event in steps}
    finite = all(value is not None and math.isfinite(value) for value in losses.values())
    found = re.search(r"([\d,]+) trained parameters", (run / "log.txt").read_text(encoding="utf-8"))
    assert found, "every training begins with that line"
    return {
        "parameters": int(found[1].replace(",", "")),
        "train": steps[-1]["images_per_second"],
        "losses": losses,
        # It went on at the step of the stop, once, and no step was taken twice.
        "resumed": finite
        and [event["step"] for event in events if event["event"] == "resume"] == [half]
        and len(losses) == len(steps),
    }


def tested(folder: Path, seconds: float) -> dict[str, float]:
    """What a report says of all its pictures together."""
    splits = list(json.loads((folder / "report.json").read_text(encoding="utf-8"))["splits"].values())
    count = sum(split["images"] for split in splits)
    stages = sorted(row for row in splits[0]["psnr"] if row.startswith("sr_"))

    def mean(row: str) -> float:
        return sum(split["images"] * split["psnr"][row]["value"] for split in splits) / count

    return {"test": count / seconds, "psnr": mean(stages[-1]), "bicubic": mean("bicubic")}


def attempt(arch: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train, stop, resume and test one network; the row of the table."""
    from model import build_model

    out, half = args.out.resolve(), args.steps // 2
    more = shlex.split(args.flags)
    test_sets = [str(path.resolve()) for path in args.test]
    test = ["--go_test", "--test_data_dir", *test_sets, "--test_model", "", "--report_dir", f"reports/{arch}", *more]
    row: dict[str, Any] = {"arch": arch}
    used: list[dict[str, float]] = []
    try:
        if any(True for _ in build_model(arch).parameters()):
            train = ["--arch", arch, "--train_data_dir", *(str(path.resolve()) for path in args.data)]
            train += ["--config", "short.yaml", "--batch_size", str(args.batch_size), "--ckpt_dir", "ckpt", *more]
            train += ["--test_model", "", "--log_interval", str(max(1, half // 2)), *recipe_flags(arch, args)]
            used.append(call(f"{arch}-1-train", [*train, "--steps", str(half), "--vis_dir", arch], out))
            used.append(call(f"{arch}-2-resume", [*train, "--steps", str(args.steps), "--resume", f"ckpt/{arch}"], out))
            row |= numbers_of(out / "ckpt" / arch, half)
            used.append(call(f"{arch}-3-test", [*test, "--resume", f"ckpt/{arch}/last.pth"], out))
        else:  # a baseline
            used.append(call(f"{arch}-3-test", [*test, "--arch", arch], out))
        row |= tested(out / "reports" / arch, used[-1]["seconds"])
        row["result"] = "ok" if row.get("resumed", True) else "not resumed, or a loss that is not finite"
    except Failed as error:
        row["result"] = f"failed: {error}"
    row["memory"] = max((entry["memory"] for entry in used), default=None)
    return row


def cells(row: dict[str, Any], half: int) -> list[str]:
    """One line of the Markdown table, in the order of `HEAD`."""
    losses = row.get("losses") or {}
    shown = {
        "arch": f"`{row['arch']}`",
        "parameters": f"{row['parameters']:,}" if "parameters" in row else "-",
        "train": f"{row['train']:.3g}" if "train" in row else "-",
        "test": f"{row['test']:.3g}" if "test" in row else "-",
        "memory": f"{row['memory']:.0f}" if row["memory"] else "-",
        "losses": f"{losses[half]:.4g} -> {losses[max(losses)]:.4g}" if half in losses else "-",
        "resumed": {True: "yes", False: "no", None: "-"}[row.get("resumed")],
        "psnr": f"{row['psnr']:.2f} ({row['bicubic']:.2f})" if "psnr" in row else "-",
        "result": row["result"].replace("|", "/"),
    }
    return [shown[name] for name in HEAD]


def write_tables(rows: list[dict[str, Any]], args: argparse.Namespace, argv: list[str]) -> None:
    """Write `table.md` and `table.json`."""
    lines = [[*HEAD.values()], ["---"] * len(HEAD), *(cells(row, args.steps // 2) for row in rows)]
    command = shlex.join(["python", "scripts/try_networks.py", *argv])
    text = f"`{command}`\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
    (args.out / "table.md").write_text(text, encoding="utf-8")
    whole = json.dumps({"command": command, "rows": rows}, indent=1) + "\n"
    (args.out / "table.json").write_text(whole, encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """Try them; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse(argv)
    sys.path.insert(0, str(ROOT))  # run as a file: the packages lie one folder up
    from model import list_models

    known = list_models()
    unknown = sorted(set(args.arch or []) - set(known))
    if unknown:
        print(f"try_networks.py: unknown network {', '.join(unknown)}; known: {', '.join(known)}", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    # Each half ends with a validation, which is not what is tried here.
    (args.out / "short.yaml").write_text("TRAIN: {VAL: {held_out: 0.001, n_vis: 0, valInterval: 1000000}}\n")
    rows: list[dict[str, Any]] = []
    for arch in args.arch or known:
        rows.append(attempt(arch, args))
        write_tables(rows, args, argv)
        print(" | ".join(cells(rows[-1], args.steps // 2)), flush=True)
    return int(any(row["result"] != "ok" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
