"""Which student a page is about, of several."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from distill.comparison.entries import EvaluatedRun
from distill.pipeline.page import _headline
from distill.results.figures import Figures
from distill.results.rows import Row


def _student(name: str, test_top1: float, *val_top1: float | None) -> tuple[Row, list[EvaluatedRun]]:
    row = Row(name, "student", f"runs/{name}/001", "digits", "kd", len(val_top1), test_top1=test_top1, teacher="t")
    recipe: Any = SimpleNamespace(teacher=object())
    nothing: Any = None
    return row, [EvaluatedRun(nothing, nothing, recipe, nothing, Figures(val_top1=value)) for value in val_top1]


def _about(*students: tuple[Row, list[EvaluatedRun]]) -> tuple[str, list[str]]:
    notes: list[str] = []
    found = _headline([row for row, _ in students], {row.run: group for row, group in students}, notes)
    assert found is not None
    return found.name, notes


def test_validation_images_choose_and_not_those_that_the_verdict_is_of() -> None:
    lucky, better = _student("lucky", 0.95, 0.90, 0.91), _student("better", 0.93, 0.92, 0.93)
    assert _about(lucky, better) == ("better", [])


def test_without_validation_the_luck_is_told() -> None:
    name, notes = _about(_student("lucky", 0.95, None), _student("better", 0.93, 0.92))
    assert name == "lucky"
    assert (
        "not all of 2 students were validated: the verdict is about the most accurate of them on the test images"
        in notes[0]
    )
    assert _about(_student("only", 0.95, None)) == ("only", [])
