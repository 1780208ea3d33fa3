"""Checkpoints that a thread writes while training goes on, as where a GPU trains: what they promise stays true."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest
import torch

from distill.errors import DistillError, TerminatedRunError
from distill.events import CheckpointSaved, EpochDone, Event, StepDone
from distill.pipeline import Options, resume_run
from distill.runs import RunFolder, list_runs
from distill.runs.checkpoints import best_checkpoint, is_whole, last_checkpoint, load_checkpoint, tensors, write
from distill.train import loop, state
from distill.train.saver import Saver, saving, snapshot, writes_behind

OFTEN = ("train.checkpoint_minutes=1e-9", "train.ema=0.9", "teacher.logits=live", "model.dropout=0.2")


@pytest.fixture
def behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "writes_behind", lambda device: True)


def _same(ours: Path, whole: Path) -> None:
    assert (ours / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    for link in ("last", "best"):
        model = f"checkpoints/{link}/model.safetensors"
        assert (ours / model).read_bytes() == (whole / model).read_bytes()
        resumed, expected = (load_checkpoint(run / "checkpoints" / link).load_resume() for run in (ours, whole))
        assert str(resumed) == str(expected)


def test_where() -> None:
    assert writes_behind(torch.device("cuda", 0))
    assert writes_behind(torch.device("mps", 0))
    assert not writes_behind(torch.device("cpu"))


def test_the_same_files_as_those_that_are_waited_for(train, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training goes on, and changes its weights in place, while the thread stands before its first byte."""
    whole = train(*OFTEN).run
    monkeypatch.setattr(loop, "writes_behind", lambda device: True)
    goes_on, threads, real = threading.Event(), set(), state.save_checkpoint

    def late(*args: object, **named: object) -> Path:
        threads.add(threading.current_thread().name.partition("_")[0])
        goes_on.wait(60)
        goes_on.clear()
        return real(*args, **named)  # type: ignore[arg-type]

    def listen(event: Event) -> None:
        if isinstance(event, StepDone | EpochDone):
            goes_on.set()

    monkeypatch.setattr(state, "save_checkpoint", late)
    monkeypatch.setattr(Saver, "close", lambda self, close=Saver.close: (goes_on.set(), close(self)))
    written = Saver.written

    def waits(self: Saver, *, wait: bool = False) -> object:
        if wait:
            goes_on.set()
        return written(self, wait=wait)

    monkeypatch.setattr(Saver, "written", waits)
    _same(train(*OFTEN, on_event=listen).run, whole)
    assert threads == {"distill-saver"}


@pytest.mark.usefixtures("behind")
def test_stopped_and_gone_on_with(train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, StepDone) and (event.epoch, event.step) == (1, 2):
            import os
            import signal

            os.kill(os.getpid(), signal.SIGTERM)

    told: list[Event] = []
    whole = train(*OFTEN, on_event=told.append).run
    with pytest.raises(TerminatedRunError, match="is saved"):
        train(*OFTEN, on_event=stop)
    run = list_runs(tmp_path / "runs")[-1].path
    assert last_checkpoint(run / "checkpoints").name == "000001-000002"
    resume_run(run, options=Options(runs_dir=tmp_path / "runs"))
    _same(run, whole)
    saved = [Path(event.path).name for event in told if isinstance(event, CheckpointSaved)]
    assert saved[0] == "000000-000001"
    assert saved[-1] == "000003"
    assert saved == sorted(set(saved))


@pytest.mark.usefixtures("behind")
def test_a_full_disk_ends_the_run_and_leaves_the_last_good_state(
    train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(*OFTEN[1:]).run
    real, calls = tensors.write_resume, iter(range(1))

    def fail(path: Path, tree: object) -> None:
        if next(calls, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, tree)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(tensors, "write_resume", fail)
        with pytest.raises(DistillError, match="No space left on device"):
            train(*OFTEN[1:])
    run = RunFolder(list_runs(tmp_path / "runs")[-1].path)
    assert run.status == "failed"
    assert last_checkpoint(run.checkpoints).name == "000001"
    assert not list(run.checkpoints.glob(".*"))
    resume_run(run.path, options=Options(runs_dir=tmp_path / "runs"))
    _same(run.path, whole)


@pytest.mark.usefixtures("behind")
def test_a_run_that_diverges_has_its_best_checkpoint_whole(train, tmp_path: Path) -> None:
    with pytest.raises(DistillError, match="not finite"):
        train("optim={name: sgd, lr: 1e9}", "schedule={kind: cosine, warmup_epochs: 2}", *OFTEN[2:3])
    run = RunFolder(list_runs(tmp_path / "runs")[-1].path)
    if last_checkpoint(run.checkpoints) is not None:
        assert is_whole(best_checkpoint(run.checkpoints))
    assert not list(run.checkpoints.glob(".*"))


@pytest.mark.usefixtures("behind")
def test_nothing_is_written_any_more_once_the_runs_lock_is_free(
    train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listener fails while a checkpoint is being written: the run ends when that is whole."""
    begun, goes_on, done = threading.Event(), threading.Event(), []
    real = write.sync_folder

    def slow(folder: Path) -> None:
        begun.set()
        goes_on.wait(60)
        real(folder)
        done.append(folder)

    def listen(event: Event) -> None:
        if isinstance(event, StepDone) and event.epoch == 1:
            assert begun.wait(60)
            threading.Timer(0.3, goes_on.set).start()
            raise KeyError("the listener's own")

    monkeypatch.setattr(write, "sync_folder", slow)
    with pytest.raises(KeyError):
        train(*OFTEN[1:], on_event=listen)
    assert goes_on.is_set()
    assert len(done) == 2  # the folder itself, and what holds it
    assert is_whole(last_checkpoint(RunFolder(list_runs(tmp_path / "runs")[-1].path).checkpoints))


def test_a_snapshot_is_no_view() -> None:
    weights = torch.ones(3)
    state = {"a": [weights, (weights, 1)], "b": None}
    copied = snapshot(state)
    weights += 1
    assert copied["a"][0].tolist() == copied["a"][1][0].tolist() == [1, 1, 1]
    assert copied["b"] is None
    assert type(copied["a"][1]) is tuple


def test_two_are_never_written_at_once() -> None:
    at_work, most = [0], [0]

    def slow() -> CheckpointSaved:
        at_work[0] += 1
        most[0] = max(most[0], at_work[0])
        at_work[0] -= 1
        return CheckpointSaved("x", False)

    with saving(Saver(behind=True)) as saver:
        told = [event for _ in range(5) for event in saver.write(slow)] + list(saver.written(wait=True))
    assert (len(told), most) == (5, [1])
