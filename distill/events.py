"""What long work tells while it goes on. A renderer draws these; nothing here waits for the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "CheckpointSaved",
    "EpochDone",
    "Event",
    "Note",
    "NotesOnce",
    "RunStarted",
    "StageProgress",
    "StepDone",
    "Tell",
    "default_listener",
    "listen_by_default",
    "silent",
]


@dataclass(frozen=True)
class RunStarted:
    """Training begins or goes on: ``epoch`` epochs are behind it."""

    run: str
    name: str
    device: str
    epochs: int
    steps_per_epoch: int
    batch_size: int
    train_images: int
    val_images: int
    params: int
    epoch: int = 0


@dataclass(frozen=True)
class StepDone:
    """One optimiser step was queued; ``images`` is how many images this epoch has used so far."""

    epoch: int
    step: int
    images: int


@dataclass(frozen=True)
class EpochDone:
    """An epoch ended. ``metrics`` is the line of metrics.jsonl; accuracies are fractions.

    Attributes:
        seconds: Wall time of its steps, without the ``compile_s`` that compiling took meanwhile.
    """

    epoch: int
    metrics: dict[str, float]
    seconds: float
    images_per_s: float
    is_best: bool
    compile_s: float = 0.0


@dataclass(frozen=True)
class CheckpointSaved:
    """A checkpoint is whole on disk."""

    path: str
    is_best: bool


@dataclass(frozen=True)
class StageProgress:
    """Work outside the loop that takes long: decoding, downloading, asking a teacher, timing models."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class Note:
    """Something the user should know."""

    message: str
    level: Literal["note", "warning"] = "note"


Event = RunStarted | StepDone | EpochDone | CheckpointSaved | StageProgress | Note

Tell = Callable[[Event], None]
"""Whoever works long is handed one of these, and tells it how far the work is."""


def silent(event: Event) -> None:
    """Nobody listens."""


class NotesOnce:
    """Hands events on, but no note or warning twice: what many runs of one command have to say in the same words."""

    def __init__(self, tell: Tell) -> None:
        self.tell = tell
        self.told: set[Note] = set()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Note):
            if event in self.told:
                return
            self.told.add(event)
        self.tell(event)


_defaults: list[Tell] = []


def listen_by_default(tell: Tell | None) -> None:
    """Have everything told to ``tell`` where a caller names no listener, as in a notebook; None: to nobody."""
    _defaults[:] = [] if tell is None else [tell]


def default_listener() -> Tell | None:
    """Who listens where a caller names nobody."""
    return _defaults[0] if _defaults else None
