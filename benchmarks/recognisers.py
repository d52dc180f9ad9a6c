"""How many words a second every recogniser reads, and what the straightforward way makes of it.

Reading is preparation, network and decoding, from (N, 3, 32, 128) pictures to strings. Both ways run in turn in one
process on the same rendered words, with the same weights, and have to read the same before their time is taken; so
quote their ratio. Networks have the published sizes and random weights, see `random_readers`; PP-OCR has its own.
"""

import argparse
import copy
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks import straightforward_moran, straightforward_recognisers
from benchmarks.measuring import in_turn, number
from benchmarks.random_readers import EndsAfter, expect, learn_by_heart, strengthen, tell_apart, word_lengths
from benchmarks.straightforward_ctc import RapidReader, read_crnn, read_svtr, write_out_attention
from benchmarks.straightforward_focus import read_focus
from dataset.synthetic import make_sample
from dataset.transforms import resize_planes
from model.recognizer.aster import ASTER
from model.recognizer.crnn import CRNN
from model.recognizer.focus_transformer import FocusTransformer
from model.recognizer.moran import MORAN
from model.recognizer.ppocr import PPOCR
from model.recognizer.svtr import SVTR

SIZE = (128, 32)  # width, height
SAMPLES = 8  # pictures that random weights are fitted to
WAYS = ("straightforward", "ours")


@dataclass(frozen=True)
class Way:
    """One way to read.

    Attributes:
        read: (N, 3, 32, 128) in [0, 1] -> N strings.
        network: that of PyTorch, if there is one; it may need to be told which words come next, see `expect`.
    """

    read: Callable[[Tensor], list[str]]
    network: nn.Module | None = None

    def read_all(self, pictures: Tensor, batch_size: int) -> list[str]:
        """Read all pictures, `batch_size` at a time."""
        texts = []
        for start in range(0, len(pictures), batch_size):
            rows = slice(start, start + batch_size)
            if self.network is not None:
                expect(self.network, rows)
            texts += self.read(pictures[rows])
        return texts


@dataclass(frozen=True)
class Comparison:
    """Two ways to read the same.

    Attributes:
        ours: as the program reads when it evaluates.
        straightforward: as the published programs do.
        more: what the latter does more.
    """

    ours: Way
    straightforward: Way
    more: str


def crnn(pictures: Tensor, device: torch.device) -> Comparison:
    """CRNN."""
    network = CRNN().eval()
    classes = network.get_submodule("rnn.1.embedding")
    tell_apart(network, lambda: network.read(pictures[:SAMPLES]), classes, blank=0)
    ours, theirs = two_of(network, device, trainable=True)
    more = "weights want gradients; every column is looked up by itself"
    return Comparison(Way(ours.read, ours), Way(lambda images: read_crnn(theirs, images), theirs), more)


def aster(pictures: Tensor, device: torch.device) -> Comparison:
    """ASTER."""
    network = ASTER().eval()
    learn_by_heart(network, len(pictures))
    ours, theirs = two_of(network, device, trainable=True)
    read = straightforward_recognisers.read_straightforwardly
    more = "100 steps of beam search, 100 more that nobody reads; weights want gradients"
    return Comparison(Way(ours.read, ours), Way(lambda images: read(theirs, images), theirs), more)


def moran(pictures: Tensor, device: torch.device) -> Comparison:
    """MORAN."""
    network = MORAN().eval()
    speller = network.ASRN
    # A learned rectifier moves a pixel by little; a random one by half the height, which makes rounding visible.
    strengthen(network.MORN.cnn[-1], factor=0.1)
    strengthen(speller.rnn, factor=2)
    tell_apart(network, lambda: network.read(pictures[:SAMPLES]), speller.attentionL2R.generator)
    for decoder in (speller.attentionL2R, speller.attentionR2L):
        ending = EndsAfter(decoder.generator, network.end, word_lengths(len(pictures)))
        decoder.generator = ending  # type: ignore[assignment]
    ours, theirs = two_of(network, device)
    read = straightforward_moran.read_straightforwardly
    more = "20 steps from both ends of a word; columns projected in each"
    return Comparison(Way(ours.read, ours), Way(lambda images: read(theirs, images), theirs), more)


def svtr(pictures: Tensor, device: torch.device) -> Comparison:
    """SVTR-tiny."""
    network = SVTR().eval()
    tell_apart(network, lambda: network.read(pictures[:SAMPLES]), network.head.fc, blank=0)
    ours, theirs = two_of(network, device)
    write_out_attention(theirs)
    more = "whole score matrices, probabilities"
    return Comparison(Way(ours.read, ours), Way(lambda images: read_svtr(theirs, images), theirs), more)


def focus(pictures: Tensor, device: torch.device) -> Comparison:
    """The text-focus transformer."""
    network = FocusTransformer().eval()
    query, _, _, output = network.decoder.multihead.linears
    strengthen(query, output, factor=10)
    tell_apart(network, lambda: network.read(pictures[:SAMPLES]), network.generator_word.proj)
    ending = EndsAfter(network.generator_word, 0, word_lengths(len(pictures)))
    network.generator_word = ending  # type: ignore[assignment]
    ours, theirs = two_of(network, device)
    more = "all symbols so far decoded for each next one"
    return Comparison(Way(ours.read, ours), Way(lambda images: read_focus(theirs, images), theirs), more)


def ppocr(pictures: Tensor, device: torch.device) -> Comparison:
    """PP-OCR; it runs on the CPU."""
    threads = torch.get_num_threads()
    reader = PPOCR(threads=threads)
    return Comparison(Way(reader.read), Way(RapidReader(reader, threads).read), "RapidOCR, one crop at a time")


RECOGNISERS: dict[str, Callable[[Tensor, torch.device], Comparison]] = {
    "CRNN": crnn,
    "ASTER": aster,
    "MORAN": moran,
    "SVTR-tiny": svtr,
    "text-focus": focus,
    "PP-OCR": ppocr,
}


def two_of(network: nn.Module, device: torch.device, *, trainable: bool = False) -> tuple[Any, Any]:
    """The network as the program evaluates with it, frozen and with channels last, and as published programs do."""
    theirs = copy.deepcopy(network).requires_grad_(trainable).to(device)
    return network.requires_grad_(False).to(device).to(memory_format=torch.channels_last), theirs


def render(count: int) -> Tensor:
    """(count, 3, 32, 128) rendered words in [0, 1]."""
    words = (Image.fromarray(make_sample(0, index).hr) for index in range(count))
    planes = np.stack([resize_planes(word, SIZE, mask=False) for word in words])
    return torch.from_numpy(planes).float() / 255


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Words a second of every recogniser, both ways, at every batch size.

    Raises:
        RuntimeError: the two ways do not read the same.
    """
    device, pictures, results = torch.device(args.device), render(args.images), {}
    for name in args.only:
        torch.manual_seed(args.seed)
        comparison = RECOGNISERS[name](pictures, device)
        batches = {}
        for batch_size in args.batch_size:
            texts, seconds = compare(name, comparison, pictures.to(device), batch_size, args.repeats)
            batches[str(batch_size)] = summary(seconds, len(pictures))
            print(f"{name}, batch {batch_size}: x{batches[str(batch_size)]['ratio']:.2f}", file=sys.stderr)
        results[name] = {"straightforward_does": comparison.more, "strings": texts, "batches": batches}
    return {"recognisers": results}


def compare(
    name: str, comparison: Comparison, pictures: Tensor, batch_size: int, repeats: int
) -> tuple[list[str], dict[str, list[float]]]:
    """What both ways read, and the seconds that each of them took for all pictures, `repeats` times in turn.

    Raises:
        RuntimeError: they do not read the same.
    """

    def ours() -> list[str]:
        with torch.inference_mode():  # as every evaluation does
            return comparison.ours.read_all(pictures, batch_size)

    def straightforward() -> list[str]:
        return comparison.straightforward.read_all(pictures, batch_size)

    texts = ours()
    for row, (own, theirs) in enumerate(zip(texts, straightforward(), strict=True)):
        if own != theirs:
            raise RuntimeError(
                f"{name}, batch size {batch_size}: picture {row} is read {own!r}, not {theirs!r}. Either one way is "
                "wrong, or rounding decides between two symbols there; then other weights (--seed) read the same"
            )
    return texts, in_turn(dict(zip(WAYS, (straightforward, ours), strict=True)), repeats, pictures.device)


def summary(seconds: dict[str, list[float]], count: int) -> dict[str, Any]:
    """Seconds for `count` pictures -> pictures a second (median, slowest, fastest) of each way, and the ratio."""
    middle = {way: statistics.median(values) for way, values in seconds.items()}
    return {
        "seconds": seconds,
        "images_per_second": {way: count / value for way, value in middle.items()},
        "range": {way: [count / max(values), count / min(values)] for way, values in seconds.items()},
        "ratio": middle["straightforward"] / middle["ours"],
    }


def table(result: dict[str, Any]) -> str:
    """Pictures a second, their range, and the ratios, as Markdown."""
    sizes = [str(size) for size in result["arguments"]["batch_size"]]
    heads = [f"{way}, batch {size}" for size in sizes for way in WAYS]
    lines = ["| images/s | " + " | ".join(heads) + " | straightforward does more |", "|---" * (len(heads) + 2) + "|"]
    for name, measured in result["recognisers"].items():
        cells = []
        for size in sizes:
            batch = measured["batches"][size]
            straightforward, ours = (
                f"{number(batch['images_per_second'][way])} [{' - '.join(map(number, batch['range'][way]))}]"
                for way in WAYS
            )
            cells += [straightforward, f"{ours} (x{batch['ratio']:.2f})"]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {measured['straightforward_does']} |")
    return "\n".join(lines)
