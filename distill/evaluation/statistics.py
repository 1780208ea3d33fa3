"""How sure a measured accuracy is, and whether two of them differ: intervals, paired tests, and plain verdicts.

All intervals are two-sided and cover 95% unless asked otherwise. Accuracies and differences are fractions of 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

__all__ = [
    "LEVEL",
    "MAX_IMAGES",
    "Answers",
    "Interval",
    "PairedTest",
    "Verdict",
    "advised",
    "check_pair",
    "compare_images",
    "compare_runs",
    "compare_seeds",
    "compare_values",
    "front",
    "images_needed",
    "mean_interval",
    "normal_quantile",
    "paired_interval",
    "share_interval",
    "verdict_of",
]

Verdict = Literal["better", "worse", "cannot tell"]

LEVEL = 0.95
_DRAWS = 2_000  # of the bootstrap: its bounds vary by some hundredths of their width
_CHUNK = 200  # draws at a time: 200 x 10,000 images are 16 MB
_NO_SPREAD = 1e-12  # of accuracies: equal ones differ by rounding errors
_MAX_SEEDS, MAX_IMAGES = 1_000, 100_000_000  # beyond these "how many more" is no advice


def _stats() -> Any:
    from scipy import stats  # a second to import

    return stats


@dataclass(frozen=True)
class Interval:
    """An estimate and the bounds of its confidence interval."""

    estimate: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the distance between the bounds."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class PairedTest:
    """One accuracy against another on the same images.

    Attributes:
        difference: Ours minus theirs, with its interval.
        p_value: Two-sided, of no difference; None where the interval alone was made.
        method: ``mcnemar`` (one run each), ``paired t`` (by seed), ``welch t`` (seeds of their own), ``t and images``
            (one run against several) or ``bootstrap`` (over images and seeds).
        n: Images for ``mcnemar``, seeds otherwise: of the group that has fewer; beside one run, of the several.
        needed: About how many (images or seeds) would tell a difference of this size; None where it is told already, or
            where there is none to tell.
    """

    difference: Interval
    p_value: float | None
    method: str
    n: int
    needed: int | None

    @property
    def verdict(self) -> Verdict:
        """``better`` or ``worse`` where the interval excludes zero."""
        return verdict_of(self.difference)


def verdict_of(difference: Interval) -> Verdict:
    """What an interval of a difference says in words.

    >>> verdict_of(Interval(0.02, 0.01, 0.03)), verdict_of(Interval(0.02, -0.01, 0.05))
    ('better', 'cannot tell')
    """
    if difference.low > 0:
        return "better"
    return "worse" if difference.high < 0 else "cannot tell"


def share_interval(correct: int, n: int, *, level: float = LEVEL) -> Interval:
    """Wilson's score interval (JASA 22, 1927) of ``correct`` out of ``n`` images: what one run's accuracy is worth.

    Raises:
        ValueError: There are no images.
    """
    if n < 1:
        raise ValueError("a share of no images")
    bounds = _stats().binomtest(correct, n).proportion_ci(confidence_level=level, method="wilson")
    return Interval(correct / n, float(bounds.low), float(bounds.high))


def mean_interval(values: Sequence[float], *, level: float = LEVEL) -> Interval | None:
    """Student's t interval of a mean over seeds; None for fewer than two, which show no spread.

    With 3 seeds t is 4.3: the interval is 2.5 standard deviations wide on either side.
    """
    if len(values) < 2:
        return None
    array = np.asarray(values, dtype=np.float64)
    half = _t(len(array), level) * float(array.std(ddof=1)) / math.sqrt(len(array))
    mean = float(array.mean())
    return Interval(mean, mean - half, mean + half)


def _t(n: float, level: float) -> float:
    return float(_stats().t.ppf((1 + level) / 2, n - 1))


# One run against another


def compare_images(ours: np.ndarray, theirs: np.ndarray, *, level: float = LEVEL) -> PairedTest:
    """McNemar's mid-p test, with Bonett and Price's interval (J. Educ. Behav. Stat. 37, 2012), which gives the verdict.

    Only images that one of the two gets right and the other wrong say anything about the difference. The exact test
    (Psychometrika 12, 1947) counts all of the chance of what was seen; its mid-p (Fagerland, Lydersen and Laake, BMC
    Med. Res. Methodol. 13, 2013) half of it, and so agrees with the interval but for a few cases at the border.

    Shapes:
        ours, theirs: ``(N,)`` bool, whether each answered an image right; the same images in the same order.

    Raises:
        ValueError: The shapes differ, or there are no images.
    """
    check_pair(ours, theirs, dimensions=1)
    n, won, lost = len(ours), int((ours & ~theirs).sum()), int((~ours & theirs).sum())
    difference = paired_interval(won, lost, n, level)
    needed = None
    if verdict_of(difference) == "cannot tell" and won != lost:
        needed = images_needed(won, lost, n, lambda found: verdict_of(found) != "cannot tell", level)
    return PairedTest(difference, _mid_p(won, lost), "mcnemar", n, needed)


def _mid_p(won: int, lost: int) -> float:
    """Two-sided: twice the chance of fewer than the rarer kind, and once that of as many."""
    of, fewer = won + lost, min(won, lost)
    if won == lost:
        return 1.0
    binom = _stats().binom
    return float(2 * binom.cdf(fewer - 1, of, 0.5) + binom.pmf(fewer, of, 0.5))


def images_needed(won: int, lost: int, n: int, settles: Callable[[Interval], bool], level: float = LEVEL) -> int | None:
    """About how many images would settle what ``n`` do not: the fewest of which the same shares would.

    Args:
        settles: Whether :func:`paired_interval` of so many says enough.

    Returns:
        None where no one could have so many.
    """

    def is_enough(images: int) -> bool:
        return settles(paired_interval(won * images / n, lost * images / n, images, level))

    few, many = n, 2 * n
    while not is_enough(many):
        if many > MAX_IMAGES:
            return None
        few, many = many, 2 * many
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if is_enough(middle) else (middle, many)
    return many if many <= MAX_IMAGES else None


def paired_interval(won: float, lost: float, n: int, level: float) -> Interval:
    """One image is added to each kind of discordant pair, so that 0 of 100 is not taken for certainty."""
    more, fewer = (won + 1) / (n + 2), (lost + 1) / (n + 2)
    centre = more - fewer
    half = normal_quantile(level) * math.sqrt(max(more + fewer - centre**2, 0.0) / (n + 2))
    return Interval((won - lost) / n, max(centre - half, -1.0), min(centre + half, 1.0))


def normal_quantile(level: float) -> float:
    return float(_stats().norm.ppf((1 + level) / 2))


def advised(needed: int | None, n: int, most: int) -> int | None:
    """``needed`` as told: never fewer than are there, and nothing where no one could have so many."""
    if needed is None or needed > most:
        return None
    return max(needed, n + 1)


def compare_values(ours: np.ndarray, theirs: np.ndarray, *, level: float = LEVEL) -> PairedTest:
    """Student's t of the differences of a number that each of two models has for each image.

    Shapes:
        ours, theirs: ``(N,)``, of the same images in the same order.

    Raises:
        ValueError: The shapes differ, or there are fewer than two images.
    """
    check_pair(ours, theirs, dimensions=1)
    differences = ours - theirs
    interval = mean_interval(differences.tolist(), level=level)
    if interval is None:
        raise ValueError("one image has no spread")
    spread = float(differences.std(ddof=1))
    p_value = float(_stats().ttest_1samp(differences, 0.0).pvalue) if spread else float(interval.estimate == 0)
    needed = None
    if verdict_of(interval) == "cannot tell" and interval.estimate:
        needed = math.ceil((normal_quantile(level) * spread / interval.estimate) ** 2)
    return PairedTest(interval, p_value, "paired t", len(ours), advised(needed, len(ours), MAX_IMAGES))


# Several seeds against several


@dataclass(frozen=True)
class Answers:
    """Of runs that differ by their seed alone: ``right`` is ``(S, N)`` bool, whether run s answered image i right."""

    seeds: tuple[int, ...]
    right: np.ndarray


def compare_runs(ours: Answers, theirs: Answers, *, level: float = LEVEL) -> PairedTest:
    """By image for one run each, by seed where two or more are shared, else by the seeds that each has of its own."""
    if len(ours.seeds) == len(theirs.seeds) == 1:
        return compare_images(ours.right[0], theirs.right[0], level=level)
    shared = [seed for seed in ours.seeds if seed in theirs.seeds]
    if len(shared) >= 2:
        mine, other = ([each.seeds.index(seed) for seed in shared] for each in (ours, theirs))
        return compare_seeds(ours.right[mine], theirs.right[other], level=level)
    return compare_seeds(ours.right, theirs.right, paired=False, level=level)


def compare_seeds(
    ours: np.ndarray, theirs: np.ndarray, *, paired: bool = True, level: float = LEVEL, seed: int = 0
) -> PairedTest:
    """The difference of two groups of runs: Student's t of the pairs of one seed, else Welch's (Biometrika 34, 1947).

    Where one group is a single run, the difference is that run's, whose spread over seeds nobody knows; the chance of
    the images counts beside that of the other group's seeds. Of few images and seeds it happens that all seeds differ
    by as much. Student's t would take that for certainty; a bootstrap over images and seeds does not, and is made then.
    Where all answers are the same, the interval is that of one run each.

    Args:
        paired: Row ``i`` of both is the same seed: same split, same order, same views. The spread that seeds share
            then cancels.
        seed: Of the bootstrap's draws: the same bounds each time.

    Shapes:
        ours: ``(S, N)`` bool, whether run s answered image i right; theirs: ``(S, N)``, or ``(R, N)`` when not paired.

    Raises:
        ValueError: The shapes do not fit each other, or a group has fewer than two runs while ``paired``.
    """
    if not paired:
        return _unpaired(ours, theirs, level, seed)
    check_pair(ours, theirs, dimensions=2)
    differences = ours.mean(axis=1) - theirs.mean(axis=1)
    interval = mean_interval(differences.tolist(), level=level)
    if interval is None:
        raise ValueError("one seed has no spread: compare_images")
    spread = float(differences.std(ddof=1))
    if np.array_equal(ours, theirs):  # is no certainty either: as much is known as of one run each
        return compare_images(ours[0], theirs[0], level=level)
    if spread < _NO_SPREAD:
        return _bootstrapped(ours, theirs, level, seed)
    p_value = float(_stats().ttest_1samp(differences, 0.0).pvalue)
    needed = _seeds_needed(interval, spread, level) if verdict_of(interval) == "cannot tell" else None
    return PairedTest(interval, p_value, "paired t", len(differences), needed)


def _unpaired(ours: np.ndarray, theirs: np.ndarray, level: float, seed: int) -> PairedTest:
    if ours.ndim != 2 or theirs.ndim != 2 or ours.shape[1] != theirs.shape[1] or 0 in (*ours.shape, *theirs.shape):
        raise ValueError(f"answers of shapes {ours.shape} and {theirs.shape} cannot be compared")
    runs = len(ours), len(theirs)
    if min(runs) == 1:
        return _one_run(ours, theirs, level) if max(runs) > 1 else _bootstrapped(ours, theirs, level, seed)
    means = ours.mean(axis=1), theirs.mean(axis=1)
    variances = [float(each.var(ddof=1)) for each in means]
    spread = math.sqrt(sum(variances))
    if spread < _NO_SPREAD:
        return _bootstrapped(ours, theirs, level, seed)
    shares = [variance / count for variance, count in zip(variances, runs, strict=True)]
    freedom = sum(shares) ** 2 / sum(share**2 / (count - 1) for share, count in zip(shares, runs, strict=True))
    error, t = math.sqrt(sum(shares)), _stats().t
    estimate = float(means[0].mean() - means[1].mean())
    half = float(t.ppf((1 + level) / 2, freedom)) * error
    interval = Interval(estimate, estimate - half, estimate + half)
    needed = None
    if verdict_of(interval) == "cannot tell":
        groups = sum(variances) ** 2 / sum(each**2 for each in variances)  # as many as their spreads are worth: 1 to 2
        needed = advised(_seeds_needed(interval, spread, level, groups=groups), min(runs), _MAX_SEEDS)
    return PairedTest(interval, float(2 * t.sf(abs(estimate) / error, freedom)), "welch t", min(runs), needed)


def _one_run(ours: np.ndarray, theirs: np.ndarray, level: float) -> PairedTest:
    """Two independent chances, each with bounds of its own, whose widths add in squares (Stat. Med. 27, 2008).

    Drawing two or three seeds again and again knows no value beyond theirs, and takes luck for a difference.
    """
    images = ours.mean(axis=0) - theirs.mean(axis=0)
    several = (ours if len(ours) > 1 else theirs).mean(axis=1)
    of_images = normal_quantile(level) * float(images.std(ddof=1)) / math.sqrt(len(images)) if len(images) > 1 else 1.0
    of_seeds = _t(len(several), level) * float(several.std(ddof=1)) / math.sqrt(len(several))
    estimate, half = float(images.mean()), math.hypot(of_images, of_seeds)
    bounds = Interval(estimate, max(estimate - half, -1.0), min(estimate + half, 1.0))
    return PairedTest(bounds, None, "t and images", len(several), None)


def _seeds_needed(interval: Interval, spread: float, level: float, *, groups: float = 1) -> int | None:
    """The smallest n, of each group, whose interval of this spread would leave zero out."""
    if interval.estimate == 0:
        return None
    for n in range(2, _MAX_SEEDS + 1):
        if _t(groups * (n - 1) + 1, level) * spread / math.sqrt(n) < abs(interval.estimate):
            return n
    return None


def _bootstrapped(ours: np.ndarray, theirs: np.ndarray, level: float, seed: int) -> PairedTest:
    """Percentile bootstrap: the same images are drawn for both groups, seeds for each of its own."""
    generator, n = np.random.default_rng(seed), ours.shape[1]
    draws = np.empty(_DRAWS)
    for start in range(0, _DRAWS, _CHUNK):
        images = generator.multinomial(n, np.full(n, 1 / n), size=_CHUNK) / n
        draws[start : start + _CHUNK] = _resampled(ours, images, generator) - _resampled(theirs, images, generator)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    estimate = float(ours.mean() - theirs.mean())
    return PairedTest(Interval(estimate, float(low), float(high)), None, "bootstrap", min(len(ours), len(theirs)), None)


def _resampled(answers: np.ndarray, images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Mean accuracy in each draw: ``(draws,)``."""
    runs = len(answers)
    seeds = generator.multinomial(runs, np.full(runs, 1 / runs), size=len(images)) / runs
    return ((images @ answers.T.astype(np.float64)) * seeds).sum(axis=1)


def check_pair(ours: np.ndarray, theirs: np.ndarray, *, dimensions: int) -> None:
    if ours.shape != theirs.shape or ours.ndim != dimensions or 0 in ours.shape:
        raise ValueError(f"answers of shapes {ours.shape} and {theirs.shape} cannot be paired")


# Two aims at once


def front(points: Sequence[tuple[float, float] | None]) -> list[bool]:
    """Which points ``(accuracy, cost)`` no other beats: none is as accurate and cheaper, or as cheap and more accurate.

    None stands for a point that was not measured; it is on no front.

    >>> front([(0.9, 2.0), (0.8, 1.0), (0.8, 2.0), None])
    [True, True, False, False]
    """
    known = [point for point in points if point is not None]

    def beaten(point: tuple[float, float]) -> bool:
        return any(a >= point[0] and c <= point[1] and (a, c) != point for a, c in known)

    return [point is not None and not beaten(point) for point in points]
