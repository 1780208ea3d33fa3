"""A teacher that is ready to be asked, live or from its bank."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distill.data.batches import steps_per_epoch
from distill.data.mixture import mixture_of
from distill.data.splits import Splits
from distill.data.views import view_checksum
from distill.errors import NoRunError, RunError, UsageError
from distill.events import Tell
from distill.objectives import RequiredOutputs
from distill.pipeline.ensure_bank import ensure_bank
from distill.pipeline.provenance import about_bank, about_banks, named_banks, teacher_record
from distill.pipeline.taught import taught_epochs, taught_views
from distill.recipe import Recipe
from distill.runs import open_run
from distill.teaching.bank import Bank
from distill.teaching.build import planned_view
from distill.teaching.key import BankKey, bank_key
from distill.teaching.live import LiveTeacher, compile_teacher
from distill.teaching.objective import TeacherSource
from distill.teaching.stored import EnsembleTeacher, StoredTeacher
from distill.teaching.teacher_file import Teacher, TeacherFile
from distill.teaching.teacher_run import TeacherRun
from distill.team.shares import SINGLE_PROCESS, Team

__all__ = [
    "OpenedTeacher",
    "find_teacher",
    "open_live",
    "open_source",
]


@dataclass(frozen=True)
class OpenedTeacher:
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
    try:
        run = open_run(recipe.teacher.run, runs_dir=runs_dir)
    except NoRunError as error:  # it was there when the run began
        raise RunError(
            f"the teacher of {recipe.name} is gone: {error.message}",
            hint=f"restore {recipe.teacher.run}; or start a new run with another: --teacher RUN",
        ) from error
    return TeacherRun(run, device=device, precision=recipe.teacher.precision)


def open_source(
    recipe: Recipe,
    splits: Splits,
    teacher: Teacher | None,
    *,
    requires: RequiredOutputs,
    device: torch.device,
    tell: Tell,
    team: Team = SINGLE_PROCESS,
) -> OpenedTeacher:
    """What ``recipe`` learns from: its teacher, loaded, or a bank, which is built first where it is missing.

    Several processes call this alike, and build that bank together.

    Args:
        teacher: From :func:`find_teacher`. With a bank that is complete it stays unloaded.
    """
    assert recipe.teacher is not None
    if teacher is None:
        return _from_banks(recipe, splits, device=device)
    if recipe.teacher.logits == "live":
        live = open_live(recipe, teacher, requires)
        if isinstance(teacher, TeacherRun):
            train = recipe.train
            steps = steps_per_epoch(mixture_of(recipe, splits).images, train.batch_size, team.world_size)
            compile_teacher(teacher.trained, train, batches=taught_epochs(recipe) * steps * train.accumulate)
        return live
    views = taught_views(recipe)
    bank = ensure_bank(teacher, splits, recipe, views=views, tell=tell, team=team)
    return OpenedTeacher(
        _stored(bank, recipe, splits, device=device), teacher_record(teacher) | about_bank(bank, views), teacher
    )


def _stored(bank: Bank, recipe: Recipe, splits: Splits, *, device: torch.device) -> StoredTeacher:
    """The bank's answers, after a look whether its views were drawn as they are drawn now."""
    views = taught_views(recipe)
    for number in {0, views - 1}:
        view = planned_view(recipe.augment, n=len(splits.train), image_size=recipe.data.side, number=number)
        if view_checksum(view) != bank.info.plans[number]:
            raise UsageError(
                f"{bank.path} does not fit this recipe: view {number} was drawn otherwise, by another distill",
                hint=f"build it again: distill cache clear {bank.path}, then distill cache build",
            )
    return StoredTeacher(bank, device=device, views=views)


def open_live(recipe: Recipe, teacher: Teacher, requires: RequiredOutputs) -> OpenedTeacher:
    """The teacher itself, loaded, to be asked at every step."""
    threads = recipe.teacher_threads
    source = LiveTeacher(
        teacher.trained,
        logits_dtype=recipe.logits_dtype,
        threads=threads,
        features=requires.teacher_features,
        forward=None if requires.teacher_features else teacher.forward_through(recipe.teacher_runtime, threads=threads),
    )
    return OpenedTeacher(source, teacher_record(teacher) | {"logits": "live"}, teacher)


def _from_banks(recipe: Recipe, splits: Splits, *, device: torch.device) -> OpenedTeacher:
    assert recipe.teacher is not None
    banks = [(Bank.open(path), weight) for path, weight in named_banks(recipe.teacher)]
    views = taught_views(recipe)
    for bank, _ in banks:
        bank.require(_students_key(recipe, splits, bank), views=views, teachers_own=False)
        if bank.info.classes != splits.dataset.classes:
            raise UsageError(f"{bank.path} does not fit this recipe: its classes are not those of the data")
    sources = [_stored(bank, recipe, splits, device=device) for bank, _ in banks]
    source = sources[0] if len(sources) == 1 else EnsembleTeacher(sources, [weight for _, weight in banks])
    return OpenedTeacher(source, about_banks(banks, views))


def _students_key(recipe: Recipe, splits: Splits, bank: Bank) -> BankKey:
    """What a student far from the teacher can know of the key; a dtype that it leaves open is the bank's."""
    assert recipe.teacher is not None
    is_open = recipe.teacher.logits_dtype == "auto"
    return bank_key(recipe, splits, None, dtype=bank.info.key.dtype if is_open else None)
