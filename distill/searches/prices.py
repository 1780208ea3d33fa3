"""If nothing fits a budget: the nearest one that can be met; and how much accuracy more of it buys."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from distill.results.search import PricePoint
from distill.searches.costs import Budgets, Costs
from distill.searches.explore import widest_uniform
from distill.searches.space import Shape, Space
from distill.searches.trials import ShapeEvaluator

__all__ = ["binding", "cheapest", "extrapolated", "price_curve", "rounded_up"]

_SHARES = (0.5, 0.7, 1.0)


def binding(costs: Costs, budgets: Budgets) -> str:
    """The budget that these costs fill most, or exceed furthest: more of another would buy nothing."""
    return max(budgets, key=lambda name: costs.of(name) / budgets[name])


def cheapest(
    space: Space, trials: ShapeEvaluator, budgets: Budgets
) -> tuple[dict[str, float], str, tuple[PricePoint, ...]]:
    """Of a space in which nothing fits: budgets that the smallest shape meets, and what the recipe's own costs.

    Returns:
        The budgets, the quantity of the prices, and the prices.
    """
    least = trials.confirmed(space.smallest)
    nearest = {name: rounded_up(name, least.of(name)) for name, limit in budgets.items() if least.of(name) > limit}
    quantity = binding(least, budgets)
    shapes: dict[Shape, Costs] = {space.smallest: least}
    shapes.setdefault(space.settled(space.own), trials.confirmed(space.settled(space.own)))
    prices = tuple(PricePoint(str(shape), costs.of(quantity), None) for shape, costs in shapes.items())
    return nearest, quantity, prices


def rounded_up(name: str, value: float) -> float:
    """To three digits, so that what is printed can be typed, and holds; a count stays as it is.

    >>> rounded_up("params", 123_444.00000000001), rounded_up("size_mb", 1.00034), rounded_up("gmacs", 0.012)
    (123444.0, 1.01, 0.012)
    """
    if name == "params":
        return float(round(value))
    digits = 10.0 ** (np.floor(np.log10(value)) - 2)
    return float(f"{np.ceil(value / digits) * digits:.6g}")


def price_curve(
    space: Space, trials: ShapeEvaluator, budgets: Budgets, epochs: int
) -> tuple[str | None, tuple[PricePoint, ...]]:
    """The recipe's own proportions at a half, at seven tenths and at all of the budget, each trained to its end.

    Returns:
        The quantity of the prices, None where there are none, and the prices.
    """
    found = dict[Shape, tuple[Costs, float]]()
    for share in _SHARES:
        fitted = widest_uniform(space, trials, {name: limit * share for name, limit in budgets.items()})
        if fitted is None or fitted.shape in found:
            continue
        score = trials.score(fitted.shape, epochs)
        if score is not None:
            found[fitted.shape] = (fitted.costs, score.val_top1)
    if not found:
        return None, ()
    quantity = binding(next(reversed(found.values()))[0], budgets)  # of the widest
    points = [PricePoint(str(shape), costs.of(quantity), val_top1) for shape, (costs, val_top1) in found.items()]
    return quantity, _with_gains(sorted(points, key=lambda point: point.value))


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
