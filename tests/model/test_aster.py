"""ASTER: keys, loading, the beam search against its straightforward form, confidences, errors."""

import math

import pytest
import torch
import torch.nn.functional as F

from benchmarks.straightforward_recognisers import (
    decode_with_targets,
    read_straightforwardly,
    search_all_steps,
    text_one_by_one,
)
from interface.checkpoint import CheckpointError, load_weights, read_weights
from model.blocks.stn import STNHead
from model.recognizer import attention_decoder
from model.recognizer.aster import ASTER
from model.recognizer.attention_decoder import AttentionDecoder, Trace, sequence_cross_entropy
from model.recognizer.base import Recognizer
from tests.model.published import table

SMALL = {"channels": (4, 4, 8, 8, 16), "blocks": (1, 1, 2, 1, 1), "state_size": 16, "attention_size": 24}


def small(**options) -> ASTER:
    """A small network that tells pictures apart and ends some words; plain random weights would do neither."""
    torch.manual_seed(4)
    network = ASTER(**SMALL, max_length=12, **options).eval()
    unit = network.decoder.decoder
    with torch.no_grad():
        for weight in network.encoder.rnn.parameters():
            weight.mul_(12)
        for weight, factor in ((unit.fc.weight, 20), (unit.gru.weight_hh_l0, 3), (unit.gru.weight_ih_l0, 8)):
            weight.mul_(factor)
    return network


@pytest.fixture(scope="module")
def aster() -> ASTER:
    return small()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    torch.manual_seed(5)
    coarse = torch.rand(12, 3, 4, 16)
    return F.interpolate(coarse, (32, 128), mode="bicubic")


def test_keys_are_those_of_the_published_file():
    count, keys = table("aster")
    network = ASTER()
    parameters = dict(network.named_parameters())
    assert count == 20_991_594 == sum(value.numel() for value in parameters.values())
    state = network.state_dict()
    assert list(state) == list(keys)
    for key, (shape, kind) in keys.items():
        assert tuple(state[key].shape) == shape, key
        assert (kind == "param") == (key in parameters), key


def test_a_published_file_loads_strictly(tmp_path):
    torch.manual_seed(0)
    theirs, ours = ASTER(**SMALL), ASTER(**SMALL)
    theirs.tps.inverse_kernel += 1e-3  # the published inverse is less exact and belongs to the weights
    state = {key: value for key, value in theirs.state_dict().items() if not key.endswith("num_batches_tracked")}
    leftovers = {"encoder.layer0.0.total_ops": torch.zeros(1), "total_params": torch.zeros(1)}
    torch.save({"state_dict": state | leftovers, "iters": 7, "best_res": 0.5}, tmp_path / "demo.pth.tar")

    def load(path):
        read = read_weights(path, option="TRAIN.VAL.rec_pretrained", purpose="--test_model ASTER", remedy="PPOCR")
        load_weights(ours, read, path)

    load(tmp_path / "demo.pth.tar")
    assert all(torch.equal(value, ours.state_dict()[key]) for key, value in state.items())
    for wrong in (state | {"encoder.layer6.0.conv1.weight": torch.zeros(1)}, dict(list(state.items())[1:])):
        torch.save({"state_dict": wrong}, tmp_path / "wrong.pth.tar")
        with pytest.raises(CheckpointError, match="does not fit ASTER"):
            load(tmp_path / "wrong.pth.tar")


@torch.no_grad()
def test_preparation(aster):
    x = aster.preprocess(torch.ones(2, 4, 16, 64) * torch.tensor([1.0, 0.5, -0.1, 9.0]).view(1, 4, 1, 1))
    assert x.shape == (2, 3, 16, 64)
    torch.testing.assert_close(x[0, :, 0, 0], torch.tensor([1.0, 0.0, -1.2]))
    for size in ((16, 64), (32, 128), (64, 256), (20, 30)):
        assert aster.rectify(torch.rand(2, 3, *size)).shape == (2, 3, 32, 100)
    assert aster.encode(torch.rand(2, 3, 32, 128)).shape == (2, 25, 16)
    assert [tuple(x.shape[1:]) for x in aster.encoder.stages(torch.rand(1, 3, 32, 100))] == [
        (4, 16, 50),
        (4, 8, 25),
        (8, 4, 25),
        (8, 2, 25),
        (16, 1, 25),
    ]


def test_decoding_by_hand(aster):
    rows = [[10, 36, 0, 94, 11, 94], [94, 1, 2, 3, 4, 5], [96, 12, 95, 62, 93, 35]]
    assert aster.decode(torch.tensor(rows)) == ["aA0", "", "c!~z"]
    assert [text_one_by_one(aster, torch.tensor(row)) for row in rows] == ["aA0", "", "c!~z"]
    assert (aster.end, aster.padding, aster.unknown, aster.num_classes) == (94, 95, 96, 97)


def test_it_reads(aster, images):
    reader: Recognizer = aster
    texts = reader.read(torch.cat([images, images[:, :1]], dim=1))
    assert texts == reader.read(images) == read_straightforwardly(aster, images)
    assert len(texts) == 12
    assert len(set(texts)) > 6
    assert all(set(text) <= set(reader.charset) for text in texts)
    assert reader.read(images[:0]) == []


def test_pictures_do_not_meet(aster, images):
    together = aster.read_with_confidence(images)
    for image, reading in zip(images, together, strict=True):
        (alone,) = aster.read_with_confidence(image[None])
        assert alone.text == reading.text
        assert alone.confidence == pytest.approx(reading.confidence, rel=1e-3)
        assert alone.character_confidences == pytest.approx(reading.character_confidences, rel=1e-3)


@torch.no_grad()
def test_confidences_are_the_probabilities_of_teacher_forcing(aster, images):
    x = aster.preprocess(images)
    spelling = aster.spell(x)
    readings = aster.read_with_confidence(images)
    assert [reading.text for reading in readings] == aster.read(images) == aster.decode(aster(x))
    ends = (spelling.ids == aster.end).any(1)
    assert 0 < ends.sum() < len(ends)  # some words were given up on
    logits = aster.decoder(aster.encode(x), spelling.ids)
    probabilities = logits.double().softmax(2).gather(2, spelling.ids.unsqueeze(2)).squeeze(2)
    for row, reading in enumerate(readings):
        length = int(spelling.lengths[row, 0])
        ids, expected = spelling.ids[row, :length].tolist(), probabilities[row, :length].tolist()
        assert reading.confidence == pytest.approx(math.prod(expected), rel=1e-3)
        characters = [chance for index, chance in zip(ids, expected, strict=True) if index < aster.end]
        assert reading.character_confidences == pytest.approx(characters, rel=1e-3)
        assert len(reading.character_confidences) == len(reading.text)
        assert all(0 < chance <= 1 for chance in (reading.confidence, *reading.character_confidences))
        assert spelling.ids[row, length:].eq(aster.end).all()
        assert spelling.log_probabilities[row, length:].eq(0).all()
    torch.testing.assert_close(spelling.log_probabilities.sum(1), spelling.scores[:, 0])
    loss = sequence_cross_entropy(logits, spelling.ids, spelling.lengths[:, 0], normalize="none")
    assert loss.item() == pytest.approx(-spelling.scores[:, 0].sum().item(), rel=1e-4)


def random_case(seed: int) -> tuple[AttentionDecoder, torch.Tensor, int]:
    """A decoder that ends words never, at times, or often; in float64, where rounding decides nothing."""
    generator = torch.Generator().manual_seed(seed)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    classes, size = number(6, 14), number(2, 9)
    decoder = AttentionDecoder(
        classes,
        end=number(0, classes),
        in_size=size,
        state_size=number(2, 9),
        attention_size=number(2, 9),
        max_length=number(1, 18),
    ).double()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.normal_(0, 1.5, generator=generator)
        decoder.decoder.fc.bias[decoder.end] += number(-4, 5)
    features = torch.randn(number(1, 12), number(1, 8), size, generator=generator, dtype=torch.double)
    return decoder.eval(), features, (5, 5, 5, 1, 3)[seed % 5]


@torch.no_grad()
@pytest.mark.parametrize(("look", "leaving"), [(1, 0.125), (1, 0.0), (1, 2.0), (4, 0.125)])
def test_a_search_that_stops_early_finds_what_a_whole_one_finds(look, leaving, monkeypatch):
    monkeypatch.setattr(attention_decoder, "STEPS_PER_LOOK", {"cpu": look})
    monkeypatch.setattr(attention_decoder, "WORTH_LEAVING", leaving)
    ends, together, saved = [], 0, 0
    for seed in range(80):
        decoder, features, width = random_case(seed)
        ids, scores, lengths = search_all_steps(decoder, features, width)
        found = decoder.search(features, beam_width=width)
        torch.testing.assert_close(found.scores, scores)
        assert torch.equal(found.lengths, lengths)
        for ours, theirs, length in zip(found.ids, ids, lengths[:, 0].tolist(), strict=True):
            assert torch.equal(ours[:length], theirs[:length])
            assert ours[length:].eq(decoder.end).all()
        trace = decoder.trace(features, beam_width=width)
        assert len(trace.scores) <= decoder.max_length
        saved += decoder.max_length - len(trace.scores)
        in_step = (trace.symbols == decoder.end).sum(2)
        ends += in_step.sum(0).clamp(max=width).tolist() if width == 5 else []
        together += int((in_step > 1).sum())
    assert set(ends) == {0, 1, 2, 3, 4, 5}
    assert together > 50
    assert saved > 50


def test_a_better_reading_that_ends_too_late_is_lost():
    decoder = AttentionDecoder(4, end=3, in_size=2, state_size=2, attention_size=2, max_length=9)
    steps = [  # two beams a step: score, parent, symbol
        [(-1.0, 0, 0), (-2.0, 0, 3)],  # the empty word
        [(-1.1, 0, 1), (-3.0, 0, 3)],  # the word 0
        [(-1.2, 0, 3), (-9.0, 0, 3)],  # the word 01, much more probable
    ]
    score, parent, symbol = torch.tensor(steps).unsqueeze(1).unbind(3)
    trace = Trace(score, parent.long(), symbol.long())
    found = decoder.select(trace)
    assert found.ids.tolist() == [[3, 3, 3]]
    torch.testing.assert_close(found.scores, torch.tensor([[-2.0, -3.0]]))
    assert found.lengths.tolist() == [[1, 2]]
    torch.testing.assert_close(found.log_probabilities, torch.tensor([[-2.0, 0, 0]]))
    trace.symbols[0, 0, 1] = 2  # without the empty word the third step is in time
    found = decoder.select(trace)
    assert found.ids.tolist() == [[0, 1, 3]]
    torch.testing.assert_close(found.log_probabilities, torch.tensor([[-1.0, -0.1, -0.1]]))


@torch.no_grad()
def test_one_beam_is_greedy():
    decoder, features, _ = random_case(11)
    found = decoder.search(features, beam_width=1)
    state = features.new_zeros(len(features), 1, decoder.decoder.gru.hidden_size)
    previous = torch.full((len(features), 1), decoder.num_classes)
    going = torch.ones(len(features), 1, dtype=torch.bool)
    memory = decoder.decoder.prepare(features)
    for step in range(found.ids.shape[1]):
        state = decoder.decoder(previous, state, memory)
        chance, previous = decoder.decoder.fc(state).softmax(2).max(2)
        assert torch.equal(found.ids[:, step : step + 1][going], previous[going])
        torch.testing.assert_close(found.log_probabilities[:, step : step + 1].exp()[going], chance[going])
        going &= previous != decoder.end


@torch.no_grad()
def test_teacher_forcing_equals_its_straightforward_form():
    for seed in range(20):
        decoder, features, _ = random_case(seed)
        targets = torch.randint(0, decoder.num_classes, (len(features), 6))
        torch.testing.assert_close(decoder(features, targets), decode_with_targets(decoder, features, targets))


def test_every_parameter_learns(images):
    network = small().train()
    targets = torch.tensor([[10, 11, 94]] * 6 + [[12, 94, 95]] * 6)
    logits = network.decoder(network.encode(network.preprocess(images)), targets)
    sequence_cross_entropy(logits, targets, torch.tensor([3] * 6 + [2] * 6)).backward()
    silent = [name for name, value in network.named_parameters() if value.grad is None]
    assert not silent
    assert network.encoder.layer0[0].weight.grad.abs().sum() > 0
    assert network.stn_head.stn_fc2.weight.grad.abs().sum() > 0


def test_the_loss_counts_symbols_within_a_text_only():
    torch.manual_seed(0)
    logits, targets = torch.randn(3, 4, 6), torch.randint(0, 6, (3, 7))
    lengths = torch.tensor([4, 1, 2])
    logits[1, 2] = math.nan  # beyond its end
    marked = targets[:, :4].masked_fill(torch.arange(4) >= lengths[:, None], -100)
    expected = F.cross_entropy(logits.nan_to_num().flatten(0, 1), marked.flatten(), reduction="sum")
    for normalize, divisor in (("none", 1), ("sample", 3), ("symbol", 7)):
        actual = sequence_cross_entropy(logits, targets, lengths, normalize=normalize)
        torch.testing.assert_close(actual, expected / divisor)
    with pytest.raises(ValueError, match="at least as many"):
        sequence_cross_entropy(logits, targets[:, :3], lengths)
    with pytest.raises(ValueError, match="normalize='mean'"):
        sequence_cross_entropy(logits, targets, lengths, normalize="mean")


def test_it_reads_under_autocast(aster, images):
    with torch.autocast("cpu", torch.bfloat16):
        readings = aster.read_with_confidence(images)
    assert len(readings) == 12
    assert all(0 < reading.confidence <= 1 for reading in readings)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_reads_the_same(images):
    network = small()
    expected = network.read(images)
    assert network.cuda().read(images.cuda()) == expected


def test_the_rectifier_of_pictures_twice_as_high(images):
    torch.manual_seed(0)
    small_pictures = F.interpolate(images, (32, 64))
    heads = STNHead(3, height=32).eval(), STNHead(3, height=32, sigmoid=True).eval()
    for head in heads:
        assert head.features(small_pictures).shape == (12, 512)
        points = head(small_pictures)
        torch.testing.assert_close(points[3, :, 1], torch.tensor([0.01] * 10 + [0.99] * 10))
        torch.testing.assert_close(points[7, :10, 0], torch.linspace(0.01, 0.99, 10))
    assert [tuple(p.shape) for p in heads[0].parameters()] == [tuple(p.shape) for p in STNHead(3).parameters()]
    with pytest.raises(ValueError, match="24 pixels high"):
        STNHead(3, height=24)


def test_other_alphabets_and_wrong_sizes(aster, images):
    network = ASTER(**SMALL, charset="abc", max_length=4, beam_width=6, align_corners=True).eval()
    assert network.num_classes == 6
    assert network.decode(torch.tensor([[2, 0, 3, 1]])) == ["ca"]
    assert all(set(text) <= set("abc") for text in network.read(images))
    assert network.tps.align_corners
    for options, message in (
        ({"charset": "aba"}, "twice"),
        ({"charset": "ab", "beam_width": 6}, "beam_width 6"),
        ({"beam_width": 0}, "beam_width 0"),
        ({"max_length": 0}, "max_length 0"),
        ({"channels": (4, 4, 4)}, "give 5 of each"),
        ({"channels": (4, 4, 4, 4, 5)}, "even"),
    ):
        with pytest.raises(ValueError, match=message):
            ASTER(**(SMALL | options))
    for wrong in (torch.rand(2, 1, 32, 128), torch.rand(3, 32, 128)):
        with pytest.raises(ValueError, match="RGB"):
            aster.preprocess(wrong)
        with pytest.raises(ValueError, match="see `preprocess`"):
            aster(wrong)
    with pytest.raises(ValueError, match="32, W"):
        aster.encoder(torch.rand(1, 3, 16, 64))


def test_errors_of_the_decoder():
    decoder, features = AttentionDecoder(6, end=0, in_size=4, state_size=4, attention_size=4), torch.rand(2, 3, 4)
    with pytest.raises(ValueError, match="end symbol 6"):
        AttentionDecoder(6, end=6)
    for wrong in (torch.rand(2, 3, 5), torch.rand(2, 0, 4), torch.rand(3, 4)):
        with pytest.raises(ValueError, match=r"expected \(N, T, 4\)"):
            decoder.search(wrong)
    with pytest.raises(ValueError, match="beam_width 7"):
        decoder.search(features, beam_width=7)
    for targets in (torch.zeros(3, 2), torch.zeros(2, 0), torch.zeros(2)):
        with pytest.raises(ValueError, match=r"expected \(N, L\)"):
            decoder(features, targets.long())
