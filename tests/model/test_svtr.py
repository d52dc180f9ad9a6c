"""SVTR: keys, loading, attention windows, clues, CTC confidences, errors."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from interface.checkpoint import CheckpointError, load_weights, read_weights
from model.recognizer.base import Recognizer
from model.recognizer.ctc import ctc_readings
from model.recognizer.svtr import SVTR, neighbourhood
from tests.model.published import GOLDEN
from tests.parity.vectors import load_case

CASE = GOLDEN.parent / "vectors" / "zoo" / "svtr_tiny.npz"


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    torch.manual_seed(5)
    return F.interpolate(torch.rand(5, 3, 8, 32), (32, 128), mode="bicubic") * 4


@pytest.fixture(scope="module")
def svtr() -> SVTR:
    """A network that tells columns apart."""
    torch.manual_seed(0)
    network = SVTR().eval()
    with torch.no_grad():
        network.head.fc.weight.mul_(20)
        network.transform.stn_head.stn_fc2.weight.normal_(0, 0.1)
    return network


def test_keys_are_those_of_the_published_file():
    network = SVTR()
    assert sum(value.numel() for value in network.parameters()) == 6_022_605
    own = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert own == load_case(CASE).shapes  # no constants of the spline, no windows


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_published_file_loads_strictly(prefix, tmp_path):
    network, path = SVTR(), tmp_path / "rec_svtr_tiny.pth"
    published = {f"{prefix}{key}": value for key, value in load_case(CASE).state().items()}

    def load(state):
        torch.save(state, path)
        load_weights(network, read_weights(path, option="a key", purpose="SGENet", remedy="none"), path)

    load(published)
    own = network.state_dict()
    assert all(torch.equal(own[key.removeprefix(prefix)], value) for key, value in published.items())
    for wrong in (published | {"transform.tps.inverse_kernel": torch.zeros(23, 23)}, dict(list(published.items())[1:])):
        with pytest.raises(CheckpointError, match="does not fit SVTR"):
            load(wrong)


@torch.no_grad()
def test_preparation(svtr):
    planes = torch.tensor([1.0, 0.5, -0.1, 9.0]).view(1, 4, 1, 1)
    flat = svtr.preprocess(torch.ones(2, 4, 16, 64) * planes)
    torch.testing.assert_close(flat, planes[:, :3].expand(2, -1, 32, 128))
    large = torch.rand(1, 4, 32, 128)
    assert torch.equal(svtr.preprocess(large), large[:, :3])
    small = torch.rand(1, 3, 16, 64)
    corners = svtr.preprocess(small)[..., ::31, ::127]  # positions are counted from corner to corner
    torch.testing.assert_close(corners, small[..., ::15, ::63])


def test_windows():
    near = neighbourhood(8, 25)
    assert near.shape == (200, 200)
    assert torch.equal(near, near.T)
    middle = near[4 * 25 + 12].view(8, 25)
    assert middle.sum() == 7 * 11
    assert middle[1:8, 7:18].all()
    corner = near[0].view(8, 25)
    assert corner.sum() == 4 * 6
    assert corner[:4, :6].all()


@torch.no_grad()
def test_local_blocks_see_their_neighbours_only(svtr):
    cells = torch.rand(1, 200, 64)
    changed = cells.clone()
    changed[0, 0] = torch.rand(64)  # seen in 4 rows, 6 columns
    block, near = svtr.backbone.blocks1[0], svtr.backbone.near1
    differs = (block(cells, near) - block(changed, near)).abs().amax(2).view(8, 25) > 1e-6
    assert differs.sum() == 4 * 6
    assert differs[:4, :6].all()
    assert ((block(cells, None) - block(changed, None)).abs().amax(2) > 1e-6).all()


@torch.no_grad()
def test_clues(svtr, images):
    logits = svtr(images)
    features, text = svtr.clue(images)
    assert features.shape == (5, 256, 1, 25)
    assert logits.shape == text.shape == (5, 25, 37)
    torch.testing.assert_close(text, logits.softmax(2))
    torch.testing.assert_close(svtr.clue(images, text="logits").text, logits)
    torch.testing.assert_close(svtr.clue(images, text="probabilities").text, text)
    assert svtr.decode(text) == svtr.decode(logits)
    with pytest.raises(ValueError, match="'words'"):
        svtr.clue(images, text="words")


def test_in_training_the_published_clue_is_logits_and_all_weights_learn(images):
    torch.manual_seed(0)
    network = SVTR(drop_path=0.0, dropout=0.0).train()
    # The placing of points starts with weights of zero, through which nothing flows back.
    nn.init.normal_(network.transform.stn_head.stn_fc2.weight, std=0.1)
    features, text = network.clue(images)
    assert text.sum(2).std() > 1e-3
    (features.square().mean() + text.square().mean()).backward()
    assert not [name for name, value in network.named_parameters() if not value.grad.abs().sum() > 0]


def test_blocks_are_skipped_in_training_only(images):
    torch.manual_seed(0)
    network = SVTR(drop_path=1.0).eval()
    with torch.no_grad():
        rates = [block.drop_path for stage in (1, 2, 3) for block in network.backbone.get_submodule(f"blocks{stage}")]
        assert rates == pytest.approx([number / 11 for number in range(12)])
        assert torch.equal(network(images), network(images))
        cells = torch.rand(2, 50, 256)
        last = network.backbone.blocks3[2]
        assert not torch.equal(last(cells, None), cells)
        assert torch.equal(last.train()(cells, None), cells)


def test_decoding_by_hand(svtr):
    rows = [[1, 1, 0, 1, 2], [0, 36, 36, 35, 0], [0, 0, 0, 0, 0]]
    one_hot = F.one_hot(torch.tensor(rows), 37).float()
    assert svtr.decode(one_hot) == ["001", "zy", ""]


def test_it_reads(svtr, images):
    reader: Recognizer = svtr
    texts = reader.read(torch.cat([images, images[:, :1]], dim=1))
    assert texts == reader.read(images) == [reading.text for reading in svtr.read_with_confidence(images)]
    assert len(set(texts)) > 2
    assert all(set(text) <= set(reader.charset) for text in texts)
    assert reader.read(images[:0]) == svtr.read_with_confidence(images[:0]) == []


@torch.no_grad()
def test_pictures_do_not_meet(svtr, images):
    together = svtr(images)
    for alone, row in zip(images.split(1), together, strict=True):
        torch.testing.assert_close(svtr(alone)[0], row, atol=1e-4, rtol=0)


def test_confidences_by_hand():
    chances = torch.tensor(
        [
            [[0.1, 0.7, 0.2], [0.2, 0.5, 0.3], [0.6, 0.1, 0.3], [0.1, 0.3, 0.6]],  # a a - b
            [[0.9, 0.05, 0.05], [0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.6, 0.2, 0.2]],  # nothing
        ]
    )
    word, nothing = ctc_readings(chances.log(), "ab")
    spelt = {(): 0.0, (1, 2): 0.0}
    for path in itertools.product(range(3), repeat=4):
        collapsed = tuple(index for index, _ in itertools.groupby(path) if index)
        if collapsed in spelt:
            row = 1 if collapsed == () else 0
            chance = 1.0
            for column, index in enumerate(path):
                chance *= chances[row, column, index].item()
            spelt[collapsed] += chance
    assert (word.text, nothing.text) == ("ab", "")
    assert word.character_confidences == pytest.approx((0.7, 0.6))
    assert nothing.character_confidences == ()
    assert word.confidence == pytest.approx(spelt[1, 2])
    assert nothing.confidence == pytest.approx(spelt[()])


def test_wrong_input_is_refused(svtr):
    with pytest.raises(ValueError, match=r"\(2, 1, 16, 64\).*RGB"):
        svtr.preprocess(torch.rand(2, 1, 16, 64))
    with pytest.raises(ValueError, match=r"\(1, 4, 32, 128\).*preprocess"):
        svtr(torch.rand(1, 4, 32, 128))
    with pytest.raises(ValueError, match=r"\(1, 3, 32, 128\).*backbone"):
        svtr.backbone(torch.rand(1, 3, 32, 128))
