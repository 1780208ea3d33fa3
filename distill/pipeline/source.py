"""A teacher that is ready to be asked, live or from a bank, and which of the two it is."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import torch

from distill.data.batches import steps_per_epoch
from distill.data.mixture import mixture_of
from distill.data.splits import Splits
from distill.data.views import view_checksum, views_of
from distill.errors import RunError, UsageError
from distill.events import Note, Tell
from distill.objectives import Asks
from distill.pipeline.provenance import about_bank, about_banks, about_run, named_banks
from distill.pipeline.runtime import choose_runtime
from distill.recipe import Recipe
from distill.runs import open_run
from distill.teaching.bank import Bank
from distill.teaching.bank_files import INFO
from distill.teaching.build import BuildCost, estimate, fill_bank, has_figures, new_bank, planned_view, pooled_features
from distill.teaching.key import BankKey, bank_key
from distill.teaching.live import LiveTeacher, WithPooled, compile_teacher
from distill.teaching.objective import TeacherSource
from distill.teaching.rounding import suited_dtype
from distill.teaching.runtime import Asked
from distill.teaching.stored import EnsembleTeacher, StoredTeacher
from distill.teaching.teacher_file import Teacher, TeacherFile
from distill.teaching.teacher_run import TeacherRun
from distill.team.shares import ALONE, Team
from distill.text import duration

__all__ = [
    "Source",
    "choose_how",
    "choose_logits",
    "ensure_bank",
    "find_teacher",
    "open_live",
    "open_source",
]

_AUTO_DISK_SHARE = 0.25  # auto never fills more of the free disk than this with a bank


@dataclass(frozen=True)
class Source:
    """A teacher that is ready to be asked.

    Attributes:
        about: What ``run.json`` keeps of it.
        run: The teacher's run, where that is here; None where only its answers are.
    """

    teacher: TeacherSource
    about: dict[str, Any]
    run: Teacher | None = None

    def check_answers(self) -> None:
        """Raise if an answer of a teacher that was asked live could not be learned from.

        Raises:
            RunError: It was not finite, or is not in ``teacher.logits_dtype``.
        """
        if isinstance(self.teacher, LiveTeacher):
            self.teacher.check_answers()

    def check_unchanged(self) -> None:
        """Raise if what was loaded of the teacher changed while it taught.

        Raises:
            RunError: It did.
        """
        if self.run is not None:
            self.run.check_unchanged()


def find_teacher(recipe: Recipe, *, runs_dir: Path, device: torch.device, classes: tuple[str, ...]) -> Teacher | None:
    """The run that ``recipe`` names as its teacher, not loaded, or the ONNX file; None where it names neither.

    Args:
        classes: The data's.

    Raises:
        RunError: There is no such finished run.
        UsageError: The file cannot teach them.
    """
    if recipe.teacher is not None and recipe.teacher.onnx is not None:
        return TeacherFile(recipe.teacher, classes)
    if recipe.teacher is None or recipe.teacher.run is None:
        return None
    run = open_run(recipe.teacher.run, runs_dir=runs_dir)
    return TeacherRun(run, device=device, precision=recipe.teacher.precision)


def choose_logits(recipe: Recipe, splits: Splits, teacher: Teacher | None, asks: Asks) -> tuple[Recipe, dict[str, Any]]:
    """Resolve ``teacher.logits`` and ``teacher.logits_dtype`` once; what they became and why goes to ``run.json``.

    Args:
        asks: What the objective wants to know of the teacher.

    Raises:
        UsageError: The teacher knows other classes than the data has.
        RunError: The teacher's answers are not finite.
    """
    if teacher is not None:
        teacher.require_classes(tuple(splits.dataset.classes))
    if recipe.teacher is not None:
        recipe = _with(recipe, features="pooled" if recipe.stored_features else "none")
    recipe, choices = choose_how(recipe, splits, teacher, asks)
    if recipe.teacher is None or recipe.teacher.logits != "auto":
        return recipe, choices
    how, why = ("bank", "a bank was named") if teacher is None else _live_or_bank(recipe, splits, teacher, asks)
    return _with(recipe, logits=how), choices | {"teacher.logits": how, "teacher.logits_why": why}


def choose_how(
    recipe: Recipe, splits: Splits, teacher: Teacher | None, asks: Asks | None = None, *, path: Path | None = None
) -> tuple[Recipe, dict[str, Any]]:
    """Resolve what the answers are rounded to, and what the teacher is asked through.

    Args:
        asks: What the objective wants to know; None: logits alone.
        path: Of the bank that is built; None: the teacher's own, or none.

    Raises:
        RunError: The teacher's answers are not finite.
        UsageError: It cannot be asked through the runtime that is named.
    """
    recipe, dtype = choose_dtype(recipe, splits, teacher)
    features = bool(asks and asks.features) or _stores(recipe)
    recipe, runtime = choose_runtime(recipe, splits, teacher, features=features, path=path)
    return recipe, dtype | runtime


def _stores(recipe: Recipe) -> bool:
    return recipe.teacher is not None and recipe.stored_features


def choose_dtype(recipe: Recipe, splits: Splits, teacher: Teacher | None) -> tuple[Recipe, dict[str, Any]]:
    """Resolve ``teacher.logits_dtype: auto``, for banks and asking live alike: by how large the teacher's logits are.

    Of banks that are named it is theirs; where those differ it stays ``auto``, and each is as it is.

    Raises:
        RunError: The teacher's answers are not finite.
    """
    if recipe.teacher is None or recipe.teacher.logits_dtype != "auto":
        return recipe, {}
    if teacher is None:
        dtypes = {Bank.read(path).info.key.dtype for path, _ in named_banks(recipe.teacher)}
        return (_with(recipe, logits_dtype=dtypes.pop()) if len(dtypes) == 1 else recipe), {}
    dtype = suited_dtype(teacher.largest_logit(splits, threads=recipe.asking_threads))
    return _with(recipe, logits_dtype=dtype), {"teacher.logits_dtype": dtype}


def _with(recipe: Recipe, **changes: Any) -> Recipe:
    assert recipe.teacher is not None
    return recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update=changes)})


def _live_or_bank(recipe: Recipe, splits: Splits, teacher: Teacher, asks: Asks) -> tuple[Literal["live", "bank"], str]:
    """What ``teacher.logits: auto`` becomes, and why."""
    if asks.features and not recipe.stored_features:
        return "live", f"the objective asks for features, which a bank has not: {', '.join(asks.features)}"
    views, epochs = views_of(recipe.augment, recipe.train.epochs), recipe.train.epochs
    key = bank_key(recipe, splits, teacher.identity)
    path = teacher.bank_path(key)
    if (path / INFO).is_file() and Bank.read(path).info.views >= views:
        return "bank", f"a bank with {views} views is there: {path}"
    if not os.access(next(each for each in (path, *path.parents) if each.exists()), os.W_OK):
        return "live", f"no bank can be written below {teacher.home}"
    width = len(teacher.identity.classes) + pooled_features(recipe, _recipe_of(teacher))
    disk = views * len(splits.train) * width * (2 if key.dtype == "float16" else 4)
    if disk > _AUTO_DISK_SHARE * shutil.disk_usage(teacher.home).free:
        return "live", f"a bank would take {disk / 1e9:.1f} GB, over a quarter of the free disk"
    if views * len(splits.train) > epochs * mixture_of(recipe, splits).images:
        return "live", f"a bank of {views} views asks the teacher more often than {epochs} epochs do"
    if views == epochs and recipe.train.early_stopping is not None:
        return "live", "the run may stop early, a bank is built whole"
    return "bank", f"{views} views for {epochs} epochs: asked once, and the next student asks nothing"


def open_source(
    recipe: Recipe,
    splits: Splits,
    teacher: Teacher | None,
    *,
    asks: Asks,
    device: torch.device,
    tell: Tell,
    team: Team = ALONE,
) -> Source:
    """What ``recipe`` learns from: its teacher, loaded, or a bank, which is built first where it is missing.

    Several processes call this alike, and build that bank together.

    Args:
        teacher: From :func:`find_teacher`. With a bank that is complete it stays unloaded.
    """
    assert recipe.teacher is not None
    if teacher is None:
        return _from_banks(recipe, splits, device=device)
    if recipe.teacher.logits == "live":
        live = open_live(recipe, teacher, asks)
        if isinstance(teacher, TeacherRun):
            train = recipe.train
            steps = train.epochs * steps_per_epoch(mixture_of(recipe, splits).images, train.batch_size, team.world)
            compile_teacher(teacher.trained, train, batches=steps * train.accumulate)
        return live
    views = views_of(recipe.augment, recipe.train.epochs)
    bank = ensure_bank(teacher, splits, recipe, views=views, tell=tell, team=team)
    return Source(_stored(bank, recipe, splits, device=device), about_run(teacher) | about_bank(bank, views), teacher)


def _stored(bank: Bank, recipe: Recipe, splits: Splits, *, device: torch.device) -> StoredTeacher:
    """The bank's answers, after a look whether its views were drawn as they are drawn now."""
    views = views_of(recipe.augment, recipe.train.epochs)
    for number in {0, views - 1}:
        view = planned_view(recipe.augment, n=len(splits.train), image_size=recipe.data.side, number=number)
        if view_checksum(view) != bank.info.plans[number]:
            raise UsageError(
                f"{bank.path} does not fit this recipe: view {number} was drawn otherwise, by another distill",
                hint=f"build it again: distill cache clear {bank.path}, then distill cache build",
            )
    return StoredTeacher(bank, device=device, views=views)


def open_live(recipe: Recipe, teacher: Teacher, asks: Asks) -> Source:
    """The teacher itself, loaded, to be asked at every step."""
    threads = recipe.asking_threads
    source = LiveTeacher(
        teacher.trained,
        logits_dtype=recipe.logits_dtype,
        threads=threads,
        features=asks.features,
        asked=None if asks.features else teacher.asked(recipe.asking_runtime, threads=threads),
    )
    return Source(source, about_run(teacher) | {"logits": "live"}, teacher)


def ensure_bank(
    teacher: Teacher,
    splits: Splits,
    recipe: Recipe,
    *,
    views: int,
    path: Path | None = None,
    renew_figures: bool = False,
    tell: Tell,
    team: Team = ALONE,
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
    asked = cache(partial(_asked, recipe, teacher))
    if not team.broadcast(bank is not None and _is_complete(bank, splits, views, renew_figures)):
        if team.rank == 0:
            there = bank.info.views if bank else 0
            if there < views:
                cost = estimate(teacher.trained, splits, recipe, views=views - there, asked=asked())
                _say_cost(path, views - there, replace(cost, seconds=cost.seconds / team.world), tell)
            features = pooled_features(recipe, _recipe_of(teacher))
            bank = bank or new_bank(path, key, splits, recipe, teacher.device, features=features)
        for event in fill_bank(bank, teacher.trained, splits, recipe, views=views, team=team, asked=asked()):
            tell(event)
        team.broadcast(None)  # all wait until the first one has written the last view
    bank = bank or Bank.open(path)
    bank.require(key, views=views, teachers_own=True)  # what another process began here meanwhile, too
    return bank


def _recipe_of(teacher: Teacher) -> Recipe | None:
    return None if teacher.run is None else teacher.run.recipe()


def _asked(recipe: Recipe, teacher: Teacher) -> Asked:
    """The teacher as a bank's answers are asked of it."""
    if recipe.stored_features and isinstance(teacher, TeacherRun):
        return WithPooled(teacher.trained)
    return teacher.asked(recipe.asking_runtime, threads=recipe.asking_threads)


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
    tell(Note(f"building {path}: {views} view{'' if views == 1 else 's'}, about {duration(cost.seconds)}, {size}"))


def _from_banks(recipe: Recipe, splits: Splits, *, device: torch.device) -> Source:
    assert recipe.teacher is not None
    banks = [(Bank.open(path), weight) for path, weight in named_banks(recipe.teacher)]
    views = views_of(recipe.augment, recipe.train.epochs)
    for bank, _ in banks:
        bank.require(_students_key(recipe, splits, bank), views=views, teachers_own=False)
        if bank.info.classes != tuple(splits.dataset.classes):
            raise UsageError(f"{bank.path} does not fit this recipe: its classes are not those of the data")
    sources = [_stored(bank, recipe, splits, device=device) for bank, _ in banks]
    source = sources[0] if len(sources) == 1 else EnsembleTeacher(sources, [weight for _, weight in banks])
    return Source(source, about_banks(banks, views))


def _students_key(recipe: Recipe, splits: Splits, bank: Bank) -> BankKey:
    """What a student far from the teacher can know of the key; a dtype that it leaves open is the bank's."""
    assert recipe.teacher is not None
    is_open = recipe.teacher.logits_dtype == "auto"
    return bank_key(recipe, splits, None, dtype=bank.info.key.dtype if is_open else None)
