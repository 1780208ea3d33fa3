"""Several teachers, each named by its run: their banks are built first, and stand in the recipe in their place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from distill.data.splits import Splits
from distill.pipeline.banks import build_bank
from distill.pipeline.context import Options
from distill.pipeline.image_size import resolve_image_size
from distill.recipe import Recipe
from distill.recipe.schema import BankSpec

__all__ = ["first_member", "with_banks"]


def with_banks(recipe: Recipe, options: Options, *, splits: Splits | None = None) -> Recipe:
    """The recipe with the folder of a bank where ``teacher.banks`` names a run; what is missing is built.

    Args:
        recipe: From :func:`resolve_teacher`.
        splits: The recipe's data where it is loaded already.

    Raises:
        DistillError: A bank cannot be built, as :func:`build_bank` says.
    """
    if not _names_runs(recipe):
        return recipe
    here = replace(options, init_from=None, track=())
    recipe = resolve_image_size(recipe, runs_dir=options.runs_dir, tell=options.tell, splits=splits)  # one for all
    assert recipe.teacher is not None
    banks = tuple(_stored(bank, recipe, here, splits) for bank in recipe.teacher.banks)
    # how they are asked is settled: each bank says it
    teacher = recipe.teacher.model_copy(update={"banks": banks, "precision": "auto", "runtime": "auto"})
    return recipe.model_copy(update={"teacher": teacher})


def _stored(bank: BankSpec, recipe: Recipe, options: Options, splits: Splits | None) -> BankSpec:
    if bank.run is None:
        return bank
    built = build_bank(recipe, teacher=bank.run, splits=splits, options=options)
    return BankSpec(path=str(Path(built.path).absolute()), weight=bank.weight)


def first_member(recipe: Recipe) -> Recipe:
    """The recipe with the first of its runs as its only teacher, where nothing is to be built."""
    if not _names_runs(recipe):
        return recipe
    assert recipe.teacher is not None
    alone = {"run": recipe.teacher.members[0], "banks": ()}
    return recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update=alone)})


def _names_runs(recipe: Recipe) -> bool:
    return recipe.teacher is not None and bool(recipe.teacher.members)
