"""Draws the events of long work on stderr: bars on a terminal, plain lines elsewhere.

A :class:`ProgressPrinter` is handed to library functions as ``on_event``. With several devices it is pickled to the
first process of the group, so it holds settings only, and opens its display when the first event arrives.
"""

from __future__ import annotations

import atexit
import errno
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.text import Text

from distill.cli.output import open_console
from distill.events import EpochDone, Event, Note, RunStarted, StageProgress, StepDone
from distill.report.lines import StagePace, epoch_line
from distill.team.signals import drop_terminal
from distill.text import duration, plain

if TYPE_CHECKING:
    from distill.cli.bars import Bars

__all__ = ["ProgressPrinter"]

_SECONDS_BETWEEN_DRAWS = 0.2
_SECONDS_BEFORE_STAGE_LINES = 2.0
_SECONDS_BETWEEN_STAGE_LINES = 20.0


class ProgressPrinter:
    """Prints the progress of a run. Use it as a context manager, so that the terminal is restored.

    Args:
        quiet: Print only warnings.

    Example:
        >>> with ProgressPrinter() as printer:
        ...     options = Options(on_event=printer)  # for train_student(..., options=options)
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._display: _Display | None = None

    def __call__(self, event: Event) -> None:
        try:
            self._take(event)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            drop_terminal()  # closed, and the signal that says so is on its way: what trains is to be saved

    def _take(self, event: Event) -> None:
        if isinstance(event, Note):
            if event.level == "warning" or not self.quiet:
                self._open().note(event)
        elif not self.quiet:
            self._open().take(event)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, object]:
        return {"quiet": self.quiet, "_display": None}

    def close(self) -> None:
        """Take the bars away; the next event opens a new display."""
        if self._display is not None:
            self._display.close()
            atexit.unregister(self.close)
            self._display = None

    def _open(self) -> _Display:
        if self._display is None:
            self._display = _Display(open_console(stderr=True))
            atexit.register(self.close)  # in a spawned process nobody else closes it
        return self._display


@dataclass
class _Pace:
    """Seconds an epoch, and the best validation accuracy, of the run that is being drawn."""

    run: RunStarted
    best_top1: float | None = None
    seconds: float = 0.0
    epochs: int = 0

    def add(self, event: EpochDone) -> None:
        top1 = event.metrics.get("val_top1")
        if top1 is not None:
            self.best_top1 = top1 if self.best_top1 is None else max(self.best_top1, top1)
        # Recent epochs count most: a machine that is shared changes its pace.
        weight = 1.0 if self.epochs == 0 else 0.3
        self.seconds += weight * (event.seconds - self.seconds)
        self.epochs += 1

    def seconds_left(self, epoch: int) -> float:
        return self.seconds * (self.run.epochs - epoch)


class _Display:
    """One open display; it lives in one process."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.pace: _Pace | None = None
        self.stages: dict[str, tuple[float, bool]] = {}  # when the next line is due, and whether there was one
        self.paces: dict[str, StagePace] = {}
        self.drawn_at = 0.0
        self.bars: Bars | None = None
        if console.is_terminal:
            from distill.cli.bars import Bars

            self.bars = Bars(console)

    def take(self, event: Event) -> None:
        if isinstance(event, StepDone):  # thousands a second: the cheap way out comes first
            now = time.monotonic()
            if self.bars is not None and now - self.drawn_at >= _SECONDS_BETWEEN_DRAWS:
                self.drawn_at = now
                self.bars.step(event)
        elif isinstance(event, EpochDone):
            self._epoch(event)
        elif isinstance(event, RunStarted):
            self._started(event)
        elif isinstance(event, StageProgress):
            self._stage(event)

    def note(self, note: Note) -> None:
        style = "bold yellow" if note.level == "warning" else "dim"
        self.console.print(Text.assemble((f"{note.level}: ", style), plain(note.message)), soft_wrap=True)

    def close(self) -> None:
        if self.bars is not None:
            self.bars.close()

    def _started(self, event: RunStarted) -> None:
        self.pace = _Pace(event)
        self._line(Text.assemble((plain(event.name), "bold"), _start_text(event)))
        if self.bars is not None:
            self.bars.start(event)

    def _epoch(self, event: EpochDone) -> None:
        pace = self.pace
        if pace is None:  # the display was closed and opened again within a run
            return
        pace.add(event)
        line = epoch_line(event, epochs=pace.run.epochs, best=pace.best_top1, left=pace.seconds_left(event.epoch))
        is_last = event.epoch >= pace.run.epochs
        if self.bars is not None and not is_last:
            self.bars.epoch(event, best=pace.best_top1, left=pace.seconds_left(event.epoch))
            return
        if self.bars is not None:
            self.bars.close()
        self._line(Text(line))

    def _stage(self, event: StageProgress) -> None:
        if self.bars is not None:
            self.bars.stage(event)
            return
        now, over = time.monotonic(), event.done >= event.total > 0
        due, is_told = self.stages.get(event.stage, (now + _SECONDS_BEFORE_STAGE_LINES, False))
        pace = self.paces.setdefault(event.stage, StagePace(event.done, now))
        if now >= due or (over and is_told):  # what is over before a line is due gets none
            share = f"{event.done / event.total:.0%}" if event.total > 0 else f"{event.done:,}"
            left = None if over else pace.seconds_left(event, now)
            self._line(Text(f"{plain(event.stage)}  {share}" + ("" if left is None else f"  {duration(left)} left")))
            due, is_told = now + _SECONDS_BETWEEN_STAGE_LINES, True
        self.stages[event.stage] = due, is_told
        if over:
            del self.stages[event.stage], self.paces[event.stage]

    def _line(self, text: Text) -> None:
        self.console.print(text, soft_wrap=True)


def _start_text(event: RunStarted) -> str:
    images = f"{event.train_images:,} training and {event.val_images:,} validation images"
    resumed = f", from epoch {event.epoch + 1}" if event.epoch else ""
    return f"  {event.params:,} parameters, {images}, on {event.device}{resumed}  ->  {plain(event.run)}"
