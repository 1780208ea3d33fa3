"""Rows beside one another: which were tested on the same images, and how each compares with its teacher's row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from distill.comparison.entries import EvaluatedModel, EvaluatedRun
from distill.comparison.reference import ReferenceTeacher, of_run
from distill.evaluation.assess import DatasetCache
from distill.results.rows import Row
from distill.text import several

__all__ = ["beside", "beside_teachers", "image_sets", "other_images_notes"]

_DIGITS = 12  # of a digest, as messages show it


def image_sets(groups: Mapping[str, Sequence[EvaluatedModel]], sets: DatasetCache) -> dict[str, str | None]:
    """A name for the test images of each row: equal where they are the same, decoded at whatever size."""
    known: list[tuple[str, EvaluatedModel, ReferenceTeacher]] = []
    contents: dict[str, str | None] = {}
    for key, group in groups.items():
        entry = group[-1]
        mine = of_run(entry.recipe.data, entry.assessment)
        name = next((name for name, other, reference in known if _are_same(other, entry, reference, sets)), None)
        if name is None and mine.content is not None:
            name = mine.content[:_DIGITS]
            known.append((name, entry, mine))
        contents[key] = name
    return contents


def other_images_notes(rows: Sequence[Row]) -> list[str]:
    """Which rows bear one data set's name and were tested on different images: nothing else tells them apart."""
    found: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        if row.test_set is not None and row.test_top1 is not None:
            found.setdefault(row.dataset, {}).setdefault(row.test_set, []).append(row.name)
    return [
        f"{dataset}: {' | '.join(several([*dict.fromkeys(names)], 6) for names in sets.values())} were tested on "
        "different images: no accuracy compares across them, and each is on the front of its own"
        for dataset, sets in found.items()
        if len(sets) > 1
    ]


def _are_same(one: EvaluatedModel, other: EvaluatedModel, reference: ReferenceTeacher, sets: DatasetCache) -> bool:
    if reference.content == other.assessment.content:
        return True
    return one.recipe.data.name == other.recipe.data.name and reference.saw(other, sets)  # decodes at another size


def beside_teachers(
    rows: Mapping[str, Row],
    banks: Sequence[Row],
    groups: Mapping[str, Sequence[EvaluatedRun]],
    references: Mapping[str, ReferenceTeacher | None],
    notes: list[str],
) -> list[Row]:
    """Every row, with its teacher's where that is in the table: how many times smaller and faster it is.

    A run that answers as the teacher does, bit by bit, stands for it: the same training, in another folder.

    Args:
        rows: By the keys of ``groups``.
        banks: Teachers that left a bank alone.
        references: The teacher that each run is measured against, by the run's path.
    """
    places = {entry.run.path.resolve(): rows[key] for key, group in groups.items() for entry in group}
    places |= {Path(row.run).resolve(): row for row in banks}
    result: list[Row] = []
    for key, row in rows.items():
        told = [reference for entry in groups[key] if (reference := references[str(entry.run.path)]) is not None]
        found = {each.name: _teacher(each, places) or _twin(each, rows, groups, but=key) for each in told}
        teachers = set(found.values())
        teacher = teachers.pop() if len(teachers) == 1 and len(told) == len(groups[key]) else None
        absent = [name for name, its_row in found.items() if its_row is None]
        if absent and any(each.role == "teacher" for each in rows.values()):
            names = ", ".join(absent)
            notes.append(
                f"{row.name}: its teacher has no row here, so how many times smaller it is stays open: {names}"
            )
        result.append(row if teacher is None else beside(row, teacher))
    return [*result, *banks]


def _teacher(reference: ReferenceTeacher, places: Mapping[Path, Row]) -> Row | None:
    return places.get(Path(reference.name).resolve())


def _twin(
    reference: ReferenceTeacher, rows: Mapping[str, Row], groups: Mapping[str, Sequence[EvaluatedRun]], *, but: str
) -> Row | None:
    """Another row than ``but`` of which every run answers as the reference does."""
    answers = reference.logits
    if answers is None:
        return None
    for key, group in groups.items():
        own = [entry.assessment for entry in group]
        if key != but and all(
            each.content == reference.content and np.array_equal(each.logits, answers) for each in own
        ):
            return rows[key]
    return None


def beside(row: Row, teacher: Row) -> Row:
    """A row with its teacher's row named, and held against it."""
    return replace(
        row,
        teacher=teacher.run,
        times_smaller=_times(teacher.size_mb, row.size_mb),
        times_faster=_times(teacher.latency_b1_ms, row.latency_b1_ms),
    )


def _times(teachers: float | None, own: float | None) -> float | None:
    return teachers / own if teachers and own else None
