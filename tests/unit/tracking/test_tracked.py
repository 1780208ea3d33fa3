"""Trackers that fail, hang or leave: one line, and whoever trains goes on. No network, no torch."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from distill.errors import InterruptedRunError, MissingError, RunError, TerminatedRunError, UsageError
from distill.events import EpochDone, Event, Note, RunStarted
from distill.recipe import load_recipe
from distill.runs import RunFolder, create_run
from distill.team.watch import watching
from distill.tracking import TRACKERS, check_trackers, tracked, tracking
from distill.tracking.story import RunEnd, RunStart, table


class Told:
    """A tracker that remembers, and misbehaves where it is asked to."""

    def __init__(self, log: list[str], fails: Mapping[str, Callable[[], object]]) -> None:
        self.log, self.fails = log, fails

    def _do(self, what: str) -> None:
        self.fails.get(what, lambda: None)()
        self.log.append(what)

    def start(self, run: RunStart) -> str:
        self._do("start")
        return run.id or "first"

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self._do(f"epoch {epoch}" if f"epoch {epoch}" in self.fails else "epoch")

    def end(self, ending: RunEnd) -> None:
        self._do("end")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    def put(name: str = "wandb", **fails: Callable[[], object]) -> list[str]:
        log: list[str] = []
        monkeypatch.setitem(TRACKERS, name, lambda: Told(log, fails))
        return log

    return put


def played(folder: Path, *names: str) -> tuple[RunFolder, list[str]]:
    """A run of two epochs as the loop tells it, and the warnings that its user saw."""
    run = create_run(folder, "tiny")
    run.write_info(status="running", name="tiny", role="teacher")
    run.write_recipe(load_recipe("quickstart_teacher"))
    told: list[Event] = []
    with tracking(run, names, told.append) as follow:
        follow(RunStarted(str(run.path), "tiny", "cpu", 2, 1, 1, 1, 1, 1))
        for epoch in (1, 2):
            metrics = {"epoch": epoch, "train_loss": 1.0 / epoch, "val_top1": 0.5}
            run.append_metrics(metrics)
            follow(EpochDone(epoch, metrics, 0.1, 10.0, True))
        run.write_result({"epochs": 2, "val_top1": 0.5})
    return run, [event.message for event in told if isinstance(event, Note) and event.level == "warning"]


def raising() -> None:
    raise OSError("no route to host\nand more")


def leaving() -> None:
    sys.exit("3")


@pytest.mark.parametrize("where", ["start", "epoch", "end"])
@pytest.mark.parametrize(("how", "reason"), [(raising, "no route to host"), (leaving, "3")])
def test_a_tracker_that_fails_is_one_line(
    where: str, how: Callable[[], None], reason: str, tmp_path: Path, stand_in: Any
) -> None:
    stand_in(**{where: how})
    run, warned = played(tmp_path, "wandb")
    assert warned == [f"--track wandb: {reason}; the run goes on without it"]
    assert "warning: --track wandb" in (run.path / "run.log").read_text()


@pytest.mark.parametrize("where", ["start", "epoch", "end"])
def test_a_tracker_that_hangs_is_one_line(
    where: str, tmp_path: Path, stand_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = threading.Event()
    stand_in(**{where: free.wait})
    monkeypatch.setattr(tracked, "_SECONDS", 0.3)
    try:
        _, warned = played(tmp_path, "wandb")
    finally:
        free.set()
    assert warned == ["--track wandb: no answer for 0.3 s; the run goes on without it"]


def test_the_wait_for_one_that_hangs_is_no_silence(
    tmp_path: Path, stand_in: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing else is said of it: least of all that a kernel of this machine may be wrong."""
    free = threading.Event()
    stand_in(end=free.wait)
    monkeypatch.setattr(tracked, "_SECONDS", 3.0)
    run = create_run(tmp_path, "tiny")
    run.write_recipe(load_recipe("quickstart_teacher"))
    told: list[Event] = []

    def stopped() -> None:
        with watching(silence_s=1.0), tracking(run, ("wandb",), told.append) as follow:
            follow(RunStarted(str(run.path), "tiny", "cpu", 2, 1, 1, 1, 1, 1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    free.set()
    assert told == [Note("--track wandb: no answer for 3 s; the run goes on without it", "warning")]
    assert "Tracking.end" not in capfd.readouterr().err


def test_one_that_fails_leaves_the_other_alone(tmp_path: Path, stand_in: Any) -> None:
    stand_in("wandb", start=raising)
    other = stand_in("mlflow")
    played(tmp_path, "wandb", "mlflow")
    assert other == ["start", "epoch", "epoch", "end"]


def test_a_module_that_cannot_be_imported_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    _, warned = played(tmp_path, "wandb", "mlflow")
    assert len(warned) == 2
    assert all("import of" in line and "\n" not in line for line in warned)


class SawEnough(InterruptedRunError):
    """As a search ends a trial: on purpose, and with another exit code than a signal's."""

    exit_code = 0


def test_what_an_interrupted_run_was_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endings: list[RunEnd] = []
    monkeypatch.setattr(Told, "end", lambda self, ending: endings.append(ending))
    monkeypatch.setitem(TRACKERS, "wandb", lambda: Told([], {}))
    run = create_run(tmp_path, "tiny")
    run.write_recipe(load_recipe("quickstart_teacher"))

    def end_with(error: BaseException) -> None:
        with tracking(run, ("wandb",), lambda _: None) as follow:
            follow(RunStarted(str(run.path), "tiny", "cpu", 2, 1, 1, 1, 1, 1))
            raise error

    stopped = (KeyboardInterrupt(), InterruptedRunError("i"), TerminatedRunError("t"), SawEnough("others are better"))
    for error in (*stopped, OSError("disk"), RunError("it diverged")):
        with pytest.raises(type(error)):
            end_with(error)
    assert [ending.status for ending in endings] == ["interrupted"] * 4 + ["failed"] * 2


def test_names_that_cannot_be_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="--track aim: no such tracker") as unknown:
        check_trackers(["aim"])
    assert unknown.value.hint == "one of tensorboard, wandb, mlflow; may be repeated"
    monkeypatch.setattr(tracked, "_is_installed", lambda _: False)
    with pytest.raises(MissingError, match="--track mlflow needs mlflow, which is not installed") as missing:
        check_trackers(["mlflow"])
    assert missing.value.exit_code == 4


def test_the_result_is_a_table() -> None:
    lines = table({"params": 10, "val_top1": 0.5}).splitlines()
    assert lines == ["| | |", "|---|---|", "| params | 10 |", "| val_top1 | 0.5 |"]


def test_a_run_without_trackers_starts_no_thread_and_reads_no_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(RunFolder, "recipe")
    before = threading.active_count()
    run, warned = played(tmp_path)
    assert (threading.active_count(), warned) == (before, [])
    assert not (run.path / "tracking").exists()
