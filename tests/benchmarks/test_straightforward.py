"""The benchmark's straightforward side computes what the program computes; otherwise its ratios say nothing."""

import contextlib

import pytest
import torch

from benchmarks.straightforward import make_straightforward, read_one_by_one, weigh_one_by_one
from dataset.loading import LoaderSpec, collate
from interface.config import load_settings
from interface.systems import build_system
from loss.weighted_ce import IGNORED, weighted_cross_entropy
from model.recognizer.crnn import CRNN
from tests.interface.helpers import LIGHT, shrink_recognisers

FLAGS = "--triple_clues --STN --gradient --use_distill --use_label --text_focus --lca --ssim_loss".split()


@contextlib.contextmanager
def no_clock(part, **kwargs):
    yield


def test_both_ways_lose_the_same_over_steps(tiny_dir, monkeypatch, tmp_path):
    small = [str(argument) for argument in shrink_recognisers(monkeypatch, tmp_path)]
    config = load_settings([*LIGHT, *small, *FLAGS, "--stu_iter", "2"]).config
    config.MODEL.student_passes = "published"
    batch = collate(LoaderSpec(mask=True).pairs([tiny_dir / "train"]).__getitems__([0, 1]))
    runs = []
    for straightforward in (False, True):
        torch.manual_seed(0)
        system = build_system(config, training=True).train()
        if straightforward:
            make_straightforward(system, no_clock)
        for network in system.networks:
            torch.nn.init.constant_(network.get_parameter("block4.0.pam.gama"), 0.3)  # else the adapter does nothing
        optimizer = torch.optim.SGD(system.params("main"), lr=1e-5)
        losses = []
        for step in range(2):
            torch.manual_seed(step)
            terms = system(batch)
            losses.append({name: value.item() for name, value in terms.items()})
            optimizer.zero_grad()
            sum(terms.values()).backward()
            optimizer.step()
        runs.append(losses)
    for ours, theirs in zip(*runs, strict=True):
        # An edge whose direction lies between two bins of the histogram jumps at the last bit.
        assert ours.pop("lca") == pytest.approx(theirs.pop("lca"), rel=2e-3)
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_one_by_one_is_the_same():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 37, generator=generator)
    targets = torch.randint(0, 37, (3, 5), generator=generator)
    targets[0, 3:] = IGNORED
    table = torch.rand(37, 37, generator=generator) + 0.1
    expected = weighted_cross_entropy(logits, targets, table.log())
    torch.testing.assert_close(weigh_one_by_one(logits, targets, table), expected)
    columns = torch.randn(4, 26, 37, generator=generator)
    columns[..., 0] += 2
    assert read_one_by_one(columns) == CRNN().decode(columns.transpose(0, 1))
