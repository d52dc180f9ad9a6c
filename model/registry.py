"""The list of networks: a builder decorated with `register_model` is known by its function name (`--arch`).

Adding a network is one file in this folder, a recogniser one in `recognizer/`. The files are imported when somebody
first asks for a name, so that `import model` costs nothing.
"""

import difflib
import importlib
import inspect
import pkgutil
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # torch takes a second to import, and a name can be looked up without it
    from torch import nn

Builder = Callable[..., "nn.Module"]

SUPER_RESOLUTION, RECOGNITION = "super_resolution", "recognition"


@dataclass(frozen=True)
class ModelSpec:
    """What is known about a network before it is built."""

    name: str
    builder: Builder
    system: str
    """The training recipe (`interface/systems`)."""
    paper: str
    signature: tuple[str, ...] = ()
    """Patterns that tell this network by its state keys, see `register_model`."""
    task: str = SUPER_RESOLUTION
    """What it is for: "super_resolution" or "recognition"."""
    source: str = ""
    """Address of the published implementation."""
    licence: str = ""
    """SPDX identifier of the licence of `source`. Empty: nobody looked it up for this program; see the repository."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Published word accuracy on TextZoom in %, the mean that the literature gives, by recogniser."""
    published: Mapping[str, Any] = field(default_factory=dict)
    """Options that published checkpoints need where the default is another."""

    @property
    def options(self) -> dict[str, Any]:
        """The keywords the builder takes and their defaults."""
        return {name: parameter.default for name, parameter in _keywords(self.builder).items()}


_SPECS: dict[str, ModelSpec] = {}
_scanned = False


def register_model(
    *,
    system: str = "plain",
    paper: str = "",
    signature: str | tuple[str, ...] = (),
    task: str = SUPER_RESOLUTION,
    source: str = "",
    licence: str = "",
    scores: Mapping[str, float] | None = None,
    published: Mapping[str, Any] | None = None,
) -> Callable[[Builder], Builder]:
    """Decorate a builder: its `__name__` becomes a model name.

    Args:
        system: name of the training recipe.
        paper: address of the paper.
        signature: a regular expression that a state key of this network matches (`re.search`) and no key of another
            network does. Where none does it alone, several, each of which a key matches; one that begins with "!" must
            match no key, for networks whose keys are a part of another's.
        task: "super_resolution", or "recognition" for what reads text.
        source: address of the published implementation.
        licence: SPDX identifier of the licence of `source`, such as "MIT", as its repository states it; leave it out if
            you have not seen it there. It says nothing about the code here, which is written anew.
        scores: published word accuracy on TextZoom in %, by recogniser, as later papers quote it.
        published: options that published checkpoints need where the default is another; loading one sets them.

    Raises:
        ValueError: the name is taken, or there is a licence of nothing.
    """
    if licence and not source:
        raise ValueError(f"licence {licence!r} is that of the published implementation; give its address as source")

    def register(builder: Builder) -> Builder:
        name = builder.__name__
        if name in _SPECS:
            taken = _SPECS[name].builder.__module__
            raise ValueError(
                f"model {name!r} of {builder.__module__} is already registered by {taken}; rename one of the builders"
            )
        patterns = (signature,) if isinstance(signature, str) else signature
        _SPECS[name] = ModelSpec(
            name=name,
            builder=builder,
            system=system,
            paper=paper,
            signature=patterns,
            task=task,
            source=source,
            licence=licence,
            scores=scores or {},
            published=published or {},
        )
        return builder

    return register


def list_models(task: str = SUPER_RESOLUTION) -> list[str]:
    """Return the sorted names of all networks for a task, "super_resolution" or "recognition"."""
    _scan()
    return sorted(name for name, spec in _SPECS.items() if spec.task == task)


def model_spec(name: str) -> ModelSpec:
    """Return the entry of `name`.

    Raises:
        ValueError: no network has this name.
    """
    _scan()
    if name not in _SPECS:
        raise ValueError(f"unknown model {name!r}{_hint(name, _SPECS)}")
    return _SPECS[name]


def identify(keys: Iterable[str]) -> str | None:
    """Return the name of the network that has these state keys.

    Args:
        keys: those of the network alone, without a prefix such as `module.`.

    Returns:
        None if no signature fits, or more than one.
    """
    _scan()
    keys = list(keys)

    def fits(pattern: str) -> bool:
        wanted = not pattern.startswith("!")
        return any(re.search(pattern.removeprefix("!"), key) for key in keys) == wanted

    found = [name for name, spec in _SPECS.items() if spec.signature and all(map(fits, spec.signature))]
    return found[0] if len(found) == 1 else None


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


def _keywords(builder: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword parameters of a builder or class.

    `**kwargs` of a builder stands for those of the class it returns, that of a class for those of its base.
    """
    keywords: dict[str, inspect.Parameter] = {}
    for parameter in inspect.signature(builder).parameters.values():
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            keywords[parameter.name] = parameter
        elif inspect.isclass(builder):
            keywords = _keywords(builder.__mro__[1]) | keywords  # a subclass may have another default
        else:
            network = typing.get_type_hints(builder).get("return")
            if not inspect.isclass(network):
                raise TypeError(f"the builder {builder.__name__} takes **kwargs, so it must name the class it returns")
            keywords |= _keywords(network)
    return keywords


def _scan() -> None:
    """Import every module beside this one and in `recognizer/`, which registers their builders."""
    global _scanned  # noqa: PLW0603 (the registry is the one mutable global)
    if _scanned:
        return
    here = Path(__file__)
    for package, folder in ((__package__, here.parent), (f"{__package__}.recognizer", here.parent / "recognizer")):
        for module in pkgutil.iter_modules([str(folder)]):
            if not module.ispkg and (package, module.name) != (__package__, here.stem):
                importlib.import_module(f"{package}.{module.name}")
    _scanned = True
