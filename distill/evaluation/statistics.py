"""How sure a measured accuracy is, and whether two of them differ: intervals, paired tests, and plain verdicts.

All intervals are two-sided and cover 95% unless asked otherwise. Accuracies and differences are fractions of 1.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

__all__ = [
    "LEVEL",
    "MAX_IMAGES",
    "Interval",
    "PairedTest",
    "SeedOutcomes",
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
        p_value: Two-sided, of no difference.
        method: ``mcnemar`` (one run each), ``paired seeds``, ``separate seeds`` (none in common), ``one run`` (against
            several), or ``paired t`` (a share for each image).
        n: Images for ``mcnemar`` and ``paired t``; else seeds: of the group that has fewer; beside one run, of the
            several.
        needed: About how many (images or seeds) would tell a difference of this size; None where it is told already, or
            where no number of them would.
    """

    difference: Interval
    p_value: float
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
    half = float(_stats().t.ppf((1 + level) / 2, len(array) - 1)) * float(array.std(ddof=1)) / math.sqrt(len(array))
    mean = float(array.mean())
    return Interval(mean, mean - half, mean + half)


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


def compare_values(ours: np.ndarray, theirs: np.ndarray, *, step: float, level: float = LEVEL) -> PairedTest:
    """Student's t of the differences of a share that each of two models has for each image.

    Args:
        step: The smallest that two shares can differ by.

    Shapes:
        ours, theirs: ``(N,)``, from 0 to 1, of the same images in the same order.

    Raises:
        ValueError: The shapes differ, or there are fewer than two images.
    """
    check_pair(ours, theirs, dimensions=1)
    n = len(ours)
    if n < 2:
        raise ValueError("one image has no spread")
    differences = ours - theirs
    variance = _of_mean(differences, step)
    interval, p_value = _by_t(float(differences.mean()), variance, n - 1, level)
    needed = None
    if verdict_of(interval) == "cannot tell" and interval.estimate:
        needed = math.ceil(n * variance * (normal_quantile(level) / interval.estimate) ** 2)
    return PairedTest(interval, p_value, "paired t", n, advised(needed, n, MAX_IMAGES))


def _by_t(estimate: float, variance: float, freedom: float, level: float) -> tuple[Interval, float]:
    """Student's t interval of a difference of shares, and the p-value of none."""
    t, error = _stats().t, math.sqrt(variance)
    half = float(t.ppf((1 + level) / 2, freedom)) * error
    return _of_shares(estimate, half), float(2 * t.sf(abs(estimate) / error, freedom))


def _of_shares(estimate: float, half: float) -> Interval:
    """Of a difference of shares, which is never beyond 1."""
    return Interval(estimate, max(estimate - half, -1.0), min(estimate + half, 1.0))


def _of_mean(differences: np.ndarray, step: float = 1.0) -> float:
    """The variance of a mean over images; no less than Bonett and Price's, with two more, of which each model wins one.

    So differences that are all equal are no certainty, and nearly equal ones hardly more.
    """
    images, n = len(differences), len(differences) + 2
    squares = float((differences**2).sum()) + 2 * step**2
    least = (squares - float(differences.sum()) ** 2 / n) / n**2
    return max(float(differences.var(ddof=1)) / images, least) if images > 1 else least


# Several seeds against several


@dataclass(frozen=True)
class SeedOutcomes:
    """Of runs that differ by their seed alone: ``right`` is ``(S, N)`` bool, whether run s answered image i right."""

    seeds: tuple[int, ...]
    right: np.ndarray


def compare_runs(ours: SeedOutcomes, theirs: SeedOutcomes, *, level: float = LEVEL) -> PairedTest:
    """By image for one run each, by seed where two or more are shared, else by the seeds that each has of its own."""
    if len(ours.seeds) == len(theirs.seeds) == 1:
        return compare_images(ours.right[0], theirs.right[0], level=level)
    shared = [seed for seed in ours.seeds if seed in theirs.seeds]
    if len(shared) >= 2:
        mine, other = ([each.seeds.index(seed) for seed in shared] for each in (ours, theirs))
        return compare_seeds(ours.right[mine], theirs.right[other], level=level)
    return compare_seeds(ours.right, theirs.right, paired=False, level=level)


def compare_seeds(ours: np.ndarray, theirs: np.ndarray, *, paired: bool = True, level: float = LEVEL) -> PairedTest:
    """The difference of two groups of runs, as it would be with other seeds and on other images of the same kind.

    Student's t of the seeds' accuracies (Welch's, Biometrika 34, 1947, when not paired), and the chance of the images,
    which all seeds share; the widths of the two add in squares (Zou and Donner, Stat. Med. 27, 2008). Student's t alone
    takes the test images for all that there are, and the more seeds there are, the more often it calls one recipe
    better although both are equally good on other images. What seeds and images do together is in the spread of both,
    and counted once, as where radiologists read the same cases (Hillis, Stat. Med. 26, 2007).

    Where one group is a single run, the difference is that run's, whose spread over seeds nobody knows.

    Args:
        paired: Row ``i`` of both is the same seed: same split, same order, same views. The spread that seeds share
            then cancels.

    Shapes:
        ours: ``(S, N)`` bool, whether run s answered image i right; theirs: ``(S, N)``, or ``(R, N)`` when not paired.

    Raises:
        ValueError: The shapes do not fit each other, or there is one run on either side.
    """
    if paired:
        check_pair(ours, theirs, dimensions=2)
        groups = [ours.astype(np.float64) - theirs]
    else:
        if ours.ndim != 2 or theirs.ndim != 2 or ours.shape[1] != theirs.shape[1] or 0 in (*ours.shape, *theirs.shape):
            raise ValueError(f"answers of shapes {ours.shape} and {theirs.shape} cannot be compared")
        groups = [ours.astype(np.float64), -theirs.astype(np.float64)]
    several = [group for group in groups if len(group) > 1]
    if not several:
        raise ValueError("one seed has no spread: compare_images")
    by_image = np.sum([group.mean(axis=0) for group in groups], axis=0)
    runs, both = [len(group) for group in several], list(map(_residual, several))
    effects = _Effects(
        estimate=float(by_image.mean()),
        seeds=[float(group.mean(axis=1).var(ddof=1)) for group in several],
        images=max(_of_mean(by_image) - sum(each / count for each, count in zip(both, runs, strict=True)), 0.0),
        both=both,
    )
    interval = effects.interval(runs, level)
    method = "paired seeds" if paired else "one run" if len(several) < len(groups) else "separate seeds"
    needed = effects.seeds_needed(level) if verdict_of(interval) == "cannot tell" else None
    return PairedTest(interval, effects.p_value(runs), method, min(runs), advised(needed, min(runs), _MAX_SEEDS))


@dataclass(frozen=True)
class _Effects:
    """A mean difference, and the variances that its error is made of.

    Attributes:
        seeds: Of one seed's accuracy, or difference, in each group that has several.
        images: Of the mean over images, as far as all seeds share it.
        both: Of one seed's mean, in each group, by what it does with images that other seeds do not.
    """

    estimate: float
    seeds: Sequence[float]
    images: float
    both: Sequence[float]

    def interval(self, runs: Sequence[int], level: float) -> Interval:
        """With so many runs in each group."""
        return _of_shares(self.estimate, self._half_width(runs, normal_quantile(level)))

    def p_value(self, runs: Sequence[int]) -> float:
        """Of no difference: that of the interval which ends at zero; none is told below 1e-15."""
        from scipy import special

        low, high = 0.0, 8.0  # standard errors
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (low, middle) if self._half_width(runs, middle) >= abs(self.estimate) else (middle, high)
        return float(2 * special.ndtr(-low))

    def seeds_needed(self, level: float) -> int | None:
        """The smallest number, of each group, that would tell a difference of this size; None: no number of seeds."""

        def is_enough(count: int) -> bool:
            return verdict_of(self.interval([count] * len(self.seeds), level)) != "cannot tell"

        counts = range(2, _MAX_SEEDS + 1)
        enough = bisect.bisect_left(counts, True, key=is_enough)  # the more, the narrower
        return counts[enough] if enough < len(counts) else None

    def _half_width(self, runs: Sequence[int], z: float) -> float:
        """Of the interval as wide as ``z`` standard errors of a normal distribution."""
        from scipy import special  # its functions of one number are a hundred times as fast as those of scipy.stats

        means = [variance / count for variance, count in zip(self.seeds, runs, strict=True)]
        unsure = sum(mean**2 / (count - 1) for mean, count in zip(means, runs, strict=True))
        t = -float(special.stdtrit(sum(means) ** 2 / unsure, special.ndtr(-z))) if unsure else 0.0
        both = sum(variance / count for variance, count in zip(self.both, runs, strict=True))
        of_seeds, of_images = t * math.sqrt(sum(means)), z * math.sqrt(self.images)
        return max(math.hypot(of_seeds, of_images), z * math.sqrt(self.images + both))  # seeds may agree by chance


def _residual(group: np.ndarray) -> float:
    """The variance of one run's mean that comes from seeds and images together: ``(S, N)``, S at least 2."""
    seeds, images = group.shape
    if images < 2:
        return 0.0
    rest = group - group.mean(axis=0) - group.mean(axis=1, keepdims=True) + group.mean()
    return float((rest**2).sum()) / ((images - 1) * (seeds - 1)) / images


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
