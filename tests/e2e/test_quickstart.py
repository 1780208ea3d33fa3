"""The tour, stopped on its way."""

from __future__ import annotations

import signal
import sys
from functools import partial
from pathlib import Path

import pytest

from distill import Options, finetune_teacher
from distill.errors import InterruptedRunError
from distill.events import Event, RunStarted, StepDone
from distill.recipe import dump_recipe, load_recipe, parse_recipe

tour = sys.modules["distill.pipeline.quickstart"]


def test_a_quickstart_that_was_stopped_goes_on_with_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From where it stopped, whichever run that was; another one after its end begins anew."""
    begun: list[tuple[str, str]] = []

    def watch(event: Event, *, stop_at: int = 0) -> None:
        if isinstance(event, RunStarted):
            begun.append((event.name, event.run.rpartition("/")[2]))
        if isinstance(event, StepDone) and len(begun) == stop_at:
            signal.raise_signal(signal.SIGINT)

    short = {name: load_recipe(name, ["train.epochs=3", "data.limit=64"]) for name in tour._STUDENTS}
    monkeypatch.setattr(
        tour,
        "load_recipe",
        lambda name, changes=(): parse_recipe(
            dump_recipe(short.get(name) or load_recipe(name)), source=name, overrides=list(changes)
        ),
    )
    monkeypatch.setattr(
        tour,
        "finetune_teacher",
        lambda name, options: finetune_teacher(load_recipe(name, ["train.epochs=1", "data.limit=64"]), options=options),
    )
    options = Options(runs_dir=tmp_path / "runs", device="cpu", on_event=partial(watch, stop_at=3))
    with pytest.raises(InterruptedRunError, match=r"the quickstart in .*runs and its runs are saved") as stopped:
        tour.quickstart(seeds=2, options=options)
    assert stopped.value.hint == "to continue, run the same command again"
    assert begun == [("quickstart_teacher", "001"), ("quickstart_scratch", "001"), ("quickstart_student", "001")]
    begun.clear()
    options = Options(runs_dir=tmp_path / "runs", device="cpu", on_event=watch)
    made = tour.quickstart(seeds=2, options=options)
    names = [f"{run.parent.name}/{run.name}" for run in made.runs]
    assert names == [
        "quickstart_teacher/001",
        "quickstart_scratch/001",
        "quickstart_student/001",
        "quickstart_scratch/002",
        "quickstart_student/002",
    ]
    assert [name for name, _ in begun][-2:] == ["quickstart_scratch", "quickstart_student"]
    assert len(begun) <= 3  # the third run goes on, if it was not at its end
    assert tour.quickstart(seeds=1, options=options).runs[0].name == "002"
