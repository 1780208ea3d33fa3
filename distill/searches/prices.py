"""No way out is an answer too: the nearest budget that would hold, and what more of it buys."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from distill.results.search import PricePoint
from distill.searches.costs import LATENCIES, Budgets, Costs
from distill.searches.explore import widest_uniform
from distill.searches.space import Shape, Space
from distill.searches.trials import Trials

__all__ = ["cheapest", "extrapolated", "price_curve", "priced_quantity", "rounded_up"]

_SHARES = (0.5, 0.7, 1.0)


def priced_quantity(budgets: Budgets) -> str:
    """What a price is in: a latency where one is budgeted."""
    return next((name for name in LATENCIES if name in budgets), next(iter(budgets)))


def cheapest(space: Space, trials: Trials, budgets: Budgets) -> tuple[dict[str, float], tuple[PricePoint, ...]]:
    """Of a space in which nothing fits: budgets that the smallest shape meets, and what the recipe's own costs."""
    least = trials.confirmed(space.smallest)
    nearest = {name: rounded_up(name, least.of(name)) for name, limit in budgets.items() if least.of(name) > limit}
    quantity = priced_quantity(budgets)
    shapes: dict[Shape, Costs] = {space.smallest: least}
    shapes.setdefault(space.settled(space.own), trials.confirmed(space.settled(space.own)))
    return nearest, tuple(PricePoint(str(shape), costs.of(quantity), None) for shape, costs in shapes.items())


def rounded_up(name: str, value: float) -> float:
    """To three digits, so that what is printed can be typed, and holds; a count stays as it is.

    >>> rounded_up("params", 123_444.00000000001), rounded_up("size_mb", 1.00034), rounded_up("gmacs", 0.012)
    (123444.0, 1.01, 0.012)
    """
    if name == "params":
        return float(round(value))
    digits = 10.0 ** (np.floor(np.log10(value)) - 2)
    return float(f"{np.ceil(value / digits) * digits:.6g}")


def price_curve(space: Space, trials: Trials, budgets: Budgets, epochs: int) -> tuple[PricePoint, ...]:
    """The recipe's own proportions at a half, at seven tenths and at all of the budget, each trained to its end."""
    quantity, points = priced_quantity(budgets), dict[Shape, PricePoint]()
    for share in _SHARES:
        part = {name: limit * share for name, limit in budgets.items()}
        fitted = widest_uniform(space, trials, part)
        if fitted is None or fitted.shape in points:
            continue
        score = trials.score(fitted.shape, epochs)
        if score is not None:
            value = fitted.costs.of(quantity)
            points[fitted.shape] = PricePoint(str(fitted.shape), value, score.val_top1)
    return _with_gains(sorted(points.values(), key=lambda point: point.value))


def _with_gains(points: Sequence[PricePoint]) -> tuple[PricePoint, ...]:
    found = list(points[:1])
    for before, point in itertools.pairwise(points):
        assert before.val_top1 is not None
        assert point.val_top1 is not None
        more = point.value - before.value
        gain = 100 * (point.val_top1 - before.val_top1) / more if more > 0 else None
        found.append(PricePoint(point.shape, point.value, point.val_top1, gain))
    return tuple(found)


def extrapolated(points: Sequence[PricePoint], missing: float) -> float | None:
    """The value at which the last slope would make up for what is missing, a fraction; None where it buys nothing."""
    if not points or not points[-1].gain_per_unit or points[-1].gain_per_unit <= 0 or missing <= 0:
        return None
    return points[-1].value + 100 * missing / points[-1].gain_per_unit
