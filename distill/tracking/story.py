"""What every tracker is told of a run, and what it must be able to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

__all__ = ["RunEnd", "RunStart", "Tracker", "table"]


@dataclass(frozen=True)
class RunStart:
    """A run begins or goes on.

    Attributes:
        name: ``r18_small/003``.
        folder: The run folder.
        settings: The resolved recipe, by dotted key.
        epoch: How many epochs are behind it.
        id: What the tracker called it before; None: it is new there.
    """

    name: str
    folder: Path
    recipe: str
    settings: Mapping[str, Any]
    epoch: int
    id: str | None


@dataclass(frozen=True)
class RunEnd:
    """How a run ended: ``finished``, ``interrupted`` or ``failed``.

    Attributes:
        result: The figures of result.json; empty where it did not finish.
        pictures: PNG files.
    """

    status: str
    result: Mapping[str, Any]
    pictures: Sequence[Path]


class Tracker(Protocol):
    """One service, called from one thread; it may raise anything."""

    def start(self, run: RunStart) -> str:
        """Begin or go on, and return what the service calls the run."""
        ...

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """The metrics of an epoch, from 1."""
        ...

    def end(self, ending: RunEnd) -> None:
        """Tell the rest, and see to it that all has arrived."""
        ...


def table(result: Mapping[str, Any]) -> str:
    """The result as a Markdown table."""
    rows = [
        f"| {key} | {value:.6g} |" if isinstance(value, float) else f"| {key} | {value} |"
        for key, value in result.items()
    ]
    return "\n".join(["| | |", "|---|---|", *rows])
