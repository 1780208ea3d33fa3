"""The teachers of a comparison: here as runs, or as the banks they left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.comparison.entries import Entry, Tested, message
from distill.errors import DistillError, RunError
from distill.evaluation.metrics import evaluate_logits
from distill.evaluation.test_set import Assessment, DataSets, assess
from distill.recipe import parse_recipe
from distill.recipe.schema import DataSpec
from distill.results.rows import Row
from distill.runs import open_run
from distill.teaching.bank import Bank
from distill.teaching.bank_info import TeacherRecord
from distill.teaching.identity import Identity, read_identity

__all__ = ["Reference", "bank_rows", "find_teachers", "of_run"]

_UNREADABLE = (DistillError, OSError, KeyError, TypeError, ValueError, AttributeError)  # files that others wrote


@dataclass(frozen=True)
class Reference:
    """A teacher to compare with.

    Attributes:
        name: The run's folder, or the bank's.
        logits: On the test set.
        content: Digest of that test set's images, labels and class names; None where that is not known.
        data: Where those images are; None for a bank's.
        members: Of banks what they tell of their teachers.
    """

    name: str
    logits: np.ndarray | None
    top1: float
    content: str | None
    data: DataSpec | None = None
    members: tuple[TeacherRecord, ...] = ()

    def saw(self, entry: Tested, sets: DataSets) -> bool:
        """Whether it was tested on the images and classes that ``entry`` was, decoded at whatever size."""
        theirs, size = entry.assessment.content, entry.recipe.data.side
        if self.content is None or theirs is None:
            return False
        if self.content == theirs:
            return True
        if self.data is None or self.data.side == size:
            return False
        try:
            return sets.content(self.data.model_copy(update={"image_size": size}), "test") == theirs
        except DistillError:  # not here: nobody can tell
            return False


def find_teachers(
    groups: Mapping[str, Sequence[Entry]],
    runs_dir: Path,
    device: torch.device,
    data: DataSets,
    notes: list[str],
    *,
    wanted: Path | None = None,
) -> dict[str, Reference | None]:
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
    taught_from = {Path(run).resolve() for entry in entries if (run := (entry.teacher or {}).get("run"))}
    teachers: dict[str, Reference | None] = {}
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
    same: Sequence[tuple[str, Reference]], taught_from: set[Path], entry: Entry, wanted: Path | None, notes: list[str]
) -> Reference | None:
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
    entry: Entry, runs_dir: Path, device: torch.device, data: DataSets, notes: list[str]
) -> Reference | None:
    about = entry.teacher or {}
    try:
        if about.get("run") is not None:
            run = open_run(about["run"], runs_dir=runs_dir)
            if others := _others(about, read_identity(run, device=device)):
                notes.append(
                    f"{entry.run.path}: {run} is no longer the teacher it learned from (other {others}): "
                    "neither their accuracies nor their answers are compared"
                )
                return None
            reference = of_run(run.recipe().data, assess(run, device=device, data=data))
        elif about.get("onnx") is not None and "bank" not in about:
            notes.append(f"{entry.run.path}: its teacher, the file {about['onnx']}, left no bank: it is not compared")
            return None
        else:
            reference = _of_banks(_banks(about), entry, data)
    except _UNREADABLE as error:
        notes.append(f"{entry.run.path}: its teacher cannot be read ({message(error)})")
        return None
    if not reference.saw(entry, data):
        notes.append(
            f"{entry.run.path} and its teacher {reference.name} were tested on different images: "
            "neither their accuracies nor their answers are compared"
        )
        return None
    return reference


def _others(about: dict[str, Any], here: Identity) -> str:
    """In what a run's teacher, as its run.json tells, is another than the one in its folder now."""
    pairs = {"weights": (about.get("sha256"), here.weights), "network": (about.get("architecture"), here.architecture)}
    return ", ".join(part for part, (was, now) in pairs.items() if was not in (None, now))


def of_run(data: DataSpec, assessment: Assessment) -> Reference:
    return Reference(assessment.run, assessment.logits, assessment.result.top1, assessment.content, data)


# Banks


def _banks(about: dict[str, Any]) -> list[tuple[str, float]]:
    """Paths and weights of the banks that run.json names; before there were ensembles it named one path."""
    named = about.get("banks") or [{"path": about["bank"], "weight": 1.0}]
    return [(str(each["path"]), float(each["weight"])) for each in named]


def _of_banks(banks: Sequence[tuple[str, float]], entry: Entry, data: DataSets) -> Reference:
    """One bank's teacher, or the weighted mean of several teachers' logits, as the student saw it."""
    members = [_of_bank(Bank.open(Path(path))) for path, _ in banks]
    if len(members) == 1:
        return members[0]
    if other := next((member for member in members if not member.saw(entry, data)), None):
        return other  # which the caller names
    labels = entry.assessment.labels
    alike = len({weight for _, weight in banks}) == 1
    weighed = zip(members, banks, strict=True)
    name = " + ".join(member.name if alike else f"{weight:g} * {member.name}" for member, (_, weight) in weighed)
    logits = [member.logits for member in members if member.logits is not None]
    if len(logits) < len(members) or any(each.shape != (len(labels), *logits[0].shape[1:]) for each in logits):
        raise RunError(f"the test logits of {name} are not all there, or not of one shape")
    mean = np.average(np.stack(logits).astype(np.float64), axis=0, weights=[weight for _, weight in banks])
    top1 = int((mean.argmax(axis=1) == labels).sum()) / len(labels)
    records = tuple(record for member in members for record in member.members)
    return Reference(name, mean.astype(np.float32), top1, members[0].content, members=records)


def _of_bank(bank: Bank) -> Reference:
    record = _record(bank)
    figures = record.figures
    if figures.test_top1 is None:
        raise RunError(f"{bank.path} has no test accuracy of its teacher")
    return Reference(str(bank.path), bank.test_logits(), figures.test_top1, figures.test_content, members=(record,))


def _record(bank: Bank) -> TeacherRecord:
    if bank.info.teacher is None:
        raise RunError(f"{bank.path} has no figures of its teacher: its building was stopped before")
    return bank.info.teacher


def bank_rows(
    entries: Sequence[Entry],
    rows: Sequence[Row],
    references: Mapping[str, Reference | None],
    data: DataSets,
    notes: list[str],
) -> list[Row]:
    """Teachers that are not here but left a bank, as they were measured when the bank was built; and several as one.

    What was measured on other test images than their students were is left blank.

    Args:
        references: As :func:`find_teachers` gives them.
    """
    shown = {row.name for row in rows if row.role == "teacher"}
    collected = []
    for path, students in _without_runs(entries).items():
        try:
            bank = Bank.open(Path(path))
            record, reference = _record(bank), _of_bank(bank)
            if record.name in shown:
                continue
            row, note = _bank_row(path, record), _bank_note(path, record)
        except _UNREADABLE as error:
            notes.append(f"left out: the teacher of {path} ({message(error)})")
            continue
        if not any(reference.saw(student, data) for student in students):
            row = replace(row, test_top1=None, ece=None, test_images=None)
            row = replace(row, test_balanced_accuracy=None, test_macro_f1=None)
            note += "; its accuracy is blank: it is of other test images than its students'"
        collected.append(row)
        notes.append(note)
    return collected + _ensemble_rows(entries, references, notes)


def _without_runs(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Every bank that a run learned from without its teacher's run, and who learned from it."""
    paths: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.teacher and entry.teacher.get("run") is None:
            with suppress(*_UNREADABLE):  # find_teachers has said so
                for path, _ in _banks(entry.teacher):
                    paths.setdefault(path, []).append(entry)
    return paths


def _bank_row(path: str, record: TeacherRecord) -> Row:
    row = Row(
        name=record.name,
        role="teacher",
        run=path,
        dataset=record.dataset,
        objective=parse_recipe(record.recipe, source=f"{path}/bank.json").objective.kind if record.recipe else "",
        seeds=1,
    )
    return row.with_figures(record.figures)


def _ensemble_rows(entries: Sequence[Entry], references: Mapping[str, Reference | None], notes: list[str]) -> list[Row]:
    """Several teachers as the one that their students learned from: the mean of their logits, and what all cost."""
    collected: dict[str, Row] = {}
    for entry in entries:
        reference = references[str(entry.run.path)]
        if reference is None or len(reference.members) < 2 or reference.name in collected:
            continue
        row = _ensemble_row(reference, entry.assessment)
        collected[reference.name] = row
        notes.append(
            f"{row.name}: the mean of the logits that are in {reference.name}; "
            "parameters, GMACs and size are of all, and they were not timed together"
        )
    return list(collected.values())


def _ensemble_row(reference: Reference, students: Assessment) -> Row:
    assert reference.logits is not None, "_of_banks has averaged them"
    classes = [each.label for each in students.result.per_class]
    result = evaluate_logits(torch.from_numpy(reference.logits), torch.from_numpy(students.labels), classes)
    names = Counter(record.name for record in reference.members)
    row = Row(
        name=" + ".join(name if n == 1 else f"{name} x{n}" for name, n in names.items()),
        role="teacher",
        run=reference.name,
        dataset=" + ".join(dict.fromkeys(record.dataset for record in reference.members)),
        objective="",
        seeds=1,
    )
    cost = {
        name: _sum([getattr(record.figures, name) for record in reference.members])
        for name in ("params", "gmacs", "size_mb")
    }
    figures = replace(students, logits=reference.logits, result=result).figures
    return row.with_figures(replace(figures, test_top1=reference.top1, **cost))


def _sum(values: Sequence[Any]) -> Any:
    return None if None in values else sum(values)


def _bank_note(path: str, record: TeacherRecord) -> str:
    figures = record.figures
    return (
        f"{record.name} was not loaded: its figures were measured when {path} was built, "
        f"on {figures.latency_device} with {figures.threads} thread(s)"
    )
