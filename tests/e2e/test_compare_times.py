"""What a table of times says of the minutes in which they were measured, and of a teacher in another folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from distill.comparison.paired_rows import beside_teachers
from distill.comparison.reference import ReferenceTeacher
from distill.comparison.timing import busy_notes
from distill.results.rows import Row


def _row(name: str, role: str = "student", **values: Any) -> Row:
    return Row(name, role, f"runs/{name}/001", "digits", "kd", 1, **values)


def test_a_busy_machine_is_told() -> None:
    calm = _row("calm", latency_b1_ms=1.0, latency_b1_p90_ms=1.2)
    assert busy_notes([calm, _row("untimed")]) == []
    (note,) = busy_notes([calm, _row("torn", latency_b1_ms=0.3, latency_b1_p90_ms=93.0)])
    assert "the machine was busy while it timed: one call in ten of torn took 310 times the median" in note


class _Entry:
    """A run with its answers; of an ``Entry`` what stands beside teachers."""

    def __init__(self, path: str, logits: np.ndarray) -> None:
        self.run: Any = type("Run", (), {"path": Path(path)})
        self.assessment: Any = type("Assessment", (), {"content": "images", "logits": logits})


def test_a_teacher_that_was_trained_again_to_the_same_bits_stands_for_it() -> None:
    answers, others = np.eye(3, dtype=np.float32), np.ones((3, 3), dtype=np.float32)
    rows = {"t": _row("teacher", "teacher", size_mb=10.0), "s": _row("student", size_mb=2.0)}
    taught_by = {
        "runs/teacher/001": None,
        "runs/student/001": ReferenceTeacher("runs/teacher/000", answers, 1.0, "images"),
    }
    for logits, smaller in ((answers, 5.0), (others, None)):
        groups: Any = {"t": [_Entry("runs/teacher/001", logits)], "s": [_Entry("runs/student/001", others)]}
        notes: list[str] = []
        found = {row.name: row for row in beside_teachers(rows, [], groups, taught_by, notes)}
        assert found["student"].times_smaller == smaller
        assert [("runs/teacher/000" in note) for note in notes] == ([] if smaller else [True])


def test_a_student_that_answers_as_its_absent_teacher_is_not_its_own_teacher() -> None:
    answers = np.eye(3, dtype=np.float32)
    rows = {"s": _row("student", size_mb=2.0)}
    groups: Any = {"s": [_Entry("runs/student/001", answers)]}
    told = {"runs/student/001": ReferenceTeacher("runs/teacher/000", answers, 1.0, "images")}
    (row,) = beside_teachers(rows, [], groups, told, [])
    assert (row.teacher, row.times_smaller) == (None, None)


def test_seeds_of_two_teachers_that_are_both_here_miss_none() -> None:
    answers = np.ones((3, 3), dtype=np.float32)
    rows = {name: _row(name, "teacher", size_mb=10.0) for name in ("one", "two")} | {"s": _row("s", size_mb=2.0)}
    groups: Any = {name: [_Entry(f"runs/{name}/001", np.eye(3, dtype=np.float32) * at)] for at, name in enumerate(rows)}
    groups["s"] = [_Entry(f"runs/s/00{seed}", answers) for seed in (1, 2)]
    told: Any = {f"runs/{name}/001": None for name in ("one", "two")}
    told |= {
        f"runs/s/00{n}": ReferenceTeacher(f"runs/{t}/001", answers * 3, 1.0, "images")
        for n, t in ((1, "one"), (2, "two"))
    }
    notes: list[str] = []
    found = {row.name: row for row in beside_teachers(rows, [], groups, told, notes)}
    assert (found["s"].teacher, notes) == (None, [])
