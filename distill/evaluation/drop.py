"""Whether a model lost at most so much of another's accuracy: shown, refuted, or neither, and what would settle it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from distill.evaluation.statistics import (
    LEVEL,
    Interval,
    check_pair,
    images_needed,
    normal_quantile,
    paired_interval,
)

__all__ = ["DropVerdict", "can_be_shown", "images_to_show", "judge_drop"]


@dataclass(frozen=True)
class DropVerdict:
    """Whether a model lost at most ``allowed`` of the accuracy of the one it came from.

    Attributes:
        drop: Theirs minus ours, with its paired interval: positive is a loss.
        reference: Their accuracy.
        allowed: The most that may be lost.
        needed: About how many images would settle it; None where it is settled.
        prove: Whether the upper bound is what must be allowed, and not the estimate.
    """

    drop: Interval
    reference: float
    allowed: float
    n: int
    needed: int | None
    prove: bool = False

    @property
    def word(self) -> Literal["shown", "refuted", "not shown"]:
        """``shown``: even the upper bound is allowed; ``refuted``: not even the lower bound is."""
        if self.drop.high <= self.allowed:
            return "shown"
        return "refuted" if self.drop.low > self.allowed else "not shown"

    @property
    def decisive(self) -> float:
        """What must be allowed: the estimate, or the upper bound."""
        return self.drop.high if self.prove else self.drop.estimate

    @property
    def passes(self) -> bool:
        """Whether it is allowed."""
        return self.decisive <= self.allowed

    def to_json(self) -> dict[str, Any]:
        """As documents have it, all but ``allowed`` and ``prove``: some say these once for many."""
        told = {"reference_top1": self.reference, "images": self.n, "verdict": self.word, "needed_images": self.needed}
        return asdict(self.drop) | told


def judge_drop(
    ours: np.ndarray, reference: np.ndarray, *, allowed: float, prove: bool = False, level: float = LEVEL
) -> DropVerdict:
    """Judge a loss of accuracy on the same images.

    Shapes:
        ours, reference: ``(N,)`` bool, whether each answered an image right.

    Raises:
        ValueError: The shapes differ, or there are no images.
    """
    check_pair(ours, reference, dimensions=1)
    n, lost, won = len(ours), int((reference & ~ours).sum()), int((~reference & ours).sum())
    drop = paired_interval(lost, won, n, level)
    verdict = DropVerdict(drop, float(reference.mean()), allowed, n, None, prove)
    if verdict.word != "not shown" or drop.estimate == allowed:
        return verdict
    needed = images_needed(lost, won, n, lambda found: found.high <= allowed or found.low > allowed, level)
    return replace(verdict, needed=needed)


def images_to_show(allowed: float, *, level: float = LEVEL) -> int | None:
    """The fewest images on which two that answer all alike are shown to differ by at most ``allowed``, a fraction.

    On fewer, only one that answers more of them right could be shown to lose so little. None: no number would do.

    >>> images_to_show(0.003), images_to_show(0.0)
    (922, None)
    """
    if allowed <= 0:
        return None
    n = max(math.floor(normal_quantile(level) * math.sqrt(2) / allowed) - 2, 1)
    while paired_interval(0, 0, n, level).high > allowed:
        n += 1
    return n


def can_be_shown(n: int, allowed: float) -> bool:
    """Whether ``n`` images, all answered alike, show that at most ``allowed`` of top-1 is lost.

    >>> can_be_shown(922, 0.003), can_be_shown(921, 0.003), can_be_shown(10**6, 0.0)
    (True, False, False)
    """
    enough = images_to_show(allowed)
    return enough is not None and n >= enough
