"""ONNX files: the same pictures as PyTorch; forms of layers and translations of operations that are each the same."""

import math

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dataset.transforms import decode_image
from interface import onnx_export
from interface.config import load_settings
from interface.onnx_export import difference, export_onnx, lr_shape, onnx_model, translations
from interface.onnx_forms import FORMS, ClozeForm, GruForm, LocalAttentionForm, TwoCluesForm, in_forms
from interface.onnx_runtime import OnnxPath, open_onnx
from interface.systems import build_system
from model.blocks.activation import mish
from model.blocks.attention import LocalAttention, PixelAdapter
from model.blocks.clue import GatedFusion
from model.blocks.convolution import DeformConv2d, PictureConv2d, WeightNormConv2d
from model.blocks.gru import GruBlock
from model.language.bcn import BCN
from scripts.export_onnx import main
from tests.dataset.pictures import encode, word_picture
from tests.interface.helpers import TINY, register_tiny, shrink_recognisers, task
from tests.interface.test_export import save_run


def maps(*size):
    return torch.randn(*size, generator=torch.Generator().manual_seed(0))


def adapter():
    made = PixelAdapter(8)
    nn.init.constant_(made.gama, 0.3)
    return made


CASES = {
    "gru, rows": (lambda: GruBlock(6, 8), [maps(2, 6, 4, 5)], {}, GruForm),
    "gru, columns": (lambda: GruBlock(6, 8), [maps(2, 6, 4, 5)], {"columns": True}, GruForm),
    "gru without convolution": (lambda: GruBlock(8, 8, pointwise=False), [maps(2, 8, 4, 5)], {}, GruForm),
    "dilated": (lambda: WeightNormConv2d(4, 4, 3, dilation=2, groups=4), [maps(2, 4, 6, 8)], {}, nn.Conv2d),
    "no bias": (lambda: WeightNormConv2d(4, 3, 1, bias=False), [maps(2, 4, 6, 8)], {}, nn.Conv2d),
    "picture": (lambda: PictureConv2d(5, 4, 9, padding=4), [maps(2, 5, 6, 12)], {}, nn.Sequential),
    "attention": (lambda: LocalAttention(8), [maps(2, 8, 8, 24)], {}, LocalAttentionForm),
    "attention, odd size": (lambda: LocalAttention(8), [maps(2, 8, 6, 9)], {}, LocalAttentionForm),
    "two clues": (lambda: GatedFusion(4), [maps(3, 2, 4, 8, 8)[n] for n in range(3)], {}, TwoCluesForm),
    "three clues": (lambda: GatedFusion(4, clues=3), [maps(4, 2, 4, 8, 8)[n] for n in range(4)], {}, GatedFusion),
}


@pytest.mark.parametrize("case", CASES)
def test_a_form_computes_the_same(case):
    build, given, options, kind = CASES[case]
    torch.manual_seed(0)
    layer = build().eval().requires_grad_(False)
    form = in_forms(layer)
    assert type(form) is kind
    assert not any(type(part) in {*FORMS} - {GatedFusion, LocalAttention} for part in form.modules())
    torch.testing.assert_close(form(*given, **options), layer(*given, **options), rtol=1e-4, atol=1e-5)


def test_forms_within_a_module_leave_it_as_it_is():
    torch.manual_seed(0)
    network = nn.Sequential(adapter(), BCN(num_classes=5, length=6, width=16, heads=4, layers=2, hidden=24)).eval()
    forms = in_forms(network)
    assert type(network[1].model) is not ClozeForm
    assert type(forms[1].model) is ClozeForm
    with torch.no_grad():
        x, text = maps(2, 8, 8, 16), maps(3, 6, 5).softmax(-1)
        torch.testing.assert_close(forms[0](x), network[0](x), rtol=1e-4, atol=1e-5)
        for lengths in (None, torch.tensor([2, 6, 4])):
            expected = network[1](text, lengths)
            torch.testing.assert_close(forms[1](text, lengths), expected, rtol=1e-4, atol=1e-5)


class Translated(nn.Module):
    """The operations that have a translation of their own."""

    def __init__(self):
        super().__init__()
        self.deform = DeformConv2d(4, 6, groups=2)

    def forward(self, x, offsets, modulation, rising, asked):
        places = [torch.searchsorted(rising, asked, right=right) for right in (False, True)]
        one, other = (F.interpolate(x, (5, 11), mode="bicubic", align_corners=corners) for corners in (False, True))
        return mish(x), torch.cat([one, other]), self.deform(x, offsets, modulation), torch.cat(places)


def test_translations_by_hand_and_against_pytorch():
    torch.manual_seed(0)
    module = Translated().eval().requires_grad_(False)
    x = maps(2, 4, 3, 6)
    # mish(1) = tanh(log(1 + e)); above 88 an exponential is infinite in float32, and mish(x) is x.
    values = {0.0: 0.0, 1.0: math.tanh(math.log(1 + math.e)), -100.0: 0.0, 50.0: 50.0, 100.0: 100.0, 1e30: 1e30}
    x[0, 0].flatten()[: len(values)] = torch.tensor(list(values))
    places = (torch.tensor([[1.0, 2, 2, 5]]), torch.tensor([[0.0, 2, 3, 5, 6]]))
    given = (x, maps(2, 36, 3, 6), maps(2, 18, 3, 6).sigmoid(), *places)
    program = torch.onnx.export(
        module,
        given,
        dynamo=True,
        custom_translation_table=translations(),
        opset_version=onnx_export.OPSET,
        verbose=False,
    )
    used = {node.op_type for node in program.model.graph}
    assert {"Exp", "DeformConv"} <= used
    assert not {"Softplus", "Mish", "Resize"} & used
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {slot.name: value.numpy() for slot, value in zip(session.get_inputs(), given, strict=True)}
    activated, enlarged, deformed, found = (torch.from_numpy(value) for value in session.run(None, feeds))
    assert activated[0, 0].flatten()[: len(values)].tolist() == pytest.approx(list(values.values()), rel=1e-6)
    assert found.tolist() == [[0, 1, 3, 3, 4], [0, 3, 3, 4, 4]]
    expected = module(*given)  # of the first picture 1e30 and its neighbours have no place in sums
    torch.testing.assert_close(activated[1], expected[0][1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(enlarged[1::2], expected[1][1::2], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(deformed[1], expected[2][1], rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A file of the tiny network by the command, the run it is of, and its system."""
    folder = tmp_path_factory.mktemp("onnx")
    with pytest.MonkeyPatch.context() as patch:
        register_tiny(patch, folder)
        system = save_run(folder / "run", [*TINY, "--mask"], seed=3)
        assert main([str(folder / "run"), str(folder / "new" / "tiny.onnx")]) == 0
        yield folder / "new" / "tiny.onnx", folder / "run", system.eval()


def test_the_file_makes_the_same_pictures_and_says_what_it_is(exported):
    file, _, system = exported
    path = OnnxPath(file, threads=1)
    for count in (1, 2, 5):
        pictures = torch.rand(count, 4, 16, 64)
        with torch.no_grad():
            expected = system.super_resolve(pictures)
        assert expected.shape == (count, 4, 32, 128)
        torch.testing.assert_close(path.super_resolve(pictures), expected, rtol=1e-5, atol=1e-4)
    code = path.facts.pop("code")
    assert code
    assert path.facts == {
        "program": "stisr",
        "arch": "tinynet",
        "planes": "4",
        "lr": "16x64",
        "sr": "32x128",
        "precision": "float32",
        "stages": "1",
        "step": "33",
        "source": "run",
    }


def test_a_demo_makes_the_same_pictures_by_the_file(exported, tmp_path):
    file, run, _ = exported
    (tmp_path / "words").mkdir()
    for number in range(3):
        (tmp_path / "words" / f"word{number}.png").write_bytes(encode(word_picture(number)))
    common = ["--demo", "--demo_dir", tmp_path / "words", "--device", "cpu", "--config", no_readers(tmp_path)]
    made = {}
    for name, source in {"torch": ["--resume", run], "onnx": ["--arch", "tinynet", "--mask", "--onnx", file]}.items():
        assert task([*common, *source, "--report_dir", tmp_path / name]).run() == 0
        made[name] = [decode_image((tmp_path / name / f"word{n}_sr.png").read_bytes()) for n in range(3)]
    for ours, theirs in zip(made["onnx"], made["torch"], strict=True):
        assert ours.size == (128, 32)
        assert np.abs(np.asarray(ours, int) - np.asarray(theirs, int)).max() <= 1  # a rounding


def no_readers(folder):
    """Options with which nobody reads what comes out."""
    (folder / "none.yaml").write_text("TEST: {test_model: []}\n")
    return folder / "none.yaml"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--arch", "tinynet", "--no-mask"], "planes 4, not 3; change --mask"),
        (["--arch", "bicubic", "--mask"], "arch tinynet, not bicubic; change --arch"),
        (["--arch", "tinynet", "--mask", "--width", "64"], "lr 16x64, not 16x32; change --width"),
    ],
)
def test_a_demo_refuses_what_the_file_is_not_for(options, reason, exported):
    made = task(["--demo", "--device", "cpu", "--onnx", exported[0], *options])
    with pytest.raises(ValueError, match=reason):
        made.run()


def test_a_demo_by_a_file_is_on_a_cpu_in_float32_and_has_no_other_weights(exported, tiny_dir):
    made = task(["--demo", "--device", "cpu", "--onnx", exported[0], "--arch", "tinynet"])
    with pytest.raises(ValueError, match="not on cuda; add --device cpu"):
        open_onnx(made.config, made.spec, torch.device("cuda"), "no")
    with pytest.raises(ValueError, match="not in bf16; add --mixed_precision no"):
        open_onnx(made.config, made.spec, torch.device("cpu"), "bf16")
    made.config.TRAIN.resume = "run"
    with pytest.raises(ValueError, match="leave --resume run out"):
        open_onnx(made.config, made.spec, torch.device("cpu"), "no")
    with pytest.raises(ValueError, match="a test wants every stage"):
        task(["--go_test", "--device", "cpu", "--onnx", exported[0], "--arch", "tinynet"]).run()
    train = ["--arch", "tinynet", "--device", "cpu", "--workers", "0", "--batch_size", "2"]
    train += ["--train_data_dir", tiny_dir / "train"]
    with pytest.raises(ValueError, match="is for --demo alone"):
        task([*train, "--onnx", exported[0]]).run()


@pytest.mark.parametrize(
    ("pictures", "reason"),
    [
        (torch.rand(2, 3, 16, 64), r"\(2, 3, 16, 64\).*takes \(N, 4, 16, 64\)"),
        (torch.rand(2, 4, 16, 32), r"\(2, 4, 16, 32\)"),
        (torch.rand(4, 16, 64), r"\(4, 16, 64\)"),
        (torch.rand(2, 4, 16, 64).double(), "float64"),
        (torch.rand(2, 4, 16, 64, device="meta"), "on meta"),
    ],
)
def test_other_pictures_are_refused(pictures, reason, exported):
    with pytest.raises(ValueError, match=reason):
        OnnxPath(exported[0]).super_resolve(pictures)


def test_what_cannot_be_exported_is_refused(exported, tmp_path, monkeypatch, capsys):
    file, run, _ = exported
    assert main([str(run), str(file)]) == 2
    assert "nothing is overwritten" in capsys.readouterr().err
    with pytest.raises(ValueError, match="ONNX files end with"):
        export_onnx(run, tmp_path / "tiny.pth")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        export_onnx(tmp_path / "nowhere", tmp_path / "tiny.onnx")
    monkeypatch.setattr(onnx_export, "onnx_model", lambda *given: file.read_bytes())
    monkeypatch.setattr(onnx_export, "difference", lambda *given: math.nan)
    with pytest.raises(ValueError, match="differs by nan"):
        export_onnx(run, tmp_path / "tiny.onnx")
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None if name == "onnxscript" else True)
    with pytest.raises(ValueError, match=r"pip install onnxscript$"):
        export_onnx(run, tmp_path / "tiny.onnx")
    assert not list(tmp_path.iterdir())


def test_what_is_no_file_of_ours_is_refused(tmp_path):
    (tmp_path / "noise.onnx").write_bytes(b"noise")
    with pytest.raises(ValueError, match="is no ONNX file that"):
        OnnxPath(tmp_path / "noise.onnx")
    with pytest.raises(FileNotFoundError, match="makes one of a run"):
        OnnxPath(tmp_path / "nothing.onnx")


def test_the_whole_path_of_two_stages_with_a_recogniser(tmp_path, monkeypatch):
    flags = ["--arch", "tpgsr_srcnn", "--stu_iter", "2", "--go_test", *shrink_recognisers(monkeypatch, tmp_path)]
    config = load_settings([str(flag) for flag in flags]).config
    system = build_system(config, training=False, pretrained=False).eval().requires_grad_(False)
    reader = system.student(1)
    reader.rnn.weight.mul_(100)  # so that it is sure of something
    path = OnnxPath(onnx_model(system, lr_shape(config), {}), threads=1)
    assert path.facts["stages"] == "2"
    assert difference(path, system, lr_shape(config)) < 1e-5
    reader.rnn.weight.neg_()
    assert difference(path, system, lr_shape(config)) > 1e-4  # so what is read in the second stage counts
