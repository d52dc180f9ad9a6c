"""What C3-STISR and RTSRN share: the skeleton of TSRN, guided by text clues.

Papers: C3-STISR, https://arxiv.org/abs/2204.14044; the skeleton is TSRN's, https://arxiv.org/abs/2005.03341. Module
names follow the published code of RTSRN, so its checkpoints load. Differences: a missing prior works for any batch
size; without `triple_clues`, where the published code fails, the recognition clue itself is the hint (as in TPGSR,
https://arxiv.org/abs/2106.15368); the language model is called by `language_clue`; the visual clue, whose parts the
published code holds but never calls, can be used.
"""

from typing import Any

import torch
from torch import Tensor, nn

from model.blocks.clue import ClueAttention, GatedFusion, TextInterpreter, interpret
from model.blocks.deform import DeformFuser
from model.blocks.glyphs import GlyphRenderer, greedy_text
from model.blocks.skeleton import Skeleton
from model.blocks.upsample import UpsampleBlock
from model.language.bcn import BCN

CLUE_CHANNELS = 32
VISUAL_CHANNELS = 10  # of the read text; with the 6 planes of the drawn one they are the 16 that `DeformFuser` takes
SMALLEST_SIDE = 15  # of an LR image; below it the pooling of `ClueAttention` has nothing left
VISUAL_MULTIPLE = 16  # the sides of an LR image are multiples of it where `DeformFuser` looks at it
NUM_CLASSES, NUM_COLUMNS = 37, 26  # blank, digits, lower-case letters; what CRNN gives for an image of width 100


class ClueGuidedNetwork(Skeleton):
    """LR images (N, C, 16, 64) in [0, 1] and text clues -> SR images (N, C, 32, 128) in (-1, 1).

    A clue is a text as class probabilities (N, 37, 1, 26). The sizes are those of the default arguments. A subclass
    sets the two class attributes.

    Args:
        triple_clues: use the linguistic clue besides the recognized text.
        visual_clue: draw the recognized text and use the picture as third clue. No published checkpoint has it: the
            fusion of three clues has a weight of another shape than that of two, so checkpoints with it are ours alone.
        **options: those of `Skeleton`; the clue modules need its 32 hidden units, and published checkpoints of RTSRN
            its `stn_align_corners`.

    Raises:
        ValueError: an argument has no meaning.
    """

    residual_block: type[nn.Module]
    """Built with the number of features F and of hint channels c, called with maps (N, F, H, W) and (N, c, H, W)."""
    pixel_adapter: bool
    """Whether a pixel adapter follows the up-sampling."""
    dsta_vis: nn.Module | None  # used with a visual clue only

    def __init__(self, *, triple_clues: bool = True, visual_clue: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.options |= {"triple_clues": triple_clues, "visual_clue": visual_clue}
        _check_clues(**self.options)
        self.triple_clues, self.visual_clue = triple_clues, visual_clue
        if triple_clues:
            self._add_clue_modules(2 * self.options["hidden_units"])

    def make_block(self, features: int, number: int) -> nn.Module:
        """A block that takes a hint."""
        return self.residual_block(features, CLUE_CHANNELS)

    def make_upsampler(self, features: int) -> nn.Module:
        """With a pixel adapter where the network has one."""
        return UpsampleBlock(features, pam=self.pixel_adapter)

    def add_hint_modules(self) -> None:
        """What draws the recognised text."""
        self.infoGen = TextInterpreter(NUM_CLASSES, CLUE_CHANNELS)

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
        shallow = self.shallow(images_lr)
        self._check_text(len(images_lr), prior, linguistic)
        return self.reconstruct(shallow, self.hint(shallow, prior, linguistic))

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
        return self.lm(probabilities) if lengths is None else self.lm(probabilities, lengths)

    def check_images(self, images_lr: Tensor) -> None:
        """Also what the clue modules need.

        Raises:
            ValueError: naming the option that goes with it.
        """
        super().check_images(images_lr)
        size = f"LR images of size {tuple(images_lr.shape[2:])}"
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
