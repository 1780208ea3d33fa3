"""The bars of a terminal: epochs of the run, steps of the epoch, and work outside the loop."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from distill.events import EpochDone, RunStarted, StageProgress, StepDone
from distill.report.lines import StagePace, accuracy_text, loss_text
from distill.text import duration, plain

__all__ = ["Bars"]


class _Count(ProgressColumn):
    def render(self, task: Task) -> Text:
        total = "?" if task.total is None else f"{task.total:,.0f}"
        return Text(f"{task.completed:,.0f}/{total}", style="progress.download", no_wrap=True)


class _Info(ProgressColumn):
    """As many of the task's fields as have room, each whole: a number is never cut."""

    def __init__(self, console: Console, bar_width: int) -> None:
        super().__init__()
        self._console, self._bar_width = console, bar_width

    def render(self, task: Task) -> Text:
        count = 2 * len(f"{task.total or 0:,.0f}") + 1
        room = self._console.width - max(len(task.description), len("epoch 000")) - self._bar_width - count - 4
        text = ""
        for field in task.fields["info"]:
            longer = f"{text}  {field}" if text else field
            text = longer if len(longer) <= room else text
        return Text(text, no_wrap=True)


class Bars:
    """rich's progress, drawn only when something is told: no thread takes time from the training."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._stages: dict[str, tuple[TaskID, StagePace]] = {}
        self._epochs: TaskID | None = None
        self._steps: TaskID | None = None
        self._epoch_began = 0.0
        self._images_before = 0
        self._loss = ""

    def start(self, event: RunStarted) -> None:
        """Two bars for a run; an earlier run's are taken away."""
        self.close()
        progress = self._open()
        self._epochs = progress.add_task("epochs", total=event.epochs, completed=event.epoch, info=())
        self._steps = progress.add_task(f"epoch {event.epoch + 1}", total=event.steps_per_epoch, info=())
        self._epoch_began, self._images_before, self._loss = time.monotonic(), -1, ""
        progress.refresh()

    def step(self, event: StepDone) -> None:
        """Move the epoch's bar; ``event.epoch`` counts from 0."""
        if self._steps is None:
            return
        if self._images_before < 0:  # a resumed epoch starts in its middle, and compiling is no training
            self._images_before, self._epoch_began = event.images, time.monotonic()
        seconds = time.monotonic() - self._epoch_began
        images = event.images - self._images_before
        speed = f"{images / seconds:,.0f} images/s" if seconds > 0 and images > 0 else ""
        info = [text for text in (speed, self._loss) if text]
        progress = self._open()
        progress.update(self._steps, description=f"epoch {event.epoch + 1}", completed=event.step, info=info)
        progress.refresh()

    def epoch(self, event: EpochDone, *, best: float | None, left: float) -> None:
        """Move the run's bar, and empty the epoch's."""
        if self._epochs is None or self._steps is None:
            return
        info = [text for text in (f"{duration(left)} left", accuracy_text(event.metrics, best)) if text]
        self._loss = loss_text(event.metrics)
        self._epoch_began, self._images_before = time.monotonic(), -1
        progress = self._open()
        progress.update(self._epochs, completed=event.epoch, info=info)
        progress.reset(self._steps, description=f"epoch {event.epoch + 1}", info=[self._loss])
        progress.refresh()

    def stage(self, event: StageProgress) -> None:
        """One bar for each stage, taken away when it is full; the totals of a stage may grow."""
        progress = self._open()
        if event.stage not in self._stages:
            task = progress.add_task(plain(event.stage), total=event.total or None, info=())
            self._stages[event.stage] = (task, StagePace(event.done, time.monotonic()))
        task, pace = self._stages[event.stage]
        if 0 < event.total <= event.done:
            progress.remove_task(task)
            del self._stages[event.stage]
        else:
            left = pace.seconds_left(event, time.monotonic())
            info = [] if left is None else [f"{duration(left)} left"]
            progress.update(task, completed=event.done, total=event.total or None, info=info)
        progress.refresh()

    def close(self) -> None:
        """Take every bar off the screen."""
        if self._progress is not None:
            self._progress.stop()
        self._progress = self._epochs = self._steps = None
        self._stages = {}

    def _open(self) -> Progress:
        if self._progress is None:
            width = 20 if self._console.width >= 100 else 12
            name, info = TextColumn("{task.description}", markup=False), _Info(self._console, width)
            columns = (name, BarColumn(width), _Count(), info)
            self._progress = Progress(*columns, console=self._console, transient=True, auto_refresh=False)
            self._progress.start()
        return self._progress
