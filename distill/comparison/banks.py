"""Teachers that a comparison knows by the banks they left: as rows, and as what they answered on the test set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from distill.comparison.entries import EvaluatedRun, message
from distill.comparison.reference import ReferenceTeacher
from distill.errors import DistillError, RunError
from distill.evaluation.assess import DatasetCache, evaluate_parts
from distill.evaluation.assessment import Assessment
from distill.evaluation.correct import correct
from distill.recipe import Recipe, parse_recipe
from distill.results.rows import Row
from distill.teaching.bank import Bank
from distill.teaching.bank_info import TeacherRecord
from distill.teaching.recorded import former_bank
from distill.text import counted, fixed

__all__ = ["UNREADABLE", "BankAnswers", "bank_rows", "of_banks"]

UNREADABLE = (DistillError, OSError, KeyError, TypeError, ValueError, AttributeError)  # files that others wrote


@dataclass(frozen=True)
class _Named:
    """A bank that a run learned from: where it is now, its weight among several, and whose answers it held then."""

    path: Path
    weight: float = field(compare=False)  # it is the same bank to whom it counts for more
    sha256: str | None

    def opened(self) -> Bank:
        """It, where it is still that teacher's.

        Raises:
            RunError: It is damaged, or another's by now.
        """
        bank = Bank.open(self.path)
        if self.sha256 not in (None, bank.info.identity.weights):
            raise RunError(f"{self.path} holds another teacher's answers now than those that it learned from")
        return bank


def _banks_named(entry: EvaluatedRun) -> list[_Named]:
    """The banks that run.json names: several that were asked for, or the one that an ONNX teacher left."""
    about = entry.teacher or {}
    named = about.get("banks") or [{"path": about["bank"], "weight": 1.0, "sha256": about.get("sha256")}]
    return [
        _Named(former_bank(str(each["path"]), entry.run, sha256=sha256), float(each["weight"]), sha256)
        for each in named
        for sha256 in (each.get("sha256"),)
    ]


def of_banks(entry: EvaluatedRun, data: DatasetCache) -> ReferenceTeacher:
    """The teacher of the bank that a run learned from, or the weighted mean of several teachers' logits, as it saw it.

    Raises:
        RunError: A bank is damaged, another teacher's by now, or has no figures of its teacher.
    """
    banks = _banks_named(entry)
    members = [_of_bank(bank.opened()) for bank in banks]
    if len(members) == 1:
        return members[0]
    if other := next((member for member in members if not member.saw(entry, data)), None):
        return other  # which the caller names
    labels = entry.assessment.labels
    weights = [bank.weight for bank in banks]
    alike = len(set(weights)) == 1
    weighed = zip(members, weights, strict=True)
    name = " + ".join(member.name if alike else f"{weight:g} * {member.name}" for member, weight in weighed)
    logits = [member.logits for member in members if member.logits is not None]
    if len(logits) < len(members) or any(each.shape != (len(labels), *logits[0].shape[1:]) for each in logits):
        raise RunError(f"the test logits of {name} are not all there, or not of one shape")
    mean = np.average(np.stack(logits).astype(np.float64), axis=0, weights=weights)
    top1 = int(correct(mean, labels).sum()) / len(labels)
    records = tuple(record for member in members for record in member.members)
    return ReferenceTeacher(name, mean.astype(np.float32), top1, members[0].content, members=records)


def _of_bank(bank: Bank) -> ReferenceTeacher:
    record = _record(bank)
    figures = record.figures
    if figures.test_top1 is None:
        raise RunError(f"{bank.path} has no test accuracy of its teacher")
    return ReferenceTeacher(
        str(bank.path), bank.test_logits(), figures.test_top1, figures.test_content, members=(record,)
    )


def _record(bank: Bank) -> TeacherRecord:
    if bank.info.teacher is None:
        raise RunError(f"{bank.path} has no figures of its teacher: its building was stopped before")
    return bank.info.teacher


@dataclass(frozen=True)
class BankAnswers:
    """What a teacher that is not here, or several together, answered on the test set.

    Attributes:
        recipe: Of a student that was tested on the same images.
    """

    recipe: Recipe
    assessment: Assessment


def bank_rows(
    entries: Sequence[EvaluatedRun],
    references: Mapping[str, ReferenceTeacher | None],
    *,
    shown: Container[str],
    test_sets: Mapping[str, str | None],
    data: DatasetCache,
    notes: list[str],
) -> tuple[list[Row], dict[str, BankAnswers]]:
    """Teachers that are not here but left a bank, as they were measured when the bank was built; and several as one.

    What was measured on other test images than their students were is left blank.

    Args:
        references: As :func:`distill.comparison.teachers.find_teachers` gives them.
        shown: Names of the teachers that have a row.
        test_sets: A name for the test images of each run, by its path.

    Returns:
        The rows, and what those answered whose answers their banks hold, by the row's ``run``.
    """
    rows: list[Row] = []
    answers: dict[str, BankAnswers] = {}

    def add(row: Row, given: BankAnswers | None, student: EvaluatedRun) -> None:
        rows.append(replace(row, test_set=test_sets[str(student.run.path)]))
        if given is not None:
            answers[row.run] = given

    for named, students in _without_runs(entries).items():
        path = str(named.path)
        try:
            bank = named.opened()
            record, reference = _record(bank), _of_bank(bank)
            if record.name in shown:
                continue
            row, note = _bank_row(path, record), _bank_note(path, record)
        except UNREADABLE as error:
            notes.append(f"left out: the teacher of {path} ({message(error)})")
            continue
        student = next((student for student in students if reference.saw(student, data)), None)
        if student is not None:
            add(row, _answers(path, reference, student), student)
        else:
            row = replace(row, test_top1=None, ece=None, test_images=None)
            rows.append(replace(row, test_balanced_accuracy=None, test_macro_f1=None))
            note += "; its accuracy is blank: it is of other test images than its students'"
        notes.append(note)
    for reference, student in _together(entries, references):
        given = _answers(reference.name, reference, student)
        assert given is not None, "of_banks has averaged them"
        row = _ensemble_row(reference, given)
        add(row, given, student)
        notes.append(
            f"{row.name}: the mean of the logits that are in {reference.name}; "
            "parameters, GMACs and size are of all, and they were not timed together"
        )
    return rows, answers


def _answers(place: str, reference: ReferenceTeacher, student: EvaluatedRun) -> BankAnswers | None:
    """What a bank's test logits say of the images that ``student`` was tested on; None where they are not there."""
    logits, asked = reference.logits, student.assessment
    if logits is None or logits.shape != asked.logits.shape:
        return None
    found = evaluate_parts(logits, asked.labels, [each.label for each in asked.result.per_class])
    return BankAnswers(student.recipe, replace(asked, place=place, **found, device_type=None, precision=None))


def _without_runs(entries: Sequence[EvaluatedRun]) -> dict[_Named, list[EvaluatedRun]]:
    """Every bank that a run learned from without its teacher's run, and who learned from it."""
    found: dict[_Named, list[EvaluatedRun]] = {}
    for entry in entries:
        if entry.teacher and entry.teacher.get("run") is None:
            with suppress(*UNREADABLE):  # find_teachers has said so
                for named in _banks_named(entry):
                    found.setdefault(named, []).append(entry)
    return found


def _bank_row(path: str, record: TeacherRecord) -> Row:
    row = Row(
        name=record.name,
        role="teacher",
        run=path,
        dataset=record.dataset,
        objective=parse_recipe(record.recipe, source=f"{path}/bank.json").objective.title if record.recipe else "",
        seeds=1,
    )
    return row.with_figures(replace(record.figures, latency_ms={}))  # of another time, maybe another machine


def _together(
    entries: Sequence[EvaluatedRun], references: Mapping[str, ReferenceTeacher | None]
) -> list[tuple[ReferenceTeacher, EvaluatedRun]]:
    """Several teachers that are one to a student: each such set once, with a student of theirs."""
    found: dict[str, tuple[ReferenceTeacher, EvaluatedRun]] = {}
    for entry in entries:
        reference = references[str(entry.run.path)]
        if reference is not None and len(reference.members) > 1:
            found.setdefault(reference.name, (reference, entry))
    return list(found.values())


def _ensemble_row(reference: ReferenceTeacher, answers: BankAnswers) -> Row:
    """The mean of their logits, and what all of them cost."""
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
    return row.with_figures(replace(answers.assessment.figures, test_top1=reference.top1, **cost))


def _sum(values: Sequence[Any]) -> Any:
    return None if None in values else sum(values)


def _bank_note(path: str, record: TeacherRecord) -> str:
    figures = record.figures
    note = f"{record.name} was not loaded: its figures were measured when {path} was built"
    if (one := figures.latency_ms.get(1)) is None:
        return note
    where = f"on {figures.hardware or figures.latency_device} with {counted(figures.threads or 1, 'thread')}"
    return f"{note}; it was not timed beside the others: then one image took {fixed(one.median_ms, 2)} ms {where}"
