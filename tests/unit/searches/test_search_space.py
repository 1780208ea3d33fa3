"""Which shapes a recipe's family has, and the recipes that are these shapes."""

from __future__ import annotations

import pytest

from distill.errors import RecipeError, UsageError
from distill.models import build_model
from distill.recipe import Recipe, load_recipe, parse_recipe
from distill.searches.space import Profile, Shape, space_of
from distill.sweeps.plan import BaseRecipe

HEAD = """
schema_version: 1
name: it
role: baseline
data: {name: cifar10}
"""
FAMILIES = {
    "resnet": "{blocks: [2, 2], channels: [16, 32], strides: [1, 2]}",
    "grouped_resnet": "{}",
    "cnn": "{}",
    "fast": "{}",
    "tiny": "{}",
    "vgg": "{channels: [16, 32], convolutions: [1, 2]}",
}


def recipe(name: str, *overrides: str) -> Recipe:
    options = FAMILIES[name].strip("{}")
    model = f"model: {{source: students, name: {name}{', ' if options else ''}{options}}}\n"
    return parse_recipe(HEAD + model, source="it.yaml", overrides=overrides)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_built_as_its_shapes_say(name: str) -> None:
    loaded = recipe(name)
    space = space_of(loaded)
    assert 1 <= len(space.depths) + len(space.own.widths) <= 8
    for shape in (space.own, space.settled(space.own), space.at(Profile.of(space.own), 2.0)):
        changed = BaseRecipe.of(loaded, "it.yaml").recipe_of(space.trial(shape))
        assert space_of(changed).own == shape
        build_model(changed.model, num_classes=10)
    smaller = BaseRecipe.of(loaded, "it.yaml").recipe_of(space.trial(space.smallest))
    assert set(space_of(smaller).own.widths) == {8}


def test_bounds_are_the_recipes_or_follow_from_it() -> None:
    space = space_of(load_recipe("resnet20_cifar10"))
    assert (space.depths, space.narrowest, space.widest) == (((1, 4),) * 3, 8, 256)
    given = space_of(recipe("resnet", "search.depth=[[1, 2], [3, 9]]", "search.width={min: 12, max: 100, multiple: 8}"))
    assert (given.depths, given.narrowest, given.widest) == (((1, 2), (3, 9)), 16, 96)


def test_widths_are_multiples_within_bounds() -> None:
    space = space_of(recipe("resnet"))
    assert space.settled(Shape((9, 0), (3, 12))) == Shape((4, 1), (8, 16))
    assert space.at(Profile((1, 1), (1.0, 4.0)), 11.9) == Shape((1, 1), (16, 48))
    assert space.at(Profile((1, 1), (1.0, 4.0)), 1e9) == Shape((1, 1), (256, 256))


def test_channels_that_may_only_grow_do() -> None:
    space = space_of(recipe("resnet", "model.skip=pad"))
    assert space.settled(Shape((1, 1), (64, 8))) == Shape((1, 1), (64, 64))


def test_a_stem_of_its_own_is_scaled_too() -> None:
    loaded = recipe("resnet", "model.stem_channels=8")
    params = space_of(loaded).trial(Shape((1, 1), (64, 64))).params
    assert params["model.stem_channels"] == "32"


def test_neighbours_differ_in_one_stage() -> None:
    space = space_of(recipe("resnet"))
    own = Shape((1, 2), (8, 32))
    for profile in space.neighbours(own):
        deep = [a != b for a, b in zip(profile.depths, own.depths, strict=True)]
        wide = [a != b for a, b in zip(profile.ratios, own.widths, strict=True)]
        assert sum(deep) + sum(wide) == 1 or profile.ratios == (8.0, 32.0)
    assert {profile.depths for profile in space.neighbours(own)} == {(1, 2), (2, 2), (1, 1), (1, 3)}


def test_what_has_no_shapes_says_so() -> None:
    for name in ("lenet_cifar10", "resnet56_cifar10", "vit_tiny_cifar10"):
        loaded = load_recipe(name)
        if loaded.model.source == "students" and loaded.model.name != "lenet":
            continue
        with pytest.raises(UsageError, match="has no shapes to search") as error:
            space_of(loaded)
        assert "resnet" in str(error.value.hint)
    with pytest.raises(UsageError, match=r"search\.depth has 1 ranges, its network 2"):
        space_of(recipe("resnet", "search.depth=[[1, 2]]"))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("search.depth=[[3, 1], [1, 2]]", "3 is above 1"),
        ("search.width={min: 9, max: 15, multiple: 8}", "no multiple of 8 lies between 9 and 15"),
        ("search.width={min: 0}", "search.width.min"),
        ("search.dept=[[1, 2]]", "did you mean 'depth'"),
    ],
)
def test_a_section_that_is_wrong_is_told(override: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said.replace("[", r"\[")):
        recipe("resnet", override)
