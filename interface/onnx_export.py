"""The whole path of a system, from LR to SR pictures with all stages and recognisers between, as one ONNX file.

The format is that of https://onnx.ai, which other programs run without PyTorch. A file takes `lr`, (N, C, h, w) in
[0, 1] with any N, and gives `sr`, (N, C, H, W), as `System.super_resolve` does in evaluation; its metadata say what it
was made of. It is compared with PyTorch before it gets its name.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchvision  # noqa: F401 - makes its operators known
from easydict import EasyDict
from torch import Tensor, nn

from interface.checkpoint import write_atomically
from interface.export import open_weights
from interface.onnx_forms import in_forms
from interface.onnx_runtime import INPUT, OUTPUT, PROGRAM, OnnxPath
from interface.provenance import code_version
from interface.systems import System
from model.blocks.pictures import planes

ENDING = ".onnx"
OPSET = 20  # GELU came with 20, the deformable convolution with 19
PACKAGES = ("onnx", "onnxscript")
TOLERANCE = 1e-4  # largest difference of a pixel, of 1, between the file and PyTorch
TRIED = (1, 3)  # pictures that are compared


def export_onnx(source: Path, target: Path, which: str = "") -> float:
    """Write the system of a run as an ONNX file.

    Args:
        source: whatever `--resume` takes: a run folder, a checkpoint, an exported file, published weights.
        target: file to write, `.onnx`.
        which: "best" or "last", which of the two checkpoints of a run folder; empty: the best, else the last.

    Returns:
        The largest difference of a pixel between what the file and what PyTorch makes of random pictures.

    Raises:
        FileNotFoundError: there are no such weights.
        FileExistsError: there is something at `target`.
        ValueError: the source cannot be used, the target has another ending, packages are missing, an operation has
            no translation, or the pictures differ.
    """
    if target.suffix != ENDING:
        raise ValueError(f"{target}: ONNX files end with {ENDING}; give the file that ending")
    if target.exists():
        raise FileExistsError(f"{target} exists; nothing is overwritten: choose another name or remove it")
    check_packages()
    system, config, step = open_weights(source, which)
    system.eval()
    shape = lr_shape(config)
    model = onnx_model(system, shape, {"arch": config.arch, "step": str(step), "source": source.name})
    apart = difference(OnnxPath(model), system, shape)
    if not apart <= TOLERANCE:  # which NaN is not, either
        raise ValueError(
            f"{target}: what ONNX Runtime makes of pictures differs by {apart:.1e} from what PyTorch makes, more than "
            f"{TOLERANCE:.0e}; no file was written"
        )
    target.parent.mkdir(parents=True, exist_ok=True)

    def write(path: Path) -> None:
        path.write_bytes(model)

    write_atomically(target, write)
    return apart


def check_packages() -> None:
    """Refuse to go on where a package is missing.

    Raises:
        ValueError: naming it.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ValueError(f"ONNX files are made with {' and '.join(missing)}; pip install {' '.join(missing)}")


def lr_shape(config: EasyDict) -> tuple[int, int, int]:
    """(C, h, w) of the pictures that a system takes."""
    train = config.TRAIN
    scale = train.down_sample_scale
    return planes(config.MODEL.mask), train.height // scale, train.width // scale


def difference(path: OnnxPath, system: System, shape: tuple[int, int, int]) -> float:
    """The largest difference of a pixel between both ways, for random pictures (C, h, w), one of them and several.

    Where pixels are beyond 1, it is given as a part of the largest one.
    """
    generator = torch.Generator().manual_seed(0)
    apart = torch.zeros(())
    for count in TRIED:
        pictures = torch.rand(count, *shape, generator=generator)
        with torch.inference_mode():
            expected = system.super_resolve(pictures)
        error = (path.super_resolve(pictures) - expected).abs().max() / expected.abs().max().clamp(min=1)
        apart = torch.maximum(apart, error)  # NaN stays NaN
    return apart.item()


def onnx_model(system: System, shape: tuple[int, int, int], facts: Mapping[str, str]) -> bytes:
    """The content of an ONNX file.

    Args:
        system: in evaluation mode, on the CPU, in float32.
        shape: (C, h, w) of its LR pictures.
        facts: metadata; those that are known here are added.

    Raises:
        ValueError: an operation has no translation.
    """
    pictures = torch.rand(2, *shape)  # of one, the exporter would conclude that it is always one
    with _quiet():
        try:
            program = torch.onnx.export(
                _Path(in_forms(system)),
                (pictures,),
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
                custom_translation_table=translations(),
                opset_version=OPSET,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            cause = error.__cause__ or error
            reason = f"{type(cause).__name__}: {cause}".splitlines()[0]
            raise ValueError(f"the system cannot be translated to ONNX: {reason}") from error
    assert program is not None
    channels, height, width = shape
    sr = program.model.graph.outputs[0].shape
    assert sr is not None
    sr_height, sr_width = sr[2:]
    known = {
        "program": PROGRAM,
        "code": code_version(),
        "planes": str(channels),
        "lr": f"{height}x{width}",
        "sr": f"{sr_height}x{sr_width}",
        "precision": "float32",
        "stages": str(system.stages),
    }
    program.model.metadata_props.update({**facts, **known})
    content: bytes = program.model_proto.SerializeToString()
    return content


class _Path(nn.Module):
    """`System.super_resolve` as a module."""

    def __init__(self, system: System) -> None:
        super().__init__()
        self.system = system

    def forward(self, lr: Tensor) -> Tensor:
        with torch.enable_grad():  # without, a CPU takes the pictures part by part
            return self.system.super_resolve(lr)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the remarks of the exporter about its own work."""
    log = logging.getLogger("onnxscript")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Operations that the exporter has no translation of, or a slow one."""
    return {
        torch.ops.aten.mish.default: _mish,
        torch.ops.aten.searchsorted.Tensor: _searchsorted,
        torch.ops.aten.upsample_bicubic2d.vec: _bicubic,
        torch.ops.torchvision.deform_conv2d.default: _deformable,
    }


def _operators() -> Any:
    from onnxscript import opset20  # noqa: PLC0415 - takes long, and only who exports has it

    return opset20


def _mish(x: Any) -> Any:
    """X - 2 x / ((1 + e^x)^2 + 1), with one exponential; where that is infinite, mish(x) is x."""
    op = _operators()
    more = op.Add(op.Exp(x), op.Constant(value_float=1.0))
    whole = op.Add(op.Mul(more, more), op.Constant(value_float=1.0))
    return op.Sub(x, op.Div(op.Mul(x, op.Constant(value_float=2.0)), whole))


def _searchsorted(rising: Any, x: Any, *, right: bool = False, **others: Any) -> Any:
    """How many of the last axis of `rising` are below each `x`, or not above it."""
    assert not any(others.values())
    op = _operators()
    steps, at = op.Unsqueeze(rising, [-2]), op.Unsqueeze(x, [-1])
    found = op.LessOrEqual(steps, at) if right else op.Less(steps, at)
    return op.ReduceSum(op.Cast(found, to=7), [-1], keepdims=0)  # 7: int64


def _bicubic(x: Any, output_size: Any, align_corners: bool, scale_factors: Any = None) -> Any:
    """Products with a matrix on either side."""
    import onnx_ir  # noqa: PLC0415 - as in `_operators`

    op = _operators()
    assert scale_factors is None

    def along(old: int, new: int) -> Tensor:
        """(new, old)."""
        pulses = torch.eye(old)[None, None]
        return F.interpolate(pulses, (new, old), mode="bicubic", align_corners=align_corners)[0, 0]

    (height, width), (new_height, new_width) = x.shape[2:], output_size
    rows, columns = along(height, new_height), along(width, new_width).T.contiguous()
    left, right = (op.Constant(value=onnx_ir.tensor(matrix.numpy())) for matrix in (rows, columns))
    return op.MatMul(op.MatMul(left, x), right)


def _deformable(
    x: Any,
    weight: Any,
    offset: Any,
    mask: Any,
    bias: Any,
    *geometry: Any,
) -> Any:
    """ONNX has this operation, with its arguments in another order."""
    stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, groups, offset_groups, modulated = geometry
    return _operators().DeformConv(
        x,
        weight,
        offset,
        bias,
        mask if modulated else None,
        strides=[stride_h, stride_w],
        pads=[pad_h, pad_w, pad_h, pad_w],
        kernel_shape=list(weight.shape[2:]),
        dilations=[dilation_h, dilation_w],
        group=groups,
        offset_group=offset_groups,
    )
