"""The first thing that a student says: whom it learns from, and whether there is anything to learn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from distill.errors import RunError
from distill.events import Note
from distill.pipeline.provenance import named_banks
from distill.recipe import Recipe
from distill.results.figures import Figures
from distill.runs.journal import is_number
from distill.teaching.bank import Bank
from distill.teaching.teacher_file import Teacher
from distill.text import brief, percent

__all__ = ["introduce", "is_guessing"]

_ERRORS = 3  # standard errors above chance that guessing reaches about once in seven hundred


@dataclass(frozen=True)
class _Teacher:
    """What is known of a teacher without asking it: ``images`` are those that it was validated on."""

    name: str
    weights: str
    classes: int
    val_top1: float | None
    images: int

    @property
    def line(self) -> str:
        validated = "not validated" if self.val_top1 is None else f"validation top-1 {percent(self.val_top1)} %"
        return f"{self.name} ({validated}, weights {brief(self.weights)})"


def introduce(recipe: Recipe, teacher: Teacher | None) -> list[Note]:
    """A line for each teacher, and a warning for one that is hardly better than guessing.

    Args:
        teacher: The run that ``recipe`` names; None where it names banks, or nobody.

    Raises:
        RunError: A bank is damaged.
    """
    if recipe.teacher is None:
        return []
    known = [_of_run(teacher)] if teacher else [_of_bank(Bank.read(path)) for path, _ in named_banks(recipe.teacher)]
    notes = []
    for each in known:
        notes.append(Note(f"teacher: {each.line}"))
        if each.val_top1 is not None and is_guessing(each.val_top1, classes=each.classes, images=each.images):
            chance = percent(1 / each.classes)
            notes.append(Note(f"{each.name} is hardly better than guessing: chance is {chance} %", "warning"))
    return notes


def is_guessing(top1: float, *, classes: int, images: int) -> bool:
    """Whether an accuracy is what guessing among ``classes`` may reach on so many images; False for 0: not known."""
    chance = 1 / classes
    return images > 0 and top1 <= chance + _ERRORS * math.sqrt(chance * (1 - chance) / images)


def _of_run(teacher: Teacher) -> _Teacher:
    if teacher.run is None:
        return _known(teacher.place, teacher.identity.weights, len(teacher.identity.classes), None, None)
    try:
        top1 = teacher.run.result("val_top1")["val_top1"]
    except RunError:  # a student needs no such file of its teacher
        top1 = None
    images = (teacher.run.info.data or {}).get("val")
    identity = teacher.identity
    return _known(str(teacher.run), identity.weights, len(identity.classes), top1, images)


def _of_bank(bank: Bank) -> _Teacher:
    record, weights = bank.info.teacher, bank.info.identity.weights
    figures = Figures() if record is None else record.figures
    name = f"{record.name if record else 'of no name'}, stored in {bank.path}"
    return _known(name, weights, len(bank.info.classes), figures.val_top1, figures.val_images)


def _known(name: str, weights: str, classes: int, top1: Any, images: Any) -> _Teacher:
    """Files that others wrote may hold anything."""
    accuracy = float(top1) if is_number(top1) else None
    return _Teacher(name, weights, classes, accuracy, images if isinstance(images, int) else 0)
