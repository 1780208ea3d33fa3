"""From a recipe and choices to the recipes of all trials, checked before the first one starts."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from distill.errors import RecipeError, UsageError
from distill.recipe import Recipe, dump_recipe, parse_recipe
from distill.recipe.mistakes import MAX_MISTAKES
from distill.results.sweeps import shown_value
from distill.sweeps.space import Axis, Params, Range, Variable, combinations, value_of

__all__ = [
    "BaseRecipe",
    "Trial",
    "check_networks",
    "check_trials",
    "corner_trials",
    "grid_trials",
    "no_validation",
    "takes_whole_numbers",
    "trial_key",
    "with_seeds",
]

_MAX_TRIALS = 20_000
_MAX_CORNERS = 500


@dataclass(frozen=True)
class Trial:
    """One run to make: the choices, and the seed where it is not the recipe's own."""

    params: Params
    seed: int | None = None

    @property
    def overrides(self) -> tuple[str, ...]:
        """As ``--set`` takes them."""
        seed = () if self.seed is None else (f"train.seed={self.seed}",)
        return (*(f"{key}={text}" for key, text in self.params.items()), *seed)

    @property
    def label(self) -> str:
        """How messages name it."""
        seed = () if self.seed is None else (f"seed {self.seed}",)
        choices = (f"{key}={shown_value(value_of(key, text))}" for key, text in self.params.items())
        return ", ".join((*choices, *seed)) or "the recipe as it is"


@dataclass(frozen=True)
class BaseRecipe:
    """The recipe that trials change.

    Attributes:
        tree: What the recipe says, without the schema's defaults: those of another optimiser are other ones.
        source: What messages call it.
    """

    tree: Mapping[str, Any]
    source: str

    @classmethod
    def of(cls, recipe: Recipe, source: str) -> BaseRecipe:
        """A recipe as loaded; what it leaves open stays open."""
        return cls(recipe.model_dump(mode="json", exclude_unset=True), source)

    @cached_property
    def _text(self) -> str:
        return json.dumps(self.tree, ensure_ascii=False)  # JSON is YAML

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe itself."""
        return parse_recipe(self._text, source=self.source)

    def recipe_of(self, trial: Trial) -> Recipe:
        """The recipe of a trial.

        Raises:
            RecipeError: The choices make no valid recipe.
        """
        return parse_recipe(self._text, source=self.source, overrides=trial.overrides)


def trial_key(recipe: Recipe) -> str:
    """What makes a trial this one, wherever the data lies."""
    anywhere = recipe.model_copy(update={"data": recipe.data.model_copy(update={"root": ""}), "search": None})
    return hashlib.sha256(dump_recipe(anywhere).encode()).hexdigest()[:24]


def grid_trials(base: BaseRecipe, axes: Sequence[Axis], seeds: int) -> list[Trial]:
    """Every combination, times the seeds; all combinations of the first seed come first.

    Raises:
        UsageError: So many that it must be a mistake, or seeds beside a swept ``train.seed``.
    """
    count = seeds
    for axis in axes:
        count *= len(axis.values)
    if count > _MAX_TRIALS:
        raise UsageError(f"{count:,} trials: more than a sweep takes ({_MAX_TRIALS:,})", hint="use --search --trials N")
    if seeds == 1:
        return [Trial(params) for params in combinations(axes)]
    if any(axis.key == "train.seed" for axis in axes):
        raise UsageError("--seeds and --grid train.seed exclude each other", hint="keep one of them")
    first = base.recipe.train.seed
    return [Trial(params, first + number) for number in range(seeds) for params in combinations(axes)]


def with_seeds(trials: Sequence[Trial], base: BaseRecipe) -> list[Trial]:
    """The trials; where some name their seed, those that do not name the recipe's, which they have."""
    if all(trial.seed is None for trial in trials):
        return list(trials)
    own = base.recipe.train.seed
    named = (trial.seed is not None or "train.seed" in trial.params for trial in trials)
    return [trial if is_named else replace(trial, seed=own) for trial, is_named in zip(trials, named, strict=True)]


def corner_trials(variables: Sequence[Variable]) -> list[Trial]:
    """Every combination of named choices, with all ranges at their low and then at their high ends."""
    axes = [variable for variable in variables if isinstance(variable, Axis)]
    ranges = [variable for variable in variables if isinstance(variable, Range)]
    corners = []
    for params in itertools.islice(combinations(axes), _MAX_CORNERS):
        for end in ("low", "high") if ranges else ("low",):
            corners.append(Trial(params | {each.key: repr(getattr(each, end)) for each in ranges}))
    return corners


def takes_whole_numbers(base: BaseRecipe, variable: Range, others: Trial) -> bool:
    """Whether the key is a count: both ends are whole and the recipe refuses what lies between whole numbers."""
    if not variable.has_whole_ends:
        return False
    try:
        base.recipe_of(Trial(others.params | {variable.key: repr(variable.middle)}))
    except RecipeError:
        return True
    return False


def check_trials(base: BaseRecipe, trials: Sequence[Trial], *, option: str) -> list[Recipe]:
    """The recipes of all trials.

    Args:
        option: What the choices were given with, for messages.

    Raises:
        RecipeError: One line for every mistake in any of them.
    """
    recipes: list[Recipe] = []
    lines: dict[str, list[Trial]] = {}
    for trial in trials:
        try:
            recipes.append(base.recipe_of(trial))
        except RecipeError as error:
            for line in error.message.splitlines():
                lines.setdefault(line, []).append(trial)
    if lines:
        lines_told = [_relabelled(line, blamed, trials, option) for line, blamed in lines.items()]
        if len(lines_told) > MAX_MISTAKES:
            lines_told[MAX_MISTAKES:] = [f"and {len(lines_told) - MAX_MISTAKES} more like these"]
        raise RecipeError("\n".join(lines_told), hint="no trial was started; see every key: distill recipe schema")
    _check_validation(recipes)
    return recipes


def _relabelled(line: str, blamed: Sequence[Trial], trials: Sequence[Trial], option: str) -> str:
    """The line with the option the user typed; a mistake of some combinations alone names one of them."""
    for override in blamed[0].overrides:
        start = f"--set {override}: "
        if line.startswith(start):
            line = f"{option} {override}: {line.removeprefix(start)}"
            with_it = sum(override in trial.overrides for trial in trials)
            if len(blamed) < with_it:
                others = ", ".join(text for text in blamed[0].overrides if text != override)
                return f"{line} (together with {others})"
    return line


def _check_validation(recipes: Sequence[Recipe]) -> None:
    """A folder may bring a validation split of its own, which is seen once it is loaded."""
    if any(recipe.data.val_fraction == 0 and not recipe.data.is_found_out for recipe in recipes):
        raise no_validation()


def no_validation() -> UsageError:
    """A sweep chooses by validation accuracy, because a choice by test accuracy would spoil the test set."""
    return UsageError(
        "a sweep chooses by validation accuracy, and data.val_fraction is 0: no image is left to validate on",
        hint="--set data.val_fraction=0.1; afterwards train the best recipe on everything",
    )


def check_networks(recipes: Sequence[Recipe]) -> None:
    """Refuse networks that are over the recipe's budget, or cannot be trained so, each told once.

    Raises:
        RecipeError: One line for each of them.
    """
    from distill.data.datasets import num_classes
    from distill.models import check_network

    seen, mistakes = set(), []
    for recipe in recipes:
        by_part = (recipe.optim.layer_decay, recipe.optim.backbone_lr_scale, recipe.train.freeze_backbone_epochs)
        what = (recipe.model.model_dump_json(), recipe.role, recipe.data.name, *by_part)
        if what in seen or recipe.data.is_found_out:
            continue
        seen.add(what)
        try:
            check_network(recipe, num_classes(recipe.data))
        except RecipeError as error:
            mistakes.append(error)
    if mistakes:
        hints = dict.fromkeys(error.hint for error in mistakes if error.hint)
        hint = next(iter(hints)) if len(hints) == 1 else None
        lines = dict.fromkeys(error.message for error in mistakes)
        raise RecipeError("\n".join(lines), hint=hint or "no trial was started")
