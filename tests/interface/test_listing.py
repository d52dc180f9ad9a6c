"""`--list`: its numbers, and the table in README that it makes."""

import re
import subprocess
import sys

import pytest
import torch

import main as program
from interface import listing
from interface.config import ROOT, ConfigError, load_settings
from model import list_models, model_spec
from tests.interface.helpers import environment
from tests.model.published import zoo_tables

# Flags of the published network, and its MACs for one picture of 16x64 pixels, recurrent layers included.
PUBLISHED = {
    "edsr": ("", 41_710_040_064),
    "esrgan": ("", 17_278_894_080),
    "han": ("", 64_679_244_800),
    "lapsrn": ("", 453_591_040),
    "lemma": ("--STN", 7_837_932_672),
    "pcan": ("--no-STN", 1_861_422_464),
    "rdn": ("", 1_062_666_240),
    "sgenet": ("--srb 2", 1_113_574_916),
    "srcnn": ("", 81_920_000),
    "srresnet": ("--STN", 672_399_360),
    "tatt": ("--STN", 1_267_630_720),
    "tatt_sft": ("--STN", 1_187_959_808),
    "tbsrn": ("--STN", 2_533_294_080),
    "tpgsr": ("--STN", 959_237_120),
    "tpgsr_rdn": ("", 1_276_382_208),
    "tpgsr_srcnn": ("", 1_007_684_608),
    "tpgsr_srresnet": ("--STN", 971_246_592),
    "tpgsr_vdsr": ("", 1_582_304_256),
    "tsrn": ("--STN", 903_086_080),
    "vdsr": ("", 2_732_064_768),
}
# Parameters that published networks hold and never use; they are left out here.
UNUSED = {"lapsrn": 436_048, "sgenet": 92_706, "tatt": 37_696, "tatt_sft": 8_384, "tbsrn": 229_875}
# By how much a published count exceeds ours. That of SGENet does by exactly one more pass of its recogniser's rectifier
# (convolutions, layers, spline) and head, so these seem to be passed twice there; one pass gives the same result.
TWICE = {"sgenet": 35_979_264 + 282_624 + 148_258 + 25 * 192 * 37}


def test_every_network_that_has_a_published_size_is_compared():
    assert set(PUBLISHED) == set(zoo_tables())


@pytest.mark.parametrize("arch", [arch for arch in PUBLISHED if arch in list_models()])
def test_parameters_and_macs_are_the_published_ones(arch):
    flags, macs = PUBLISHED[arch]
    size = listing.measure(load_settings(["--arch", arch, "--go_test", *flags.split()]).config)
    assert size.parameters == zoo_tables()[arch][0] - UNUSED.get(arch, 0)
    assert size.macs == macs - TWICE.get(arch, 0)


# Other forms of the same networks: parameters in use, and published MACs.
FORMS = {"tsrn --no-STN --no-mask": (816_260, 876_544_000), "sgenet --srb 5": (7_727_176 - 92_706, 1_591_959_044)}


@pytest.mark.parametrize("form", FORMS)
def test_other_forms_have_the_published_size(form):
    parameters, macs = FORMS[form]
    size = listing.measure(load_settings(["--go_test", "--arch", *form.split()]).config)
    assert (size.parameters, size.macs) == (parameters, macs - TWICE.get(form.split()[0], 0))


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
    assert head.split() == [*(name for name in listing.HEAD if name != "paper"), "paper"]
    assert [line.split()[0] for line in lines] == list_models()
    tsrn = next(line for line in lines if line.startswith("tsrn")).split()
    spec = model_spec("tsrn")
    assert tsrn == [*"tsrn 1.50 M 2.00 G - 41.4 55.4 58.3".split(), spec.source, spec.licence or "?", spec.paper]
    assert next(line for line in lines if line.startswith("bicubic")).split()[-3:-1] == ["-", "-"]
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


def test_sizes_are_counted_in_a_process_of_their_own():
    """In this one other tests have loaded what it takes."""
    code = """
from interface import listing
from interface.config import load_settings
print(listing.measure(load_settings(["--arch", "rtsrn", "--go_test"]).config).macs)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 1e9
