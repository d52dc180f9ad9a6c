"""ASTER and its parts, and what recognisers are fed and made of their output, against the published programs."""

import re
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dataset.charset import ALL, canonical, encode_ctc
from interface.metrics import is_correct
from model.blocks.stn import STNHead, TPSSpatialTransformer
from model.recognizer.aster import ASTER, Encoder
from model.recognizer.attention_decoder import AttentionDecoder, sequence_cross_entropy
from model.recognizer.crnn import CRNN
from model.recognizer.moran import MORAN
from tests.device import DEVICE
from tests.parity.cases_rtsrn_network import load
from tests.parity.vectors import ROOT, Case, assert_close, handles, load_case

MODULE, NETWORK = 1e-5, 1e-4  # relative to the maximum, as the tolerances of the specification
COORDINATES, PIXELS = 1e-4, 5e-3  # between the inverse in float64 and in float32, which is the published one


def published_inverse() -> Tensor:
    """The float32 inverse that comes with published weights, from the case that holds it."""
    places = [folder / "framework" / "aster_rectify.npz" for folder in (ROOT, Path(__file__).parents[1] / "vectors")]
    return load_case(next(path for path in places if path.is_file())).expected("tps.inverse_kernel")


def up_to_end(ids: Tensor, end: int) -> list[list[int]]:
    """Rows up to and including their first end symbol; what follows means nothing."""
    return [row[: row.index(end) + 1] if end in row else row for row in ids.tolist()]


def assert_spelled(decoder: AttentionDecoder, features: Tensor, case: Case, *, width: int, name: str) -> None:
    """The search with `width` beams finds the ids called `name`."""
    expected = up_to_end(case.expected(name), decoder.end)
    assert up_to_end(decoder.search(features, beam_width=width).ids, decoder.end) == expected, name


def assert_greedy(decoder: AttentionDecoder, features: Tensor, case: Case, *, atol: float) -> None:
    assert_spelled(decoder, features, case, width=1, name="greedy_ids")
    found, chances = decoder.search(features, beam_width=1), case.expected("greedy_scores")
    length = found.ids.shape[1]
    inside = torch.arange(length, device=found.lengths.device) < found.lengths
    assert_close(found.log_probabilities.exp()[inside], chances[:, :length][inside], atol=atol, what="greedy_scores")


def attention_decoder(state: dict[str, Tensor], *, end: int, max_length: int) -> AttentionDecoder:
    """A decoder of the sizes of `state`."""
    classes, state_size = state["decoder.fc.weight"].shape
    attention_size, in_size = state["decoder.attention_unit.xEmbed.weight"].shape
    decoder = AttentionDecoder(
        classes,
        end=end,
        in_size=in_size,
        state_size=state_size,
        attention_size=attention_size,
        max_length=max_length,
    )
    load(decoder, state)
    return decoder


@handles("framework/aster_beam_small")
@torch.no_grad()
def beam_search(case: Case) -> None:
    width, features = case.meta["beam_width"], case.tensor("feats")
    decoder = attention_decoder(case.state(), end=case.meta["eos"], max_length=case.meta["max_len"])
    logits = case.expected("teacher_forced_logits")
    assert_close(decoder(features, case.tensor("targets")), logits, atol=0, rtol=MODULE, what="teacher-forced logits")
    assert_spelled(decoder, features, case, width=width, name="beam_ids")
    assert_greedy(decoder, features, case, atol=NETWORK)

    found = decoder.search(features, beam_width=width)
    assert_close(found.scores, case.expected("beam_final_scores"), atol=NETWORK, what="beam_final_scores")
    assert torch.equal(found.lengths, case.expected("beam_lengths"))
    trace = decoder.trace(features, beam_width=width)
    steps = len(trace.scores)
    symbols = case.expected("step_symbols")[:steps]
    ended_before = F.pad((symbols == decoder.end).sum(2).cumsum(0), (0, 0, 1, 0))[:-1]
    counts = (ended_before < width).unsqueeze(2).expand_as(symbols)  # a sample stops after its fifth end
    parents = case.expected("step_predecessors")[:steps] - width * torch.arange(len(features), device=DEVICE).view(
        1, -1, 1
    )
    assert torch.equal(trace.symbols[counts], symbols[counts])
    assert torch.equal(trace.parents[counts], parents[counts])
    assert_close(trace.scores[counts], case.expected("step_scores")[:steps][counts], atol=NETWORK, what="step_scores")
    assert counts[-1].any(), "steps that nobody needed"


@handles("framework/aster_forward", "framework/aster_forward_lr")
@torch.no_grad()
def aster_forward(case: Case) -> None:
    network = ASTER(max_length=case.meta["max_len"], beam_width=case.meta["beam_width"]).to(DEVICE)
    assert (network.end, network.num_classes) == (case.meta["eos"], case.meta["bos"])
    load(network, case.state(), constant=tuple(f"tps.{name}" for name in TPSSpatialTransformer.constant_buffers))
    x, columns = case.tensor("image"), case.expected("encoder_feats_first")
    assert_close(network.encode(x)[: len(columns)], columns, atol=0, rtol=PIXELS, what="columns, inverse in float64")

    network.tps.inverse_kernel.copy_(published_inverse())
    features = network.encode(x)
    assert_close(features[: len(columns)], columns, atol=0, rtol=5 * NETWORK, what="columns")
    found = network.spell(x)
    assert up_to_end(found.ids, network.end) == up_to_end(case.expected("beam_ids"), network.end)
    assert_close(found.scores, case.expected("beam_scores"), atol=0, rtol=NETWORK, what="beam_scores")
    assert [canonical(text) for text in network.decode(network(x))] == case.outputs["strings"].tolist()
    readings = network.read_with_confidence((x + 1) / 2)
    assert [canonical(reading.text) for reading in readings] == case.outputs["strings"].tolist()
    assert_greedy(network.decoder, features, case, atol=1e-3)

    made_up = torch.ones(len(x), network.decoder.max_length, dtype=torch.long, device=DEVICE)
    logits, expected = network.decoder(features, made_up), case.expected("teacher_forced_logits_first12")
    assert_close(logits[:, : expected.shape[1]], expected, atol=0, rtol=NETWORK, what="teacher-forced logits")
    loss = sequence_cross_entropy(logits, made_up, torch.full((len(x),), made_up.shape[1], device=DEVICE))
    assert_close(loss, case.expected("loss_rec").squeeze(), atol=0, rtol=NETWORK, what="loss_rec")


@handles("framework/aster_rectify")
@torch.no_grad()
def aster_rectify(case: Case) -> None:
    network, x, rectified = ASTER().eval().to(DEVICE), case.tensor("image"), case.expected("rectified")
    load(network.stn_head, case.state(prefix="stn_head."))
    points = network.control_points(x)
    assert_close(points, case.expected("ctrl_points"), atol=MODULE, what="ctrl_points")
    tps, rows = network.tps, case.expected("rows")
    assert tps.output_size == rectified.shape[2:]
    assert_close(tps.target_control_points, case.expected("tps.target_control_points"), atol=1e-6)
    expected = case.expected("tps.target_coordinate_repr_rows")
    assert_close(tps.target_coordinate_repr[rows], expected, atol=1e-6, what="target_coordinate_repr")
    inverse, source = case.expected("tps.inverse_kernel"), case.expected("source_coordinate_rows")
    assert_close(tps.inverse_kernel, inverse, atol=5e-3, what="inverse_kernel, ours in float64, theirs in float32")
    assert_close(tps.source_coordinates(points)[:, rows], source, atol=COORDINATES, what="source_coordinate")
    assert_close(network.rectify(x), rectified, atol=PIXELS, what="rectified")
    tps.inverse_kernel.copy_(inverse)  # as a published checkpoint does
    assert_close(tps.source_coordinates(points)[:, rows], source, atol=MODULE, what="source, published inverse")
    assert_close(network.rectify(x), rectified, atol=3 * NETWORK, what="rectified, published inverse")


@handles("lowres/b_stn_head")
@torch.no_grad()
def control_points(case: Case) -> None:
    images, state = case.tensor("x"), case.state()
    count = state["stn_fc2.bias"].numel() // 2
    head = STNHead(images.shape[1], num_points=count, height=images.shape[2], sigmoid="sigmoid" in case.meta["ctor"])
    load(head, state)
    assert_close(head.features(images), case.expected("img_feat"), atol=0, rtol=MODULE, what="img_feat")
    assert_close(head(images), case.expected("ctrl_points"), atol=MODULE, what="ctrl_points")


@handles("lowres/b_tps")
@torch.no_grad()
def thin_plate_spline(case: Case) -> None:
    images, points = case.tensor("image"), case.tensor("ctrl_points")
    source, inverse = case.expected("source_coordinate"), case.expected("inverse_kernel")
    for sigmoid, name in ((False, "fc2_bias_none"), (True, "fc2_bias_sigmoid")):
        head = STNHead(images.shape[1], num_points=points.shape[1], height=32, sigmoid=sigmoid)
        assert_close(head.stn_fc2.bias, case.expected(name), atol=1e-4, what=name)
    for align_corners in (False, True):
        rectified = case.expected(f"rectified_align_{str(align_corners).lower()}")
        tps = TPSSpatialTransformer(tuple(rectified.shape[2:]), num_points=points.shape[1], align_corners=align_corners)
        tps.to(DEVICE)
        assert_close(tps.target_control_points, case.expected("target_control_points"), atol=1e-6)
        assert_close(tps.source_coordinates(points), source, atol=COORDINATES, what="source_coordinate")
        assert_close(tps(images, points), rectified, atol=PIXELS, what="rectified")
        tps.inverse_kernel.copy_(inverse)
        assert_close(tps.source_coordinates(points), source, atol=MODULE, what="source, published inverse")
        assert_close(tps(images, points), rectified, atol=3 * NETWORK, what="rectified, published inverse")


@handles("lowres/b_encoder")
@torch.no_grad()
def encoder(case: Case) -> None:
    state = case.state()
    layers = [[key for key in state if re.fullmatch(rf"layer{n}\.\d+\.conv1\.weight", key)] for n in range(1, 6)]
    module = Encoder([state[layer[0]].shape[0] for layer in layers], [len(layer) for layer in layers])
    load(module, state)
    stages, columns = module.stages(case.tensor("x")), module(case.tensor("x"))
    for name in case.outputs:
        if match := re.fullmatch(r"x(\d)_c(\d+)", name):
            kept = stages[int(match[1]) - 1][:, :: int(match[2])]
            assert_close(kept, case.expected(name), atol=0, rtol=NETWORK, what=name)
    assert_close(columns, case.expected("feat"), atol=0, rtol=NETWORK, what="feat")
    spread = torch.stack([values.std() for values in (columns, *stages)])
    assert_close(spread, case.expected("std"), atol=0, rtol=1e-3, what="std")


@handles("lowres/b_decoder")
@torch.no_grad()
def decoder_and_loss(case: Case) -> None:
    features, targets, lengths = case.tensor("feats"), case.tensor("targets"), case.tensor("lengths")
    state, max_length = case.state(), case.outputs["greedy_ids"].shape[1]
    for name in case.outputs:
        if match := re.fullmatch(r"beam(\d+)_eos(\d+)", name):
            end = int(case.inputs.get(f"eos{match[2]}", int(match[2])))
            decoder = attention_decoder(state, end=end, max_length=max_length)
            assert_spelled(decoder, features, case, width=int(match[1]), name=name)
    decoder = attention_decoder(state, end=state["decoder.fc.bias"].numel() - 3, max_length=max_length)
    assert_greedy(decoder, features, case, atol=MODULE)
    unit = decoder.decoder
    attention = unit.attention_unit(unit.prepare(features).keys, unit.start(features)[1])
    assert_close(attention[:, 0], case.expected("alpha_step0"), atol=MODULE, what="alpha_step0")
    logits = decoder(features, targets[:, : lengths.max()])
    assert_close(logits, case.expected("logits_teacher"), atol=0, rtol=MODULE, what="logits_teacher")
    assert_close(sequence_cross_entropy(logits, targets, lengths), case.expected("loss"), atol=0, rtol=MODULE)


@handles("lowres/b_seq_loss")
def sequence_loss(case: Case) -> None:
    inputs = [case.tensor(name) for name in ("logits", "targets", "lengths")]
    assert_close(sequence_cross_entropy(*inputs), case.expected(case.meta["default"]), atol=0, rtol=MODULE)
    names = {"sample_normalize": "sample", "sequence_normalize": "symbol", "none": "none"}
    for name, normalize in names.items():
        loss = sequence_cross_entropy(*inputs, normalize=normalize)
        assert_close(loss, case.expected(name), atol=0, rtol=MODULE, what=name)


@handles("framework/preprocess")
@torch.no_grad()
def preparation(case: Case) -> None:
    """The made-up texts and targets that published decoders are also fed have no counterpart here."""
    crnn, aster, moran = CRNN(), ASTER(), MORAN()
    for name in ("hr", "lr"):
        images, gray, rgb = case.tensor(name), case.expected(f"crnn_{name}"), case.expected(f"aster_{name}")
        assert_close(crnn.preprocess(images), gray, atol=1e-6, what=f"crnn_{name}")
        assert_close(moran.preprocess(images), gray, atol=1e-6, what=f"moran_{name}")
        assert_close(aster.preprocess(images)[: len(rgb)], rgb, atol=1e-6, what=f"aster_{name}")
    wide = crnn.preprocess(case.tensor("hr"), width=case.meta["other_width"])
    assert_close(wide, case.expected("crnn_hr_other_width"), atol=1e-6, what="crnn_hr_other_width")


@handles("framework/decode")
@torch.no_grad()
def decoding(case: Case) -> None:
    crnn, aster, moran = CRNN(), ASTER(), MORAN()
    logits = case.tensor("crnn_logits")
    assert crnn.decode(logits) == case.outputs["crnn_strings"].tolist()
    symbols = np.array(["-", *crnn.charset])[logits.argmax(2).t().cpu().numpy()]
    assert ["".join(row) for row in symbols] == case.outputs["crnn_raw_strings"].tolist()
    targets = encode_ctc([str(word) for word in case.inputs["words"]])
    assert targets.targets.tolist() == case.outputs["crnn_encoded_concat"].tolist()
    assert targets.lengths.tolist() == case.outputs["crnn_encoded_lengths"].tolist()

    assert aster.charset == ALL == "".join(case.meta["aster_vocabulary"][: aster.end])
    ids = case.tensor("aster_ids")
    assert [canonical(text) for text in aster.decode(ids)] == case.outputs["aster_strings"].tolist()
    made_up = [canonical(text) for text in aster.decode(torch.ones_like(ids))]
    assert made_up == case.outputs["aster_target_strings_for_all_ones"].tolist()

    ids = case.tensor("moran_ids")
    one_hot = F.one_hot(ids, len(moran.charset) + 1).float()
    assert moran.decode(one_hot) == case.outputs["moran_strings"].tolist()


@handles("framework/accuracy")
def accuracy(case: Case) -> None:
    """Published predictions are in canonical form when they are compared; those here that are not count as wrong."""
    labels, predictions = ([str(text) for text in case.inputs[name]] for name in ("labels", "preds"))
    pairs = list(zip(predictions, labels, strict=True))
    correct = sum(prediction == canonical(prediction) and is_correct(prediction, label) for prediction, label in pairs)
    assert correct == case.outputs["n_correct"]
    assert round(correct / len(labels), 4) == case.outputs["accuracy_round4"]
