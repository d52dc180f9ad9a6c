"""Reading with CRNN, SVTR-tiny and PP-OCR the way published programs do: the same words, and nothing done to save work.

It is what `recognisers.py` compares with; no part of the program. CRNN is written from the description of the
published evaluation, SVTR-tiny from that of its converted PyTorch network; PP-OCR is read by RapidOCR itself.
"""

import math
import types
from typing import Any

import torch
from torch import Tensor

from benchmarks.straightforward import read_one_by_one
from model.recognizer.crnn import CRNN
from model.recognizer.ppocr import PPOCR
from model.recognizer.svtr import SVTR, Attention


def read_crnn(network: CRNN, images: Tensor) -> list[str]:
    """`CRNN.read`, with a look at the device for every column: (N, >=3, H, W) RGB in [0, 1] -> N strings."""
    return read_one_by_one(network(network.preprocess(images)).transpose(0, 1))


def write_out_attention(network: SVTR) -> SVTR:
    """Make all attention of a network, in place, that of the published layers."""
    for module in network.modules():
        if isinstance(module, Attention):
            module.forward = types.MethodType(masked_attention, module)  # type: ignore[method-assign]
    return network


def masked_attention(self: Attention, x: Tensor, near: Tensor | None) -> Tensor:
    """`Attention.forward` on the whole matrix of scores, of which a mask takes away what is not near."""
    query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
    scores = query * (1 / math.sqrt(query.shape[3])) @ key.transpose(2, 3)
    if near is not None:
        scores = scores.masked_fill(~near, -math.inf)
    return self.proj((scores.softmax(3) @ value).transpose(1, 2).flatten(2))


def read_svtr(network: SVTR, images: Tensor) -> list[str]:
    """`SVTR.read` through probabilities and a mean confidence: (N, >=3, H, W) RGB in [0, 1] -> N strings."""
    chances, classes = network(network.preprocess(images)).softmax(2).max(2)
    texts = []
    for symbols, probabilities in zip(classes.numpy(force=True), chances.numpy(force=True), strict=True):
        text, confidences, before = "", [], 0
        for symbol, probability in zip(symbols, probabilities, strict=True):
            if symbol not in (0, before):
                text += network.charset[symbol - 1]
                confidences.append(probability)
            before = symbol
        texts.append((text, sum(confidences) / max(1, len(confidences))))
    return [text for text, _ in texts]


class RapidReader:
    """The same model as `PPOCR`, one crop at a time through the package that brings it.

    Args:
        reader: whose model file is read with.
        threads: ONNX Runtime threads.
    """

    def __init__(self, reader: PPOCR, threads: int) -> None:
        from rapidocr import RapidOCR  # noqa: PLC0415 - takes a second, and only those who use it should wait

        options = {
            "Global.log_level": "error",
            "EngineConfig.onnxruntime.intra_op_num_threads": threads,
            "Rec.model_path": str(reader.path),
        }
        self.engine: Any = RapidOCR(params=options)

    def read(self, images: Tensor) -> list[str]:
        """(N, >=3, H, W) RGB in [0, 1], H at least 30 -> N strings."""
        texts = []
        for image in images:
            pixels = (image[:3].clamp(0, 1) * 255).round().to(torch.uint8).flip(0)  # BGR
            crop = pixels.permute(1, 2, 0).contiguous().numpy(force=True)
            found = self.engine(crop, use_det=False, use_cls=False, use_rec=True)
            texts.append(found.txts[0] if found.txts else "")
        return texts
