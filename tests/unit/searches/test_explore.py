"""The search on spaces whose optimum is known because every shape of them was looked at."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from distill.recipe import Recipe, parse_recipe
from distill.searches.costs import Costs, filled, fits
from distill.searches.explore import Explored, explore
from distill.searches.fill import FULL_SHARE, fill
from distill.searches.propose import random_profiles, sampled
from distill.searches.rungs import Score, plan_of, ranked
from distill.searches.space import Profile, Shape, Space, space_of

RECIPE = """
schema_version: 1
name: small
role: baseline
data: {name: cifar10}
model: {source: students, name: resnet, blocks: [2, 2], channels: [16, 32], strides: [1, 2]}
search: {depth: [[1, 3], [1, 3]], width: {min: 8, max: 64, multiple: 8}}
"""
EPOCHS = 9


def recipe(*overrides: str) -> Recipe:
    return parse_recipe(RECIPE, source="test", overrides=overrides)


@dataclass
class Analytic:
    """Costs and accuracies that are formulas of the shape: nothing is built, nothing trained.

    Attributes:
        lies: What is predicted is so many times what is measured.
    """

    worth: Callable[[Shape], float]
    lies: float = 1.0
    trained: list[tuple[Shape, int]] = field(default_factory=list)
    measured: list[Shape] = field(default_factory=list)
    known: dict[tuple[Shape, int], Score] = field(default_factory=dict)
    stop_after: int | None = None

    def costs(self, shape: Shape) -> Costs:
        wide = (3, *shape.widths)
        params = sum(9 * a * b * n for a, b, n in zip(wide, wide[1:], shape.depths, strict=False))
        return Costs(params, params / 1e6, 4e-6 * params, latency_b1_ms=1e-4 * params + 0.05 * sum(shape.depths))

    def predicted(self, shape: Shape) -> Costs:
        return self.costs(shape).times({"latency_b1_ms": self.lies})

    def confirmed(self, shape: Shape) -> Costs:
        self.measured.append(shape)
        return self.costs(shape)

    def score(self, shape: Shape, epochs: int) -> Score:
        if (shape, epochs) not in self.known:
            if self.stop_after is not None and len(self.known) >= self.stop_after:
                raise KeyboardInterrupt
            self.trained.append((shape, epochs))
            top1 = self.worth(shape) * (0.5 + 0.5 * epochs / EPOCHS)
            self.known[shape, epochs] = Score(top1, 1.0 - top1)
        return self.known[shape, epochs]


def likes(shape: Shape) -> float:
    """Best with three blocks behind and few before, and narrow first channels; smooth on the way there."""
    first, last = shape.depths
    return 0.9 - 0.05 * abs(first - 1) - 0.05 * abs(last - 3) - 0.002 * abs(shape.widths[0] - 16) - 1 / shape.widths[1]


def every(space: Space) -> list[Shape]:
    widths = range(space.narrowest, space.widest + 1, space.multiple)
    depths = [range(low, high + 1) for low, high in space.depths]
    return [
        Shape(deep, wide)
        for deep in itertools.product(*depths)
        for wide in itertools.product(widths, repeat=len(space.own.widths))
    ]


BUDGETS = {"latency_b1_ms": 1.5, "size_mb": 0.06}


def searched(analytic: Analytic, evaluations: int = 24, **budgets: float) -> Explored | None:
    plan = plan_of(evaluations, epochs=EPOCHS, seeds=1)
    return explore(space_of(recipe()), analytic, analytic, budgets or BUDGETS, plan)


def test_it_finds_nearly_the_best_of_all_shapes_and_never_trains_one_that_is_over_budget() -> None:
    analytic = Analytic(likes, lies=0.8)
    explored = searched(analytic)
    assert explored is not None
    shapes = [shape for shape in every(space_of(recipe())) if fits(analytic.costs(shape), BUDGETS)]
    worths = sorted((likes(shape) for shape in shapes), reverse=True)
    assert len(shapes) > 100
    found = likes(explored.best[0].shape)
    assert found >= worths[len(worths) // 50], "not among the best 2%"
    assert found > likes(explored.uniform.shape)
    assert all(fits(analytic.costs(shape), BUDGETS) for shape, _ in analytic.trained)


def test_of_a_space_that_it_can_see_whole_it_finds_the_best() -> None:
    small = recipe("search.depth=[[1, 2], [1, 2]]", "search.width={min: 8, max: 16, multiple: 8}")
    analytic, space = Analytic(likes), space_of(small)
    assert len(every(space)) == space.size == 16
    loose = {"params": 1e6}  # everything fits, and is as wide as it can be: depths alone differ
    explored = explore(space, analytic, analytic, loose, plan_of(40, epochs=EPOCHS, seeds=1))
    assert explored is not None
    widest = [shape for shape in every(space) if set(shape.widths) == {16}]
    assert explored.best[0].shape == max(widest, key=likes)


def test_rungs_grow_by_thirds_and_no_epoch_is_trained_twice() -> None:
    analytic = Analytic(likes)
    explored = searched(analytic)
    assert explored is not None
    assert {epochs for _, epochs in analytic.trained} == {1, 3, 9}
    assert len(set(analytic.trained)) == len(analytic.trained)
    count = {rung: sum(epochs == rung for _, epochs in analytic.trained) for rung in (1, 3)}
    assert count[3] < count[1]
    assert sum(each.origin != "random" and 1 in each.scores for each in explored.candidates) <= 24
    assert explored.random_epochs == len(explored.randoms) * EPOCHS
    assert explored.random_epochs <= explored.search_epochs < explored.random_epochs + EPOCHS


@pytest.mark.parametrize("stop_after", [0, 1, 5, 13, 21])
def test_killed_after_any_training_it_ends_in_the_same_result(stop_after: int) -> None:
    whole = searched(Analytic(likes))
    analytic = Analytic(likes, stop_after=stop_after)
    with pytest.raises(KeyboardInterrupt):
        searched(analytic)
    analytic.stop_after = None
    again = searched(analytic)
    assert again == whole
    assert len(set(analytic.trained)) == len(analytic.trained)


def test_nothing_fits_and_nothing_is_trained() -> None:
    analytic = Analytic(likes)
    assert searched(analytic, latency_b1_ms=0.11) is None
    assert analytic.trained == []


def test_networks_that_cannot_be_trained_are_passed_over() -> None:
    class Failing(Analytic):
        def score(self, shape: Shape, epochs: int) -> Score | None:  # type: ignore[override]
            return None if shape.depths[0] > 1 else super().score(shape, epochs)

    explored = searched(Failing(likes))
    assert explored is not None
    assert {each.shape.depths[0] for each in explored.best} == {1}


# Filling a budget


@pytest.mark.parametrize("lies", [0.5, 0.9, 1.0, 1.3, 2.0])
def test_widths_fill_the_budget_whatever_predictions_are_worth(lies: float) -> None:
    space = space_of(recipe("search.width={min: 1, max: 512, multiple: 1}"))
    analytic, profile = Analytic(likes, lies=lies), Profile((2, 2), (16.0, 32.0))
    fitted = fill(profile, space, analytic, {"latency_b1_ms": 3.0})
    assert fitted is not None
    assert 0.85 <= fitted.share <= 1.0
    assert fitted.share == filled(fitted.costs, {"latency_b1_ms": 3.0}) == fitted.costs.latency_b1_ms / 3.0
    assert len(analytic.measured) <= 5


def test_between_what_fits_and_what_does_not_nothing_is_left_out() -> None:
    """Coarse widths and timings that lie: the shape between the two is measured, too."""

    @dataclass
    class Lying(Analytic):
        def predicted(self, shape: Shape) -> Costs:
            return self.costs(shape).times({"latency_b1_ms": 3.0 if sum(shape.widths) > 90 else 0.4})

    space, budgets = space_of(recipe()), {"latency_b1_ms": 2.9}
    profile = Profile((2, 2), (16.0, 32.0))
    fitted = fill(profile, space, Lying(likes), budgets)
    shapes = {space.at(profile, scale / 50) for scale in range(1, 200)}
    best = max((each for each in shapes if fits(Lying(likes).costs(each), budgets)), key=lambda each: sum(each.widths))
    assert fitted is not None
    assert fitted.shape == best


@pytest.mark.parametrize("lies", [0.7, 1.0, 1.6])
@pytest.mark.parametrize("ratios", [(1.0, 1.0), (1.0, 2.0), (2.0, 1.0)])
def test_where_the_next_size_is_too_much_single_stages_fill_the_budget(
    lies: float, ratios: tuple[float, float]
) -> None:
    space, shares = space_of(recipe()), []
    for latency in (0.5, 0.6, 0.7, 0.8, 1.0, 1.5):
        budgets, analytic = {"latency_b1_ms": latency}, Analytic(likes, lies=lies)
        fitted = fill(Profile((2, 2), ratios), space, analytic, budgets)
        assert fitted is not None
        assert filled(analytic.costs(fitted.shape), budgets) == fitted.share <= 1.0
        first, second = fitted.shape.widths
        wider = (Shape((2, 2), (first + 8, second)), Shape((2, 2), (first, second + 8)))
        assert fitted.share >= FULL_SHARE or not any(fits(analytic.costs(each), budgets) for each in wider)
        assert len(analytic.measured) <= 8
        shares.append(fitted.share)
    assert min(shares) > 0.83


def test_a_recipe_that_fits_as_it_is_is_the_uniform_shape() -> None:
    analytic = Analytic(likes, lies=0.7)
    own = space_of(recipe()).own
    explored = searched(analytic, latency_b1_ms=1.05 * (analytic.costs(own).latency_b1_ms or 0.0))
    assert explored is not None
    assert explored.uniform.shape == own == analytic.measured[0]


def test_a_profile_that_does_not_fit_at_its_narrowest_is_none() -> None:
    space = space_of(recipe())
    assert fill(Profile((3, 3), (1.0, 1.0)), space, Analytic(likes), {"latency_b1_ms": 0.3}) is None


def test_a_profile_that_is_at_its_widest_leaves_the_rest_of_the_budget() -> None:
    space = space_of(recipe())
    fitted = fill(Profile((1, 1), (1.0, 1.0)), space, Analytic(likes), {"params": 1e9})
    assert fitted is not None
    assert fitted.shape == Shape((1, 1), (64, 64))


# Ranks and plans


def test_ranks_by_top1_and_closeness_together() -> None:
    scored = [("a", Score(0.9, 0.5)), ("b", Score(0.8, 0.1)), ("c", Score(0.89, 0.2)), ("d", Score(0.1, 9.0))]
    # a is 1st and 3rd, b 3rd and 1st, c 2nd and 2nd: all alike, and the closest to the teacher goes first
    assert [name for name, _ in ranked(scored)] == ["b", "c", "a", "d"]
    alone = [("a", Score(0.5, None)), ("b", Score(0.6, None)), ("c", Score(0.6, None))]
    assert [name for name, _ in ranked(alone)] == ["b", "c", "a"]


def test_short_schedules_have_fewer_rungs() -> None:
    assert plan_of(10, epochs=200, seeds=3).rungs == (23, 67, 200)
    assert plan_of(10, epochs=3, seeds=3).rungs == (1, 3)
    assert plan_of(10, epochs=1, seeds=3).rungs == (1,)


# Proposals


def test_a_sample_is_spread_and_chance_is_chance() -> None:
    space = space_of(recipe())
    for profiles in (sampled(space), random_profiles(space)):
        first = list(itertools.islice(profiles, 12))
        assert {each.depths[0] for each in first} == {1, 2, 3} == {each.depths[1] for each in first}
        relations = [each.ratios[1] / each.ratios[0] for each in first]
        assert min(relations) < 2 < max(relations)
    assert list(itertools.islice(sampled(space), 5)) == list(itertools.islice(sampled(space), 5))
