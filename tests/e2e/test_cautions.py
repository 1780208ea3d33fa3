"""What flatters a run is said in one line: where it starts, and what its teacher has seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from distill.events import Event, Note
from distill.pipeline import Options, finetune_teacher, train_student
from distill.recipe import Recipe
from distill.runs import RunFolder

SHORT = ("train.epochs=1", "model={source: students, name: tiny}")


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def options(tmp_path: Path, told: list[Event]) -> Options:
    return Options(runs_dir=tmp_path / "runs", threads=1, on_event=told.append)


@pytest.fixture
def teach(teacher_recipe: Callable[..., Recipe], options: Options) -> Callable[..., RunFolder]:
    return lambda *overrides: RunFolder(finetune_teacher(teacher_recipe(*SHORT, *overrides), options=options).run)


@pytest.fixture
def learn(student_recipe: Callable[..., Recipe], options: Options) -> Callable[..., RunFolder]:
    def run(*overrides: str, teacher: RunFolder | None = None) -> RunFolder:
        path = None if teacher is None else str(teacher.path)
        return RunFolder(train_student(student_recipe(*SHORT, *overrides), teacher=path, options=options).run)

    return run


def _began_with(run: RunFolder) -> str:
    return run.info.extra["initial_sha256"]


def _warnings(told: list[Event], about: str) -> list[str]:
    notes = [event for event in told if isinstance(event, Note) and about in event.message]
    assert all(note.level == "warning" for note in notes)
    return [note.message for note in notes]


# Where it starts


def test_a_student_of_its_teachers_network_starts_elsewhere_and_taught_or_not_from_the_same(
    teach, learn, told: list[Event]
) -> None:
    teacher = teach()
    taught, alone = learn(teacher=teacher), learn("objective.kind=supervised", "name=alone")
    baseline = learn("objective.kind=supervised", "name=base", "role=baseline")
    assert _began_with(taught) == _began_with(alone) == _began_with(baseline)
    assert _began_with(taught) != _began_with(teacher)
    assert _warnings(told, "no independent start") == []


def test_a_teacher_of_another_role_that_began_with_the_same_weights_is_told(learn, told: list[Event]) -> None:
    """A student that was born first, and teaches one of its own kind."""
    first = learn("objective.kind=supervised", "name=first")
    again = learn(teacher=first)
    (said,) = _warnings(told, "no independent start")
    assert f"the very weights that its teacher {first.path} began with" in said
    assert again.info.extra["cautions"] == [said]
    assert f"warning: {said}" in (again.path / "run.log").read_text()
    told.clear()
    assert "cautions" not in learn("train.seed=1", teacher=first).info.extra
    assert _warnings(told, "no independent start") == []
