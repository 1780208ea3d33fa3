"""The row that others are held against where nobody names one."""

from __future__ import annotations

from typing import Any

import pytest

from distill.comparison.statistics import default_baseline
from distill.results.rows import Row


def row(name: str, role: str, **more: Any) -> Row:
    settings = {"params": 100, "test_set": "digits 1"} | more
    return Row(name=name, role=role, run=f"runs/{name}/001", dataset="digits", objective="", seeds=1, **settings)


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
    ],
)
def test_it_is_the_run_without_a_teacher_if_only_one_can_be_meant(rows: list[Row], expected: str | None) -> None:
    found = default_baseline(rows)
    assert (found and found.name) == expected


def test_one_of_several_teachers_is_none() -> None:
    rows = [row("a + b", "teacher"), ALONE, row("a", "baseline"), STUDENT]
    assert default_baseline(rows) is None
    assert default_baseline(rows, teaching={"a", "b"}) is ALONE


def test_as_many_parameters_for_other_images_are_chance() -> None:
    other = {"test_set": "cifar10 1"}
    rows = [ALONE, row("taught", "student", params=200), row("far", "baseline", params=300, **other)]
    assert default_baseline([*rows, row("far_taught", "student", params=100, **other)]) is None
