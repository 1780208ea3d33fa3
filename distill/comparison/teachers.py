"""The teacher that each run of a comparison is measured against: here as a run, or as the banks it left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from distill.comparison.banks import UNREADABLE, of_banks
from distill.comparison.entries import EvaluatedRun, message
from distill.comparison.reference import ReferenceTeacher, of_run
from distill.evaluation.assess import DatasetCache, assess
from distill.events import Event, Note
from distill.teaching.recorded import former_teacher, open_former_teacher

__all__ = ["find_teachers"]


def find_teachers(
    groups: Mapping[str, Sequence[EvaluatedRun]],
    runs_dir: Path,
    device: torch.device,
    data: DatasetCache,
    notes: list[str],
    *,
    wanted: Path | None = None,
) -> dict[str, ReferenceTeacher | None]:
    """A reference for each run: the teacher it learned from, else the one in the table that it can be measured against.

    One that was tested on other images, or knows other classes, is none: of two test sets neither accuracies nor
    answers can be compared.

    Args:
        wanted: The teacher, a run in the table, of those that learned from none.
    """
    shown = [
        (key, of_run(entry.recipe.data, entry.assessment))
        for key, group in groups.items()
        for entry in group
        if entry.recipe.role == "teacher" or entry.run.path.resolve() == wanted
    ]
    entries = [entry for group in groups.values() for entry in group]
    taught_from = {place.resolve() for entry in entries if (place := former_teacher(entry.run)) is not None}
    teachers: dict[str, ReferenceTeacher | None] = {}
    for entry in entries:
        reference = None
        if entry.recipe.role != "teacher" and entry.teacher is not None:
            reference = _taught_by(entry, runs_dir, device, data, notes)
        elif entry.recipe.role != "teacher":
            same = [(key, reference) for key, reference in shown if reference.saw(entry, data)]
            reference = _one_of(same, taught_from, entry, wanted, notes)
        teachers[str(entry.run.path)] = reference
    notes[:] = dict.fromkeys(notes)  # of several seeds one note is enough
    return teachers


def _one_of(
    same: Sequence[tuple[str, ReferenceTeacher]],
    taught_from: set[Path],
    entry: EvaluatedRun,
    wanted: Path | None,
    notes: list[str],
) -> ReferenceTeacher | None:
    """The teacher of one that learned from none: the one that was asked for, or that students in the table name."""
    if wanted is not None:
        chosen = [
            each for each in same if Path(each[1].name).resolve() == wanted and wanted != entry.run.path.resolve()
        ]
        if not chosen and wanted != entry.run.path.resolve():
            notes.append(f"{entry.recipe.name} and {wanted} were tested on different images: they are not compared")
        return chosen[0][1] if chosen else None
    pool = [each for each in same if Path(each[1].name).resolve() in taught_from] or list(same)
    if len({key for key, _ in pool}) > 1:
        names = ", ".join(reference.name for _, reference in pool)
        notes.append(f"{entry.recipe.name} is compared with no teacher: there are {names}; say which: --teacher RUN")
        return None
    return pool[-1][1] if pool else None


def _taught_by(
    entry: EvaluatedRun, runs_dir: Path, device: torch.device, data: DatasetCache, notes: list[str]
) -> ReferenceTeacher | None:
    about = entry.teacher or {}
    try:
        if (former := open_former_teacher(entry.run, runs_dir=runs_dir, device=device)) is not None:
            run, others = former
            if others:
                notes.append(
                    f"{entry.run.path}: {run} is no longer the teacher it learned from (other {others}): "
                    "neither their accuracies nor their answers are compared"
                )
                return None
            told: list[Event] = []
            assessment = assess(run, device=device, data=data, tell=told.append)
            warnings = [event.message for event in told if isinstance(event, Note) and event.level == "warning"]
            notes += [] if assessment.is_kept else warnings
            reference = of_run(run.recipe().data, assessment)
        elif about.get("onnx") is not None and "bank" not in about:
            notes.append(f"{entry.run.path}: its teacher, the file {about['onnx']}, left no bank: it is not compared")
            return None
        else:
            reference = of_banks(entry, data)
    except UNREADABLE as error:
        notes.append(f"{entry.run.path}: its teacher cannot be read ({message(error)})")
        return None
    if not reference.saw(entry, data):
        notes.append(
            f"{entry.run.path.parent} and its teacher {reference.name} were tested on different images: "
            "neither their accuracies nor their answers are compared"
        )
        return None
    return reference
