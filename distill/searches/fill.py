"""As wide as a budget allows: bisected on what is predicted, confirmed on what was measured. No torch.

Widths come in multiples, and a small network's next size may cost half as much again. Where that is over the budget and
the size before leaves much of it unused, single stages are widened.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from distill.searches.costs import LATENCIES, Budgets, Costs, filled
from distill.searches.space import Profile, Shape, Space

__all__ = ["FULL_SHARE", "CostModel", "Fitted", "fill"]

FULL_SHARE = 0.85
"""A shape that uses so much of its budget is wide enough."""
_CONFIRMATIONS, _WIDENINGS = 5, 3
_HALVINGS = 24  # of the scale: finer than any multiple
_STEPS = 400  # of the scale, where what lies between two shapes is looked for
_SAFE = 0.97  # what a confirmation that failed aims at next: timings are noisy


_MEASURED = (*LATENCIES, "size_mb")  # what a prediction may be wrong about


class CostModel(Protocol):
    """Whoever knows what shapes cost."""

    def predicted(self, shape: Shape) -> Costs:
        """About, at once."""
        ...

    def confirmed(self, shape: Shape) -> Costs:
        """As measured on the exported file; kept, so that asking again costs nothing."""
        ...


@dataclass(frozen=True)
class Fitted:
    """A shape, what it costs, and the largest share of a budget that it uses."""

    shape: Shape
    costs: Costs
    share: float


def fill(
    profile: Profile, space: Space, prices: CostModel, budgets: Budgets, *, start: Shape | None = None
) -> Fitted | None:
    """The widest shape of a profile, or close to its proportions, that was measured to fit; None where none does.

    Widths are searched on predictions. Each confirmation corrects them: what was predicted 10% too fast is predicted
    10% slower from then on. What was measured to fit, and not to, is never left again.

    Args:
        start: Measured first.
    """
    factors = {quantity: 1.0 for quantity in budgets if quantity in _MEASURED}
    tried: dict[Shape, Fitted] = {}
    wanted, goal = start, 1.0
    for _ in range(_CONFIRMATIONS):
        wanted = wanted or _widest(profile, space, prices, budgets, factors=factors, goal=goal)
        shape = _within(wanted, profile, space, tried)
        if shape is None:
            break
        costs = prices.confirmed(shape)
        tried[shape] = Fitted(shape, costs, filled(costs, budgets))
        if FULL_SHARE <= tried[shape].share <= 1.0:
            break
        factors = _corrections(tried[shape], prices, factors)
        wanted, goal = None, _SAFE if tried[shape].share > 1.0 else 1.0
    fitting = [each for each in tried.values() if each.share <= 1.0]
    best = max(fitting, key=lambda each: each.share, default=None)
    return None if best is None else _stretched(best, profile, space, prices, budgets, tried=tried)


def _corrections(fitted: Fitted, prices: CostModel, quantities: Iterable[str]) -> dict[str, float]:
    """How many times what was predicted of a shape was measured."""
    guess = prices.predicted(fitted.shape)
    return {quantity: fitted.costs.of(quantity) / guess.of(quantity) for quantity in quantities}


def _share(shape: Shape, prices: CostModel, budgets: Budgets, factors: dict[str, float]) -> float:
    """Of a budget that a shape is predicted to use, by what was measured of another."""
    return filled(prices.predicted(shape).times(factors), budgets)


def _stretched(
    best: Fitted, profile: Profile, space: Space, prices: CostModel, budgets: Budgets, *, tried: dict[Shape, Fitted]
) -> Fitted:
    """A shape with single stages wider, where it leaves much of the budget; itself where none was measured to fit."""
    last, goal = best, 1.0
    for _ in range(_WIDENINGS):
        if best.share >= FULL_SHARE:
            break
        factors = _corrections(last, prices, [quantity for quantity in budgets if quantity in _MEASURED])
        share = partial(_share, prices=prices, budgets=budgets, factors=factors)
        shape = _wider(best.shape, profile, space, share, goal=goal, tried=tried)
        if shape is None:
            break
        costs = prices.confirmed(shape)
        last = tried[shape] = Fitted(shape, costs, filled(costs, budgets))
        best, goal = (last, 1.0) if last.share <= 1.0 else (best, _SAFE)
    return best


def _wider(
    shape: Shape,
    profile: Profile,
    space: Space,
    share: Callable[[Shape], float],
    *,
    goal: float,
    tried: Collection[Shape],
) -> Shape | None:
    """One multiple after another in whichever stage is furthest behind its proportion, of those that may have one.

    Args:
        share: Of its budget that a shape is predicted to use; no shape on the way uses more than ``goal``.
        tried: Measured already.

    Returns:
        The first that is wide enough, or the last; None where no stage may be widened.
    """
    found: Shape | None = None
    while found is None or share(found) < FULL_SHARE:
        widths = (found or shape).widths
        steps = (
            space.settled(Shape(shape.depths, (*widths[:stage], width + space.multiple, *widths[stage + 1 :])))
            for stage, width in enumerate(widths)
        )
        holding = [each for each in steps if each.widths != widths and each not in tried and share(each) <= goal]
        if not holding:
            break
        found = min(holding, key=lambda each: (_reach(each, profile), -share(each)))
    return found


def _reach(shape: Shape, profile: Profile) -> float:
    """The scale at which a profile has the widest of a shape's stages."""
    return max(width / ratio for width, ratio in zip(shape.widths, profile.ratios, strict=True))


def _within(shape: Shape, profile: Profile, space: Space, tried: dict[Shape, Fitted]) -> Shape | None:
    """The shape, or where it says nothing new, one between the widest that fits and the narrowest that does not."""
    wide = {each: sum(each.widths) for each in tried}
    low = max((wide[each] for each, fitted in tried.items() if fitted.share <= 1.0), default=0)
    high = min((wide[each] for each, fitted in tried.items() if fitted.share > 1.0), default=float("inf"))
    if low < sum(shape.widths) < high and shape not in tried:
        return shape
    if not tried or (high == float("inf")):
        return shape if not tried else None
    between = {each for each in _all(profile, space) if low < sum(each.widths) < high} - set(tried)
    return min(between, key=lambda each: (abs(sum(each.widths) - (low + high) / 2), each.widths), default=None)


def _all(profile: Profile, space: Space) -> list[Shape]:
    """Every shape that a profile has at some scale."""
    most = space.largest_scale / min(profile.ratios)
    least = space.narrowest / (2 * max(profile.ratios))
    steps = (least * (most / least) ** (number / _STEPS) for number in range(_STEPS + 1))
    return list(dict.fromkeys(space.at(profile, scale) for scale in steps))


def _widest(
    profile: Profile, space: Space, prices: CostModel, budgets: Budgets, *, factors: dict[str, float], goal: float
) -> Shape:
    """The widest shape that is predicted to use at most ``goal`` of its budget; the narrowest where none is."""

    def holds(scale: float) -> bool:
        return _share(space.at(profile, scale), prices, budgets, factors) <= goal

    low, high = 0.0, space.largest_scale / min(profile.ratios)
    if holds(high):
        return space.at(profile, high)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return space.at(profile, low)
