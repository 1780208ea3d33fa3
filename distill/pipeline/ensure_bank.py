"""The bank that a teacher has for a recipe: found, or built as far as it is missing, by all processes together."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from distill.data.splits import Splits
from distill.errors import RunError
from distill.events import Note, Tell
from distill.recipe import Recipe
from distill.teaching.bank import Bank
from distill.teaching.bank_files import INFO
from distill.teaching.build import BuildCost, estimate, fill_bank, has_figures, new_bank, pooled_features
from distill.teaching.key import bank_key
from distill.teaching.live import WithPooled
from distill.teaching.runtime import Forward
from distill.teaching.teacher_file import Teacher
from distill.teaching.teacher_run import TeacherRun
from distill.team.shares import SINGLE_PROCESS, Team
from distill.text import counted, duration

__all__ = ["ensure_bank"]


def ensure_bank(
    teacher: Teacher,
    splits: Splits,
    recipe: Recipe,
    *,
    views: int,
    path: Path | None = None,
    renew_figures: bool = False,
    tell: Tell,
    team: Team = SINGLE_PROCESS,
) -> Bank:
    """The bank of this teacher for this recipe, with ``views`` views at least; what is missing is built.

    Says first what that will cost. Several processes call this alike. A bank that is complete is opened once in each,
    and the teacher is not loaded.

    Args:
        renew_figures: Measure the teacher again where the bank has its figures on other test images than are here now.

    Raises:
        RunError: The disk has too little room, or the bank that is there is damaged.
        UsageError: ``path`` holds a bank of something else.
    """
    key = bank_key(recipe, splits, teacher.identity)
    path = path or teacher.bank_path(key)
    bank = None
    if team.rank == 0 and (path / INFO).is_file():
        bank = Bank.open(path)
        bank.require(key, views=0, teachers_own=True)
        bank.clear_dead()
    forward = cache(partial(_forward, recipe, teacher))
    if not team.broadcast(bank is not None and _is_complete(bank, splits, views, renew_figures)):
        if team.rank == 0:
            there = bank.info.views if bank else 0
            if there < views:
                cost = estimate(teacher.trained, splits, recipe, views=views - there, forward=forward())
                _say_cost(path, views - there, replace(cost, seconds=cost.seconds / team.world_size), tell)
            features = pooled_features(recipe, teacher.recipe)
            bank = bank or new_bank(path, key, splits, recipe, teacher.device, features=features)
        for event in fill_bank(bank, teacher.trained, splits, recipe, views=views, team=team, forward=forward()):
            tell(event)
        team.broadcast(None)  # all wait until the first one has written the last view
    bank = bank or Bank.open(path)
    bank.require(key, views=views, teachers_own=True)  # what another process began here meanwhile, too
    return bank


def _is_complete(bank: Bank, splits: Splits, views: int, renew_figures: bool) -> bool:
    figures = has_figures(bank, splits) if renew_figures else bank.info.teacher is not None
    return figures and bank.info.views >= views


def _say_cost(path: Path, views: int, cost: BuildCost, tell: Tell) -> None:
    size = f"{cost.disk_bytes / 1e6:,.1f} MB"
    free = shutil.disk_usage(next(folder for folder in path.absolute().parents if folder.is_dir())).free
    if cost.disk_bytes > free:
        raise RunError(
            f"{path} would take {size}, and {free / 1e6:,.1f} MB are free there",
            hint="fewer views (--set augment.views=N), or ask at every step: --set teacher.logits=live",
        )
    tell(Note(f"building {path}: {counted(views, 'view')}, about {duration(cost.seconds)}, {size}"))


def _forward(recipe: Recipe, teacher: Teacher) -> Forward:
    """The teacher as a bank's answers are asked of it."""
    if recipe.stored_features and isinstance(teacher, TeacherRun):
        return WithPooled(teacher.trained)
    return teacher.forward_through(recipe.teacher_runtime, threads=recipe.teacher_threads)
