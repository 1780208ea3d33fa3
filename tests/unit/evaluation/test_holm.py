"""Holm's rule, against the closed test that it is a shortcut of."""

from __future__ import annotations

import itertools
import random

import pytest

from distill.evaluation.holm import holm


def closed_test(p_values: list[float]) -> list[float]:
    """The largest Bonferroni p-value of any set of hypotheses with this one (Marcus et al., Biometrika 63, 1976)."""
    places = range(len(p_values))
    sets = [each for size in places for each in itertools.combinations(places, size + 1)]
    return [
        max(min(1.0, len(each) * min(p_values[other] for other in each)) for each in sets if place in each)
        for place in places
    ]


@pytest.mark.parametrize("count", range(7))
def test_it_is_the_closed_test_of_bonferroni(count: int) -> None:
    draw = random.Random(count)
    for _ in range(20):
        p_values = [draw.choice([0.001, 0.01, 0.04, 0.3, draw.random()]) for _ in range(count)]
        assert holm(p_values) == pytest.approx(closed_test(p_values))


@pytest.mark.parametrize("odd", [float("nan"), -0.1, 1.1])
def test_what_is_no_probability_is_refused(odd: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.04, odd, 0.01])
