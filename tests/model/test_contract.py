"""What every registered network promises."""

import copy
import pickle
import re

import pytest
import torch
from torch import Tensor, nn

from model import build_model, identify, list_models, model_spec
from tests.model.published import GOLDEN, golden_lines, published_options, zoo_tables

SMALL = {"srb_nums": 2, "hidden_units": 4, "group_blocks": 2}
"""What makes a network without clues small; the clue modules need their size."""


def with_options(**options: int) -> list[tuple[str, dict[str, int]]]:
    return [(name, options) for name in list_models() if options.keys() <= model_spec(name).options.keys()]


def build(name: str, **options: int) -> nn.Module:
    """The network at a size at which promises can be checked in a second."""
    spec = model_spec(name)
    shrinks = spec.system in ("plain", "semantic", "semantic_attention")
    small = {option: value for option, value in SMALL.items() if shrinks and option in spec.options}
    return build_model(name, **{**small, **options})


VARIANTS = [*with_options(), *with_options(STN=True), *with_options(visual_clue=True, srb_nums=1)]
NAMED = [(name, options) for name, options in [*VARIANTS, *with_options(mask=False)] if model_spec(name).signature]


def outputs(name: str, network: nn.Module, images: Tensor) -> list[Tensor]:
    """Everything the recipe of this network computes from LR images; the SR images come first."""
    if model_spec(name).system == "semantic_attention":
        guided = network.guided(images)
        return [guided.images, guided.vision, guided.language]
    if model_spec(name).system not in ("clues", "prior_guided"):
        return [network(images)]
    generator = torch.Generator().manual_seed(1)
    # Drawn for two and cut: the last random numbers of a tensor depend on its size.
    probabilities = torch.randn(2, 26, 37, generator=generator).mul(4).softmax(dim=2)[: len(images)]
    if model_spec(name).system == "prior_guided":
        return [network(images, probabilities.transpose(1, 2)[:, :, None])]
    logits = network.language_clue(probabilities)
    prior, linguistic = (text.transpose(1, 2)[:, :, None] for text in (probabilities, logits.softmax(dim=2)))
    return [network(images, prior, linguistic), logits]


def lr_images(network: nn.Module, count: int = 2) -> Tensor:
    planes = getattr(network, "in_channels", 4)
    # Drawn for two and cut, as above.
    return torch.rand(2, planes, 16, 64, generator=torch.Generator().manual_seed(0))[:count]


@pytest.fixture(params=VARIANTS, ids=[f"{name}-{'-'.join(options) or 'default'}" for name, options in VARIANTS])
def built(request) -> tuple[str, nn.Module]:
    name, options = request.param
    torch.manual_seed(0)
    return name, build(name, **options)


def test_forward_shape_and_every_parameter_gets_a_gradient(built):
    name, network = built
    results = outputs(name, network.train(), lr_images(network))
    assert results[0].shape == (2, lr_images(network).shape[1], 32, 128)
    assert all(bool(result.isfinite().all()) for result in results)
    parameters = {key: value for key, value in network.named_parameters() if value.requires_grad}
    if not parameters:
        return
    sum(result.square().mean() for result in results).backward()
    assert [key for key, value in parameters.items() if value.grad is None or not value.grad.isfinite().all()] == []


@torch.no_grad()
def test_evaluation_is_deterministic_and_survives_copies(built):
    name, network = built
    first = outputs(name, network.eval(), lr_images(network))
    for other in (network, copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        for once, again in zip(first, outputs(name, other, lr_images(network)), strict=True):
            assert torch.equal(once, again)


@torch.no_grad()
def test_an_image_does_not_depend_on_its_batch(built):
    name, network = built
    whole = outputs(name, network.eval(), lr_images(network))[0]
    alone = outputs(name, network, lr_images(network, 1))[0]
    torch.testing.assert_close(whole[:1], alone, atol=1e-5, rtol=0)


def test_trains_under_bfloat16_autocast(built):
    name, network = built
    with torch.autocast("cpu", dtype=torch.bfloat16):
        results = outputs(name, network.train(), lr_images(network))
    assert all(bool(result.isfinite().all()) for result in results)
    if list(network.parameters()):
        sum(result.float().square().mean() for result in results).backward()


@pytest.mark.parametrize("name", list_models())
def test_state_keys_are_the_golden_ones(name):
    """A line is `key shape`; a change here breaks everybody's checkpoints."""
    golden = GOLDEN / f"{name}.keys"
    if not golden.is_file():  # a network of one's own, whose keys may still change
        pytest.skip(f"once its keys are to stay: python -m tests.model.published {name} > tests/golden/{name}.keys")
    assert golden_lines(name) == golden.read_text().splitlines()


def test_every_network_of_readme_has_its_golden_keys():
    readme = (GOLDEN.parents[1] / "README.md").read_text(encoding="utf-8")
    names = re.findall(r"^\| `(\w+)` \|.* M \|.* G \|", readme, re.MULTILINE)
    assert {"bicubic", "rtsrn"} <= set(names)
    assert [name for name in names if not (GOLDEN / f"{name}.keys").is_file()] == []


@pytest.mark.parametrize("name", [name for name in zoo_tables() if name in list_models()])
def test_state_keys_and_shapes_are_the_published_ones(name):
    parameters, keys = zoo_tables()[name]
    with torch.device("meta"):
        network = build_model(name, **published_options(name))
    found = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert found == {key: shape for key, (shape, _) in keys.items()}
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize(("name", "options"), NAMED)
def test_state_keys_tell_the_network(name, options):
    with torch.device("meta"):
        keys = build_model(name, **options).state_dict().keys()
    assert identify(keys) == name
