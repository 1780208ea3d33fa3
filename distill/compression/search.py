"""How far a network can be cut: which share of its cost to try next, and which of those that were tried is best."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from distill.compression.candidate import CompressionCandidate

__all__ = ["LATENCY_TIE", "MIN_RATIO", "STOP_RATIO", "Goal", "best_candidate", "next_ratio"]

Goal = Literal["latency", "size", "macs"]

MIN_RATIO = 0.03
"""No smaller share is tried: hardly a layer would have channels left to choose from."""
STOP_RATIO = 1.15
"""Where the smallest share that held is less than so many times the largest that did not, the search is over."""

LATENCY_TIE = 1.05
"""Two medians that differ by less are not told apart."""


def next_ratio(tried: Mapping[float, bool], *, trials: int) -> float | None:
    """The share to try next: half of what held, until something does not; then between the two.

    Args:
        tried: Shares below 1, and whether what was left lost no more than it may.
        trials: How many are tried at most.

    Returns:
        None where the search is over.

    >>> next_ratio({}, trials=4), next_ratio({0.5: True}, trials=4), next_ratio({0.5: False}, trials=4)
    (0.5, 0.25, 0.7071)
    """
    held = min((ratio for ratio, holds in tried.items() if holds), default=1.0)
    lost = max((ratio for ratio, holds in tried.items() if not holds and ratio < held), default=None)
    if len(tried) >= trials or (lost is not None and held / lost < STOP_RATIO):
        return None
    ratio = round(held / 2 if lost is None else math.sqrt(held * lost), 4)
    return None if ratio < MIN_RATIO else ratio


def best_candidate(candidates: Sequence[CompressionCandidate], goal: Goal) -> CompressionCandidate | None:
    """Of those whose file lost no more than it may, the one that serves the goal best; None where there is none.

    Of latencies within ``LATENCY_TIE`` of each other the network with fewer multiply-accumulates is taken as faster.
    """
    held = [each for each in candidates if each.holds]
    if goal == "latency":
        most = LATENCY_TIE * min((each.latency_b1_ms for each in held), default=0.0)
        return min((each for each in held if each.latency_b1_ms <= most), key=lambda each: each.gmacs, default=None)
    cost: Callable[[CompressionCandidate], float] = (
        (lambda each: each.size_mb) if goal == "size" else (lambda each: each.gmacs)
    )
    return min(held, key=lambda each: (cost(each), each.gmacs), default=None)
