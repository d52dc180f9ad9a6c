"""The list of networks: a builder decorated with `register_model` is known by its function name (`--arch`).

Adding a network is one file in this folder. The files are imported when somebody first asks for a name, so that
`import model` costs nothing.
"""

import difflib
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # torch takes a second to import, and a name can be looked up without it
    from torch import nn

Builder = Callable[..., "nn.Module"]


@dataclass(frozen=True)
class ModelSpec:
    """What is known about a network before it is built."""

    name: str
    builder: Builder
    system: str
    """The training recipe (`interface/systems`)."""
    paper: str

    @property
    def options(self) -> dict[str, Any]:
        """The keywords the builder takes and their defaults."""
        return {name: parameter.default for name, parameter in _keywords(self.builder).items()}


_SPECS: dict[str, ModelSpec] = {}
_scanned = False


def register_model(*, system: str = "plain", paper: str = "") -> Callable[[Builder], Builder]:
    """Decorate a builder: its `__name__` becomes a model name.

    Args:
        system: name of the training recipe.
        paper: address of the paper.

    Raises:
        ValueError: the name is taken.
    """

    def register(builder: Builder) -> Builder:
        name = builder.__name__
        if name in _SPECS:
            taken = _SPECS[name].builder.__module__
            raise ValueError(
                f"model {name!r} of {builder.__module__} is already registered by {taken}; rename one of the builders"
            )
        _SPECS[name] = ModelSpec(name=name, builder=builder, system=system, paper=paper)
        return builder

    return register


def list_models() -> list[str]:
    """Return the sorted names of all networks."""
    _scan()
    return sorted(_SPECS)


def model_spec(name: str) -> ModelSpec:
    """Return the entry of `name`.

    Raises:
        ValueError: no network has this name.
    """
    _scan()
    if name not in _SPECS:
        raise ValueError(f"unknown model {name!r}{_hint(name, _SPECS)}")
    return _SPECS[name]


def build_model(name: str, **kwargs: Any) -> "nn.Module":
    """Build the network called `name`.

    Args:
        name: one of `list_models()`.
        **kwargs: the options of this network, see `model_spec(name).options`.

    Raises:
        ValueError: no network has this name, or it has no such option.
    """
    spec = model_spec(name)
    for option in kwargs:
        if option not in spec.options:
            raise ValueError(f"model {name!r} has no option {option!r}{_hint(option, spec.options)}")
    return spec.builder(**kwargs)


def _hint(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(known)) or 'none'}"


def _keywords(builder: Builder) -> dict[str, inspect.Parameter]:
    """The keyword parameters of a builder; `**kwargs` stands for those of the class it returns."""
    keywords: dict[str, inspect.Parameter] = {}
    for parameter in inspect.signature(builder).parameters.values():
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            keywords[parameter.name] = parameter
            continue
        network = typing.get_type_hints(builder).get("return")
        if not inspect.isclass(network):
            raise TypeError(f"the builder {builder.__name__} takes **kwargs, so it must name the class it returns")
        keywords |= inspect.signature(network).parameters
    return keywords


def _scan() -> None:
    """Import every module beside this one, which registers its builders."""
    global _scanned  # noqa: PLW0603 (the registry is the one mutable global)
    if _scanned:
        return
    here = Path(__file__)
    for module in pkgutil.iter_modules([str(here.parent)]):
        if not module.ispkg and module.name != here.stem:
            importlib.import_module(f"{__package__}.{module.name}")
    _scanned = True
