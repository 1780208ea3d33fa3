"""Finalists of which a seed could not be trained: those that are left are paired by seed, never by their place."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from distill.searches.explore import Explored
from distill.searches.finals import Final, advice, choose, difference, finalist_shapes, finals

N = 1000
# Right answers by seed, (uniform, search): seeds vary by far more than the two shapes do.
RIGHT = {0: (500, 520), 1: (700, 719), 2: (900, 921)}


class Trained:
    """Runs of two shapes, named (shape, seed); some seeds cannot be trained."""

    def __init__(self, *failed: tuple[str, int]) -> None:
        self.failed = failed

    def recipe_of(self, shape: str) -> Any:
        return SimpleNamespace(train=SimpleNamespace(seed=7, epochs=3))

    def seed_of(self, number: int) -> int | None:
        return 7 + number if number else None

    def score(self, shape: str, epochs: int, seed: int | None) -> object | None:
        return None if self.run_of(shape, seed) in self.failed else object()

    def run_of(self, shape: str, seed: int | None) -> tuple[str, int]:
        return shape, 0 if seed is None else seed - 7

    def right(self, run: tuple[str, int]) -> np.ndarray:
        return np.arange(N) < RIGHT[run[1]][run[0] == "search"]


def _finals(*failed: tuple[str, int], seeds: int = 3) -> list[Final]:
    best, uniform = (SimpleNamespace(shape=each) for each in ("search", "uniform"))
    explored: Any = SimpleNamespace(best=[best], uniform=uniform, randoms=[])
    trials: Any = Trained(*failed)
    return finals(Explored(**vars(explored), candidates=(), search_epochs=0, random_epochs=0), trials, seeds)


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_seed_that_failed_leaves_the_others_paired(lost: int) -> None:
    ours, theirs = found = _finals(("search", lost))
    both = [seed for seed in RIGHT if seed != lost]
    assert (ours.seeds, theirs.seeds) == (tuple(both), (0, 1, 2))
    uniform, search = (np.array([RIGHT[seed][which] for seed in both]) / N for which in (0, 1))
    expected = stats.ttest_rel(search, uniform)
    test = difference(ours, theirs)
    assert (test.method, test.n) == ("paired seeds", 2)
    assert test.difference.estimate == pytest.approx((search - uniform).mean())
    assert test.p_value >= expected.pvalue  # the images have a chance of their own
    assert choose(found) == (ours, True)
    assert "paired by seed, Student's t, plus the sampling error of the images, n = 2: better" in advice(found)[0]


def test_without_two_seeds_in_common_nothing_is_paired() -> None:
    ours, theirs = found = _finals(("search", 0), ("uniform", 2))
    assert (ours.seeds, theirs.seeds) == ((1, 2), (0, 1))
    assert difference(ours, theirs).method == "separate seeds"
    assert "Welch's t over seeds, plus the sampling error of the images, n = 2" in advice(found)[0]


def test_one_seed_against_several_is_not_taken_for_the_first_of_them() -> None:
    ours, theirs = _finals(("search", 0), ("search", 1))
    test = difference(ours, theirs)
    assert (test.method, test.n) == ("one run", 3)
    assert test.difference.estimate == pytest.approx((921 - (500 + 700 + 900) / 3) / N)


def test_a_shape_of_which_no_seed_was_trained_is_no_finalist() -> None:
    (left,) = _finals(("search", 0), ("search", 1), seeds=2)
    assert left.kinds == ("uniform",)


def _final(kind: str, *gains: int) -> Final:
    """Three seeds of a shape; their right answers beyond the uniform one's."""
    right = np.stack([np.arange(N) < RIGHT[seed][0] + gain for seed, gain in enumerate(gains)])
    return Final((kind,), SimpleNamespace(shape=kind), (), (0, 1, 2), right)  # type: ignore[arg-type]


def test_the_best_of_three_is_judged_as_the_best_of_three() -> None:
    uniform, best, others = _final("uniform", 0, 0, 0), _final("search", 20, 30, 42), [_final("search", 1, 2, 3)] * 2
    gains = np.array([20, 30, 42]) / N
    assert stats.ttest_1samp(gains, 0).pvalue < 0.05, "alone it is told"
    low, high = stats.t.interval(1 - 0.05 / 3, 2, gains.mean(), stats.sem(gains))
    assert low < 0
    assert choose([best, uniform]) == (best, True)
    assert choose([best, *others, uniform]) == (uniform, False)
    against = advice([best, *others, uniform])[0]
    bounds = [float(each) for each in re.findall(r"[-+]\d+\.\d+(?=[],])", against)]
    assert bounds == pytest.approx([100 * low, 100 * high], abs=0.02)  # and a little for the images
    assert "n = 3, the best of 3: no difference that can be told" in against


def test_nobody_knows_whether_a_search_without_a_uniform_shape_helped() -> None:
    best = _final("search", 20, 30, 42)
    assert choose([best]) == (best, None)
    assert not any("did not help" in line for line in advice([best]))


def test_the_best_of_the_random_ones_is_taken_where_it_is_better_beyond_chance() -> None:
    """Random search found one that is better than both; drawn from many, it would have to be better by more."""
    uniform, best, chance = _final("uniform", 0, 0, 0), _final("search", 1, 2, 3), _final("random", 20, 30, 42)
    assert choose([best, uniform, chance]) == (chance, False)
    assert advice([best, uniform, chance])[-1].endswith("take the best of the random ones, which is better")
    drawn = replace(chance, best_of=3)
    assert choose([best, uniform, drawn]) == (uniform, False)
    assert advice([best, uniform, drawn])[-1] == "search did not help: take the uniform one"


def test_the_random_finalist_knows_of_how_many_it_is_the_best() -> None:
    best, uniform, *drawn = (SimpleNamespace(shape=each) for each in ("search", "uniform", "search", "other"))
    explored = Explored(uniform, (), (best,), (SimpleNamespace(shape="random"), *drawn), 0, 0)  # type: ignore[arg-type]
    trials: Any = Trained()
    found = finals(explored, trials, 1)
    assert [(each.kinds, each.best_of) for each in found] == [(("search",), 1), (("uniform",), 1), (("random",), 3)]
    assert finalist_shapes(explored) == ["search", "uniform", "random"]
