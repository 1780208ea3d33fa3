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
        val_top1: Validation top-1 of the best epoch, a fraction; None without validation.
        seconds: Training time over all epochs.
        images_per_s: Training images divided by those seconds.
        role: ``teacher``, ``student`` or ``baseline``.
    """

    run: Path
    status: str
    epochs: int
    val_top1: float | None
    seconds: float
    images_per_s: float
    role: str
