"""Which runs a row of a table is of."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from distill.comparison.entries import _by_seed, but_for_the_teacher
from distill.recipe import load_recipe


def test_of_a_seed_that_was_run_twice_the_newest_counts_past_a_thousand_runs() -> None:
    runs: list[Any] = [
        SimpleNamespace(
            run=SimpleNamespace(path=Path("runs/r") / name),
            info=SimpleNamespace(started="2026-01-01T00:00:00+00:00"),
            recipe=SimpleNamespace(train=SimpleNamespace(seed=0)),
        )
        for name in ("1000", "999", "002")
    ]
    notes: list[str] = []
    (kept,) = _by_seed(runs, notes)
    assert kept.run.path.name == "1000"
    assert len(notes) == 2


def test_of_two_folders_the_run_counts_that_began_last() -> None:
    runs: list[Any] = [
        SimpleNamespace(
            run=SimpleNamespace(path=Path(folder) / name),
            info=SimpleNamespace(started=f"2026-{month}-01T00:00:00+00:00"),
            recipe=SimpleNamespace(train=SimpleNamespace(seed=0)),
        )
        for folder, name, month in (("b", "001", "03"), ("a", "005", "01"))
    ]
    (kept,) = _by_seed(runs, [])
    assert kept.run.path == Path("b/001")


def test_a_twin_differs_in_the_teaching_alone() -> None:
    info = SimpleNamespace(extra={}, trained_on="pictures")

    def key(name: str, *settings: str, origin: Any = info) -> str:
        return but_for_the_teacher(load_recipe(name, list(settings)), origin)

    student = key("quickstart_student", "train.seed=3", "objective.temperature=2", "name=other")
    assert student == key("quickstart_scratch") == key("quickstart_scratch", "augment.views=4")
    assert student != key("quickstart_scratch", "train.epochs=7")
    assert student != key("quickstart_scratch", "data.limit=500")
    assert student != key("quickstart_scratch", origin=SimpleNamespace(extra={"init_from": "a"}, trained_on="pictures"))
    assert student != key("quickstart_scratch", origin=SimpleNamespace(extra={}, trained_on="others"))
