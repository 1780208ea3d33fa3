"""A run's objective, made before its folder is: what cannot be learned from a teacher is found here."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from distill.data.splits import Splits
from distill.models.taps import POOLED, stage_shapes
from distill.objectives import Objective, Setting, build_objective
from distill.pipeline.provenance import named_banks
from distill.recipe import Recipe
from distill.recipe.objectives import FeatureTerm, SupervisedObjective
from distill.teaching.bank import Bank
from distill.teaching.teacher_file import Teacher
from distill.train.seeds import derive_seed

__all__ = ["find_objective"]


def find_objective(recipe: Recipe, splits: Splits, teacher: Teacher | None, *, devices: int = 1) -> Objective:
    """What ``recipe`` minimises, for its own network and its teacher's; no network is loaded.

    Args:
        devices: How many processes will train.

    Raises:
        RecipeError: A network has no such stage, or two cannot be compared.
    """
    return build_objective(
        recipe.objective,
        _setting(recipe, splits, teacher, devices),
        label_smoothing=recipe.train.label_smoothing,
    )


def _setting(recipe: Recipe, splits: Splits, teacher: Teacher | None, devices: int) -> Setting:
    seed, spec = derive_seed(recipe.train.seed, "objective"), recipe.objective
    if isinstance(spec, SupervisedObjective) or not any(isinstance(term, FeatureTerm) for term in spec.terms):
        return Setting(seed=seed, devices=devices)
    return Setting(
        student=stage_shapes(recipe.model, len(splits.dataset.classes)),
        teacher=_teachers(recipe, teacher),
        labels=torch.from_numpy(splits.train.labels.copy()).long(),
        seed=seed,
        devices=devices,
    )


def _teachers(recipe: Recipe, teacher: Teacher | None) -> Mapping[str, tuple[int, ...]]:
    """Of a teacher that is not here: the pooled features in its bank; of several teachers, and of a file, none."""
    if teacher is None:
        assert recipe.teacher is not None
        counts = [Bank.read(path).info.features for path, _ in named_banks(recipe.teacher)]
        return {POOLED: (counts[0],)} if len(counts) == 1 and counts[0] else {}
    if teacher.run is None:
        return {}
    return stage_shapes(teacher.run.recipe().model, len(teacher.identity.classes))
