"""Pre-train the language model (BCN): it gets misspelt words as a CRNN would write them and has to spell them right.

    python scripts/pretrain_language_model.py --out rec_pth/language_model.safetensors
    python scripts/pretrain_language_model.py --out rec_pth/language_model.safetensors --resume

The words are made here (dataset/words.py, dataset/spelling.py); nothing is downloaded. Beside the result lie
`<out>.last.pth`, from which `--resume` goes on as if nothing had happened (Ctrl-C saves it, too), and a .json that says
how the file was made and what it scores on words of the same vocabulary, misspelt otherwise than in the training. With
a larger --steps, --resume lengthens a finished run; the learning rate then rises again.
`--mixed_precision bf16` is twice as fast on CPUs that compute in it (AVX512-BF16 or AMX), and slower on others.
"""

# ruff: noqa: PLC0415 - imports that take long wait for the arguments: --help and refusals are instant

from __future__ import annotations

import argparse
import json
import math
import shlex
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from model.language.bcn import BCN

ROOT = Path(__file__).resolve().parent.parent
DEFAULTS = {"steps": 4000, "batch_size": 16, "lr": 5e-4, "seed": 0, "dropout": 0.0, "mixed_precision": "no"}
WARMUP = 100  # steps, at most a tenth of all
CLIP = 20.0  # norm of the gradient, as in ABINet's pre-training
# The validation words are the same whatever --seed: a batch of stream 0 that no training comes to.
VALIDATION_INDEX = 1 << 40
VALIDATION_BATCH = 250


@dataclass
class Run:
    """A training, and where it stands.

    Attributes:
        options: what it depends on, see `DEFAULTS`.
        size: further arguments of `BCN`, empty for the published size.
        commands: the command lines it took.
        seconds: time spent in training steps.
    """

    options: dict[str, Any]
    size: dict[str, int]
    device: torch.device
    network: BCN
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    commands: list[str] = field(default_factory=list)


def build(options: dict[str, Any], size: dict[str, int], device: torch.device) -> Run:
    """A run at its start."""
    import torch

    from interface.state import seed_everything
    from model.language.bcn import BCN

    seed_everything(options["seed"])
    network = BCN(**size, dropout=options["dropout"])
    with torch.no_grad():
        # A character starts as loud as the code of its position. With PyTorch's start it is seven times quieter, and
        # it takes more than twice as many steps until the network writes anything but blanks.
        network.proj.weight *= network.pos_encoder.pe.square().mean().sqrt() / network.proj.weight.std()
    network.to(device)
    return Run(options, size, device, network, torch.optim.Adam(network.parameters(), lr=options["lr"]))


def restore(file: Path, given: dict[str, Any], size: dict[str, int], device: torch.device) -> Run:
    """The run that a checkpoint holds; `given` options may lengthen it, and must not contradict it otherwise.

    Raises:
        ValueError: they do, or the file is damaged or of another program.
    """
    from interface.checkpoint import load_checkpoint
    from interface.state import restore_rng

    state = load_checkpoint(file)
    if not {"options", "network", "optimizer", "rng", "size"} <= set(state):
        raise ValueError(f"{file} is no checkpoint of this script; name another --out, or add --overwrite")
    options = {**state["options"], **given}
    for name, value in state["options"].items():
        if name != "steps" and options[name] != value:
            raise ValueError(f"{file} was made with --{name} {value}, not {options[name]}; leave it out, or --resume")
    if options["steps"] < state["step"]:
        raise ValueError(f"--steps {options['steps']}: {file} has {state['step']} already; give more, or leave it out")
    assert state["size"] == size
    run = build(options, size, device)
    run.network.load_state_dict(state["network"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.step, run.seconds, run.commands = state["step"], state["seconds"], state["commands"]
    restore_rng(state["rng"])  # dropout
    return run


def save(run: Run, file: Path) -> None:
    """Write a checkpoint."""
    from interface.checkpoint import save_checkpoint
    from interface.state import rng_state

    state = {name: getattr(run, name) for name in ("options", "size", "step", "seconds", "commands")}
    state |= {"network": run.network.state_dict(), "optimizer": run.optimizer.state_dict(), "rng": rng_state()}
    save_checkpoint(file, state)


def train_step(run: Run) -> tuple[float, float]:
    """Learn from the next batch; returns loss and norm of the gradient.

    Raises:
        FloatingPointError: the loss is not a number.
    """
    import torch

    from dataset.charset import encode_ctc
    from dataset.spelling import spelling_batch
    from interface.optim import learning_rate
    from loss.ctc import ctc_loss

    options, steps = run.options, run.options["steps"]
    rate = learning_rate(run.step, schedule="cosine", peak=options["lr"], warmup=min(WARMUP, steps // 10), total=steps)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    columns, words = spelling_batch(options["seed"], run.step, options["batch_size"])
    targets = encode_ctc(words)
    with torch.autocast(run.device.type, torch.bfloat16, enabled=options["mixed_precision"] == "bf16"):
        logits = run.network(torch.from_numpy(columns).to(run.device))
    loss = ctc_loss(logits, targets.targets, targets.lengths, targets.valid)
    if not math.isfinite(loss.item()):
        raise FloatingPointError(
            f"the loss of step {run.step + 1} is {loss.item()}; start again with a smaller --lr than {options['lr']}"
        )
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(run.network.parameters(), CLIP)
    run.optimizer.step()
    run.step += 1
    return loss.item(), norm.item()


def read(probabilities: torch.Tensor) -> list[str]:
    """(N, T, K) probabilities or logits -> N strings, as CTC is read: the best class of each column."""
    from dataset.charset import CTC_ALPHABET

    best = probabilities.argmax(2)
    kept = best.clone()
    kept[:, 1:][best[:, 1:] == best[:, :-1]] = 0
    return ["".join(CTC_ALPHABET[number] for number in row if number) for row in kept.tolist()]


def validate(run: Run, count: int) -> dict[str, float]:
    """Scores on `count` held-out words, in float32: shares of words and of characters read right.

    `before` is the reading of the columns, `after` that of the network's output. `repaired` is the share of the words
    misread before that are right after, `spoilt` that of the words read before that are wrong after. Characters count
    by edit distance over the length of the longer of word and reading.
    """
    import torch

    from dataset.spelling import spelling_batch
    from interface.alignment import distance

    words, before, after = [], [], []
    run.network.eval()
    for number, start in enumerate(range(0, count, VALIDATION_BATCH)):
        size = min(VALIDATION_BATCH, count - start)
        columns, correct = spelling_batch(0, VALIDATION_INDEX + number, size)
        given = torch.from_numpy(columns)
        with torch.no_grad():
            logits = run.network(given.to(run.device))
        words += correct
        before += read(given)
        after += read(logits.cpu())
    run.network.train()
    first = [reading == word for reading, word in zip(before, words, strict=True)]
    then = [reading == word for reading, word in zip(after, words, strict=True)]
    right, both = sum(first), sum(a and b for a, b in zip(first, then, strict=True))

    def characters(readings: list[str]) -> float:
        return 1 - sum(distance(word, reading) for word, reading in zip(words, readings, strict=True)) / count

    return {
        "validation_words": count,
        "words_before": right / count,
        "words_after": sum(then) / count,
        "characters_before": characters(before),
        "characters_after": characters(after),
        "repaired": (sum(then) - both) / max(1, count - right),
        "spoilt": (right - both) / max(1, right),
    }


def score_line(step: int, scores: dict[str, float]) -> str:
    """What a validation found, in words."""
    percent = {name: f"{100 * value:.1f}" for name, value in scores.items()}
    return (
        f"step {step}: words right {percent['words_before']} % before, {percent['words_after']} % after; characters "
        f"{percent['characters_before']} % before, {percent['characters_after']} % after; "
        f"repaired {percent['repaired']} % of the wrong, spoilt {percent['spoilt']} % of the right"
    )


def train(run: Run, args: argparse.Namespace, checkpoint: Path) -> int:
    """Train to the last step, or to a signal, and save; returns the signal's number, 0 without one."""
    from interface.state import StopSignals

    total, size = run.options["steps"], run.options["batch_size"]
    losses: list[float] = []
    with StopSignals() as signals:
        begun = time.monotonic()
        while run.step < total and not signals.received:
            loss, norm = train_step(run)
            losses.append(loss)
            if run.step % args.log_interval == 0 or run.step == total or signals.received:
                seconds = time.monotonic() - begun
                run.seconds += seconds
                print(
                    f"step {run.step} of {total}: loss {sum(losses) / len(losses):.3f}, gradient {norm:.1f}, "
                    f"rate {run.optimizer.param_groups[0]['lr']:.2e}, {len(losses) * size / seconds:.0f} words/s",
                    flush=True,
                )
                losses, begun = [], time.monotonic()
            if run.step % args.save_interval == 0 and run.step < total:
                pause = time.monotonic()
                save(run, checkpoint)
                print(score_line(run.step, validate(run, args.validation_words)), flush=True)
                begun += time.monotonic() - pause  # neither is training
        save(run, checkpoint)
    return signals.received


def write_result(run: Run, args: argparse.Namespace, scores: dict[str, float]) -> None:
    """Write the weights, and what they are."""
    import torch
    from safetensors.torch import save as serialise

    from interface.checkpoint import file_sha256, write_atomically, write_text
    from interface.provenance import environment

    kind = torch.float16 if args.half else torch.float32
    constant = set(run.network.constant_buffers)  # not worth rounding
    weights = {
        name: value.detach().cpu().to(torch.float32 if name in constant else kind).contiguous()
        for name, value in run.network.state_dict().items()
    }

    def write(temporary: Path) -> None:
        temporary.write_bytes(serialise(weights))

    write_atomically(args.out, write)
    options = run.options
    facts = {
        "network": "BCN",
        "sha256": file_sha256(args.out),
        "precision": "float16" if args.half else "float32",
        "made_by": "scripts/pretrain_language_model.py",
        "commands": run.commands,
        **options,
        "words": run.step * options["batch_size"],
        "vocabulary": "dataset/words.py, misspelt by dataset/spelling.py",
        "minutes": round(run.seconds / 60, 1),
        "scores": {name: round(value, 4) for name, value in scores.items()},
        "environment": environment(run.device),
    }
    text = json.dumps(facts, indent=2) + "\n"
    write_atomically(args.out.with_suffix(".json"), lambda temporary: write_text(temporary, text))


def choose_device(name: str) -> torch.device:
    """The device of a name; "auto" is a GPU if there is one.

    Raises:
        ValueError: it is not there.
    """
    import torch

    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"--device {name} cannot be used ({str(error).splitlines()[0]}); try cpu or auto") from error
    return device


def check(args: argparse.Namespace, options: dict[str, Any], checkpoint: Path) -> None:
    """Refuse what cannot work, and to lose anything.

    Raises:
        ValueError: an argument makes no sense, or a file is there that would be replaced.
    """
    if args.out.suffix != ".safetensors" or args.out.is_dir():
        raise ValueError(f"--out {args.out}: the name of a file is needed, and it must end with .safetensors")
    given = {**vars(args), **options}
    for name in ("steps", "batch_size", "log_interval", "save_interval", "validation_words"):
        if given[name] < 1:
            raise ValueError(f"--{name} {given[name]}: must be 1 or more")
    if not 0 <= options["seed"] < 1 << 63:
        raise ValueError(f"--seed {options['seed']}: must be 0 or more, and below 2^63")
    if not 0 < options["lr"] < 1:
        raise ValueError(f"--lr {options['lr']}: must be above 0 and below 1")
    if not 0 <= options["dropout"] < 1:
        raise ValueError(f"--dropout {options['dropout']}: must be 0 or more, and below 1")
    if args.resume and not checkpoint.is_file():
        raise ValueError(f"--resume: there is no {checkpoint}; leave --resume out to begin")
    if args.resume or args.overwrite:
        return
    for file in (args.out, args.out.with_suffix(".json"), checkpoint):
        if file.exists():
            go_on = "add --resume to go on with it, or " if checkpoint.is_file() else ""
            raise ValueError(f"{file} exists; {go_on}name another --out, or add --overwrite to replace it")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    # SUPPRESS: an option that is not given leaves no trace, so that a resumed run keeps its own.
    parser = argparse.ArgumentParser(
        prog="pretrain_language_model.py", description=__doc__, formatter_class=raw, argument_default=argparse.SUPPRESS
    )
    parser.add_argument("--out", type=Path, required=True, help="weights file to write, .safetensors")
    about = {
        "steps": "batches to learn from, in all",
        "batch_size": "words in a batch",
        "lr": "peak learning rate",
        "seed": "of weights, words, misspellings and dropout",
        "dropout": "0 learnt twice as fast in short runs; ABINet has 0.1",
    }
    for name, text in about.items():
        parser.add_argument(f"--{name}", type=type(DEFAULTS[name]), help=f"{text} ({DEFAULTS[name]})")
    parser.add_argument("--mixed_precision", choices=["no", "bf16"], help="arithmetic of the forward pass (no)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (auto)")
    parser.add_argument(
        "--half", action="store_true", default=False, help="store the weights as float16: half the size"
    )
    parser.add_argument("--log_interval", type=int, default=50, help="steps between lines (50)")
    parser.add_argument("--save_interval", type=int, default=500, help="steps between checkpoints and scores (500)")
    parser.add_argument("--validation_words", type=int, default=1000, help="words that the scores are made of (1000)")
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", default=False, help="go on with <out>.last.pth")
    again.add_argument("--overwrite", action="store_true", default=False, help="begin anew, replace what is there")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None, *, size: dict[str, int] | None = None) -> int:
    """Pre-train; returns the exit status.

    Args:
        argv: the command line, by default that of the process.
        size: arguments of `BCN` for a smaller network; its weights fit no SR network.
    """
    args = parse(argv)
    sys.path.insert(0, str(ROOT))  # run as a file: the packages lie one folder up
    checkpoint = args.out.with_name(args.out.name + ".last.pth")
    try:
        given = {name: getattr(args, name) for name in DEFAULTS if hasattr(args, name)}
        check(args, {**DEFAULTS, **given}, checkpoint)
        device = choose_device(args.device)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        if args.resume:
            run = restore(checkpoint, given, size or {}, device)
        else:
            run = build({**DEFAULTS, **given}, size or {}, device)
        words = ["python", "scripts/pretrain_language_model.py", *(sys.argv[1:] if argv is None else argv)]
        run.commands = [*run.commands, shlex.join(words)]
        if received := train(run, args, checkpoint):
            print(f"{signal.Signals(received).name} at step {run.step}: saved {checkpoint}; go on with --resume")
            return 128 + received
        scores = validate(run, args.validation_words)
        print(score_line(run.step, scores))
        write_result(run, args, scores)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"pretrain_language_model.py: {error}", file=sys.stderr)
        return 2
    print(f"wrote {args.out} and {args.out.with_suffix('.json').name}; {checkpoint.name} is only for --resume")
    return 0


if __name__ == "__main__":
    sys.exit(main())
