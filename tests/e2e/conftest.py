"""Tiny teachers and students through the real verbs, on synthetic images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distill.pipeline import Options, RunResult, finetune_teacher, train_student
from distill.recipe import Recipe, parse_recipe
from distill.report import redraw

TEACHER = """
schema_version: 1
name: tiny_teacher
role: teacher
data: {name: synthetic, limit: 150, test_limit: 60}
augment: {crop_padding: 2, hflip: 0.5}
model: {source: teachers, name: tiny}
optim: {name: sgd, lr: 0.05}
train: {epochs: 2, batch_size: 32}
"""

STUDENT = """
schema_version: 1
name: tiny_student
role: student
data: {name: synthetic, limit: 150, test_limit: 60}
augment: {crop_padding: 2, hflip: 0.5}
model: {source: students, name: tiny}
teacher: {run: tiny_teacher}
objective: {kind: kd, ce_weight: 0.5, kd_weight: 0.5, temperature: 2.0}
optim: {name: sgd, lr: 0.05}
train: {epochs: 3, batch_size: 40}
"""


_drawn = False


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before fixtures are made, which train too."""
    global _drawn  # noqa: PLW0603
    _drawn = item.get_closest_marker("pictures") is not None


@pytest.fixture(scope="session", autouse=True)
def _few_pictures() -> Iterator[None]:
    """A run's curves take longer to draw than a tiny network to train: they are drawn where a test looks at them."""
    draw = redraw.redraw
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redraw, "redraw", lambda run: draw(run) if _drawn else [])
        yield


def recipe(text: str, *overrides: str) -> Recipe:
    return parse_recipe(text, source="test", overrides=overrides)


@pytest.fixture(scope="session")
def teacher_run(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A trained tiny teacher; its runs folder is its grandparent."""
    runs = tmp_path_factory.mktemp("runs")
    return finetune_teacher(recipe(TEACHER), options=Options(runs_dir=runs, threads=1))


@pytest.fixture
def train(teacher_run: RunResult, tmp_path: Path) -> Callable[..., RunResult]:
    """``train("a.b=c", ...)`` trains the tiny student with overrides, in a runs folder of the test's own."""

    def run(*overrides: str, **options: object) -> RunResult:
        chosen = Options(runs_dir=tmp_path / "runs", threads=1, **options)
        return train_student(recipe(STUDENT, *overrides), teacher=str(teacher_run.run), options=chosen)

    return run


@pytest.fixture(scope="session")
def student_recipe() -> Callable[..., Recipe]:
    return lambda *overrides: recipe(STUDENT, *overrides)


@pytest.fixture(scope="session")
def teacher_recipe() -> Callable[..., Recipe]:
    return lambda *overrides: recipe(TEACHER, *overrides)
