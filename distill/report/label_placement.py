"""Labels beside one another: as near as possible to where they belong, and none over another."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["apart"]


def apart(heights: Sequence[float], gap: float) -> list[float]:
    """The heights nearest to these, by squares, of which no two are closer than ``gap``; their order stays.

    >>> apart([0.0, 0.0, 5.0], 1.0)
    [-0.5, 0.5, 5.0]
    """
    order = sorted(range(len(heights)), key=heights.__getitem__)
    pools: list[tuple[float, int]] = []  # means of heights without the gaps, and of how many
    for place, index in enumerate(order):
        mean, count = heights[index] - place * gap, 1
        while pools and pools[-1][0] > mean:
            other, others = pools.pop()
            mean, count = (mean * count + other * others) / (count + others), count + others
        pools.append((mean, count))
    flat = [mean for mean, count in pools for _ in range(count)]
    spread = [0.0] * len(heights)
    for place, index in enumerate(order):
        spread[index] = flat[place] + place * gap
    return spread
