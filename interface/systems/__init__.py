"""How networks are trained: one file per recipe; `build_system` picks the one that the registry entry names."""

from easydict import EasyDict

from interface.systems.base import System, unused_network_options
from interface.systems.clues import Clues
from interface.systems.plain import Plain
from interface.systems.prior_guided import PriorGuided
from interface.systems.recognizers import (
    AttentionRecognizer,
    AttentionRecognizerPerWord,
    BothDirections,
    CtcRecognizer,
)
from interface.systems.semantic import Semantic, SemanticAttention
from model import model_spec

SYSTEMS: dict[str, type[System]] = {
    "plain": Plain,
    "prior_guided": PriorGuided,
    "clues": Clues,
    "semantic": Semantic,
    "semantic_attention": SemanticAttention,
    "recognizer_ctc": CtcRecognizer,
    "recognizer_attention": AttentionRecognizer,
    "recognizer_attention_per_word": AttentionRecognizerPerWord,
    "recognizer_both_directions": BothDirections,
}


def build_system(config: EasyDict, *, training: bool, pretrained: bool = True) -> System:
    """Build the network named by `config.arch` within its recipe.

    Args:
        config: the resolved configuration.
        training: also build what only training needs (teachers, losses with networks of their own).
        pretrained: load the starting weights of parts that have some; False when a checkpoint will bring them.

    Raises:
        ValueError: no such network, or options it does not allow.
        FileNotFoundError: a weights file that the recipe needs is missing.
    """
    return SYSTEMS[model_spec(config.arch).system].build(config, training=training, pretrained=pretrained)


def unused_options(config: EasyDict) -> set[str]:
    """Keys of `MODEL` that neither this network nor its recipe reads, but others do."""
    known = {key for system in SYSTEMS.values() for key in system.reads}
    return unused_network_options(config) | (known - set(SYSTEMS[model_spec(config.arch).system].reads))
