"""Which runs a row of a table is of."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from distill.comparison.entries import _by_seed


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
