"""Mean and spread over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

__all__ = ["mean_std"]


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1); None for a single value, which has no spread.

    Raises:
        ValueError: There are no values.

    >>> mean_std([1.0, 3.0])
    (2.0, 1.4142135623730951)
    >>> mean_std([0.5])
    (0.5, None)
    """
    if not values:
        raise ValueError("mean of no values")
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None
