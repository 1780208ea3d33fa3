"""Intervals and verdicts, against published examples, formulas by hand, and what they must cover when simulated."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from distill.evaluation.drop import images_to_show, judge_drop
from distill.evaluation.statistics import (
    Interval,
    compare_images,
    compare_seeds,
    front,
    mean_interval,
    share_interval,
    verdict_of,
)


def test_wilsons_interval_of_a_published_example() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3: 81 of 263 and 0 of 20.
    interval = share_interval(81, 263)
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.2553, 0.3662)
    assert (round(share_interval(0, 20).low, 4), round(share_interval(0, 20).high, 4)) == (0.0, 0.1611)


def test_a_share_of_no_images_is_an_error() -> None:
    with pytest.raises(ValueError, match="no images"):
        share_interval(0, 0)


def test_three_seeds_have_a_t_of_four_point_three() -> None:
    interval = mean_interval([1.0, 2.0, 3.0])
    assert interval is not None
    assert interval.estimate == 2.0
    assert interval.half_width == pytest.approx(4.302653 * 1.0 / math.sqrt(3), rel=1e-6)  # from a printed t table
    assert mean_interval([0.5]) is None


def _answers(both: int, won: int, lost: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    ours = np.array([True] * both + [True] * won + [False] * lost + [False] * neither)
    theirs = np.array([True] * both + [False] * won + [True] * lost + [False] * neither)
    return ours, theirs


def test_mcnemars_mid_p_value_by_hand() -> None:
    test = compare_images(*_answers(80, 9, 1, 10))
    by_hand = (2 * math.comb(10, 0) + math.comb(10, 1)) / 2**10  # as many as were seen count once, fewer on both sides
    assert test.p_value == pytest.approx(by_hand)
    assert test.difference.estimate == pytest.approx(0.08)
    assert test.verdict == "better"
    assert test.needed is None


def test_the_paired_interval_of_5000_images_with_one_and_a_half_percent_discordance() -> None:
    difference = compare_images(*_answers(4500, 37, 38, 425)).difference
    assert difference.half_width == pytest.approx(0.0034, abs=5e-5)  # 1.96 * sqrt(0.015 / 5000)


def test_the_paired_interval_covers_what_it_says() -> None:
    """Drawn from a known difference of 2 points, 95% of the intervals hold it (3 standard errors: 0.7 points)."""
    generator, held, trials = np.random.default_rng(0), 0, 2_000
    for won, lost, _ in generator.multinomial(500, [0.05, 0.03, 0.92], size=trials):
        difference = compare_images(*_answers(500 - won - lost, won, lost, 0)).difference
        held += difference.low <= 0.02 <= difference.high
    assert 0.94 <= held / trials <= 0.97


def _enough(won: int, lost: int, n: int, bound: float) -> int:
    """The first number of images, counted upwards, whose interval at these rates leaves ``bound`` out."""
    for images in range(n + 1, 10**6):
        more, fewer = ((share * images / n + 1) / (images + 2) for share in (won, lost))
        half = 1.959963984540054 * math.sqrt((more + fewer - (more - fewer) ** 2) / (images + 2))
        if not more - fewer - half <= bound <= more - fewer + half:
            return images
    raise AssertionError("no number is enough")


def test_what_cannot_be_told_says_how_many_images_would() -> None:
    test = compare_images(*_answers(90, 3, 1, 6))
    assert test.verdict == "cannot tell"
    assert test.needed == _enough(3, 1, 100, 0.0)
    assert compare_images(*_answers(995, 5, 0, 0)).needed == _enough(5, 0, 1000, 0.0) == 1056
    assert compare_images(*_answers(987, 10, 3, 0)).needed == _enough(10, 3, 1000, 0.0)
    assert compare_images(*_answers(90, 2, 2, 6)).needed is None  # no difference to tell


def _runs(rates: list[float], n: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return np.stack([generator.random(n) < rate for rate in rates])


def test_pairing_by_seed_takes_out_what_seeds_share() -> None:
    n = 10_000
    counts = [7_000, 8_000, 9_000]
    theirs = np.stack([np.arange(n) < count for count in counts])
    ours = np.stack([np.arange(n) < count + gain for count, gain in zip(counts, (100, 110, 120), strict=True)])
    paired = compare_seeds(ours, theirs)
    assert paired.verdict == "better"
    assert paired.difference.estimate == pytest.approx(0.011)
    assert paired.difference.half_width == pytest.approx(4.302653 * 0.001 / math.sqrt(3), rel=1e-6)
    assert compare_seeds(ours, theirs, paired=False).verdict == "cannot tell"


def test_seeds_needed_are_the_smallest_number_that_would_tell() -> None:
    ours = np.stack([np.arange(1000) < k for k in (520, 500, 480, 540)])
    theirs = np.stack([np.arange(1000) < k for k in (500, 500, 500, 500)])
    test = compare_seeds(ours, theirs)
    assert test.verdict == "cannot tell"
    spread = float(np.std([0.02, 0.0, -0.02, 0.04], ddof=1))
    table = {15: 2.1448, 16: 2.1314, 17: 2.1199, 26: 2.0595, 27: 2.0555, 28: 2.0518, 29: 2.0484}  # t of n - 1, printed
    assert test.needed in table
    assert table[test.needed] * spread / math.sqrt(test.needed) < 0.01
    assert table[test.needed - 1] * spread / math.sqrt(test.needed - 1) >= 0.01


def test_the_bootstrap_agrees_with_the_normal_approximation_where_that_holds() -> None:
    ours, theirs = _runs([0.9], 4_000, 1), _runs([0.85], 4_000, 2)
    test = compare_seeds(ours, theirs, paired=False)
    each = ours[0].astype(float) - theirs[0]
    assert test.difference.half_width == pytest.approx(1.96 * each.std() / math.sqrt(4_000), rel=0.08)
    assert test.difference == compare_seeds(ours, theirs, paired=False).difference  # the same draws each time


def test_seeds_of_their_own_are_held_against_each_other_by_welchs_t() -> None:
    ours = np.stack([np.arange(1000) < k for k in (900, 920, 910)])
    theirs = np.stack([np.arange(1000) < k for k in (800, 850, 810, 860)])
    test = compare_seeds(ours, theirs, paired=False)
    expected = stats.ttest_ind([0.90, 0.92, 0.91], [0.80, 0.85, 0.81, 0.86], equal_var=False)
    bounds = expected.confidence_interval()
    assert (test.method, test.n, test.verdict) == ("welch t", 3, "better")
    assert test.difference.estimate == pytest.approx(0.08)
    assert (test.difference.low, test.difference.high) == pytest.approx((bounds.low, bounds.high))
    assert test.p_value == pytest.approx(expected.pvalue)


def test_a_group_without_spread_has_the_others() -> None:
    """Student's t of two values, 12.706 with one degree of freedom, about a third that has no spread."""
    ours = np.stack([np.arange(1000) < k for k in (900, 910)])
    theirs = np.stack([np.arange(1000) < k for k in (850, 850)])
    test = compare_seeds(ours, theirs, paired=False)
    assert test.difference.half_width == pytest.approx(12.7062 * 0.005, rel=1e-4)
    assert (test.method, test.verdict) == ("welch t", "cannot tell")
    assert test.needed == 3  # t of two degrees of freedom, 4.303, times 0.00707 / sqrt(3), is less than 0.055


@pytest.mark.parametrize("runs", [(2, 2), (2, 4), (3, 3)])
def test_the_luck_of_few_seeds_is_seldom_called_better(runs: tuple[int, int]) -> None:
    """Runs of one recipe, seeds of their own, differing by two points: at most one verdict in twenty is wrong."""
    generator, told, trials = np.random.default_rng(0), 0, 2_000
    for _ in range(trials):
        ours, theirs = (np.arange(1000) < (800 + 20 * generator.standard_normal((count, 1))).round() for count in runs)
        told += compare_seeds(ours, theirs, paired=False).verdict != "cannot tell"
    assert told / trials < 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)


@pytest.mark.parametrize("seeds", [2, 3])
def test_one_run_against_the_luck_of_few_seeds_is_seldom_called_better(seeds: int) -> None:
    """A run as good as the mean of all seeds, which differ by two points: at most one verdict in twenty is wrong."""
    generator, told, trials = np.random.default_rng(0), 0, 1_000
    single = np.arange(1000) < 800
    for _ in range(trials):
        theirs = np.arange(1000) < (800 + 20 * generator.standard_normal((seeds, 1))).round()
        told += compare_seeds(single[None], theirs, paired=False).verdict != "cannot tell"
    assert told / trials < 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)


def test_one_run_against_several_has_the_chance_of_images_and_of_seeds() -> None:
    ours, theirs = _runs([0.9], 500, 1), _runs([0.8, 0.82, 0.78], 500, 2)
    test, other = (compare_seeds(*each, paired=False) for each in ((ours, theirs), (theirs, ours)))
    images = stats.norm.interval(0.95, scale=stats.sem(ours[0] - theirs.mean(axis=0)))[1]
    seeds = stats.t.interval(0.95, 2, scale=stats.sem(theirs.mean(axis=1)))[1]
    assert (test.method, test.p_value, test.n) == ("t and images", None, 3)
    assert test.difference.estimate == pytest.approx(ours.mean() - theirs.mean())
    assert test.difference.half_width == pytest.approx(math.sqrt(images**2 + seeds**2))
    assert (other.difference.low, other.difference.high) == pytest.approx((-test.difference.high, -test.difference.low))


def test_how_many_seeds_of_each_would_tell() -> None:
    """Groups that vary alike, two points between two of their runs: t of 30 and 32 degrees of freedom, as printed."""
    ours, theirs = (np.stack([np.arange(1000) < k for k in each]) for each in ((810, 830), (800, 820)))
    test = compare_seeds(ours, theirs, paired=False)
    assert (test.verdict, test.needed) == ("cannot tell", 17)
    assert 2.0369 * 0.02 / math.sqrt(17) < 0.01 < 2.0423 * 0.02 / math.sqrt(16)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_seeds_that_all_differ_by_as_much_are_no_certainty(seeds: int) -> None:
    """One image of 144, for each seed: Student's t has no spread there, and its interval would have no width."""
    theirs = np.tile(np.arange(144) >= 3, (seeds, 1))
    ours = theirs.copy()
    ours[:, 0] = True
    test = compare_seeds(ours, theirs)
    assert (test.verdict, test.method) == ("cannot tell", "bootstrap")
    assert test.difference.low <= 0 < test.difference.high


def test_seeds_as_accurate_that_err_elsewhere_are_no_certainty() -> None:
    """340 and 345 of 359 on both sides, other images wrong: no difference, and not for sure."""
    images = np.arange(359)
    ours = np.stack([images >= 359 - right for right in (340, 345)])
    test = compare_seeds(ours, ours[:, ::-1])
    assert (test.difference.estimate, test.verdict, test.method) == (0.0, "cannot tell", "bootstrap")
    assert test.difference.low < -0.01 < 0.01 < test.difference.high


def test_equal_groups_of_seeds_are_no_difference() -> None:
    """And no certainty: of 100 images the next may tell them apart, as it may one run each."""
    answers = _runs([0.8, 0.8], 100, 3)
    test = compare_seeds(answers, answers)
    assert (test.verdict, test.p_value, test.needed, test.method, test.n) == ("cannot tell", 1.0, None, "mcnemar", 100)
    half = 1.959963984540054 * math.sqrt(2) / 102
    assert (test.difference.low, test.difference.high) == pytest.approx((-half, half))


@pytest.mark.parametrize(("ours", "theirs"), [((3,), (4,)), ((0,), (0,)), ((2, 3), (2, 3))])
def test_answers_that_cannot_be_paired(ours: tuple[int, ...], theirs: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        compare_images(np.ones(ours, dtype=bool), np.ones(theirs, dtype=bool))


@pytest.mark.parametrize("allowed", [0.003, 0.01, 0.05, 0.4])
def test_the_fewest_images_that_could_show_it(allowed: float) -> None:
    """Of no discordant pair the bound is z times the root of two, over n + 2: one image fewer is one too few."""
    n = images_to_show(allowed)
    bounds = [1.959963984540054 * math.sqrt(2) / (count + 2) for count in (n, n - 1)]
    assert bounds[0] <= allowed < bounds[1]
    alike = np.ones(n, dtype=bool)
    assert judge_drop(alike, alike, allowed=allowed).passes(prove=True)
    assert not judge_drop(alike[1:], alike[1:], allowed=allowed).passes(prove=True)


def test_a_drop_is_shown_refuted_or_neither() -> None:
    same = judge_drop(*_answers(4500, 5, 5, 490), allowed=0.003)
    assert (same.word, same.passes(), same.passes(prove=True)) == ("shown", True, True)
    little = judge_drop(*_answers(4500, 30, 40, 430), allowed=0.003)
    assert (little.word, little.passes(), little.passes(prove=True)) == ("not shown", True, False)
    assert little.needed == _enough(40, 30, 5000, 0.003)
    much = judge_drop(*_answers(4400, 10, 150, 440), allowed=0.003)
    assert (much.word, much.passes()) == ("refuted", False)
    assert much.drop.estimate == pytest.approx(140 / 5000)


def test_no_difference_on_few_images_is_no_proof() -> None:
    verdict = judge_drop(*_answers(45, 0, 0, 5), allowed=0.003)
    assert (verdict.word, verdict.passes(), verdict.passes(prove=True)) == ("not shown", True, False)
    assert verdict.needed == images_to_show(0.003)
    assert judge_drop(*_answers(4900, 90, 10, 0), allowed=1e-9).needed is None  # it is refuted or shown
    nobody_has = judge_drop(*_answers(999_990, 3, 3, 4), allowed=1e-9)
    assert (nobody_has.word, nobody_has.needed) == ("not shown", None)


def test_the_p_value_agrees_with_the_interval() -> None:
    """Of 17 against 7 the exact test has 0.064 where the interval leaves zero out; its mid-p is on the same side."""
    test = compare_images(*_answers(335, 17, 7, 0))
    assert test.verdict == "better"
    assert test.p_value == pytest.approx(stats.binomtest(7, 24).pvalue - stats.binom.pmf(7, 24, 0.5))
    assert test.p_value < 0.05


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 200))
def test_swapping_the_sides_mirrors_everything(won: int, lost: int, both: int) -> None:
    ours, theirs = _answers(both, won, lost, 0)
    there, back = compare_images(ours, theirs), compare_images(theirs, ours)
    assert there.difference.low == pytest.approx(-back.difference.high)
    assert there.p_value == pytest.approx(back.p_value)
    assert there.difference.low <= there.difference.estimate <= there.difference.high


def test_verdicts_in_words() -> None:
    assert verdict_of(Interval(-0.02, -0.03, -0.01)) == "worse"
    assert verdict_of(Interval(0.0, 0.0, 0.0)) == "cannot tell"


def test_equal_points_are_both_on_the_front() -> None:
    assert front([(0.9, 1.0), (0.9, 1.0), (0.9, 1.1), (0.95, 1.1)]) == [True, True, False, True]
    assert front([]) == []
