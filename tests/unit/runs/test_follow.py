"""Following a run from outside, while it grows, ends, begins again, or is gone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distill.cli import app
from distill.errors import RunError
from distill.recipe import load_recipe
from distill.runs import RunFolder, create_run
from distill.runs.follow import follow, to_watch


def begin(runs: Path, name: str, *, started: str = "2026-01-01T00:00:00+00:00") -> RunFolder:
    run = create_run(runs, name)
    run.write_info(status="running", role="student", name=name, started=started)
    run.write_recipe(load_recipe("quickstart_student", ["train.epochs=3", f"name={name}"]))
    return run


def add(run: RunFolder, epoch: int) -> None:
    run.append_metrics({"epoch": epoch, "train_loss": 1.0 / epoch, "val_top1": 0.1 * epoch})
    run.append_timing({"epoch": epoch, "seconds": 2.0, "images_per_s": 10.0})


def acting(*acts: Callable[[], object]) -> Callable[[float], None]:
    """A sleep in which the run goes on."""
    left = list(acts)

    def sleep(_seconds: float) -> None:
        left.pop(0)()

    return sleep


def test_it_sees_every_epoch_and_the_end(tmp_path: Path) -> None:
    run = begin(tmp_path, "small")
    with run.lock():
        sleep = acting(lambda: add(run, 1), lambda: add(run, 2), lambda: run.write_info(status="finished"))
        seen = list(follow(run, every_s=1.0, sleep=sleep))
    assert [each.done for each in seen] == [0, 1, 2, 2]
    assert [each.status for each in seen] == ["running"] * 3 + ["finished"]
    assert seen[2].epochs == 3
    assert seen[2].seconds_per_epoch == 2.0
    assert 0.0 <= seen[2].left_s <= 2.0


def test_a_half_written_line_is_not_there_yet(tmp_path: Path) -> None:
    run = begin(tmp_path, "small")
    add(run, 1)
    with open(run.path / "metrics.jsonl", "ab") as file:
        file.write(b'{"epoch": 2, "train_')
    (seen,) = follow(run, every_s=1.0)  # nobody holds it: it was interrupted
    assert (seen.done, seen.status) == (1, "interrupted")


def test_a_run_that_was_resumed_has_fewer_epochs(tmp_path: Path) -> None:
    run = begin(tmp_path, "small")
    add(run, 1)
    add(run, 2)
    with run.lock():
        sleep = acting(lambda: run.truncate_metrics(1), lambda: run.write_info(status="failed", error="full"))
        seen = list(follow(run, every_s=1.0, sleep=sleep))
    assert [each.done for each in seen] == [2, 1, 1]
    assert seen[-1].error == "full"


def test_nothing_is_written(tmp_path: Path) -> None:
    run = begin(tmp_path, "small")
    add(run, 1)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in tmp_path.rglob("*")}
    list(follow(run, every_s=1.0))
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in tmp_path.rglob("*")} == before


def test_without_a_name_it_is_the_last_begun_of_those_at_work(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run"):
        to_watch(None, runs_dir=tmp_path)
    old = begin(tmp_path, "old", started="2026-01-01T00:00:00+00:00")
    begin(tmp_path, "dead", started="2026-01-03T00:00:00+00:00")
    new = begin(tmp_path, "new", started="2026-01-02T00:00:00+00:00")
    with old.lock(), new.lock():
        assert to_watch(None, runs_dir=tmp_path).path == new.path
    with old.lock():
        assert to_watch(None, runs_dir=tmp_path).path == old.path
    assert to_watch(None, runs_dir=tmp_path).name == "dead"
    assert to_watch("old", runs_dir=tmp_path).path == old.path


def test_the_command_prints_a_line_an_epoch_and_ends_as_the_run_did(tmp_path: Path) -> None:
    run = begin(tmp_path, "small")
    add(run, 1)
    add(run, 2)
    stopped = CliRunner().invoke(app, ["watch", "small", "--runs", str(tmp_path)])
    assert stopped.exit_code == 1
    assert [line.split("  ")[0] for line in stopped.stdout.splitlines()] == ["epoch 1/3", "epoch 2/3"]
    assert "was interrupted" in stopped.stderr
    assert f"distill student --resume {run.path}" in stopped.stderr
    run.write_info(status="finished")
    assert CliRunner().invoke(app, ["watch", "small", "--runs", str(tmp_path)]).exit_code == 0


def test_damage_is_one_line(tmp_path: Path) -> None:
    run = begin(tmp_path, "small")
    (run.path / "metrics.jsonl").write_text("nonsense\n" + json.dumps({"epoch": 2}) + "\n")
    told = CliRunner().invoke(app, ["watch", "small", "--runs", str(tmp_path)])
    assert told.exit_code == 1
    assert "metrics.jsonl:1: damaged" in told.stderr
