"""Trackers: what they are told of real runs, and runs that go on whatever one does. Stand-ins play the services."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from distill.events import EpochDone, Event
from distill.files import read_json
from distill.pipeline import Options, finetune_teacher, resume_run
from distill.recipe import load_recipe
from distill.runs import RunFolder
from distill.tracking import TRACKERS, known_trackers, tracked
from distill.tracking.story import RunEnd, RunStart

CHANGES = ["train.epochs=2", "data.limit=64", "train.batch_size=32", "train.threads=1"]


class Told:
    """A tracker that remembers."""

    def __init__(self, log: list[tuple[str, Any]], fails: Mapping[str, Callable[[], None]] | None = None) -> None:
        self.log, self.fails = log, fails or {}

    def _do(self, what: str, content: Any) -> None:
        self.fails.get(what, lambda: None)()
        self.log.append((what, content))

    def start(self, run: RunStart) -> str:
        self._do("start", run)
        return run.id or "first"

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self._do("epoch", (epoch, dict(metrics)))

    def end(self, ending: RunEnd) -> None:
        self._do("end", (ending, [picture.read_bytes()[:8] for picture in ending.pictures]))


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[str, Any]]]:
    def stand_in(**fails: Callable[[], None]) -> list[tuple[str, Any]]:
        log: list[tuple[str, Any]] = []
        monkeypatch.setitem(TRACKERS, "wandb", lambda: Told(log, fails))
        monkeypatch.setattr(tracked, "_is_installed", lambda _: True)
        return log

    return stand_in


def train(folder: Path, *changes: str, told: list[Event] | None = None, **options: Any) -> RunFolder:
    recipe = load_recipe("quickstart_teacher", [*CHANGES, *changes])
    listener = (told if told is not None else []).append
    options = {"track": ("wandb",), "device": "cpu", "runs_dir": folder, "on_event": listener} | options
    return RunFolder(finetune_teacher(recipe, options=Options(**options)).run)


def test_a_tracker_is_told_recipe_metrics_pictures_and_result(tmp_path: Path, wandb: Any) -> None:
    log = wandb()
    run = train(tmp_path)
    assert [what for what, _ in log] == ["start", "epoch", "epoch", "end"]
    beginning = log[0][1]
    assert beginning.recipe == (run.path / "recipe.yaml").read_text()
    assert beginning.settings["train.epochs"] == 2
    assert (beginning.name, beginning.id, beginning.epoch) == (f"{run.name}/001", None, 0)
    for line, (_, (epoch, metrics)) in zip(run.metrics(), log[1:3], strict=True):
        assert line.pop("epoch") == epoch
        assert {name: metrics[name] for name in line} == line
    ending, starts = log[3][1]
    assert (ending.status, dict(ending.result)) == ("finished", run.result())
    assert [picture.name for picture in ending.pictures] == ["loss.png", "top1.png", "lr.png"]
    assert set(starts) == {b"\x89PNG\r\n\x1a\n"}
    assert known_trackers(run.path) == ("wandb",)


def test_tracking_changes_no_byte_of_what_is_trained(tmp_path: Path, wandb: Any) -> None:
    wandb()
    plain, told = train(tmp_path, track=()), train(tmp_path)
    assert (plain.path / "metrics.jsonl").read_bytes() == (told.path / "metrics.jsonl").read_bytes()
    assert not (plain.path / "tracking").exists()


def test_a_run_that_goes_on_goes_on_at_its_trackers(tmp_path: Path, wandb: Any) -> None:
    log = wandb()

    def stop(event: Event) -> None:
        if isinstance(event, EpochDone):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, on_event=stop)
    assert log[-1][1][0].status == "interrupted"
    (run,) = (tmp_path / "quickstart_teacher").glob("0*")
    del log[:]
    resume_run(run, options=Options(device="cpu", runs_dir=tmp_path))
    assert log[0][1].id == "first"
    assert [content[0] for what, content in log if what == "epoch"][-1] == 2
    assert log[-1][1][0].status == "finished"


@pytest.mark.pictures
def test_tensorboards_files_say_what_metrics_jsonl_says(tmp_path: Path) -> None:
    """Read back by TensorBoard's own reader."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = train(tmp_path, track=("tensorboard",))
    seen = reader.EventAccumulator(str(run.path / "tensorboard")).Reload()
    for name in ("train_loss", "val_top1"):
        values = [(event.step, event.value) for event in seen.Scalars(name)]
        assert values == [(line["epoch"], pytest.approx(line[name], rel=1e-6)) for line in run.metrics()]
    assert set(seen.Tags()["images"]) == {"plots/loss", "plots/top1", "plots/lr"}


def test_another_run_of_this_process_at_wandb_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook's own run: not told of what is trained, and not over when that is."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    mine = wandb.init(dir=tmp_path, settings=wandb.Settings(console="off", silent=True))
    try:
        run = train(tmp_path, track=("wandb",))
        name = read_json(run.path / "tracking" / "wandb.json")["id"]
        (file,) = (run.path / "wandb").glob("offline-run-*/*.wandb")
        assert file.name == f"run-{name}.wandb"
        assert name != mine.id
        mine.log({"loss": 1.0})  # which raises where it was ended
    finally:
        mine.finish()
