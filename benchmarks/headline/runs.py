"""Carry out the headline's runs within a deadline: each stops in order, is saved, and goes on in the next call."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from benchmarks.headline.tasks import Task
from distill.errors import DistillError, TerminatedRunError
from distill.events import EpochDone, Event, Note, RunStarted
from distill.pipeline import Options, RunResult, finetune_teacher, resume_run, train_student
from distill.runs import RunFolder, list_runs

__all__ = ["Machine", "OutOfTimeError", "Outcome", "Watch", "carry_out", "carry_out_all", "find_run", "say"]

_MIN_S = 90.0  # with less left, a run is not begun: it would hardly be compiled, and compiling hears no deadline


def say(text: str) -> None:
    """A line at once, with the time of day; in a terminal that is cut off, what was said is there."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


class OutOfTimeError(Exception):
    """The deadline passed outside the training loop, where nothing needs to be saved."""


@dataclass(frozen=True)
class Machine:
    """Where runs are carried out, and until when.

    Attributes:
        deadline: Seconds since the epoch, as ``time.time()``.
    """

    runs_dir: Path
    device: str | None
    threads: int | None
    deadline: float

    @property
    def left_s(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.time()

    def options(self, watch: Watch) -> Options:
        """For distill's verbs."""
        return Options(runs_dir=self.runs_dir, device=self.device, threads=self.threads, on_event=watch)


class Watch:
    """Listens to a run: tells every few epochs, and asks it to stop once the deadline has passed."""

    def __init__(self, label: str, deadline: float, *, epochs_between: int = 10) -> None:
        self._label, self._deadline, self._between = label, deadline, epochs_between
        self._training = self._asked = False
        self._epochs = 0

    def __call__(self, event: Event) -> None:
        match event:
            case RunStarted(epoch=epoch, epochs=epochs):
                self._training, self._epochs = True, epochs
                say(f"{self._label}: epochs {epoch + 1} to {epochs}, {event.steps_per_epoch} steps each")
            case EpochDone(epoch=epoch) if epoch % self._between == 0 or epoch in (1, 2, self._epochs):
                numbers = ", ".join(f"{key} {event.metrics[key]:.4f}" for key in _shown(event.metrics))
                say(f"{self._label}: epoch {epoch}: {numbers}, {event.seconds:.2f} s")
            case Note(message=message):
                say(f"{self._label}: {message}")
        if time.time() >= self._deadline and not self._asked:
            self._asked = True
            if not self._training:
                raise OutOfTimeError(self._label)
            os.kill(os.getpid(), signal.SIGTERM)  # as a scheduler would: the loop ends its step and saves


def _shown(metrics: dict[str, float]) -> list[str]:
    return [key for key in ("train_loss", "train_top1", "val_top1") if key in metrics]


@dataclass(frozen=True)
class Outcome:
    """How a task ended: ``result`` where it is finished, else why it is not."""

    task: Task
    result: RunResult | None
    why: str = ""


def find_run(task: Task, runs_dir: Path) -> RunFolder | None:
    """The newest run of a task, finished or not."""
    found = None
    for run in list_runs(runs_dir):
        if run.path.parent.name != task.name or not (run.path / "recipe.yaml").exists():
            continue
        found = run if run.recipe().train.seed == task.seed else found
    return found


def carry_out(task: Task, machine: Machine, teacher: str | None = None) -> Outcome:
    """Train a task, or go on with it; a finished one is returned at once.

    Args:
        teacher: The run that teaches, where the task is taught.
    """
    run = find_run(task, machine.runs_dir)
    if run is not None and run.status == "finished":
        return Outcome(task, resume_run(run.path, options=Options(runs_dir=machine.runs_dir)))
    if machine.left_s < _MIN_S:
        return Outcome(task, None, "no time left")
    options = machine.options(Watch(task.label, machine.deadline))
    try:
        if run is not None:
            return Outcome(task, resume_run(run.path, options=options))
        if task.taught:
            return Outcome(task, train_student(task.recipe(), teacher=teacher, options=options))
        train = finetune_teacher if task.recipe().role == "teacher" else train_student
        return Outcome(task, train(task.recipe(), options=options))
    except (TerminatedRunError, OutOfTimeError):
        return Outcome(task, None, "out of time, saved")
    except DistillError as error:
        return Outcome(task, None, f"failed: {error.message}")
    except Exception:  # a bug must not cost the other runs their time on a borrowed machine
        return Outcome(task, None, f"failed: {traceback.format_exc()}")


def carry_out_all(tasks: Sequence[Task], machine: Machine, teacher: str, *, parallel: int) -> list[Outcome]:
    """Every task in order, ``parallel`` at a time, each of those in a process of its own; all share the device."""
    if parallel == 1 or machine.left_s < _MIN_S:  # nothing will be trained: no processes for that
        return [_told(carry_out(task, machine, teacher)) for task in tasks]
    with ProcessPoolExecutor(parallel, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(carry_out, task, machine, teacher) for task in tasks]
        done = {future: _told(future.result()) for future in as_completed(futures)}
    return [done[future] for future in futures]


def _told(outcome: Outcome) -> Outcome:
    if outcome.result is None:
        say(f"{outcome.task.label}: {outcome.why}")
    else:
        say(f"{outcome.task.label}: finished, {outcome.result.seconds:.1f} s of training, {outcome.result.run}")
    return outcome
