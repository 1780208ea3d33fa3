"""Successive halving (arXiv:1502.07943): how many candidates are trained how far, and which go on. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from distill.searches.space import Shape

__all__ = ["FINALISTS", "MIN_EVALUATIONS", "Plan", "Score", "ShapeScorer", "plan_of", "ranked"]

FINALISTS = 3
MIN_EVALUATIONS = 4
"""Fewer evaluations are no search."""
_ETA = 3  # of so many one is promoted
_LOCAL = 0.4  # of the evaluations are kept for changes of the best


@dataclass(frozen=True)
class Score:
    """What a network is worth after some epochs of its schedule, on validation images.

    Attributes:
        kl: Mean divergence from the teacher's answers, its own best checkpoint's; None where no teacher can be asked.
    """

    val_top1: float
    kl: float | None


class ShapeScorer(Protocol):
    """Whoever trains."""

    def score(self, shape: Shape, epochs: int) -> Score | None:
        """After the first ``epochs`` of the schedule; None where training failed. Asked again, it costs nothing."""
        ...


@dataclass(frozen=True)
class Plan:
    """What a search does.

    Attributes:
        rungs: Epochs of each rung, the last one the whole schedule; each goes on where the one before stopped.
        first: Candidates that are drawn; ``local``: changes of the best, after that.
        seeds: Of each finalist.
    """

    rungs: tuple[int, ...]
    first: int
    local: int
    seeds: int

    @property
    def epochs(self) -> int:
        """Of the whole schedule."""
        return self.rungs[-1]

    def promoted(self, count: int) -> int:
        """How many of so many are trained on after a rung."""
        return max(math.ceil(count / _ETA), 1)

    @property
    def search_epochs(self) -> int:
        """About how many epochs the search trains before its finalists' further seeds."""
        spent = (self.first + self.local) * self.rungs[0]
        going = self.promoted(self.first) + self.promoted(self.local) * bool(self.local)
        for lower, upper in zip(self.rungs[:-1], self.rungs[1:], strict=True):
            spent += going * (upper - lower)
            going = min(going, FINALISTS)
        return spent

    @property
    def total_epochs(self) -> int:
        """About how many epochs all of it takes: the search, a random search of as many, and the seeds of both."""
        finalists = FINALISTS + 2  # the uniform one and the best of the random ones
        return 2 * self.search_epochs + self.epochs + finalists * (self.seeds - 1) * self.epochs


def plan_of(evaluations: int, *, epochs: int, seeds: int) -> Plan:
    """Split evaluations; rungs are a ninth, a third and all of the schedule, as far as these differ."""
    rungs = dict.fromkeys(max(math.ceil(epochs / part), 1) for part in (_ETA**2, _ETA, 1))
    local = int(_LOCAL * evaluations)
    return Plan(tuple(rungs), evaluations - local, local, seeds)


T = TypeVar("T")


def ranked(scored: Sequence[tuple[T, Score]]) -> list[tuple[T, Score]]:
    """The best first: by the sum of two ranks, one by validation top-1 and one by closeness to the teacher.

    Top-1 is what is wanted, and of few images it is coarse; closeness is finer. Ties go to the closer, then the first.
    """
    tops = [score.val_top1 for _, score in scored]
    kls = [math.inf if score.kl is None else score.kl for _, score in scored]

    def place(number: int) -> tuple[int, float, float, int]:
        behind = sum(top > tops[number] for top in tops) + sum(kl < kls[number] for kl in kls)
        return behind, kls[number], -tops[number], number

    return [scored[number] for number in sorted(range(len(scored)), key=place)]
