"""`--list`: its numbers, and the table in README that it makes."""

import re

import pytest
import torch

import main as program
from interface import listing
from interface.config import ROOT, ConfigError, load_settings
from model import list_models, model_spec

# Parameters as published implementations have them, and MACs of one picture of 16x64 pixels, recurrent layers included.
PUBLISHED = {
    "srcnn": ([], 20_099, 81_920_000),
    "srresnet": (["--STN"], 2_451_923, 672_399_360),
    "vdsr": ([], 667_008, 2_732_064_768),
    "edsr": ([], 40_711_704, 41_710_040_064),
    "rdn": ([], 1_033_091, 1_062_666_240),
    "esrgan": ([], 16_661_059, 17_278_894_080),
    "han": ([], 63_608_441, 64_679_244_800),
    "pcan": (["--no-STN"], 2_245_125, 1_861_422_464),
    "tsrn": ([], 2_681_677, 903_086_080),
    # 873,824 parameters are published, half of them in a level that an enlargement by two does not use.
    "lapsrn": ([], 437_776, 453_591_040),
    # 3,210,335 parameters are published; 229,875 of them, recurrent layers among them, are never used.
    "tbsrn": ([], 2_980_460, 2_533_294_080),
}


def test_every_network_that_has_a_published_size_is_compared():
    without_text = {name for name in list_models() if model_spec(name).system == "plain"}
    assert set(PUBLISHED) == without_text - {"bicubic"}


@pytest.mark.parametrize("arch", PUBLISHED)
def test_parameters_and_macs_are_the_published_ones(arch):
    flags, parameters, macs = PUBLISHED[arch]
    size = listing.measure(load_settings(["--arch", arch, "--go_test", *flags]).config)
    assert (size.parameters, size.macs) == (parameters, macs)


def test_a_recurrent_layer_is_counted_by_the_formula():
    """TSRN's: 1024 steps, two directions, three gates, 32 units that see 64 features and 32 of their own."""
    one, two = (listing.measure(load_settings(["--arch", "tsrn", "--go_test", "--srb", n]).config) for n in "12")
    convolutions = 1024 * (2 * 9 * 64 * 64 + 2 * 64 * 64)
    assert two.macs - one.macs == convolutions + 2 * 1024 * 2 * 3 * 32 * (64 + 32)


def test_the_recogniser_that_guides_is_left_out():
    reads = torch.nn.Linear(4, 5)
    with listing.FlopCounterMode(display=False) as counter, listing.left_out([reads], counter) as taken:
        reads(torch.ones(3, 4))
        torch.ones(2, 3) @ torch.ones(3, 7)
    assert taken == [2 * 3 * 4 * 5]
    assert counter.get_total_flops() == taken[0] + 2 * 2 * 3 * 7


@torch.no_grad()
def test_self_attention_counts():
    """Of 10 places with 8 features: four projections, and two products of each place with each."""
    attention, x = torch.nn.MultiheadAttention(8, 2, batch_first=True).eval(), torch.ones(1, 10, 8)
    with listing.FlopCounterMode(display=False) as counter, listing.unfused_attention():
        attention(x, x, x, need_weights=False)
    assert counter.get_total_flops() == 2 * (4 * 10 * 8 * 8 + 2 * 10 * 10 * 8)
    assert torch.backends.mha.get_fastpath_enabled()


def test_deformable_convolutions_count(monkeypatch):
    assert listing._deformable((1, 8, 4, 4), (8, 1, 3, 3), out_shape=(1, 8, 4, 4)) == 2 * 8 * 16 * 9


@pytest.fixture
def sizes(monkeypatch):
    monkeypatch.setattr(listing, "measure", lambda config: listing.Size(1_500_000, 2_000_000_000))


def test_the_table_as_text(sizes, capsys):
    assert listing.run(["--list"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == list(listing.HEAD)
    assert [line.split()[0] for line in lines] == list_models()
    tsrn = next(line for line in lines if line.startswith("tsrn")).split()
    assert tsrn == [*"tsrn 1.50 M 2.00 G - 41.4 55.4 58.3".split(), model_spec("tsrn").paper, model_spec("tsrn").source]
    assert "crnn.pth" in next(line for line in lines if line.startswith("c3stisr"))


@pytest.mark.parametrize("arguments", [["--list", "html"], ["--list", "--arch", "tsrn"], ["--arch", "tsrn", "--list"]])
def test_other_command_lines_are_refused(arguments):
    with pytest.raises(ConfigError, match="--list stands alone, or with one of text, markdown"):
        listing.run(arguments)


def test_the_program_lists(sizes, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["main.py", "--list=markdown"])
    assert program.main() == 0
    assert "| `tsrn` | 1.50 M |" in capsys.readouterr().out


@pytest.mark.slow
def test_the_table_in_readme_is_the_one_that_the_program_makes():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- main.py --list markdown -->\n(.*?)\n\n", readme, re.DOTALL)
    assert found, "README has no such table"
    assert found[1] == listing.table("markdown")
