"""At which size images are kept, where a recipe leaves it open: ``data.image_size: auto``."""

from __future__ import annotations

from pathlib import Path

from distill.data.splits import Splits
from distill.data.survey import Survey, survey
from distill.errors import RunError
from distill.events import Note, Tell
from distill.models.onnx_teacher import about_file
from distill.recipe import Recipe
from distill.runs import open_run
from distill.teaching.bank import Bank
from distill.text import duration

__all__ = ["LOSES_DETAIL", "resolve_image_size"]

LOSES_DETAIL = 1.25
"""Pictures so many times as large as they are kept lose detail that a network would see."""

_MIN_SIDE, _MAX_SIDE = 8, 1024  # as the schema's


def resolve_image_size(recipe: Recipe, *, runs_dir: Path, tell: Tell, splits: Splits | None = None) -> Recipe:
    """The recipe with ``data.image_size`` as a number, and what that means told.

    ``auto`` is the images' own side for the data sets that come by name. For pictures it is the teacher's size where
    there is a teacher (a stored answer fits the image it was given for; of several runs the largest, as all are asked
    about the same images), else the pictures' own, at most what the model takes.

    Args:
        splits: The data, where it is loaded already: its size is the answer.

    Raises:
        MissingError, DataError: The pictures cannot be looked at.
        RunError: The teacher cannot be opened.
    """
    data, takes = recipe.data, recipe.model.input_size
    if splits is not None:
        return _with(recipe, splits.train.image_size)
    if not data.is_found_out:
        return _with(recipe, data.side)
    if data.image_size != "auto" and data.side >= takes:
        return recipe  # nothing is enlarged: there is nothing to say, and no need to look
    seen = survey(data)
    if data.image_size != "auto":
        _warn_of_enlarging(data.side, takes, seen, tell)
        return recipe
    taught = _teachers_size(recipe, runs_dir)
    side = taught or max(_MIN_SIDE, min(seen.side, takes, _MAX_SIDE))
    why = "as its teacher's" if taught else "what the model takes" if side == takes else "what the pictures have"
    cost = f"{seen.images:,} images: {seen.memory_mb(side):,.0f} MB of memory, decoded once"
    time = f" in about {duration(seen.decode_all_s)}" if seen.decode_all_s >= 1 else ""
    pictures = f"pictures of {seen.side} pixels (the shorter side, median)"
    tell(Note(f"data.image_size: auto: {pictures} are kept at {side}, {why}; {cost}{time}"))
    _warn_of_enlarging(side, takes, seen, tell)
    return _with(recipe, side)


def _with(recipe: Recipe, side: int) -> Recipe:
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"image_size": side})})


def _teachers_size(recipe: Recipe, runs_dir: Path) -> int | None:
    teacher = recipe.teacher
    if teacher is None:
        return None
    if teacher.onnx is not None:
        if teacher.input is not None:
            return teacher.input.size
        about = about_file(Path(teacher.onnx))
        return about.image_size if about else None
    stored = [path for path in (teacher.bank, *(bank.path for bank in teacher.banks)) if path is not None]
    if stored:  # of a size that nobody can change
        try:
            return Bank.open(Path(stored[0])).info.key.image_size
        except RunError:  # told by whoever reads it
            return None
    runs = teacher.members if teacher.run is None else (teacher.run,)
    sides: list[int] = [open_run(run, runs_dir=runs_dir).recipe().data.side for run in runs]
    return max(sides)


def _warn_of_enlarging(side: int, takes: int, seen: Survey, tell: Tell) -> None:
    if side >= takes:
        return
    if side < seen.side <= LOSES_DETAIL * side:
        return
    if seen.side > side:
        loss = f"pictures of {seen.side} pixels are kept at {side} and enlarged to {takes}: detail is lost"
        tell(Note(f"{loss}; keep it with --set data.image_size={min(takes, seen.side)}", "warning"))
    else:
        tell(Note(f"pictures of {seen.side} pixels are enlarged to the {takes} that the model takes", "warning"))
