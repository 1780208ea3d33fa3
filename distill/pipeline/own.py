"""What Python hands over in the place of what a recipe names, and what a run keeps of code of the user's own."""

from __future__ import annotations

from typing import Any

from distill.code import code_sha256, find_code, is_handed_over, offer_code
from distill.data.own import offer_data
from distill.errors import MissingError, UsageError
from distill.events import Note, Tell
from distill.models.own import with_code_sha256, with_network
from distill.objectives.own import LOSS_KEY
from distill.recipe import Recipe
from distill.recipe.objectives import ObjectiveSpec, OwnLabelsObjective, OwnObjective, TaughtObjective
from distill.recipe.own import OwnLoss, OwnOptions
from distill.recipe.schema import DataSpec

__all__ = ["stating_code", "with_own"]


def with_own(recipe: Recipe, *, network: Any = None, data: Any = None, objective: Any = None) -> Recipe:
    """The recipe with what was handed over from Python in the place of its own; None changes nothing.

    Raises:
        UsageError: It is no network, or no loss.
        DataError: It is no data.
    """
    recipe = with_network(recipe, network)
    if objective is not None:
        recipe = recipe.model_copy(update={"objective": _with_loss(recipe.objective, objective)})
    if data is None:
        return recipe
    named = {"name": "python", "code": offer_data(data), "options": OwnOptions(), "code_sha256": None}
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=named)})


def _with_loss(spec: ObjectiveSpec, loss: Any) -> ObjectiveSpec:
    """A loss in the place of the main term; cross-entropy, where a teacher is asked, and added terms stay."""
    if not callable(loss):
        raise UsageError(f"objective: {type(loss).__name__}", hint="a function of student, teacher and labels")
    name = offer_code(loss)
    if isinstance(spec, OwnObjective | OwnLabelsObjective):
        return spec.model_copy(update={"name": name, "code_sha256": None})
    if not isinstance(spec, TaughtObjective):
        return OwnLabelsObjective(kind="python_labels", name=name)
    return OwnObjective(
        kind="python",
        name=name,
        ce_weight=spec.ce_weight,
        class_weights=spec.class_weights,
        add=tuple(each for each in spec.add if each.kind != "python"),
    )


def stating_code(recipe: Recipe, *, began: bool, tell: Tell) -> Recipe:
    """The recipe with the digests of the files of its own code; a run that goes on keeps those that it began with.

    Args:
        began: The recipe is that of a run that goes on.

    Raises:
        UsageError: Code may not run, or it raised.
        MissingError: It is not there.
    """
    now = {
        "model": with_code_sha256(recipe.model),
        "data": _data(recipe.data),
        "objective": _objective(recipe.objective),
    }
    if not began:
        return recipe.model_copy(update=now)
    for part, stated in now.items():
        if stated != getattr(recipe, part):
            tell(Note(f"{_named(part, stated)} has changed since this run began", "warning"))
    return recipe


def _data(spec: DataSpec) -> DataSpec:
    if spec.code is None:
        return spec
    try:
        digest = code_sha256(spec.code, find_code(spec.code, key="data.code"))
    except MissingError:
        if not is_handed_over(spec.code):
            raise
        return spec  # a run goes on with what was decoded of it
    return spec.model_copy(update={"code_sha256": digest})


def _objective(spec: ObjectiveSpec) -> ObjectiveSpec:
    if isinstance(spec, OwnLoss):
        spec = spec.model_copy(update={"code_sha256": code_sha256(spec.name, find_code(spec.name, key=LOSS_KEY))})
    if isinstance(spec, TaughtObjective) and any(isinstance(each, OwnLoss) for each in spec.add):
        spec = spec.model_copy(update={"add": tuple(_objective(each) for each in spec.add)})  # type: ignore[arg-type]
    return spec


def _named(part: str, spec: Any) -> str:
    """The key of a recipe, and the file that it stands for."""
    if part == "data":
        return f"data.code: the file of {spec.code}"
    return f"{part}.name: the file of {getattr(spec, 'name', 'an added term')}"
