"""LEMMA: a recogniser says where the characters are; pixels there are enhanced, aligned with the text, and modulate.

Paper: Towards Robust Scene Text Image Super-resolution via Explicit Location Enhancement, IJCAI 2023,
https://arxiv.org/abs/2307.09749. Module names follow the published program. The recogniser is ABINet's, without its
fusion of vision and language. Differences: tables of positions, which are constants, are left out unless
`published_unused`; what is random at the start of a training without ABINet's files is not published.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from model.blocks.alignment import Alignment
from model.blocks.modulated import SIZE_LR, ModulatedSkeleton
from model.recognizer.abinet import ABINet
from model.registry import register_model

SELECTED = 500  # pixels where characters are, of 1024: the best of those that the paper tried (300, 500, 700, all)


class Guided(NamedTuple):
    """What `LEMMA.guided` gives.

    Attributes:
        images: (N, C, 32, 128) in (-1, 1).
        vision: (N, 26, 37) logits of what the recogniser saw, class 0 ends a word.
        language: (N, 26, 37) the same of its language model, which the residual blocks were told.
        lengths: (N,) characters of that, the end included.
        maps: (N, 26, 16, 64) where each character is.
        hint: (N, F, 16, 64) what each pixel was told.
    """

    images: Tensor
    vision: Tensor
    language: Tensor
    lengths: Tensor
    maps: Tensor
    hint: Tensor


class LEMMA(ModulatedSkeleton):
    """LR images (N, C, 16, 64) in [0, 1] -> SR images (N, C, 32, 128) in (-1, 1).

    Args:
        published_unused: hold everything that a published checkpoint holds, the tables of positions included.
        **options: those of `Skeleton`.

    Raises:
        ValueError: an argument has no meaning.
    """

    def __init__(self, *, published_unused: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.position_prior = ABINet()
        self.guidanceGen = LocationAlignment(2 * self.options["hidden_units"], published_unused=published_unused)

    def guided(self, images_lr: Tensor) -> Guided:
        """Super-resolve, and say what was read and where: (N, C, 16, 64) in [0, 1].

        The reading has a gradient with respect to the recogniser, not to the images.

        Raises:
            ValueError: the images have another shape.
        """
        images_lr = self.straight(images_lr)
        found = self.position_prior(self.position_prior.preprocess(images_lr.detach()))
        maps = F.interpolate(found.maps, SIZE_LR, mode="bicubic", align_corners=True)
        shallow = self.block1(images_lr)
        hint = self.guidanceGen(shallow, maps, found.language, found.lengths)
        return Guided(self.reconstruct(shallow, hint), found.vision, found.language, found.lengths, maps, hint)


@register_model(
    system="semantic_attention",
    paper="https://arxiv.org/abs/2307.09749",
    scores={"CRNN": 56.3, "MORAN": 63.2, "ASTER": 66.0},
    signature=(r"^guidanceGen\.", r"^position_prior\.vision\."),
    published={"stn_align_corners": False},
)
def lemma(**kwargs: Any) -> LEMMA:
    """LEMMA with the given options."""
    return LEMMA(**kwargs)


class LocationAlignment(Alignment):
    """Where characters are and which -> what each pixel (N, F, 16, 64) is told; pixels elsewhere are only told.

    Args:
        features: F.
        published_unused: hold the tables of positions of published checkpoints.
    """

    def __init__(self, features: int, *, published_unused: bool = False) -> None:
        super().__init__(features, places=SIZE_LR[0] * SIZE_LR[1], published_unused=published_unused)
        self.add_enhancement(features)
        self.start_weights()

    def forward(self, shallow: Tensor, maps: Tensor, text: Tensor, lengths: Tensor) -> Tensor:
        """Enhance and align.

        Args:
            shallow: (N, F, 16, 64) features of the image.
            maps: (N, 26, 16, 64) where each character is.
            text: (N, 26, 37) logits of the characters.
            lengths: (N,) how many characters there are, 1 to 26.
        """
        beyond = torch.arange(maps.shape[1], device=maps.device) >= lengths[:, None]
        location = maps.masked_fill(beyond[:, :, None, None], -torch.inf).amax(1, keepdim=True)
        pixels = self.enhance(shallow, location)
        chosen = location.flatten(1).topk(SELECTED, dim=1).indices.unsqueeze(2)
        seen = pixels.gather(1, chosen.expand(-1, -1, pixels.shape[2]))
        asking = pixels * torch.zeros_like(pixels[..., :1]).scatter(1, chosen, 1.0)
        told = self.tell(self.words(text, maps.flatten(2)), seen, asking)
        return told.transpose(1, 2).unflatten(2, SIZE_LR)

    def enhance(self, shallow: Tensor, location: Tensor) -> Tensor:
        """Features (N, F, 16, 64) and where text is, (N, 1, 16, 64) -> pixels (N, 1024, F) that know their place."""
        weights = self.attn_conv(location).flatten(2).softmax(2).view_as(shallow)
        enhanced = self.DWC(F.instance_norm(shallow) * weights)
        return self.dropout(enhanced.flatten(2).transpose(1, 2) + self.positions)
