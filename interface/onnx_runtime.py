"""Super-resolution by ONNX Runtime, from a file of `interface.onnx_export`: on CPUs, with less waiting for one picture.

Nothing of the system is built, and its weights are those in the file.
"""

from pathlib import Path

import numpy as np
import torch
from easydict import EasyDict
from torch import Tensor

from dataset.loading import LoaderSpec

INPUT, OUTPUT = "lr", "sr"
PROGRAM = "stisr"  # of the metadatum "program"


class OnnxPath:
    """A file that is open.

    Args:
        model: the file, or its content.
        threads: of one operation; 0: as many as there are cores.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no ONNX file, or another program wrote it.

    Attributes:
        facts: its metadata: arch, planes, lr and sr (sizes HxW), precision, stages, step, code.
    """

    def __init__(self, model: Path | bytes, *, threads: int = 0) -> None:
        import onnxruntime  # noqa: PLC0415 - takes 0.2 s, and only those who use it should wait

        name = "the model" if isinstance(model, bytes) else str(model)
        if isinstance(model, Path) and not model.is_file():
            raise FileNotFoundError(f"{model}: there is no such file; scripts/export_onnx.py makes one of a run")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        source = model if isinstance(model, bytes) else str(model)
        try:
            self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no common base of their own
            raise ValueError(f"{name} is no ONNX file that ONNX Runtime can run: {error}") from error
        self.facts: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        if self.facts.get("program") != PROGRAM:
            raise ValueError(f"{name} was not written by scripts/export_onnx.py; that makes such a file of a run")
        self._shape = self._session.get_inputs()[0].shape[1:]

    def super_resolve(self, images_lr: Tensor) -> Tensor:
        """(N, C, h, w) float32 in [0, 1] on a CPU -> (N, C, H, W), nominally in [0, 1], not clamped.

        Raises:
            ValueError: the pictures have another size, type or device.
        """
        if list(images_lr.shape[1:]) != self._shape or images_lr.dtype != torch.float32:
            raise ValueError(
                f"LR images of shape {tuple(images_lr.shape)} and {images_lr.dtype}: this file takes (N, "
                f"{', '.join(map(str, self._shape))}) in float32"
            )
        if images_lr.device.type != "cpu":
            raise ValueError(f"LR images on {images_lr.device}: ONNX Runtime works on the CPU here; move them there")
        given = np.ascontiguousarray(images_lr.detach().numpy())
        return torch.from_numpy(self._session.run([OUTPUT], {INPUT: given})[0])


def open_onnx(config: EasyDict, spec: LoaderSpec, device: torch.device, precision: str) -> OnnxPath:
    """The file of `--onnx`, which must be of the network and for the pictures of this run.

    Args:
        config: its configuration.
        spec: how it reads pictures.
        device: of the run.
        precision: its mixed precision, "no" for none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be used; the message says what would have to be otherwise.
    """
    file = config.TEST.onnx
    if config.TRAIN.resume:
        raise ValueError(f"--onnx {file} has weights of its own; leave --resume {config.TRAIN.resume} out")
    if device.type != "cpu":
        raise ValueError(f"--onnx {file}: ONNX Runtime works on the CPU here, not on {device}; add --device cpu")
    if precision != "no":
        raise ValueError(f"--onnx {file}: it computes in float32, not in {precision}; add --mixed_precision no")
    path = OnnxPath(Path(file), threads=torch.get_num_threads())
    run = {
        "arch": (config.arch, "--arch"),
        "planes": (str(4 if spec.mask else 3), "--mask or --no-mask"),
        "lr": (f"{spec.height // spec.scale}x{spec.width // spec.scale}", "--width, --height and --down_sample_scale"),
        "sr": (f"{spec.height}x{spec.width}", "--width, --height and --down_sample_scale"),
    }
    for name, (value, flags) in run.items():
        if path.facts.get(name) != value:
            raise ValueError(f"{file} was made with {name} {path.facts.get(name)}, not {value}; change {flags}")
    return path
