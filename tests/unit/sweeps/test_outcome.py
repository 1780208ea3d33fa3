"""What the trials say together, against values worked out by hand."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from distill.results.sweeps import TrialRow
from distill.sweeps.folder import redacted
from distill.sweeps.outcome import best_of, grouped, main_effects, unsettled, with_interval


def row(
    number: int, top1: float | None, *, seed: int | None = None, status: str = "finished", **params: object
) -> TrialRow:
    return TrialRow(number, params, status, seed=seed, val_top1=top1, epochs=2, seconds=1.0, run=f"runs/x/{number:03d}")


def test_means_and_spread_over_seeds() -> None:
    rows = [
        row(0, 0.5, seed=0, lr=1),
        row(1, 0.9, seed=0, lr=2),
        row(2, 0.7, seed=1, lr=1),
        row(3, None, seed=1, status="failed", lr=2),
    ]
    one, two = grouped(rows)
    assert (one.seeds, two.seeds) == (2, 1)
    assert one.val_top1 == pytest.approx(0.6)
    assert one.val_top1_std == pytest.approx(math.sqrt(0.02))
    assert two.val_top1_std is None


def test_of_unlike_many_seeds_those_count_that_all_have() -> None:
    """By their own means lr 2 would win, by a seed that was kind to both."""
    rows = [row(0, 0.80, seed=0, lr=1), row(1, 0.60, seed=1, lr=1), row(2, 0.75, seed=0, lr=2)]
    best = best_of(rows, Path("best.yaml"))
    assert best is not None
    assert (best.params, best.seeds) == ({"lr": 1}, 2)
    assert best.val_top1 == pytest.approx(0.7)
    apart = best_of([row(0, 0.80, seed=0, lr=1), row(1, 0.85, seed=1, lr=2)], Path("best.yaml"))
    assert apart is not None
    assert apart.params == {"lr": 2}


def test_the_best_has_the_best_mean_and_all_its_seeds() -> None:
    rows = [
        row(0, 0.5, seed=0, lr=1),
        row(1, 0.95, seed=0, lr=2),
        row(2, 0.7, seed=1, lr=1),
        row(3, None, seed=1, status="failed", lr=2),
        row(4, 0.65, seed=0, lr=3),
        row(5, 0.65, seed=1, lr=3),
    ]
    best = best_of(rows, Path("best.yaml"))
    assert best is not None
    assert (best.params, best.seeds, best.trial) == ({"lr": 3}, 2, 4)
    assert best.val_top1 == pytest.approx(0.65)


def test_its_run_is_no_lucky_seed() -> None:
    rows = [row(0, 0.6, seed=0, lr=1), row(1, 0.9, seed=1, lr=1), row(2, 0.7, seed=0, lr=2), row(3, 0.7, seed=1, lr=2)]
    best = best_of(rows, Path("best.yaml"))
    assert best is not None
    assert (best.params, best.trial) == ({"lr": 1}, 0)


def test_what_a_search_chose_twice_is_no_second_seed() -> None:
    """Five trials of one seed, as Optuna draws from a list: the best of them is no worse for being drawn once."""
    rows = [row(0, 0.0972, lr=1e-6), row(1, 0.0972, lr=1e-5), row(2, 0.0972, lr=1e-5), row(3, 0.1875, lr=0.1)]
    best = best_of(rows, Path("best.yaml"))
    assert best is not None
    assert (best.params, best.val_top1, best.val_top1_std, best.seeds) == ({"lr": 0.1}, 0.1875, None, 1)
    assert [(group.seeds, len(group.runs)) for group in grouped(rows)] == [(1, 1)] * 3


def test_a_pruned_trial_is_never_the_best() -> None:
    assert best_of([row(0, 0.9, status="pruned", lr=1)], Path("b")) is None


def test_of_an_additive_grid_main_effects_explain_everything() -> None:
    rows = [row(n, 0.1 * a + 0.2 * b, a=a, b=b) for n, (a, b) in enumerate(itertools.product(range(3), repeat=2))]
    found = main_effects(rows)
    assert found == pytest.approx({"a": 0.2, "b": 0.8})  # variances 0.0067 and 0.0267 of 0.0333


def test_of_a_pure_interaction_they_explain_nothing() -> None:
    square = {0: (0, 1, 2), 1: (1, 2, 0), 2: (2, 0, 1)}  # Latin: all rows and columns have the same mean
    rows = [row(3 * a + b, float(square[a][b]), a=a, b=b) for a in range(3) for b in range(3)]
    assert main_effects(rows) == {"a": 0.0, "b": 0.0}


def test_what_chance_does_is_no_effect() -> None:
    """By plain eta squared a key of three values explains a quarter of a 3x3 grid of pure noise."""
    rng = np.random.default_rng(0)
    cells = list(enumerate(itertools.product(range(3), range(3))))
    found = [main_effects([row(n, top1, a=a, b=b) for (n, (a, b)), top1 in zip(cells, rng.random(9), strict=True)])
             for _ in range(300)]  # fmt: skip
    shares = [share for each in found if each is not None for share in each.values()]
    assert len(shares) == 600
    assert np.median(shares) == 0
    assert np.mean(shares) < 0.13


def test_of_an_effect_under_noise_about_its_share_is_told() -> None:
    """Variances of 2 (the values 0, 1.73, 3.46) and of 1: two thirds; the other key has none."""
    rng = np.random.default_rng(1)
    cells = [(a, b, seed) for a in range(3) for b in range(3) for seed in range(20)]
    tops = [math.sqrt(3) * a + rng.normal() for a, _, _ in cells]
    rows = [row(n, top, seed=seed, a=a, b=b) for n, ((a, b, seed), top) in enumerate(zip(cells, tops, strict=True))]
    found = main_effects(rows)
    assert found is not None
    assert found["a"] == pytest.approx(2 / 3, abs=0.06)
    assert found["b"] < 0.02


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row(0, 0.1, a=1), row(1, 0.2, a=2)],
        [row(0, 0.1, a=1, b=1), row(1, 0.1, a=2, b=1), row(2, 0.1, a=1, b=2), row(3, 0.1, a=2, b=2)],
        [row(0, 0.1, a=1, b=1), row(1, 0.3, a=2, b=1), row(2, 0.2, a=1, b=2), row(3, None, status="failed", a=2, b=2)],
        [row(0, 0.1, a=1, b=1), row(1, 0.3, a=2, b=1), row(2, 0.2, a=1, b=2)],
        [row(0, 0.1, a=1, b=1), row(1, 0.3, a=2, b=1), row(2, 0.2, a=1, b=2), row(3, 0.5, a=2, b=2)],
    ],
    ids=["nothing", "one key", "no differences", "a hole", "no full grid", "one left to tell the noise by"],
)
def test_where_importances_would_mean_nothing_there_are_none(rows: list[TrialRow]) -> None:
    assert main_effects(rows) is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("postgresql://me:p@ss@host/db", "postgresql://me:***@host/db"),
        ("--storage=postgresql://me:secret@host/db", "--storage=postgresql://me:***@host/db"),  # as it may be typed
        ("sqlite:////tmp/a.db", "sqlite:////tmp/a.db"),
        ("--set=optim.lr=1:2", "--set=optim.lr=1:2"),
        ("optim.lr=1:2", "optim.lr=1:2"),
        ("", ""),
    ],
)
def test_passwords_are_written_nowhere(url: str, shown: str) -> None:
    assert redacted(url) == shown


def test_the_best_is_worth_what_so_many_images_tell() -> None:
    """By hand: Wilson's interval of 90 out of 100 is 82.56 to 94.48 %."""
    rows = [row(0, 0.90, lr=1), row(1, 0.84, lr=2), row(2, 0.80, lr=3), row(3, 0.89, status="failed", lr=4)]
    best = best_of(rows, Path("best.yaml"))
    assert best is not None
    best = with_interval(best, 100)
    assert best.val_top1_low == pytest.approx(0.8256, abs=5e-5)
    assert best.val_top1_high == pytest.approx(0.9448, abs=5e-5)
    told = unsettled(best, rows, 100)
    assert told is not None
    assert told.startswith("which is best is not settled: 1 of 2 other choices lies in the best one's 95% interval")
    assert "82.56 to 94.48 % (Wilson's, of 100 validation images)" in told
    assert unsettled(with_interval(best, 10_000), rows, 10_000) is None


def test_over_seeds_the_means_are_compared() -> None:
    rows = [row(0, 0.90, seed=0, lr=1), row(1, 0.60, seed=0, lr=2)]
    rows += [row(2, 0.90, seed=1, lr=1), row(3, 0.88, seed=1, lr=2)]  # one seed is close, the mean of both is not
    best = best_of(rows, Path("best.yaml"))
    assert best is not None
    assert unsettled(with_interval(best, 100), rows, 100) is None


def test_a_choice_above_the_best_ones_interval_leaves_it_unsettled_too() -> None:
    """One that waits for its second seed, and one that lost a seed: either is above the best one's mean."""
    waiting = [row(0, 0.90, seed=0, lr=1), row(1, 0.70, seed=1, lr=1), row(2, 0.89, seed=0, lr=2)]
    lost = [row(0, 0.90, seed=0, lr=1), row(1, 0.90, seed=1, lr=1), row(2, 0.99, seed=0, lr=2)]
    lost.append(row(3, 0.5, seed=1, status="failed", lr=2))
    for rows in (waiting, lost):
        best = best_of(rows, Path("best.yaml"))
        assert best is not None
        assert best.params == {"lr": 1}
        told = unsettled(with_interval(best, 500), rows, 500)
        assert told is not None
        assert "1 of 1 other choice lies in or above the best one's 95% interval" in told
