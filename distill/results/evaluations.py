"""What was measured of a model on one split, and of several, beside the first of them on corrupted images."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distill.results.calibration import Reliability, RiskCoverage, Temperature
from distill.results.corruptions import CorruptionResult
from distill.results.metrics import EvalResult

__all__ = ["Against", "Evaluation", "Evaluations"]


@dataclass(frozen=True)
class Evaluation:
    """What ``distill evaluate`` measured, and the pictures it drew of that.

    Attributes:
        tta: Test-time augmentation: ``none`` or ``flip``.
        temperature: Fitted on validation images, where it was asked for now or before.
        calibrated: Reliability on this split with the logits divided by it.
        corruptions: On corrupted images of this split, where it was asked for.
        notes: What the reader must know: classes with too few images.
    """

    run: str
    split: str
    result: EvalResult
    plots: tuple[str, ...] = ()
    tta: str = "none"
    reliability: Reliability | None = None
    risk_coverage: RiskCoverage | None = None
    temperature: Temperature | None = None
    calibrated: Reliability | None = None
    corruptions: CorruptionResult | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The document that ``distill evaluate --json`` prints."""
        metrics = self.result.to_json()
        more: dict[str, Any] = {
            "balanced_accuracy": self.result.balanced_accuracy,
            "top_confusions": [asdict(each) for each in self.result.top_confusions()],
            "plots": list(self.plots),
            "notes": list(self.notes),
        }
        for name in ("reliability", "risk_coverage", "temperature", "calibrated", "corruptions"):
            part = getattr(self, name)
            more[name] = None if part is None else part.to_json()
        return {"run": self.run, "split": self.split, "tta": self.tta} | metrics | more


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
