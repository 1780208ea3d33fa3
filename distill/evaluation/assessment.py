"""What a model answers on one split, and what is made of its answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distill.evaluation.correct import correct
from distill.results.calibration import Reliability, RiskCoverage
from distill.results.figures import Figures
from distill.results.metrics import EvalResult

__all__ = ["Assessment"]


@dataclass(frozen=True)
class Assessment:
    """What a run, a file or a bank answers on one split.

    Attributes:
        place: Whose answers they are: a folder or a file.
        logits: float32 ``(N, C)``, of the images in the split's order.
        labels: int64 ``(N,)``.
        fingerprint: Of the data and the split it was trained on.
        content: Hex sha256 of the images, labels and class names it was asked about.
        device_type: Where it was asked (``cpu``, ``cuda``), and in which ``precision``; None of a bank's answers.
        is_kept: False where they could not be stored, as on a full disk, which was told.
    """

    place: str
    split: str
    result: EvalResult
    reliability: Reliability
    risk_coverage: RiskCoverage
    logits: np.ndarray
    labels: np.ndarray
    fingerprint: str
    content: str
    device_type: str | None
    precision: str | None
    is_kept: bool = True

    @property
    def correct(self) -> np.ndarray:
        """Which images it gave their label, ``(N,)`` bool."""
        return correct(self.logits, self.labels)

    @property
    def figures(self) -> Figures:
        """What tables say of it."""
        result = self.result
        return Figures(
            test_top1=result.top1,
            test_ece=result.ece,
            test_balanced_accuracy=result.balanced_accuracy,
            test_macro_f1=result.macro_f1,
            test_images=result.n,
            test_content=self.content,
        )
