"""Several models evaluated at once, and how they stand to the first of them on corrupted images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distill.results.rows import Evaluation

__all__ = ["Against", "Evaluations"]


@dataclass(frozen=True)
class Against:
    """Mean top-1 under corruptions of one model minus that of another, paired by image.

    Attributes:
        run: Whose it is; ``against`` whose it is held against.
        low: Of the 95% interval, to ``high``; ``p`` is two-sided, of no difference.
        verdict: ``better``, ``worse``, or ``cannot tell``.
    """

    run: str
    against: str
    difference: float
    low: float
    high: float
    p: float | None
    verdict: str


@dataclass(frozen=True)
class Evaluations:
    """Several evaluations in the order in which they were asked for.

    Attributes:
        names: Of each, as figures have them.
        roles: teacher, student or baseline, of each.
        against: Every other one against the first, where their corrupted images are the same.
        figure: The picture of all of them under corruptions; None where there is none.
        notes: Which could not be held against the first, and why.
    """

    runs: tuple[Evaluation, ...]
    names: tuple[str, ...]
    roles: tuple[str, ...]
    against: tuple[Against, ...] = ()
    figure: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """All pictures that were drawn."""
        of_all = () if self.figure is None else (self.figure,)
        return (*(file for each in self.runs for file in each.plots), *of_all)

    @property
    def labels(self) -> tuple[str, ...]:
        """The names; of equal ones with what their folders are called."""
        return tuple(
            name if self.names.count(name) == 1 else f"{name} {Path(each.run).name}"
            for name, each in zip(self.names, self.runs, strict=True)
        )

    def to_json(self) -> dict[str, Any]:
        """The document that ``distill evaluate`` prints of several runs."""
        return {
            "runs": [each.to_json() for each in self.runs],
            "against": [asdict(each) for each in self.against],
            "figure": self.figure,
            "notes": list(self.notes),
        }
