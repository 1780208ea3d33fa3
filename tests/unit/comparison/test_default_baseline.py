"""The row that others are held against where nobody names one."""

from __future__ import annotations

from typing import Any

import pytest

from distill.comparison.statistics import default_baseline_notes, default_baselines
from distill.results.rows import Row


def row(name: str, role: str, **more: Any) -> Row:
    settings = {"params": 100, "test_set": "digits 1", "objective": "kd" if role == "student" else "supervised"} | more
    return Row(name=name, role=role, run=f"runs/{name}/001", dataset="digits", seeds=1, **settings)


TEACHER = row("large", "teacher", params=9000)
STUDENT = row("taught", "student", teacher=TEACHER.run)
ALONE = row("alone", "baseline")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([TEACHER, ALONE, STUDENT], "alone"),
        ([TEACHER, STUDENT], None),
        ([TEACHER, ALONE], None),
        ([TEACHER, row("alone", "baseline", test_set="digits 2"), STUDENT], None),
        ([TEACHER, row("alone", "baseline", test_set=None), STUDENT], None),
        ([TEACHER, row("other", "baseline", params=50), STUDENT], "other"),
        ([TEACHER, ALONE, row("other", "baseline", params=50), STUDENT], "alone"),
        ([TEACHER, ALONE, row("again", "baseline"), STUDENT], None),
        ([TEACHER, ALONE, row("alone_int8", "baseline", source_run=ALONE.run), STUDENT], "alone"),
        ([ALONE, row("by_it", "student", teacher=ALONE.run)], None),
        ([ALONE, row("small", "baseline", params=7), row("by_it", "student", teacher=ALONE.run, params=7)], "small"),
        ([TEACHER, ALONE, row("file", "student", source_run=STUDENT.run)], None),
        ([TEACHER, row("small", "student", objective="supervised"), STUDENT], "small"),
    ],
)
def test_it_is_the_run_without_a_teacher_if_only_one_can_be_meant(rows: list[Row], expected: str | None) -> None:
    student = next((row for row in rows if row.objective == "kd" and row.source_run is None), rows[0])
    assert default_baselines(rows).get(student.run) == (expected and f"runs/{expected}/001")


def test_one_of_several_teachers_is_none() -> None:
    rows = [row("a + b", "teacher"), ALONE, row("a", "baseline"), STUDENT]
    assert STUDENT.run in default_baselines(rows, teaching={"a", "b"})
    assert default_baselines(rows, teaching={"a", "b", "alone"}) == {}
    assert default_baselines(rows) == {}, "two have the student's parameters"


def test_every_row_of_a_test_set_is_held_against_its_only_baseline() -> None:
    file = row("taught_int8", "student", source_run=STUDENT.run, params=None)
    assert default_baselines([TEACHER, ALONE, STUDENT, file]) == dict.fromkeys(
        [TEACHER.run, ALONE.run, STUDENT.run, file.run], ALONE.run
    )


def test_of_several_networks_alike_the_twin_is_meant() -> None:
    """It has the student's settings in all but the teaching; where none has, or two have, none is meant."""
    longer = row("longer", "baseline")
    file = row("taught_int8", "student", source_run=STUDENT.run, params=None)
    rows = [TEACHER, ALONE, longer, STUDENT, file]
    short = {STUDENT.run: "8 epochs", ALONE.run: "8 epochs", longer.run: "24 epochs"}
    assert default_baselines(rows, settings=short) == dict.fromkeys([ALONE.run, STUDENT.run, file.run], ALONE.run)
    assert default_baselines(rows, settings=short | {longer.run: "8 epochs"}) == {}
    assert default_baselines(rows, settings=short | {STUDENT.run: "16 epochs"}) == {}
    assert default_baselines([TEACHER, longer, STUDENT], settings=short)[STUDENT.run] == longer.run, "the only one"


def test_each_test_set_and_each_network_has_its_own() -> None:
    other = {"test_set": "cifar10 1"}
    far, far_taught = row("far", "baseline", params=300, **other), row("far_taught", "student", params=100, **other)
    small, small_taught = row("small", "baseline", params=7), row("small_taught", "student", params=7)
    file = row("small_int8", "student", source_run=small_taught.run, params=8)
    unused = row("unused", "baseline", params=9)
    found = default_baselines([TEACHER, ALONE, STUDENT, small, small_taught, file, far, far_taught, unused])
    assert found == {
        ALONE.run: ALONE.run,
        STUDENT.run: ALONE.run,
        small.run: small.run,
        small_taught.run: small.run,
        file.run: small.run,
        far.run: far.run,
        far_taught.run: far.run,
    }


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([TEACHER, ALONE, STUDENT], ["against alone, trained without a teacher"]),
        ([TEACHER, STUDENT], ["what a teacher is worth to taught: not known without a run of its network"]),
        ([ALONE, row("by_it", "student", teacher=ALONE.run)], []),
        (
            [ALONE, row("by_it", "student", teacher=ALONE.run, params=7)],
            ["what a teacher is worth to by_it: not known"],
        ),
        (
            [TEACHER, ALONE, row("again", "baseline"), STUDENT, row("taught_2", "student")],
            ["what a teacher is worth to taught, taught_2: several learned without one: alone, again; --baseline"],
        ),
        (
            [ALONE, STUDENT, row("far", "student", test_set="digits 2")],
            ["against alone", "what a teacher is worth to far: not known"],
        ),
        ([TEACHER, ALONE, row("taught_int8", "student", source_run=STUDENT.run)], []),
        ([TEACHER, row("untested", "student", test_set=None)], []),
        ([TEACHER, ALONE], []),
    ],
)
def test_what_is_held_against_nothing_is_told(rows: list[Row], expected: list[str]) -> None:
    notes = default_baseline_notes(rows, default_baselines(rows))
    assert len(notes) == len(expected)
    for note, begin in zip(notes, expected, strict=True):
        assert note.startswith(begin)
