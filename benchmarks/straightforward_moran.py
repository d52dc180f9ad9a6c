"""Reading with MORAN the way published programs do: the same words, and nothing done to save work.

It is what its benchmark compares with and a test's oracle; no part of the program. Written from the description of
that code: 20 symbols are decoded for every word, from both ends of it, though only one of the two is read; columns are
projected in every step; symbols are looked up one by one. That it also draws the offsets of every picture, pixel by
pixel, is left out.

    python -m benchmarks.straightforward_moran --batch_sizes 1 48 --lengths 5 12 --repeats 5

All sides run in turn in one process on the same pictures. Weights are random, which changes no time; that words end is
arranged, as where they do matters.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from model.recognizer.moran import MORAN, Decoder


def read_straightforwardly(network: MORAN, images: Tensor) -> list[str]:
    """`MORAN.read`, the long way: (N, >=3, H, W) RGB in [0, 1] -> N strings."""
    columns = network.encode(network.preprocess(images))
    logits = decode_all_steps(network.ASRN.attentionL2R, columns, network.max_length)
    decode_all_steps(network.ASRN.attentionR2L, columns, network.max_length)
    return [text_one_by_one(network, row) for row in logits.argmax(2)]


def decode_all_steps(decoder: Decoder, columns: Tensor, length: int) -> Tensor:
    """(N, T, 256) -> (N, L, K) logits."""
    cell = decoder.attention_cell
    state = torch.zeros_like(columns[:, 0])
    previous = torch.zeros(len(columns), dtype=torch.long, device=columns.device)
    steps = []
    for _ in range(length):
        compared = (cell.i2h(columns) + cell.h2h(state)[:, None].expand_as(columns)).tanh()
        weights = cell.score(compared).squeeze(2).softmax(1)
        context = (weights[:, None] @ columns).squeeze(1)
        state = cell.rnn(torch.cat([context, decoder.char_embeddings[previous]], dim=1), state)
        logits = decoder.generator(state)
        steps.append(logits)
        previous = logits.argmax(1) + 1
    return torch.stack(steps, dim=1)


def text_one_by_one(network: MORAN, ids: Tensor) -> str:
    """(L,) -> the text before the first end symbol, a symbol at a time."""
    text = ""
    for symbol in ids:
        if int(symbol) == network.end:
            break
        text += network.charset[int(symbol)]
    return text


class EndsAfter(nn.Module):
    """The layer before the classes, changed so that words end after `lengths` characters, and not before."""

    def __init__(self, layer: nn.Linear, end: int, lengths: Tensor) -> None:
        super().__init__()
        self.layer, self.end, self.lengths = layer, end, lengths
        self.step = 0

    def forward(self, state: Tensor) -> Tensor:
        """(N, 256) -> (N, K)."""
        logits = self.layer(state)
        logits[:, self.end] += torch.where(self.lengths == self.step, 1e4, -1e4)
        self.step += 1
        return logits


def words_of(network: MORAN, lengths: Tensor) -> None:
    """Make both decoders read words of these lengths when they are called next."""
    for decoder in (network.ASRN.attentionL2R, network.ASRN.attentionR2L):
        layer = decoder.generator.layer if isinstance(decoder.generator, EndsAfter) else decoder.generator
        decoder.generator = EndsAfter(layer, network.end, lengths)  # type: ignore[assignment]


def alone() -> bool:
    """Whether all work is that of one thread, whose own time can be taken, whatever else the machine does."""
    return torch.get_num_threads() == 1 and not torch.cuda.is_available()


def measure(sides: dict[str, Callable[[], list[str]]], prepare: Callable[[], None], repeats: int) -> dict[str, float]:
    """Seconds of each side, the fastest of `repeats`, in turn; they must read the same."""
    clock = time.process_time if alone() else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats + 1):  # the first one warms up
        read = {}
        for name, side in sides.items():
            prepare()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            started = clock()
            read[name] = side()  # ends with strings, so nothing is left to wait for
            if repeat:
                seconds[name].append(clock() - started)
        assert len({tuple(texts) for texts in read.values()}) == 1, read
    return {name: min(values) for name, values in seconds.items()}


@torch.inference_mode()
def main(argv: list[str] | None = None) -> None:
    """Print one line of JSON per batch size and word length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 48])
    parser.add_argument("--lengths", type=int, nargs="+", default=[5, 12], help="characters of the longest word")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args(argv)
    torch.manual_seed(0)
    network = MORAN().eval().to(args.device).to(memory_format=torch.channels_last)
    for batch_size in args.batch_sizes:
        images = torch.rand(batch_size, 4, 32, 128, device=args.device)
        for length in args.lengths:
            lengths = torch.linspace(length, min(3, length), batch_size, device=args.device).round()
            seconds = measure(
                {
                    "ours": partial(network.read, images),
                    "straightforward": partial(read_straightforwardly, network, images),
                },
                partial(words_of, network, lengths),
                args.repeats,
            )
            result = {
                "batch_size": batch_size,
                "longest_word": length,
                **{f"images_per_second_{name}": round(batch_size / value, 1) for name, value in seconds.items()},
                "ratio": round(seconds["straightforward"] / seconds["ours"], 2),
                "time": "of the thread" if alone() else "passed",
                "threads": torch.get_num_threads(),
                "device": args.device,
                "torch": torch.__version__,
                "machine": platform.machine(),
            }
            print(json.dumps(result))


if __name__ == "__main__":
    main()
