"""What a training command reports of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["RunResult"]


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        run: The run folder.
        val_top1: Of the best epoch, a fraction; None where nothing was validated.
        seconds: Of training, over all its epochs.
        images_per_s: Training images over those seconds.
        role: ``teacher``, ``student`` or ``baseline``.
    """

    run: Path
    status: str
    epochs: int
    val_top1: float | None
    seconds: float
    images_per_s: float
    role: str
