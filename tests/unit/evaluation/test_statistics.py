"""Intervals and verdicts, against published examples, formulas by hand, and what they must cover when simulated."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmarks import verdicts
from distill.evaluation.drop import images_to_show, judge_drop
from distill.evaluation.statistics import (
    Interval,
    compare_images,
    compare_seeds,
    compare_values,
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
    generator = np.random.default_rng(4)
    rates = [0.7, 0.8, 0.9]
    draws = [generator.random(10_000) for _ in rates]
    theirs, ours = (
        np.stack([draw < rate + gain for draw, rate in zip(draws, rates, strict=True)]) for gain in (0, 0.01)
    )
    paired, apart = compare_seeds(ours, theirs), compare_seeds(ours, theirs, paired=False)
    assert (paired.method, paired.n, paired.verdict) == ("paired seeds", 3, "better")
    assert (apart.method, apart.verdict) == ("separate seeds", "cannot tell")
    assert paired.difference.estimate == apart.difference.estimate == pytest.approx(ours.mean() - theirs.mean())


def _two_way(differences: np.ndarray) -> tuple[float, float, float]:
    """Mean squares of seeds, images and their interaction, by the sums of a printed two-way analysis of variance."""
    s, n = differences.shape
    total = float((differences**2).sum()) - differences.sum() ** 2 / (s * n)
    seeds = sum(float(row.sum()) ** 2 for row in differences) / n - differences.sum() ** 2 / (s * n)
    images = sum(float(column.sum()) ** 2 for column in differences.T) / s - differences.sum() ** 2 / (s * n)
    return seeds / (s - 1), images / (n - 1), (total - seeds - images) / ((s - 1) * (n - 1))


def _of_images(differences: np.ndarray) -> float:
    """The variance of the mean over images, ``(N,)`` or ``(S, N)``; or with one more that each of the two wins."""
    seen = np.atleast_2d(differences).mean(axis=0)
    more = np.append(seen, [1.0, -1.0])
    return max(float(stats.sem(seen)) ** 2, float(more.var()) / len(more))


def _widths(of_seeds: float, freedom: float, of_images: float) -> float:
    """Of variances: Student's t, as a table has it, of the one and 1.96 of the other, added in squares."""
    return math.hypot(stats.t.ppf(0.975, freedom) * math.sqrt(of_seeds), 1.959963984540054 * math.sqrt(of_images))


@pytest.mark.parametrize("seed", range(4))
def test_paired_seeds_have_the_chance_of_seeds_and_of_images(seed: int) -> None:
    """By mean squares: of what seeds and images do together, which is in both, one share is taken off."""
    generator = np.random.default_rng(seed)
    easy = generator.normal(2, 2, 400)
    ours, theirs = (easy + generator.normal(0, 0.4, 400) + generator.normal(0, 1, (4, 400)) > 0 for _ in range(2))
    test = compare_seeds(ours, theirs)
    differences = ours.astype(float) - theirs
    of_seeds, _, of_both = (each / 1600 for each in _two_way(differences))
    alone = _of_images(differences) - of_both
    assert alone > 0
    half = max(_widths(of_seeds, 3, alone), _widths(0, 3, alone + of_both))
    estimate = ours.mean() - theirs.mean()
    assert (test.difference.low, test.difference.high) == pytest.approx((estimate - half, estimate + half))


def test_where_all_images_are_alike_it_is_students_t() -> None:
    """No image is liked more by one recipe than by the other: what is left is t of the seeds, and a little."""
    generator = np.random.default_rng(7)
    ours, theirs = (generator.random((5, 4000)) < rate for rate in (0.52, 0.5))
    test = compare_seeds(ours, theirs)
    bounds = stats.ttest_rel(ours.mean(axis=1), theirs.mean(axis=1)).confidence_interval()
    assert test.difference.half_width == pytest.approx((bounds.high - bounds.low) / 2, rel=0.05)


def test_the_p_value_of_seeds_is_that_of_the_interval_which_ends_at_zero() -> None:
    generator = np.random.default_rng(8)
    ours, theirs = (generator.random((4, 500)) < rate for rate in (0.83, 0.8))
    for paired in (True, False):
        test = compare_seeds(ours, theirs, paired=paired)
        ends = compare_seeds(ours, theirs, paired=paired, level=1 - test.p_value).difference
        assert ends.low == pytest.approx(0, abs=1e-9)


def test_more_disagreement_never_gives_more_certainty() -> None:
    """80 of 100, and seeds that all gain five images; then one of them six: nearly the same interval."""

    def gained(*counts: int) -> Interval:
        theirs = np.tile(np.arange(100) < 80, (len(counts), 1))
        ours = np.stack([np.arange(100) < 80 + count for count in counts])
        return compare_seeds(ours, theirs).difference

    alike, unlike = gained(5, 5, 5), gained(5, 5, 6)
    assert (alike.low, alike.high) == pytest.approx((unlike.low, unlike.high), abs=0.01)
    one = compare_images(np.arange(100) < 85, np.arange(100) < 80).difference  # all seeds are one run, then
    assert alike.half_width == pytest.approx(one.half_width)


def test_seeds_needed_are_the_smallest_number_that_would_tell() -> None:
    numbers = []
    for seed in range(40):
        generator = np.random.default_rng(seed)
        ours, theirs = (generator.random((4, 1000)) < rate for rate in (0.52, 0.50))
        test = compare_seeds(ours, theirs)
        if test.verdict != "cannot tell":
            continue
        differences = ours.astype(float) - theirs
        of_seeds, _, of_both = (each / 1000 for each in _two_way(differences))  # of one seed
        alone = max(_of_images(differences) - of_both / 4, 0)

        def tells(n: int, of_seeds=of_seeds, of_both=of_both, alone=alone, by=test.difference.estimate) -> bool:
            half = max(_widths(of_seeds / n, n - 1, alone), _widths(0, 1, alone + of_both / n))
            return half < abs(by)

        if test.needed is None:
            assert not tells(1000)
        else:
            assert tells(test.needed)
            assert test.needed == 5 or not tells(test.needed - 1)  # never fewer than are there
        numbers.append(test.needed)
    assert len(numbers) > 20
    assert sum(each is not None for each in numbers) > len(numbers) / 2


def test_no_number_of_seeds_tells_what_the_images_do_not() -> None:
    """Three images of 100 won and one lost, in every seed."""
    theirs = np.tile(np.arange(100) < 80, (3, 1))
    ours = theirs.copy()
    ours[:, 80:83], ours[:, 0] = True, False
    test = compare_seeds(ours, theirs)
    assert (test.verdict, test.needed) == ("cannot tell", None)


def test_seeds_of_their_own_add_their_variances() -> None:
    """Of each group's runs; and of the images what both groups' means differ by, above the interactions."""
    generator = np.random.default_rng(5)
    easy = generator.normal(2, 2, 600)
    ours, theirs = (easy + generator.normal(0, 0.6, 600) + generator.normal(0, 1, (s, 600)) > 0 for s in (3, 4))
    test = compare_seeds(ours, theirs, paired=False)
    of_runs = [each.mean(axis=1).var(ddof=1) / len(each) for each in (ours, theirs)]
    both = sum(_two_way(each.astype(float))[2] / (600 * len(each)) for each in (ours, theirs))
    of_images = _of_images(ours.mean(axis=0) - theirs.mean(axis=0))
    welch = sum(of_runs) ** 2 / (of_runs[0] ** 2 / 2 + of_runs[1] ** 2 / 3)
    assert of_images > both
    assert (test.method, test.n) == ("separate seeds", 3)
    assert test.difference.half_width == pytest.approx(_widths(sum(of_runs), welch, of_images - both))
    mirrored = compare_seeds(theirs, ours, paired=False).difference
    assert (mirrored.low, mirrored.high) == pytest.approx((-test.difference.high, -test.difference.low))


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize(("images", "seeds"), [(300, 2), (300, 12), (1000, 3), (1000, 12)])
def test_equally_good_recipes_are_seldom_told_apart(images: int, seeds: int, paired: bool) -> None:
    """On other images they are alike, on these they are not: Student's t of 12 seeds is wrong in one of six or more."""
    rng, draws = np.random.default_rng(seeds), 400
    pairs = [verdicts.draw(rng, images, seeds) for _ in range(draws)]
    told = sum(compare_seeds(*each, paired=paired).verdict != "cannot tell" for each in pairs)
    assert told / draws < 0.05 + 3 * math.sqrt(0.05 * 0.95 / draws)
    if seeds == 12 and images == 300:
        seeds_alone = sum(
            stats.ttest_rel(ours.mean(axis=1), theirs.mean(axis=1)).pvalue < 0.05 for ours, theirs in pairs
        )
        assert seeds_alone / draws > 0.1


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
    images = _of_images(ours[0] - theirs.mean(axis=0)) - _two_way(theirs.astype(float))[2] / 1500
    seeds = stats.sem(theirs.mean(axis=1)) ** 2
    assert (test.method, test.n) == ("one run", 3)
    assert test.difference.estimate == pytest.approx(ours.mean() - theirs.mean())
    assert test.difference.half_width == pytest.approx(_widths(seeds, 2, images))
    assert (other.difference.low, other.difference.high) == pytest.approx((-test.difference.high, -test.difference.low))


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_seeds_that_all_differ_by_as_much_are_no_certainty(seeds: int) -> None:
    """One image of 144, for each seed: Student's t has no spread there, and its interval would have no width."""
    theirs = np.tile(np.arange(144) >= 3, (seeds, 1))
    ours = theirs.copy()
    ours[:, 0] = True
    test = compare_seeds(ours, theirs)
    assert (test.verdict, test.method) == ("cannot tell", "paired seeds")
    assert test.difference.low <= 0 < test.difference.high


def test_seeds_as_accurate_that_err_elsewhere_are_no_certainty() -> None:
    """340 and 345 of 359 on both sides, other images wrong: no difference, and not for sure."""
    images = np.arange(359)
    ours = np.stack([images >= 359 - right for right in (340, 345)])
    test = compare_seeds(ours, ours[:, ::-1])
    assert (test.difference.estimate, test.verdict) == (0.0, "cannot tell")
    assert test.difference.low < -0.01 < 0.01 < test.difference.high


@pytest.mark.parametrize("paired", [True, False])
def test_equal_groups_of_seeds_are_no_difference(paired: bool) -> None:
    """And no certainty: of 100 images the next may tell them apart, as it may one run each."""
    answers = np.tile(_runs([0.8], 100, 3), (2, 1))
    test = compare_seeds(answers, answers, paired=paired)
    assert (test.verdict, test.p_value, test.needed, test.n) == ("cannot tell", 1.0, None, 2)
    half = 1.959963984540054 * math.sqrt(2) / 102
    assert (test.difference.low, test.difference.high) == pytest.approx((-half, half))


def test_a_difference_is_never_larger_than_all() -> None:
    test = compare_seeds(np.array([[1, 1], [1, 1]], dtype=bool), np.array([[1, 0], [0, 1]], dtype=bool))
    assert -1 <= test.difference.low < test.difference.high <= 1


def test_one_seed_shows_no_spread() -> None:
    answers = np.ones((1, 9), dtype=bool)
    for paired in (True, False):
        with pytest.raises(ValueError, match="no spread"):
            compare_seeds(answers, answers, paired=paired)


@pytest.mark.parametrize("won", range(3, 9))
def test_seeds_that_answer_all_alike_are_one_run(won: int) -> None:
    ours, theirs = (np.tile(np.arange(10_000) < count, (3, 1)) for count in (8_000 + won, 8_000))
    one, several = compare_images(ours[0], theirs[0]), compare_seeds(ours, theirs)
    assert several.verdict == one.verdict
    assert several.difference.half_width == pytest.approx(one.difference.half_width)


def test_one_image_tells_nothing() -> None:
    ours, theirs = (np.array([[each] for each in found]) for found in ((True, False, False), (True, True, False)))
    for paired in (True, False):
        test = compare_seeds(ours, theirs, paired=paired)
        assert test.difference.estimate == pytest.approx(-1 / 3)
        assert test.verdict == "cannot tell"


def test_shares_that_never_differ_are_no_certainty() -> None:
    """Two more images count, that differ by the smallest step either way."""
    shares = np.full(4, 0.5)
    test = compare_values(shares, shares, step=0.2)
    half = 3.182446 * 0.2 * math.sqrt(2) / 6  # t of three degrees of freedom, as printed
    assert (test.difference.low, test.difference.high) == pytest.approx((-half, half), rel=1e-5)
    assert (test.verdict, test.method, test.p_value) == ("cannot tell", "paired t", 1.0)


def test_nearly_equal_differences_are_hardly_more_certain_than_equal_ones() -> None:
    equal, nearly = (
        compare_values(np.array(ours), np.full(4, 0.4), step=0.01).difference
        for ours in ([0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.49])
    )
    assert equal.half_width == pytest.approx(nearly.half_width, rel=0.05)


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
    assert judge_drop(alike, alike, allowed=allowed, prove=True).passes
    assert not judge_drop(alike[1:], alike[1:], allowed=allowed, prove=True).passes


def test_a_drop_is_shown_refuted_or_neither() -> None:
    same = judge_drop(*_answers(4500, 5, 5, 490), allowed=0.003)
    assert (same.word, same.passes, replace(same, prove=True).passes) == ("shown", True, True)
    little = judge_drop(*_answers(4500, 30, 40, 430), allowed=0.003)
    assert (little.word, little.passes, replace(little, prove=True).passes) == ("not shown", True, False)
    assert little.needed == _enough(40, 30, 5000, 0.003)
    much = judge_drop(*_answers(4400, 10, 150, 440), allowed=0.003)
    assert (much.word, much.passes) == ("refuted", False)
    assert much.drop.estimate == pytest.approx(140 / 5000)


def test_no_difference_on_few_images_is_no_proof() -> None:
    verdict = judge_drop(*_answers(45, 0, 0, 5), allowed=0.003)
    assert (verdict.word, verdict.passes, replace(verdict, prove=True).passes) == ("not shown", True, False)
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
