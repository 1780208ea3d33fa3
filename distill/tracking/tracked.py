"""The trackers of a run, each in a thread of its own: one that fails or hangs is warned of once, and the run goes on.

The thread that trains puts what is to be told into a queue and never waits, but for a bounded time at the end.
"""

from __future__ import annotations

import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from distill.errors import DistillError, MissingError, UsageError, was_stopped
from distill.events import EpochDone, Event, Note, RunStarted, Tell
from distill.files import read_json, write_json
from distill.recipe import dump_recipe, flat_settings
from distill.runs import RunFolder
from distill.team.watch import beat
from distill.text import first_line
from distill.tracking.mlflow import Mlflow
from distill.tracking.story import RunEnd, RunStart, Tracker
from distill.tracking.tensorboard import TensorBoard
from distill.tracking.wandb import Wandb

__all__ = ["TRACKERS", "Tracking", "check_trackers", "known_trackers", "tracking"]

TRACKERS: dict[str, Callable[[], Tracker]] = {"tensorboard": TensorBoard, "wandb": Wandb, "mlflow": Mlflow}
_FOLDER = "tracking"
_SECONDS = 60.0  # that a tracker may take for one thing, and at the end for all that is left
_LOOK_S = 0.1


def check_trackers(names: Sequence[str]) -> tuple[str, ...]:
    """The trackers that were asked for, each once.

    Raises:
        UsageError: There is no such tracker.
        MissingError: Its package is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise UsageError(f"--track {name}: no such tracker", hint=f"one of {', '.join(TRACKERS)}; may be repeated")
        if not _is_installed(name):
            raise MissingError(f"--track {name} needs {name}, which is not installed", hint=f"pip install {name}")
    return tuple(dict.fromkeys(names))


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ValueError:  # a module that was put there by hand has no spec
        return True


def known_trackers(run: Path) -> tuple[str, ...]:
    """The trackers that a run had, in the order of their names."""
    return tuple(sorted(name for name in TRACKERS if (run / _FOLDER / f"{name}.json").is_file()))


@contextmanager
def tracking(run: RunFolder, names: Sequence[str], tell: Tell) -> Iterator[Tracking]:
    """Tell ``names`` of a run for the length of a block; how it ends is told too."""
    tracked = Tracking(run, names, tell, _SECONDS)
    try:
        yield tracked
    except BaseException as error:
        tracked.end("interrupted" if was_stopped(error) else "failed")
        raise
    tracked.end("finished")


class Tracking:
    """All trackers of one run. Only the thread that trains calls it."""

    def __init__(self, run: RunFolder, names: Sequence[str], tell: Tell, seconds: float) -> None:
        self._run, self._tell, self._seconds = run, tell, seconds
        self._all = [_Thread(name, TRACKERS[name], run.path / _FOLDER / f"{name}.json") for name in names]

    def __call__(self, event: Event) -> None:
        """Pass on what the loop tells, and warn of who failed."""
        if isinstance(event, RunStarted):
            self._start(event)
        elif isinstance(event, EpochDone):
            metrics = {name: value for name, value in event.metrics.items() if name != "epoch"}
            metrics |= {"seconds": event.seconds, "images_per_s": event.images_per_s}
            for each in self._all:
                each.put(partial(_tell_epoch, event.epoch, metrics))
            self._warn()

    def _start(self, event: RunStarted) -> None:
        if not self._all:
            return
        recipe = self._run.recipe()
        text, settings = dump_recipe(recipe), flat_settings(recipe.model_dump(mode="json"))
        for each in self._all:
            beginning = RunStart(
                name=f"{self._run.name}/{self._run.path.name}",
                folder=self._run.path,
                recipe=text,
                settings=settings,
                epoch=event.epoch,
                id=each.known_id(),
            )
            each.start(beginning)

    def end(self, status: str) -> None:
        """Tell how it ended, and wait a bounded time until that has arrived."""
        if not self._all:
            return
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            ending = self._ending(status, Path(folder))
            for each in self._all:
                each.put(lambda tracker: tracker.end(ending))
                each.put(None)
            until = time.monotonic() + self._seconds
            for each in self._all:
                each.join(until)
        self._warn(over=True)

    def _ending(self, status: str, folder: Path) -> RunEnd:
        if status != "finished":
            return RunEnd(status, {}, ())
        from distill.report.plots import plot_run

        try:
            pictures = plot_run(self._run.metrics(), folder, name=self._run.name, kind="png")
            return RunEnd(status, self._run.result(), pictures)
        except (DistillError, OSError) as error:
            self._tell(Note(f"tracking: the pictures could not be drawn: {first_line(error)}", "warning"))
            return RunEnd(status, {}, ())

    def _warn(self, *, over: bool = False) -> None:
        for each in self._all:
            reason = each.trouble(self._seconds, over=over)
            if reason:
                message = f"--track {each.name}: {reason}; the run goes on without it"
                self._tell(Note(message, "warning"))
                self._run.log(f"warning: {message}")


def _tell_epoch(epoch: int, metrics: dict[str, float], tracker: Tracker) -> None:
    tracker.epoch(epoch, metrics)


class _Thread:
    """One tracker in a thread that nobody has to wait for."""

    def __init__(self, name: str, make: Callable[[], Tracker], file: Path) -> None:
        self.name = name
        self._make, self._file = make, file
        self._todo: queue.SimpleQueue[Callable[[Tracker], Any] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._busy_since: float | None = None
        self._failed: str | None = None
        self._is_told = False

    def known_id(self) -> str | None:
        """What the service called this run before."""
        try:
            known = read_json(self._file)["id"] if self._file.is_file() else None
        except (DistillError, KeyError, TypeError):
            return None
        return known if isinstance(known, str) else None

    def start(self, beginning: RunStart) -> None:
        """Begin in the background."""
        self._keep(beginning.id)
        self._thread = threading.Thread(target=self._work, args=(beginning,), name=f"track {self.name}", daemon=True)
        self._thread.start()

    def put(self, what: Callable[[Tracker], Any] | None) -> None:
        """Have something done after all that was put before; None ends the thread."""
        self._todo.put(what)

    def join(self, until: float) -> None:
        """Wait until all is done, so long at most. A wait that has an end is no silence to be warned of."""
        while self._thread is not None and self._thread.is_alive() and (left := until - time.monotonic()) > 0:
            self._thread.join(min(left, _LOOK_S))
            beat()

    def trouble(self, seconds: float, *, over: bool) -> str | None:
        """Why it does no longer track, told once."""
        since = self._busy_since
        hangs = since is not None and (over or time.monotonic() - since > seconds)
        reason = self._failed or (f"no answer for {seconds:g} s" if hangs else None)
        if reason is None or self._is_told:
            return None
        self._is_told = True
        return reason

    def _keep(self, known: str | None) -> None:
        self._file.parent.mkdir(exist_ok=True)
        write_json(self._file, {"id": known})

    def _work(self, beginning: RunStart) -> None:
        try:
            self._busy_since = time.monotonic()
            tracker = self._make()
            self._keep(tracker.start(beginning))
            self._busy_since = None
            while (what := self._todo.get()) is not None:
                self._busy_since = time.monotonic()
                what(tracker)
                self._busy_since = None
        except BaseException as error:  # whatever it is, SystemExit too: it is the tracker's, and the run goes on
            text = str(error).strip() or type(error).__name__
            self._failed = text.splitlines()[0][:200]
            self._busy_since = None
