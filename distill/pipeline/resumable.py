"""Runs that the same call goes on with where it was stopped: one of a folder, or several, one after another."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from distill.errors import DistillError
from distill.events import Event, RunStarted, Tell
from distill.files import read_json, relative, write_json, writing
from distill.pipeline.context import Options
from distill.pipeline.verbs import resume_run
from distill.results.runs import RunResult
from distill.runs import Lock, RunFolder, begun_runs, open_run
from distill.team.ranks import process_rank

__all__ = ["RunLedger", "resumed_or"]

_FOLDER = ".begun"


def resumed_or(
    begin: Callable[[Options], Path],
    into: Path,
    options: Options,
    *,
    fits: Callable[[RunFolder], bool] = lambda run: True,
) -> RunFolder:
    """The newest run of a folder that fits, trained to its end; where there is none, the one that ``begin`` makes.

    Args:
        begin: Trains a run in the folder of the options that it is given.
    """
    options = replace(options, into=into)
    for run in reversed(begun_runs(into)):
        if fits(run):
            return RunFolder(resume_run(run.path, options=options).run)
    return RunFolder(begin(options))


class Start(Protocol):
    """What begins a run."""

    def __call__(self, *, options: Options) -> RunResult: ...


@dataclass(frozen=True)
class RunLedger:
    """Which runs were begun, in order, from the folder of runs; the file lives until the last one is finished."""

    path: Path

    @classmethod
    def within(cls, runs_dir: Path, name: str) -> RunLedger:
        """Of one call, or of all that are alike, by a name; its folder is made.

        Raises:
            DistillError: The folder cannot be made.
        """
        path = runs_dir / _FOLDER / f"{name}.json"
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return cls(path)

    def lock(self, subject: str) -> AbstractContextManager[object]:
        """Held while its runs are made, so that no two calls make them at once.

        Of torchrun's processes, which all come here, the first one holds it for all.
        """
        return Lock(self.path.with_suffix(".lock"), subject=subject) if process_rank() == 0 else nullcontext()

    def run(self, number: int, start: Start, options: Options) -> RunResult:
        """The run of this number: gone on with where it was begun, else started, and noted."""
        begun = self._read()
        told = replace(options, on_event=_Noting(self.path, options.runs_dir, number, options.on_event or options.tell))
        if number < len(begun) and (run := _there(begun[number], options.runs_dir)) is not None:
            return resume_run(run, options=replace(told, init_from=None))
        return start(options=told)

    def finish(self) -> None:
        """All are finished: the next call begins anew."""
        self.path.unlink(missing_ok=True)

    def note(self, number: int, run: str) -> None:
        """Write down where the run of this number is; those after it were of an earlier one, and are forgotten."""
        runs = self._read()[:number]
        if len(runs) == number:
            write_json(self.path, {"runs": [*runs, run]})

    def _read(self) -> list[str]:
        with suppress(DistillError, KeyError, TypeError):
            runs = read_json(self.path)["runs"]
            if isinstance(runs, list) and all(isinstance(run, str) for run in runs):
                return runs
        return []


def _there(path: str, runs_dir: Path) -> str | None:
    """The run that was begun, where it is still there."""
    with suppress(DistillError):
        return str(open_run(os.path.normpath(runs_dir / path), runs_dir=runs_dir, finished=False).path)
    return None


@dataclass(frozen=True)
class _Noting:
    """Writes down where a run began, then tells on; it travels to other processes as it is."""

    path: Path
    runs_dir: Path
    number: int
    listener: Tell

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            RunLedger(self.path).note(self.number, relative(event.run, self.runs_dir))
        self.listener(event)
