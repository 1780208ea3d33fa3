"""Follow a run that another process works on: its files are read, never written, and nothing is held."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill.errors import DistillError, RunError
from distill.files import read_text
from distill.runs.find import list_runs, open_run
from distill.runs.folder import RunFolder
from distill.runs.info import Status

__all__ = ["Seen", "follow", "to_watch"]

_LOG_TAIL = 4096  # bytes that are looked through for the last line


@dataclass(frozen=True)
class Seen:
    """How a run stands.

    Attributes:
        epochs: That it is to have.
        metrics: A line an epoch, oldest first; ``timing`` alike.
        log: The last line of run.log, without its time.
        since_s: Seconds since an epoch ended, or since the run began.
        error: Why it ended, where it did not finish.
    """

    run: str
    role: str
    status: Status
    epochs: int
    metrics: tuple[dict[str, Any], ...] = ()
    timing: tuple[dict[str, Any], ...] = ()
    device: str | None = None
    log: str = ""
    since_s: float | None = None
    error: str | None = None

    @property
    def done(self) -> int:
        """Epochs that are behind it."""
        return len(self.metrics)

    @property
    def seconds_per_epoch(self) -> float | None:
        """The median of the last five."""
        last = sorted(float(line["seconds"]) for line in self.timing[-5:] if line.get("seconds"))
        return last[len(last) // 2] if last else None

    @property
    def left_s(self) -> float | None:
        """Until its last epoch, at that pace."""
        pace = self.seconds_per_epoch
        return None if pace is None else max(pace * (self.epochs - self.done) - (self.since_s or 0.0), 0.0)


def to_watch(reference: str | None, *, runs_dir: Path) -> RunFolder:
    """The run that is meant: by name the latest of that name; without one the last begun of those at work, or of all.

    Raises:
        RunError: There is none.
    """
    if reference is not None:
        return open_run(reference, runs_dir=runs_dir, finished=False)
    runs = sorted(list_runs(runs_dir), key=lambda run: run.info.started or "")
    at_work = [run for run in runs if run.status == "running"]
    if not runs:
        raise RunError(f"no run below {runs_dir}", hint="name one by its folder, or name another place: --runs DIR")
    return (at_work or runs)[-1]


def follow(run: RunFolder, *, every_s: float, sleep: Callable[[float], None] = time.sleep) -> Iterator[Seen]:
    """How the run stands, every so often, the last time when it has ended.

    Raises:
        RunError: The run is gone, or damaged.
    """
    reader = _Reader(run)
    while True:
        seen = reader.look()
        yield seen
        if seen.status != "running":
            return
        sleep(every_s)


@dataclass
class _Reader:
    """Reads a journal anew only when its file has changed: a long one is not parsed every second."""

    run: RunFolder
    kept: dict[str, tuple[tuple[int, int], tuple[dict[str, Any], ...]]] = field(default_factory=dict)
    epochs: int | None = None

    def look(self) -> Seen:
        status = self.run.status  # before the numbers: what it wrote before it ended is seen
        info = self.run.read_info()
        if self.epochs is None:
            with suppress(RunError):  # a run that is about to begin has no recipe yet
                self.epochs = self.run.recipe().train.epochs
        metrics = self._lines("metrics.jsonl", self.run.metrics)
        return Seen(
            run=str(self.run.path),
            role=info.role,
            status=status,
            epochs=self.epochs or 0,
            metrics=metrics,
            timing=self._lines("timing.jsonl", self.run.timing),
            device=info.device,
            log=_last_line(self.run.path / "run.log"),
            since_s=self._since(),
            error=info.extra.get("error") if status != "running" else None,
        )

    def _lines(self, name: str, read: Callable[[], list[dict[str, Any]]]) -> tuple[dict[str, Any], ...]:
        try:
            found = os.stat(self.run.path / name)
        except OSError:
            return ()
        stamp = (found.st_size, found.st_mtime_ns)
        if self.kept.get(name, ((-1, -1), ()))[0] != stamp:
            self.kept[name] = (stamp, tuple(read()))
        return self.kept[name][1]

    def _since(self) -> float | None:
        for name in ("metrics.jsonl", "recipe.yaml"):
            with suppress(OSError):
                return max(time.time() - os.stat(self.run.path / name).st_mtime, 0.0)
        return None


def _last_line(path: Path) -> str:
    """The last whole line of a log, without its time."""
    with suppress(DistillError, OSError):
        if path.stat().st_size <= _LOG_TAIL:
            text = read_text(path)
        else:
            with open(path, "rb") as file:
                file.seek(-_LOG_TAIL, os.SEEK_END)
                text = file.read().decode(errors="replace")
        lines = text.split("\n")[:-1]
        return lines[-1].partition(" ")[2] if lines else ""
    return ""
