"""Whether an exported file answers as the network it was made from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distill.errors import RunError

__all__ = ["Parity", "check_parity"]

_TOLERANCE = 1e-4  # of the largest logit: float32 sums in another order differ by some 1e-6


@dataclass(frozen=True)
class Parity:
    """What a comparison of two sets of logits found.

    Attributes:
        images: How many were asked about.
        split: ``val``, or ``train`` where a run has no validation images.
        largest_difference: Of two logits, as a share of the largest logit.
        changed_top1: Images whose class changed, though their first two logits were not as good as equal.
        tolerance: What ``largest_difference`` may be.
    """

    images: int
    split: str
    largest_difference: float
    changed_top1: int
    tolerance: float = _TOLERANCE

    @property
    def holds(self) -> bool:
        """Whether the file answers as its network."""
        return self.changed_top1 == 0 and self.largest_difference <= self.tolerance

    def require(self, what: str) -> None:
        """Raise where it does not hold.

        Raises:
            RunError: Names by how much.
        """
        if not self.holds:
            raise RunError(
                f"{what} does not answer as its network: {self.changed_top1} of {self.images} images change class, "
                f"logits differ by {self.largest_difference:.2g} of the largest (allowed: {self.tolerance:g}); "
                "no file was written",
                hint="this is a bug of the exporter or of distill: try another version of torch and onnxscript",
            )


def check_parity(reference: np.ndarray, answers: np.ndarray, *, split: str) -> Parity:
    """Compare a file's logits with its network's.

    Shapes:
        reference, answers: ``(N, C)`` float32, of the same images.
    """
    assert reference.shape == answers.shape
    scale = max(float(np.abs(reference).max()), float(np.finfo(np.float32).tiny))
    largest = float(np.abs(reference.astype(np.float64) - answers).max()) / scale
    best, second = np.sort(reference, axis=1)[:, ::-1][:, :2].T
    tied = best - second <= 2 * _TOLERANCE * scale  # both may move by the tolerance
    changed = (reference.argmax(axis=1) != answers.argmax(axis=1)) & ~tied
    finite = bool(np.isfinite(answers).all())
    return Parity(len(reference), split, largest if finite else float("inf"), int(changed.sum()))
