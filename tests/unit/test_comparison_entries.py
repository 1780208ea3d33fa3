"""Which runs a row of a table is of."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from distill.comparison.entries import _by_seed


def test_of_a_seed_that_was_run_twice_the_newest_counts_past_a_thousand_runs() -> None:
    runs: list[Any] = [
        SimpleNamespace(run=SimpleNamespace(path=Path("runs/r") / name), recipe=SimpleNamespace(train=train))
        for train in [SimpleNamespace(seed=0)]
        for name in ("1000", "999", "002")
    ]
    notes: list[str] = []
    (kept,) = _by_seed(runs, notes)
    assert kept.run.path.name == "1000"
    assert len(notes) == 2
