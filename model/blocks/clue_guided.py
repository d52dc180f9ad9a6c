"""What C3-STISR and RTSRN share: the skeleton of TSRN, guided by text clues.

Papers: C3-STISR, https://arxiv.org/abs/2204.14044; the skeleton is TSRN's, https://arxiv.org/abs/2005.03341. Module
names follow the published code of RTSRN, so its checkpoints load. Differences: a missing prior works for any batch
size; without `triple_clues`, where the published code fails, the recognition clue itself is the hint (as in TPGSR,
https://arxiv.org/abs/2106.15368); the language model is called by `language_clue`; the visual clue, whose parts the
published code holds but never calls, can be used. As published: the rectifier works only in training, the output is
tanh and is not clamped.
"""

from typing import Any

import torch
from torch import Tensor, nn

from model.blocks.clue import ClueAttention, GatedFusion, TextInterpreter, interpret
from model.blocks.deform import DeformFuser
from model.blocks.glyphs import GlyphRenderer, greedy_text
from model.blocks.stn import STNHead, TPSSpatialTransformer
from model.blocks.upsample import UpsampleBlock
from model.language.bcn import BCN

CLUE_CHANNELS = 32
VISUAL_CHANNELS = 10  # of the read text; with the 6 planes of the drawn one they are the 16 that `DeformFuser` takes
SMALLEST_SIDE = 15  # of an LR image; below it the pooling of `ClueAttention` has nothing left
VISUAL_MULTIPLE = 16  # the sides of an LR image are multiples of it where `DeformFuser` looks at it
NUM_CLASSES, NUM_COLUMNS = 37, 26  # blank, digits, lower-case letters; what CRNN gives for an image of width 100


class ClueGuidedNetwork(nn.Module):
    """LR images (N, C, 16, 64) in [0, 1] and text clues -> SR images (N, C, 32, 128) in (-1, 1).

    A clue is a text as class probabilities (N, 37, 1, 26). The sizes are those of the default arguments. A subclass
    sets the two class attributes.

    Args:
        scale_factor: enlargement, a power of two.
        width: of the SR image.
        height: of the SR image.
        STN: rectify the image in training.
        mask: images have a fourth channel, the binary text mask.
        srb_nums: number of recurrent blocks.
        hidden_units: half the number of features; the clue modules need 32.
        triple_clues: use the linguistic clue besides the recognized text.
        visual_clue: draw the recognized text and use the picture as third clue. No published checkpoint has it: the
            fusion of three clues has a weight of another shape than that of two, so checkpoints with it are ours alone.
        stn_align_corners: how the rectifier counts pixels; published checkpoints of RTSRN want True.

    Raises:
        ValueError: an argument has no meaning.
    """

    residual_block: type[nn.Module]
    """Built with the number of features F and of hint channels c, called with maps (N, F, H, W) and (N, c, H, W)."""
    pixel_adapter: bool
    """Whether a pixel adapter follows the up-sampling."""
    dsta_vis: nn.Module | None  # used with a visual clue only

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
        visual_clue: bool = False,
        stn_align_corners: bool = True,
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
            "visual_clue": visual_clue,
            "stn_align_corners": stn_align_corners,
        }
        _check_sizes(**self.options)
        _check_clues(**self.options)
        self.in_channels = 4 if mask else 3
        self.size_lr = (height // scale_factor, width // scale_factor)
        self.triple_clues, self.visual_clue = triple_clues, visual_clue
        self.rectifies = STN
        features = 2 * hidden_units
        self.block1 = nn.Sequential(nn.Conv2d(self.in_channels, features, 9, padding=4), nn.PReLU())
        for number in range(2, srb_nums + 2):
            self.add_module(f"block{number}", self.residual_block(features, CLUE_CHANNELS))
        self.infoGen = TextInterpreter(NUM_CLASSES, CLUE_CHANNELS)
        end = nn.Sequential(nn.Conv2d(features, features, 3, padding=1), nn.BatchNorm2d(features))
        ups = [UpsampleBlock(features, pam=self.pixel_adapter) for _ in range(scale_factor.bit_length() - 1)]
        head = nn.Sequential(*ups, nn.Conv2d(features, self.in_channels, 9, padding=4))
        self.add_module(f"block{srb_nums + 2}", end)
        self.add_module(f"block{srb_nums + 3}", head)
        self.blocks = tuple(f"block{number}" for number in range(2, srb_nums + 2))
        self.end, self.head = f"block{srb_nums + 2}", f"block{srb_nums + 3}"
        if STN:
            self.tps = TPSSpatialTransformer(self.size_lr, align_corners=stn_align_corners)
            self.stn_head = STNHead(self.in_channels)
        if triple_clues:
            self._add_clue_modules(features)

    def _add_clue_modules(self, features: int) -> None:
        self.lm = BCN(num_classes=NUM_CLASSES, length=NUM_COLUMNS)
        self.dsta_rec = ClueAttention(CLUE_CHANNELS)
        # Registered either way, for its place: state keys keep the order of published checkpoints.
        self.register_module("dsta_vis", ClueAttention(CLUE_CHANNELS) if self.visual_clue else None)
        self.dsta_ling = ClueAttention(CLUE_CHANNELS)
        self.gated = GatedFusion(CLUE_CHANNELS, clues=3 if self.visual_clue else 2)
        self.down_conv = nn.Conv2d(features, CLUE_CHANNELS, 1)
        self.infoGen_ling = TextInterpreter(NUM_CLASSES, CLUE_CHANNELS)
        if self.visual_clue:
            self.infoGen_visual = TextInterpreter(NUM_CLASSES, VISUAL_CHANNELS)
            self.vis_rec_fuser = DeformFuser()
            self.glyphs = GlyphRenderer()

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
        self._check_images(images_lr)
        self._check_text(len(images_lr), prior, linguistic)
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
        """What the clues say about each pixel, (N, 32, H, W), from image features (N, F, H, W) and two texts."""
        size = (shallow.shape[2], shallow.shape[3])
        if prior is None:
            prior = shallow.new_zeros(len(shallow), NUM_CLASSES, 1, NUM_COLUMNS)
        recognized = interpret(self.infoGen, prior, size)
        if not self.triple_clues:
            return recognized
        if linguistic is None:
            linguistic = torch.zeros_like(prior)
        clues = [self.dsta_rec(recognized), self.dsta_ling(interpret(self.infoGen_ling, linguistic, size))]
        if self.visual_clue and self.dsta_vis is not None:
            clues.append(self.dsta_vis(self.picture_clue(prior, size)))
        return self.gated(self.down_conv(shallow), *clues)

    def picture_clue(self, prior: Tensor, size: tuple[int, int]) -> Tensor:
        """Features (N, 32, *size) of the picture of the text that class probabilities (N, 37, 1, 26) stand for.

        Drawing has no gradient; `prior` gets one through its interpretation, which is drawn over.
        """
        drawn = self.glyphs(greedy_text(prior.detach()), size)
        return self.vis_rec_fuser(torch.cat([drawn, interpret(self.infoGen_visual, prior, size)], dim=1))

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
            if isinstance(module, (TPSSpatialTransformer, BCN, GlyphRenderer))
            for buffer in module.constant_buffers
        )

    def _check_images(self, images_lr: Tensor) -> None:
        if images_lr.ndim != 4 or images_lr.shape[1] != self.in_channels:
            raise ValueError(
                f"LR images of shape {tuple(images_lr.shape)}: expected (N, {self.in_channels}, H, W); "
                "the option mask=True stands for a fourth channel, the text mask"
            )
        size = f"LR images of size {tuple(images_lr.shape[2:])}"
        if self.rectifies and images_lr.shape[2:] != self.size_lr:
            height, width = self.size_lr
            raise ValueError(
                f"{size}: with STN=True they must be {height}x{width}; resize them or build the network without STN"
            )
        if self.triple_clues and min(images_lr.shape[2:]) < SMALLEST_SIDE:
            raise ValueError(
                f"{size}: the clue modules need {SMALLEST_SIDE} pixels a side; enlarge them or use triple_clues=False"
            )
        if self.visual_clue and any(side % VISUAL_MULTIPLE for side in images_lr.shape[2:]):
            raise ValueError(
                f"{size}: with visual_clue=True both sides must be multiples of {VISUAL_MULTIPLE}; "
                "resize them or build the network without visual_clue"
            )

    def _check_text(self, count: int, prior: Tensor | None, linguistic: Tensor | None) -> None:
        if linguistic is not None and not self.triple_clues:
            raise ValueError("a linguistic clue was given, but triple_clues=False; leave it out or switch them on")
        expected = (count, NUM_CLASSES, 1, NUM_COLUMNS)
        for name, clue in (("prior", prior), ("linguistic", linguistic)):
            if clue is not None and clue.shape != expected:
                raise ValueError(
                    f"{name} clue of shape {tuple(clue.shape)}: expected {expected}, probabilities of "
                    f"{NUM_CLASSES} classes in {NUM_COLUMNS} columns for each LR image"
                )


def _check_sizes(*, scale_factor: int, width: int, height: int, srb_nums: int, STN: bool, **_: Any) -> None:
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


def _check_clues(
    *,
    scale_factor: int,
    width: int,
    height: int,
    hidden_units: int,
    triple_clues: bool,
    visual_clue: bool,
    **_: Any,
) -> None:
    if triple_clues and hidden_units != CLUE_CHANNELS:
        raise ValueError(
            f"hidden_units {hidden_units} must be {CLUE_CHANNELS}, the channels of the text clues; "
            "use another number only with triple_clues=False"
        )
    if hidden_units < 2:
        raise ValueError(f"hidden_units {hidden_units} must be at least 2; the papers use 32")
    if not visual_clue:
        return
    if not triple_clues:
        raise ValueError(
            "visual_clue=True is the third of three clues, but triple_clues=False leaves one; "
            "use triple_clues=True or visual_clue=False"
        )
    height_lr, width_lr = height // scale_factor, width // scale_factor
    if height_lr % VISUAL_MULTIPLE or width_lr % VISUAL_MULTIPLE:
        raise ValueError(
            f"visual_clue=True takes LR images whose sides are multiples of {VISUAL_MULTIPLE}, but {height}x{width} "
            f"with scale_factor {scale_factor} makes {height_lr}x{width_lr}; use visual_clue=False or another size"
        )
