"""RTSRN: reconstruction of scene text from clues, with wave-MLP blocks and a pixel adapter.

The network also covers the released C3-STISR, https://arxiv.org/abs/2204.14044, whose last log has the same parameters.
Module names follow the published code, so its checkpoints load. Differences: parts that its forward never calls are
left out unless `published_unused`; a missing prior works for any batch size; without `triple_clues`, where the
published code fails, the recognition clue itself is the hint (as in TPGSR, https://arxiv.org/abs/2106.15368); the
language model is called by `language_clue`. As published: the rectifier works only in training, the output is tanh and
is not clamped.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.blocks.clue import ClueAttention, GatedFusion, TextInterpreter
from model.blocks.deform import DeformFuser
from model.blocks.gru import GruBlock
from model.blocks.stn import STNHead, TPSSpatialTransformer
from model.blocks.upsample import UpsampleBlock
from model.blocks.wave import WaveBlock
from model.language.bcn import BCN
from model.registry import register_model

CLUE_CHANNELS = 32
SMALLEST_SIDE = 15  # of an LR image; below it the pooling of `ClueAttention` has nothing left
NUM_CLASSES, NUM_COLUMNS = 37, 26  # blank, digits, lower-case letters; what CRNN gives for an image of width 100


class RTSRN(nn.Module):
    """LR images (N, C, 16, 64) in [0, 1] and text clues -> SR images (N, C, 32, 128) in (-1, 1).

    A clue is a text as class probabilities (N, 37, 1, 26). The sizes are those of the default arguments.

    Args:
        scale_factor: enlargement, a power of two.
        width: of the SR image.
        height: of the SR image.
        STN: rectify the image in training.
        mask: images have a fourth channel, the binary text mask.
        srb_nums: number of recurrent blocks.
        hidden_units: half the number of features; the clue modules need 32.
        triple_clues: use the linguistic clue besides the recognized text (a visual one is not used, as published).
        stn_align_corners: how the rectifier counts pixels; published checkpoints want True.
        published_unused: hold every parameter of the published network, the unused ones included.

    Raises:
        ValueError: an argument has no meaning.
    """

    def __init__(
        self,
        *,
        scale_factor: int = 2,
        width: int = 128,
        height: int = 32,
        STN: bool = False,
        mask: bool = True,
        srb_nums: int = 5,
        hidden_units: int = 32,
        triple_clues: bool = True,
        stn_align_corners: bool = True,
        published_unused: bool = False,
    ) -> None:
        super().__init__()
        self.options: dict[str, Any] = {
            "scale_factor": scale_factor,
            "width": width,
            "height": height,
            "STN": STN,
            "mask": mask,
            "srb_nums": srb_nums,
            "hidden_units": hidden_units,
            "triple_clues": triple_clues,
            "stn_align_corners": stn_align_corners,
        }
        _check_options(**self.options)
        self.in_channels = 4 if mask else 3
        self.size_lr = (height // scale_factor, width // scale_factor)
        self.triple_clues = triple_clues
        self.rectifies = STN
        features = 2 * hidden_units
        self.block1 = nn.Sequential(nn.Conv2d(self.in_channels, features, 9, padding=4), nn.PReLU())
        for number in range(2, srb_nums + 2):
            self.add_module(f"block{number}", RecurrentBlock(features, CLUE_CHANNELS))
        self.infoGen = TextInterpreter(NUM_CLASSES, CLUE_CHANNELS)
        end = nn.Sequential(nn.Conv2d(features, features, 3, padding=1), nn.BatchNorm2d(features))
        ups = [UpsampleBlock(features, pam=True) for _ in range(scale_factor.bit_length() - 1)]
        head = nn.Sequential(*ups, nn.Conv2d(features, self.in_channels, 9, padding=4))
        self.add_module(f"block{srb_nums + 2}", end)
        self.add_module(f"block{srb_nums + 3}", head)
        self.blocks = tuple(f"block{number}" for number in range(2, srb_nums + 2))
        self.end, self.head = f"block{srb_nums + 2}", f"block{srb_nums + 3}"
        if STN:
            self.tps = TPSSpatialTransformer(self.size_lr, align_corners=stn_align_corners)
            self.stn_head = STNHead(self.in_channels)
        if triple_clues:
            self._add_clue_modules(features, published_unused=published_unused)

    def _add_clue_modules(self, features: int, *, published_unused: bool) -> None:
        self.lm = BCN(num_classes=NUM_CLASSES, length=NUM_COLUMNS)
        self.dsta_rec = ClueAttention(CLUE_CHANNELS)
        if published_unused:
            self.dsta_vis = ClueAttention(CLUE_CHANNELS)
        self.dsta_ling = ClueAttention(CLUE_CHANNELS)
        self.gated = GatedFusion(CLUE_CHANNELS, unused_gate=published_unused)
        self.down_conv = nn.Conv2d(features, CLUE_CHANNELS, 1)
        self.infoGen_ling = TextInterpreter(NUM_CLASSES, CLUE_CHANNELS)
        if published_unused:
            self.infoGen_visual = TextInterpreter(NUM_CLASSES, 10)
            self.correction_model = BCN(num_classes=NUM_CLASSES, length=NUM_COLUMNS)
            self.vis_rec_fuser = DeformFuser()

    def forward(self, images_lr: Tensor, prior: Tensor | None = None, linguistic: Tensor | None = None) -> Tensor:
        """Super-resolve.

        Args:
            images_lr: (N, C, H, W) in [0, 1].
            prior: (N, 37, 1, 26) class probabilities of the recognized text; None is no text (zeros).
            linguistic: the same of the text that the language model makes of it, see `language_clue`.

        Returns:
            (N, C, s*H, s*W) in (-1, 1).

        Raises:
            ValueError: a tensor has a shape this network cannot use.
        """
        self._check_inputs(images_lr, prior, linguistic)
        if self.rectifies and self.training:
            images_lr = self.rectify(images_lr)
        shallow = self.block1(images_lr)
        hint = self.hint(shallow, prior, linguistic)
        deep = shallow
        for block in self.blocks:
            deep = self.get_submodule(block)(deep, hint)
        deep = self.get_submodule(self.end)(deep)
        return self.get_submodule(self.head)(shallow + deep).tanh()

    def rectify(self, images_lr: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W) with curved text bent straight."""
        return self.tps(images_lr, self.stn_head(images_lr))

    def hint(self, shallow: Tensor, prior: Tensor | None, linguistic: Tensor | None) -> Tensor:
        """What the clues say about each pixel, (N, 32, H, W), from image features (N, F, H, W) and two clues."""
        size = (shallow.shape[2], shallow.shape[3])
        if prior is None:
            prior = shallow.new_zeros(len(shallow), NUM_CLASSES, 1, NUM_COLUMNS)
        recognized = interpret(self.infoGen, prior, size)
        if not self.triple_clues:
            return recognized
        if linguistic is None:
            linguistic = torch.zeros_like(prior)
        recognized = self.dsta_rec(recognized)
        guessed = self.dsta_ling(interpret(self.infoGen_ling, linguistic, size))
        return self.gated(self.down_conv(shallow), recognized, guessed)

    def language_clue(self, probabilities: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits (N, 26, 37) of the text that the language model makes of class probabilities (N, 26, 37).

        No gradient flows into `probabilities`. The softmax of the result, laid out as (N, 37, 1, 26), is the
        `linguistic` clue of `forward`.

        Raises:
            ValueError: this network has no language model, or the shape is another.
        """
        if not self.triple_clues:
            raise ValueError("this network has no language model; build it with triple_clues=True")
        return self.lm(probabilities, lengths)

    @property
    def constant_buffers(self) -> tuple[str, ...]:
        """State keys of computed matrices that no training changes."""
        return tuple(
            f"{name}.{buffer}"
            for name, module in self.named_modules()
            if isinstance(module, (TPSSpatialTransformer, BCN))
            for buffer in module.constant_buffers
        )

    def published_shapes(self) -> dict[str, torch.Size]:
        """State keys of a published checkpoint with these options and their shapes; ours are among them.

        A strict reader checks a file against this table and loads the keys that this network has.
        """
        with torch.device("meta"):
            published = RTSRN(**self.options, published_unused=True)
        return {key: value.shape for key, value in published.state_dict().items()}

    def _check_inputs(self, images_lr: Tensor, prior: Tensor | None, linguistic: Tensor | None) -> None:
        if images_lr.ndim != 4 or images_lr.shape[1] != self.in_channels:
            raise ValueError(
                f"LR images of shape {tuple(images_lr.shape)}: expected (N, {self.in_channels}, H, W); "
                "the option mask=True stands for a fourth channel, the text mask"
            )
        if self.rectifies and images_lr.shape[2:] != self.size_lr:
            height, width = self.size_lr
            raise ValueError(
                f"LR images of size {tuple(images_lr.shape[2:])}: with STN=True they must be {height}x{width}; "
                "resize them or build the network without STN"
            )
        if self.triple_clues and min(images_lr.shape[2:]) < SMALLEST_SIDE:
            raise ValueError(
                f"LR images of size {tuple(images_lr.shape[2:])}: the clue modules need {SMALLEST_SIDE} pixels a side; "
                "enlarge them or use triple_clues=False"
            )
        if linguistic is not None and not self.triple_clues:
            raise ValueError("a linguistic clue was given, but triple_clues=False; leave it out or switch them on")
        expected = (len(images_lr), NUM_CLASSES, 1, NUM_COLUMNS)
        for name, clue in (("prior", prior), ("linguistic", linguistic)):
            if clue is not None and clue.shape != expected:
                raise ValueError(
                    f"{name} clue of shape {tuple(clue.shape)}: expected {expected}, probabilities of "
                    f"{NUM_CLASSES} classes in {NUM_COLUMNS} columns for each LR image"
                )


def interpret(interpreter: nn.Module, clue: Tensor, size: tuple[int, int]) -> Tensor:
    """Draw a clue (N, 37, 1, 26) as a map (N, 32, *size)."""
    return F.interpolate(interpreter(clue), size, mode="bilinear", align_corners=True)


class RecurrentBlock(nn.Module):
    """(N, F, H, W) and a hint (N, c, H, W) -> (N, F, H, W): wave-MLP, then a GRU along H and one along W (MSRB)."""

    def __init__(self, features: int, hint_channels: int) -> None:
        super().__init__()
        self.gru1 = GruBlock(features + hint_channels, features)
        self.gru2 = GruBlock(features, features)
        self.wave_mlp = WaveBlock(features)

    def forward(self, x: Tensor, hint: Tensor) -> Tensor:
        """Refine `x` with `hint`."""
        hinted = torch.cat([self.wave_mlp(x), hint], dim=1)
        columns = self.gru1(hinted.transpose(2, 3)).transpose(2, 3)
        return self.gru2(x + columns)


def _check_options(
    *,
    scale_factor: int,
    width: int,
    height: int,
    srb_nums: int,
    hidden_units: int,
    triple_clues: bool,
    STN: bool,
    **_: Any,
) -> None:
    if scale_factor < 2 or scale_factor & (scale_factor - 1):
        raise ValueError(f"scale_factor {scale_factor} must be a power of two above 1, such as 2")
    if width % scale_factor or height % scale_factor:
        raise ValueError(f"an SR image of {height}x{width} is no multiple of scale_factor {scale_factor}")
    if STN and (height // scale_factor, width // scale_factor) != (16, 64):
        raise ValueError(
            f"STN=True takes LR images of 16x64, but {height}x{width} with scale_factor {scale_factor} makes "
            f"{height // scale_factor}x{width // scale_factor}; use STN=False or another size"
        )
    if srb_nums < 1:
        raise ValueError(f"srb_nums {srb_nums} must be at least 1; the papers use 5")
    if triple_clues and hidden_units != CLUE_CHANNELS:
        raise ValueError(
            f"hidden_units {hidden_units} must be {CLUE_CHANNELS}, the channels of the text clues; "
            "use another number only with triple_clues=False"
        )
    if hidden_units < 2:
        raise ValueError(f"hidden_units {hidden_units} must be at least 2; the papers use 32")


@register_model(system="clues", paper="https://arxiv.org/abs/2204.14044")
def rtsrn(**kwargs: Any) -> RTSRN:
    """RTSRN with the given options."""
    return RTSRN(**kwargs)
