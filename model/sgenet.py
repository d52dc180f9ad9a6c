"""SGENet: a recogniser reads the LR picture, and what it saw and read modulates every residual block.

Paper: SGENet, ICASSP 2024, https://arxiv.org/abs/2403.13330. Module names follow the published program; alignment and
modulation are those of LEMMA, IJCAI 2023, whose unused parts published checkpoints hold.
The published program lacks its modified SVTR, which gives two tensors. Inferred: they are the pooled features, the only
ones whose shape fits (their 256 channels are then read as the 8 x 32 places of a map of half the size), and the output
of the head. In training that is logits in PaddleOCR's SVTR and probabilities at test; whether the authors kept this is
unknown, so it is an option. Differences: the default gives probabilities in both; unused parts are left out unless
`published_unused`.
"""

from typing import Any, Literal, NamedTuple

from torch import Tensor

from model.blocks.alignment import Alignment
from model.blocks.modulated import SIZE_LR, ModulatedSkeleton
from model.recognizer.svtr import SVTR
from model.registry import register_model

CELLS = (SIZE_LR[0] // 2) * (SIZE_LR[1] // 2)  # places of a map of half the size, and channels of SVTR's features
TEXT_FORMS = ("probabilities", "published", "logits")


class Guided(NamedTuple):
    """What `SGENet.guided` gives.

    Attributes:
        images: (N, C, 32, 128) in (-1, 1).
        text: (N, 25, 37) what the residual blocks were told, class 0 is the CTC blank.
        logits: (N, 25, 37) of the recogniser.
        hint: (N, F, 16, 64) what each pixel was told.
    """

    images: Tensor
    text: Tensor
    logits: Tensor
    hint: Tensor


class SGENet(ModulatedSkeleton):
    """LR images (N, C, 16, 64) in [0, 1] -> SR images (N, C, 32, 128) in (-1, 1).

    Args:
        srb_nums: number of residual blocks, 2 in the paper; the published program's default is 5.
        stn_align_corners: how the rectifier counts pixels; False is what the published program gets from PyTorch.
        text_form: in which form the blocks get the text: "probabilities", "logits", or "published" (inferred), logits
            in training and else probabilities.
        published_unused: hold every parameter of the published network, the unused ones included.
        **options: those of `Skeleton`.

    Raises:
        ValueError: an argument has no meaning.
    """

    def __init__(
        self,
        *,
        srb_nums: int = 2,
        stn_align_corners: bool = False,
        text_form: Literal["probabilities", "published", "logits"] = "probabilities",
        published_unused: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(srb_nums=srb_nums, stn_align_corners=stn_align_corners, **options)
        if text_form not in TEXT_FORMS:
            raise ValueError(f"text_form={text_form!r}; use {', '.join(TEXT_FORMS)}")
        self.options |= {"text_form": text_form}
        self.text_form = text_form
        self.position_prior = SVTR()
        self.position_prior.start_weights()
        self.guidanceGen = SeenAlignment(2 * self.options["hidden_units"], published_unused=published_unused)

    def guided(self, images_lr: Tensor) -> Guided:
        """Super-resolve, and say what was read: (N, C, 16, 64) in [0, 1].

        The reading has a gradient with respect to the recogniser, not to the images.

        Raises:
            ValueError: the images have another shape.
        """
        images_lr = self.straight(images_lr)
        guide = self.position_prior
        seen = guide.features(guide.preprocess(images_lr.detach()))
        logits = guide.classify(seen)
        as_logits = self.text_form == "logits" or (self.text_form == "published" and guide.training)
        text = logits if as_logits else logits.softmax(2)
        shallow = self.block1(images_lr)
        hint = self.guidanceGen(shallow, seen, text)
        return Guided(self.reconstruct(shallow, hint), text, logits, hint)


@register_model(
    system="semantic",
    paper="https://arxiv.org/abs/2403.13330",
    signature=(r"^guidanceGen\.", r"^position_prior\.backbone\.patch_embed\."),
)
def sgenet(**kwargs: Any) -> SGENet:
    """SGENet with the given options."""
    return SGENet(**kwargs)


class SeenAlignment(Alignment):
    """What was seen and read, column by column -> what each pixel (N, F, 16, 64) is told.

    Args:
        features: F.
        published_unused: hold the parts of LEMMA's alignment that this one never calls, and the tables of positions.
    """

    def __init__(self, features: int, *, published_unused: bool = False) -> None:
        super().__init__(features, places=CELLS, published_unused=published_unused)
        if published_unused:
            self.add_enhancement(features)
        self.start_weights()

    def forward(self, shallow: Tensor, seen: Tensor, text: Tensor) -> Tensor:
        """Align.

        Args:
            shallow: (N, F, 16, 64) features of the image.
            seen: (N, 256, 1, 25) what the recogniser saw; its channels count as places.
            text: (N, 25, 37) what it read.
        """
        pixels = shallow.flatten(2).transpose(1, 2)
        told = self.tell(self.words(text, seen.flatten(2).transpose(1, 2)), pixels, pixels)
        return told.transpose(1, 2).unflatten(2, (shallow.shape[2], shallow.shape[3]))
