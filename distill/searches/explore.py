"""The search itself: draw, halve by a third (rungs.py), change the best, train on. It asks for costs and scores alone.

It is a function of its answers: killed and begun again, it asks the same questions, which by then cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from distill.searches.costs import Budgets
from distill.searches.fill import CostModel, Fitted, fill
from distill.searches.propose import random_profiles, sampled, scalings, uniform
from distill.searches.rungs import FINALISTS, Plan, Score, ShapeScorer, ranked
from distill.searches.space import Profile, Shape, Space

__all__ = ["Explored", "Origin", "ShapeCandidate", "explore", "widest_uniform"]

Origin = Literal["uniform", "scaled", "sample", "local", "random"]

_PATIENCE = 25  # profiles in a row that bring no new shape: the space is seen


@dataclass
class ShapeCandidate:
    """A shape that fits, where it came from, and how far it was trained.

    Attributes:
        scores: By epochs.
    """

    origin: Origin
    fitted: Fitted
    scores: dict[int, Score] = field(default_factory=dict)

    @property
    def shape(self) -> Shape:
        """Its shape."""
        return self.fitted.shape

    @property
    def epochs(self) -> int:
        """How far it was trained."""
        return max(self.scores, default=0)


@dataclass(frozen=True)
class Explored:
    """What a search came to, before further seeds.

    Attributes:
        uniform: The recipe's own proportions within the budget.
        best: At most three, the best first, each trained to its end.
        randoms: Of the random search, trained to their ends, the best first.
        search_epochs, random_epochs: What either trained, before ``uniform`` was trained to its end.
    """

    uniform: ShapeCandidate
    candidates: tuple[ShapeCandidate, ...]
    best: tuple[ShapeCandidate, ...]
    randoms: tuple[ShapeCandidate, ...]
    search_epochs: int
    random_epochs: int


@dataclass
class _Explorer:
    space: Space
    prices: CostModel
    judge: ShapeScorer
    budgets: Budgets
    plan: Plan
    tell: Callable[[str], None]
    seen: dict[Shape, ShapeCandidate] = field(default_factory=dict)

    def drawn(self, profiles: Iterable[Profile], origin: Origin, count: int) -> Iterator[ShapeCandidate]:
        """At most ``count`` shapes that fit and were not seen yet."""
        found = misses = 0
        for profile in profiles:
            if found >= count or misses >= _PATIENCE:
                return
            fitted = widest(profile, self.space, self.prices, self.budgets)
            if fitted is None or fitted.shape in self.seen:
                misses += 1
                continue
            found, misses = found + 1, 0
            self.seen[fitted.shape] = ShapeCandidate(origin, fitted)
            yield self.seen[fitted.shape]

    def trained(self, candidates: Sequence[ShapeCandidate], rung: int) -> list[ShapeCandidate]:
        """Those that could be trained to a rung, the best first."""
        epochs = self.plan.rungs[rung]
        scored: list[tuple[ShapeCandidate, Score]] = []
        for place, each in enumerate(candidates, start=1):
            if epochs not in each.scores:
                self.tell(f"{place} of {len(candidates)}, to epoch {epochs} of {self.plan.epochs}: {each.shape}")
                score = self.judge.score(each.shape, epochs)
                if score is None:
                    continue
                each.scores[epochs] = score
            scored.append((each, each.scores[epochs]))
        return [each for each, _ in ranked(scored)]

    def local(self, going: list[ShapeCandidate], rung: int) -> list[ShapeCandidate]:
        """Changes of the best, then of what is the best by then, as long as evaluations are left."""
        left, changed = self.plan.local, list[Shape]()
        while left > 0 and going:
            best = next((each for each in going if each.shape not in changed), None)
            if best is None:
                break
            changed.append(best.shape)
            tried = list(self.drawn(self.space.neighbours(best.shape), "local", left))
            if not tried:
                continue
            left -= len(tried)
            promising = self.trained(tried, 0)[: self.plan.promoted(len(tried))]
            going = self.trained([*going, *promising], rung)
        return going


def explore(
    space: Space,
    prices: CostModel,
    judge: ShapeScorer,
    budgets: Budgets,
    plan: Plan,
    *,
    tell: Callable[[str], None] = lambda text: None,
) -> Explored | None:
    """Search a space; None where no shape of it fits the budgets: then nothing was trained."""
    explorer = _Explorer(space, prices, judge, budgets, plan, tell)
    whole = next(iter(explorer.drawn(uniform(space), "uniform", 1)), None)
    first = [] if whole is None else [whole]
    first += explorer.drawn(scalings(space), "scaled", plan.first - len(first))
    first += explorer.drawn(sampled(space), "sample", plan.first - len(first))
    first += explorer.drawn(random_profiles(space), "sample", plan.first - len(first)) if not first else []
    if not first:
        return None
    going, last = explorer.trained(first, 0), len(plan.rungs) - 1
    middle = max(last - 1, 0)
    for rung in range(1, middle + 1):
        going = explorer.trained(going[: plan.promoted(len(going))], rung)
    going = explorer.local(going, middle)
    best = explorer.trained(going[:FINALISTS], last)
    candidates = tuple(explorer.seen.values())
    spent = sum(each.epochs for each in candidates)
    randoms = _at_random(explorer, max(spent // plan.epochs, 1))
    base = whole or first[0]
    explorer.trained([base], last)
    return Explored(base, candidates, tuple(best), tuple(randoms), spent, sum(each.epochs for each in randoms))


def widest(profile: Profile, space: Space, prices: CostModel, budgets: Budgets) -> Fitted | None:
    """As wide as the budget allows; of the recipe's own proportions its own size is measured first."""
    own = space.own
    is_own = profile == Profile.of(own) and space.settled(own) == own
    return fill(profile, space, prices, budgets, start=own if is_own else None)


def widest_uniform(space: Space, prices: CostModel, budgets: Budgets) -> Fitted | None:
    """The recipe's own proportions within budgets, shallower where they must be."""
    return next((each for profile in uniform(space) if (each := widest(profile, space, prices, budgets))), None)


def _at_random(explorer: _Explorer, count: int) -> list[ShapeCandidate]:
    """Random search with the same epochs: whole schedules alone, of shapes by chance that fill the budget too."""
    apart = replace(explorer, seen={})  # it may draw what the search has seen
    chosen = list(apart.drawn(random_profiles(explorer.space), "random", count))
    return explorer.trained(chosen, len(explorer.plan.rungs) - 1)
