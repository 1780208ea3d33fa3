"""Several tests at once: p-values that allow for how many there were."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["holm"]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (Scand. J. Stat. 6, 1979), in the order of ``p_values``.

    Those below 0.05 are the differences that remain where the chance of even one mistake is to be 5%, however the tests
    depend on each other.

    Raises:
        ValueError: One is no probability.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    if odd := [p for p in p_values if not 0.0 <= p <= 1.0]:
        raise ValueError(f"p-values lie between 0 and 1: {odd}")
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted
