"""Settings that a run cannot follow, or not to their end: each is told when it begins."""

from __future__ import annotations

from collections.abc import Iterator

from distill.recipe import Recipe
from distill.train.schedule import has_momentum, of_training

__all__ = ["cautions"]


def cautions(recipe: Recipe, *, validates: bool) -> Iterator[str]:
    """A line for each of them.

    Args:
        validates: Whether there are images to validate on: a folder may bring too few.
    """
    yield from _of_the_schedule(recipe, validates)
    epochs = recipe.train.epochs
    if recipe.train.early_stopping is not None and not validates:
        yield (
            "train.early_stopping watches validation, and there are no images to validate on: the run does not "
            f"stop before epoch {epochs}"
        )
    for term in recipe.objective.terms:
        if term.ramp_epochs > epochs:
            yield (
                f"objective {term.kind}: ramp_epochs {term.ramp_epochs} is longer than the run: "
                f"its weights end at {epochs / term.ramp_epochs:.0%} of what the recipe says"
            )


def _of_the_schedule(recipe: Recipe, validates: bool) -> Iterator[str]:
    schedule, epochs = recipe.schedule, recipe.train.epochs
    if schedule.kind == "one_cycle" and schedule.cycle_momentum and not has_momentum(recipe.optim):
        yield f"schedule.cycle_momentum: {recipe.optim.name} has no momentum to cycle"
    warmup = getattr(schedule, "warmup_epochs", 0)
    if warmup > epochs:
        yield f"schedule.warmup_epochs {warmup:g} is longer than the run: shortened to {epochs}"
    elif warmup == epochs:
        yield f"schedule.warmup_epochs {warmup:g} is the whole run: it ends at its highest rate"
    late = [each for each in getattr(schedule, "milestones", ()) if each >= epochs]
    if late:
        yield f"schedule.milestones: the run ends at epoch {epochs}, and never comes to {', '.join(map(str, late))}"
    if schedule.kind == "plateau" and not validates:
        yield (
            f"schedule plateau watches {schedule.monitor}, and there are no images to validate on: "
            f"it watches {of_training(schedule.monitor)}"
        )
