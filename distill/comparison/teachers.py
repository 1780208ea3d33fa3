"""The teachers of a comparison: here as runs, or as the banks they left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.comparison.entries import Entry, message
from distill.errors import DistillError, RunError
from distill.evaluate.test_set import Assessment, DataSets, assess, labels_sha256
from distill.recipe import parse_recipe
from distill.report.rows import Row
from distill.runs import open_run
from distill.teaching.bank import Bank

__all__ = ["Reference", "bank_rows", "find_teachers"]

_UNREADABLE = (DistillError, OSError, KeyError, TypeError, ValueError, AttributeError)  # files that others wrote


@dataclass(frozen=True)
class Reference:
    """A teacher to compare with.

    Attributes:
        name: The run's folder, or the bank's.
        logits: On the test set; None where an older bank has none.
        labels_sha256: Of that test set; None where an older bank does not say, and then ``count`` must do.
    """

    name: str
    logits: np.ndarray | None
    top1: float
    labels_sha256: str | None
    count: int | None

    def saw(self, labels: np.ndarray) -> bool:
        """Whether it was tested on the images of these labels."""
        if self.labels_sha256 is not None:
            return self.labels_sha256 == labels_sha256(labels)
        return self.count == len(labels)


def find_teachers(
    entries: Sequence[Entry], runs_dir: Path, device: torch.device, data: DataSets, notes: list[str]
) -> dict[str, Reference | None]:
    """A reference for each run: the teacher it learned from, else the only teacher in the table on the same data.

    One that was tested on other images is none: of two test sets neither accuracies nor answers can be compared.
    """
    shown = [entry for entry in entries if entry.recipe.role == "teacher"]
    found: dict[str, Reference | None] = {}
    for entry in entries:
        reference = None
        if entry.recipe.role != "teacher" and entry.teacher is not None:
            reference = _taught_by(entry, runs_dir, device, data, notes)
        elif entry.recipe.role != "teacher":
            same = [t for t in shown if np.array_equal(t.assessment.labels, entry.assessment.labels)]
            reference = _of_run(same[0].assessment) if len(same) == 1 else None
        found[str(entry.run.path)] = reference
    return found


def _taught_by(
    entry: Entry, runs_dir: Path, device: torch.device, data: DataSets, notes: list[str]
) -> Reference | None:
    about, labels = entry.teacher or {}, entry.assessment.labels
    try:
        if about.get("run") is not None:
            reference = _of_run(assess(open_run(about["run"], runs_dir=runs_dir), device=device, data=data))
        else:
            reference = _of_banks(_banks(about), labels)
    except _UNREADABLE as error:
        notes.append(f"{entry.run.path}: its teacher cannot be read ({message(error)})")
        return None
    if not reference.saw(labels):
        notes.append(
            f"{entry.run.path} and its teacher {reference.name} were tested on different images: "
            "neither their accuracies nor their answers are compared"
        )
        return None
    return reference


def _of_run(assessment: Assessment) -> Reference:
    labels = assessment.labels
    return Reference(assessment.run, assessment.logits, assessment.result.top1, labels_sha256(labels), len(labels))


# Banks


def _banks(about: dict[str, Any]) -> list[tuple[str, float]]:
    """Paths and weights of the banks that run.json names; before there were ensembles it named one path."""
    named = about.get("banks") or [{"path": about["bank"], "weight": 1.0}]
    return [(str(each["path"]), float(each["weight"])) for each in named]


def _of_banks(banks: Sequence[tuple[str, float]], labels: np.ndarray) -> Reference:
    """One bank's teacher, or the weighted mean of several teachers' logits, as the student saw it."""
    members = [_of_bank(path) for path, _ in banks]
    if len(members) == 1:
        return members[0]
    if other := next((member for member in members if not member.saw(labels)), None):
        return other  # which the caller names
    name, logits = " + ".join(member.name for member in members), [member.logits for member in members]
    if any(each is None or each.shape != (len(labels), *logits[0].shape[1:]) for each in logits):
        raise RunError(f"the test logits of {name} are not all there, or not of one shape")
    mean = np.average(np.stack(logits).astype(np.float64), axis=0, weights=[weight for _, weight in banks])
    top1 = int((mean.argmax(axis=1) == labels).sum()) / len(labels)
    return Reference(name, mean.astype(np.float32), top1, labels_sha256(labels), len(labels))


def _of_bank(path: str) -> Reference:
    bank = Bank.open(Path(path))
    about = _figures(bank)
    return Reference(
        path, bank.test_logits(), about["test_top1"], about.get("test_labels_sha256"), about["test_images"]
    )


def _figures(bank: Bank) -> dict[str, Any]:
    if not bank.info.teacher:
        raise RunError(f"{bank.path} has no figures of its teacher: its building was stopped before")
    return bank.info.teacher


def bank_rows(entries: Sequence[Entry], rows: Sequence[Row], notes: list[str]) -> list[Row]:
    """Teachers that are not here but left a bank, as they were measured when the bank was built."""
    shown = {row.name for row in rows if row.role == "teacher"}
    found = []
    for path in _without_runs(entries):
        try:
            about = _figures(Bank.open(Path(path)))
            if about["name"] in shown:
                continue
            row, note = _bank_row(path, about), _bank_note(path, about)
        except _UNREADABLE as error:
            notes.append(f"left out: the teacher of {path} ({message(error)})")
            continue
        found.append(row)
        notes.append(note)
    return found


def _without_runs(entries: Sequence[Entry]) -> list[str]:
    """Every bank that a run learned from without its teacher's run, once."""
    paths: dict[str, None] = {}
    for about in (entry.teacher for entry in entries if entry.teacher and entry.teacher.get("run") is None):
        try:
            paths |= dict.fromkeys(path for path, _ in _banks(about))
        except _UNREADABLE:  # find_teachers has said so
            continue
    return list(paths)


def _bank_row(path: str, about: dict[str, Any]) -> Row:
    one, many = (about["latency_ms"].get(size, {}) for size in ("1", "32"))
    return Row(
        name=about["name"],
        role="teacher",
        run=path,
        dataset=about["dataset"],
        objective=parse_recipe(about["recipe"], source=f"{path}/bank.json").objective.kind,
        seeds=1,
        test_top1=about["test_top1"],
        params=about["params"],
        gmacs=about["gmacs"],
        size_mb=about["size_mb"],
        latency_b1_ms=one.get("median_ms"),
        latency_b1_p90_ms=one.get("p90_ms"),
        latency_b32_ms=many.get("median_ms"),
        images_per_s=32e3 / many["median_ms"] if many else None,
        ece=about["test_ece"],
    )


def _bank_note(path: str, about: dict[str, Any]) -> str:
    return (
        f"{about['name']} is not here: its figures were measured when {path} was built, "
        f"on {about['latency_device']} with {about['threads']} thread(s)"
    )
