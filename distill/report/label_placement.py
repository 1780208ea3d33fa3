"""Labels beside one another: as near as possible to where they belong, and none over another."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Box", "Place", "apart", "beside", "marks_of"]

_LINES = 6  # up and down, so many half lines are tried
_ROUNDS = 4  # of looking for a better place once all have one


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


@dataclass(frozen=True)
class Box:
    """A rectangle in a picture, in its pixels; ``low`` is the smaller y, wherever y points."""

    left: float
    right: float
    low: float
    high: float

    def covers(self, other: Box) -> float:
        """The share of the smaller one that lies in both; 0 where they do not touch."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.high, other.high) - max(self.low, other.low)
        if width <= 0 or height <= 0:
            return 0.0
        return width * height / min(self._size, other._size)

    def outside(self, area: Box) -> float:
        """By how many pixels it is not within ``area``."""
        beyond = (area.left - self.left, self.right - area.right, area.low - self.low, self.high - area.high)
        return sum(max(each, 0.0) for each in beyond)

    @property
    def _size(self) -> float:
        return max((self.right - self.left) * (self.high - self.low), 1e-9)


@dataclass(frozen=True)
class Place:
    """Where a point's name goes: to its right (``side`` 1) or left (-1), and with its middle at the height ``y``."""

    side: int
    y: float


def marks_of(
    points: Sequence[tuple[float, float]], bars: Sequence[tuple[float, float] | None], *, radius: float, width: float
) -> list[Box]:
    """What names may not lie over: the points' marks, and their error bars.

    Args:
        bars: Both ends of each point's bar, in pixels; None where it has none.
        width: Of a bar, with its caps.
    """
    marks = [Box(x - radius, x + radius, y - radius, y + radius) for x, y in points]
    for (x, _), bar in zip(points, bars, strict=True):
        if bar is not None:
            marks.append(Box(x - width / 2, x + width / 2, min(bar), max(bar)))
    return marks


def beside(
    points: Sequence[tuple[float, float]],
    widths: Sequence[float],
    *,
    height: float,
    gap: float,
    area: Box,
    marks: Sequence[Box],
) -> list[Place]:
    """Places for the names of points: over no mark and no other name, within the area, and near; inwards if possible.

    Each name in turn takes the best place that the others leave it, a few times over: good places, not always the best,
    and the same ones for the same picture.

    Args:
        points: x and y in pixels.
        widths: Of the names.
        height: Of a name.
        gap: Between a point and its name.
        marks: What a name may not lie over, as :func:`marks_of` has it.
    """
    middle = (area.left + area.right) / 2

    def box(at: int, place: Place) -> Box:
        near, far = (points[at][0] + place.side * each for each in (gap, gap + widths[at]))
        return Box(min(near, far), max(near, far), place.y - height / 2, place.y + height / 2)

    def tried(at: int) -> Iterator[Place]:
        inwards = 1 if points[at][0] <= middle else -1
        for half_lines in sorted(range(-_LINES, _LINES + 1), key=abs):
            for side in (inwards, -inwards):
                yield Place(side, points[at][1] + half_lines * height / 2)

    def badness(at: int, place: Place, others: Sequence[Box]) -> float:
        own = box(at, place)
        shares = [share for each in others if (share := own.covers(each)) > 0]
        return 10.0 * (len(shares) + sum(shares)) + own.outside(area) + abs(place.y - points[at][1]) / height

    def around(*at: int) -> list[Box]:
        return [*marks, *(box(other, place) for other, place in enumerate(places) if other not in at)]

    def best(at: int) -> Place:
        others = around(at)
        return min(tried(at), key=lambda place: badness(at, place, others))

    places = [next(tried(at)) for at in range(len(points))]
    for _ in range(_ROUNDS):
        before = list(places)
        for at in range(len(points)):
            places[at] = best(at)
        if places == before:
            break
    for one, two in itertools.combinations(range(len(points)), 2):  # the upper point has the upper name
        a, b = places[one], places[two]
        if a.side == b.side and (points[one][1] - points[two][1]) * (a.y - b.y) < 0:
            others, swapped = around(one, two), (Place(a.side, b.y), Place(b.side, a.y))
            now = badness(one, a, others) + badness(two, b, others)
            if badness(one, swapped[0], others) + badness(two, swapped[1], others) <= now:
                places[one], places[two] = swapped
    return places
