"""A run's objective, made before its folder is: what cannot be learned from a teacher is found here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from distill.data.splits import Splits
from distill.data.streams import derive_seed
from distill.errors import RecipeError
from distill.models.taps import POOLED, stage_shapes
from distill.objectives import Objective, TermContext, build_objective, resolve_class_weights
from distill.pipeline.provenance import named_banks
from distill.recipe import Recipe
from distill.recipe.model_specs import ModelSpec
from distill.runs import open_run
from distill.teaching.bank import Bank
from distill.teaching.teacher_file import Teacher

__all__ = ["find_objective", "resolve_reuse"]


def find_objective(recipe: Recipe, splits: Splits, teacher: Teacher | None, *, devices: int = 1) -> Objective:
    """What ``recipe`` minimises, for its own network and its teacher's; no network is loaded.

    Args:
        devices: How many processes will train.

    Raises:
        RecipeError: A network has no such stage, or two cannot be compared; there are not as many class weights as
            classes.
    """
    return build_objective(
        recipe.objective,
        _term_context(recipe, splits, teacher, devices),
        label_smoothing=recipe.train.label_smoothing,
        class_weights=resolve_class_weights(
            recipe.objective.class_weights, splits.labelled.labels, splits.dataset.classes
        ),
        unlabelled=splits.unlabelled is not None,
    )


def resolve_reuse(recipe: Recipe, *, runs_dir: Path) -> Recipe:
    """The recipe with ``model.reuse`` as wide as the classifier of its teacher, where the objective reuses that.

    Raises:
        RunError: The teacher is not there.
        RecipeError: Its teacher is no run, or its network has no place for a projector.
    """
    if recipe.objective.kind != "simkd":
        return recipe
    if not recipe.model.widths:  # what was cut ended in a projector before
        _require_place(recipe.model)
    if recipe.model.reuse is not None:
        return recipe
    if recipe.teacher is None or recipe.teacher.run is None:  # named outside of the recipe
        raise RecipeError(
            "objective simkd reuses its teacher's classifier, which only a run has", hint="name one: --teacher RUN"
        )
    run = open_run(recipe.teacher.run, runs_dir=runs_dir)
    (width, *_) = stage_shapes(run.recipe().model, len(run.classes))[POOLED]
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"reuse": width})})


def _require_place(spec: ModelSpec) -> None:
    """What the last stage leaves, averaged, is what the classifier takes: the projector can stand between them."""
    shapes = stage_shapes(spec.model_copy(update={"reuse": None}), 10)  # whatever its classes are
    stages, pooled = [name for name in shapes if name.startswith("stage")], shapes.get(POOLED)
    if not stages or len(shapes[stages[-1]]) != 3 or pooled != shapes[stages[-1]][:1]:
        told = ", ".join(f"{name} {shapes[name]}" for name in (*stages[-1:], POOLED) if name in shapes) or "no stages"
        raise RecipeError(
            f"objective simkd puts a projector between a last map and its average, and {spec.name} has {told}",
            hint="learn from features otherwise: objective fitnet, at, reviewkd; or another network",
        )


def _term_context(recipe: Recipe, splits: Splits, teacher: Teacher | None, devices: int) -> TermContext:
    seed, spec = derive_seed(recipe.train.seed, "objective"), recipe.objective
    mixes = recipe.augment.mixup.alpha > 0 or recipe.augment.cutmix.alpha > 0
    context = TermContext(seed=seed, devices=devices, classes=len(splits.dataset.classes), mixes=mixes)
    if not any(term.asks_features for term in spec.terms):
        return context
    return replace(
        context,
        student=stage_shapes(recipe.model, len(splits.dataset.classes), preact=True),
        teacher=_teachers(recipe, teacher),
        labels=torch.from_numpy(splits.train.labels.copy()).long(),
    )


def _teachers(recipe: Recipe, teacher: Teacher | None) -> Mapping[str, tuple[int, ...]]:
    """Of a teacher that is not here: the pooled features in its bank; of several teachers, and of a file, none."""
    if teacher is None:
        assert recipe.teacher is not None
        counts = [Bank.read(path).info.features for path, _ in named_banks(recipe.teacher)]
        return {POOLED: (counts[0],)} if len(counts) == 1 and counts[0] else {}
    if teacher.run is None:
        return {}
    return stage_shapes(teacher.run.recipe().model, len(teacher.identity.classes), preact=True)
