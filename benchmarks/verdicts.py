"""How often two equally good recipes are called different: by compare's test, and by Student's t of the seeds alone.

``python -m benchmarks.verdicts [--draws 1000]`` prints the table of docs/statistics.md; the same draws every time.
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np
from scipy import stats

from distill.evaluation.statistics import LEVEL, compare_seeds

__all__ = ["draw", "main", "wrong"]

IMAGES, SEEDS = (300, 1_000, 10_000), (2, 3, 5, 12)


def draw(rng: np.random.Generator, images: int, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Which images the runs of two equally good recipes answer right: twice ``(seeds, images)`` bool, 0.84 on average.

    An image is right where a sum of normal chances is above zero: how easy it is, how a recipe likes it, a run's own
    level, and how a run likes it.
    """
    easy = rng.normal(3.0, 2.5, images)

    def runs() -> np.ndarray:
        liked, level = rng.normal(0.0, 0.5, images), rng.normal(0.0, 0.1, (seeds, 1))
        return easy + liked + level + rng.normal(0.0, 1.0, (seeds, images)) > 0

    return runs(), runs()


def wrong(rng: np.random.Generator, images: int, seeds: int, draws: int) -> dict[str, float]:
    """The share of ``draws`` in which the two were called different, by the name of the test."""
    found = dict.fromkeys(("paired", "separate", "paired t", "welch t"), 0)
    for _ in range(draws):
        ours, theirs = draw(rng, images, seeds)
        for name, paired in (("paired", True), ("separate", False)):
            found[name] += compare_seeds(ours, theirs, paired=paired).verdict != "cannot tell"
        tops = ours.mean(axis=1), theirs.mean(axis=1)
        found["paired t"] += np.ptp(tops[0] - tops[1]) > 0 and stats.ttest_rel(*tops).pvalue < 1 - LEVEL
        found["welch t"] += np.ptp(tops) > 0 and stats.ttest_ind(*tops, equal_var=False).pvalue < 1 - LEVEL
    return {name: times / draws for name, times in found.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1_000)
    draws, rng = parser.parse_args().draws, np.random.default_rng(0)
    print("| test images | seeds of each | paired seeds | Student's t, paired | separate seeds | Welch's t |")
    print("|---|---|---|---|---|---|")
    for images, seeds in itertools.product(IMAGES, SEEDS):
        told = wrong(rng, images, seeds, draws)
        cells = [f"{100 * told[name]:.1f}%" for name in ("paired", "paired t", "separate", "welch t")]
        print(f"| {images:,} | {seeds} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
