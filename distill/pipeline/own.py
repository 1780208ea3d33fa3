"""What Python hands over in the place of what a recipe names, and what a run keeps of code of the user's own."""

from __future__ import annotations

from typing import Any

from distill.code import code_sha256, find_code, is_handed_over
from distill.data.own import offer_data
from distill.errors import MissingError
from distill.events import Note, Tell
from distill.models.own import with_code_sha256, with_network
from distill.recipe import Recipe
from distill.recipe.own import OwnOptions
from distill.recipe.schema import DataSpec

__all__ = ["stating_code", "with_own"]


def with_own(recipe: Recipe, *, network: Any = None, data: Any = None) -> Recipe:
    """The recipe with what was handed over from Python in the place of its own; None changes nothing.

    Raises:
        UsageError: It is no network.
        DataError: It is no data.
    """
    recipe = with_network(recipe, network)
    if data is None:
        return recipe
    named = {"name": "python", "code": offer_data(data), "options": OwnOptions(), "code_sha256": None}
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=named)})


def stating_code(recipe: Recipe, *, began: bool, tell: Tell) -> Recipe:
    """The recipe with the digests of the files of its own code; a run that goes on keeps those that it began with.

    Args:
        began: The recipe is that of a run that goes on.

    Raises:
        UsageError: Code may not run, or it raised.
        MissingError: It is not there.
    """
    now = {"model": with_code_sha256(recipe.model), "data": _data(recipe.data)}
    if not began:
        return recipe.model_copy(update=now)
    for part, stated in now.items():
        if stated != getattr(recipe, part):
            tell(Note(f"{part}: the file of {_reference(stated)} has changed since this run began", "warning"))
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


def _reference(spec: Any) -> str:
    return str(getattr(spec, "code", None) or spec.name)
