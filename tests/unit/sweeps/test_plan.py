"""All recipes of a sweep are made, and checked, before its first trial."""

from __future__ import annotations

import pytest

from distill.errors import RecipeError, UsageError
from distill.recipe import bundled_recipes, load_recipe, parse_recipe
from distill.sweeps.plan import (
    BaseRecipe,
    Trial,
    check_networks,
    check_trials,
    corner_trials,
    grid_trials,
    takes_whole_numbers,
    trial_key,
)
from distill.sweeps.space import Axis, parse_grid, parse_search

TEXT = """
name: tiny
role: baseline
data: {name: synthetic, limit: 60}
model: {source: students, name: tiny}
optim: {name: sgd, lr: 0.05, momentum: 0.8}
train: {seed: 3}
"""


def base(*overrides: str) -> BaseRecipe:
    return BaseRecipe.of(parse_recipe(TEXT, source="mine.yaml", overrides=overrides), "mine.yaml")


@pytest.mark.parametrize("name", sorted(bundled_recipes()))
def test_a_base_is_the_recipe_it_was_made_of(name: str) -> None:
    recipe = load_recipe(name)
    assert BaseRecipe.of(recipe, name).recipe == recipe


def test_choices_are_overrides_of_the_file_and_not_of_its_defaults() -> None:
    ours = base().recipe_of(Trial({"optim.name": "adamw"}))
    file = parse_recipe(TEXT, source="mine.yaml", overrides=["optim.name=adamw"])
    assert ours == file
    assert ours.optim.lr == 0.05


def test_a_grid_is_every_combination_for_each_seed_from_the_recipes_on() -> None:
    trials = grid_trials(base(), parse_grid(["optim.lr=0.1,0.2", "train.batch_size=8,16"]), 2)
    recipes = check_trials(base(), trials, option="--grid")
    found = [(r.train.seed, r.optim.lr, r.train.batch_size) for r in recipes]
    assert found == [(s, lr, size) for s in (3, 4) for lr in (0.1, 0.2) for size in (8, 16)]
    assert len({trial_key(recipe) for recipe in recipes}) == 8


def test_where_the_data_lies_makes_no_other_trial() -> None:
    assert trial_key(base().recipe) == trial_key(base("data.root=/elsewhere").recipe)


def test_every_mistake_in_any_trial_is_told_once_and_by_the_option_that_made_it() -> None:
    axes = parse_grid(["optim.name=adam,sgd,addam", "optim.momentum=0.5,0.9", "train.epochs=1,x"])
    with pytest.raises(RecipeError) as error:
        check_trials(base(), grid_trials(base(), axes, 1), option="--grid")
    lines = error.value.message.splitlines()
    assert len(lines) == len(set(lines))
    assert any(line.startswith("--grid optim.name=addam: ") and "adam" in line for line in lines)
    assert any(line.startswith("--grid train.epochs=x: ") for line in lines)
    momentum = [line for line in lines if line.startswith("--grid optim.momentum=0.5: ")]
    assert "together with optim.name=adam" in momentum[0]


def test_without_validation_there_is_nothing_to_choose_by() -> None:
    with pytest.raises(UsageError, match="val_fraction is 0") as error:
        check_trials(base("data.val_fraction=0"), [Trial({})], option="--grid")
    assert "\n" not in error.value.message


def test_seeds_and_a_swept_seed_exclude_each_other() -> None:
    with pytest.raises(UsageError, match=r"--grid train\.seed"):
        grid_trials(base(), [Axis("train.seed", ("0", "1"))], 2)


def test_a_grid_that_nobody_can_mean_is_refused_before_it_is_built() -> None:
    many = tuple(str(number) for number in range(1, 1001))
    with pytest.raises(UsageError, match="1,000,000 trials"):
        grid_trials(base(), [Axis("train.epochs", many), Axis("train.batch_size", many)], 1)


def test_too_large_networks_are_told_before_the_first_trial() -> None:
    small = base("model.max_params=700")
    trials = grid_trials(small, parse_grid(["model.width=8,16,32"]), 2)
    with pytest.raises(RecipeError, match="over the budget") as error:
        check_networks(check_trials(small, trials, option="--grid"))
    assert len(error.value.message.splitlines()) == 2


def test_a_search_is_checked_at_its_corners() -> None:
    variables = parse_search(["optim.lr=0.1:0.2", "optim.name=[adam,sgd]"])
    found = {(trial.params["optim.name"], trial.params["optim.lr"]) for trial in corner_trials(variables)}
    assert found == {(name, lr) for name in ("adam", "sgd") for lr in ("0.1", "0.2")}
    with pytest.raises(RecipeError, match=r"--search augment\.hflip=2: "):
        check_trials(base(), corner_trials(parse_search(["augment.hflip=0:2"])), option="--search")


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("train.batch_size=8:64", True),
        ("optim.lr=1:2", False),
        ("augment.rotation=0:30", False),
        ("augment.hflip=0.0:1", False),
    ],
)
def test_the_recipe_says_which_keys_are_counts(text: str, whole: bool) -> None:
    (variable,) = parse_search([text])
    assert takes_whole_numbers(base(), variable, Trial({})) is whole
