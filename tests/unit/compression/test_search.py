"""Which share is tried next, and which candidate is best."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.compression.candidate import CompressionCandidate, Int8File
from distill.compression.search import MIN_RATIO, STOP_RATIO, best_candidate, next_ratio
from distill.evaluation.drop import DropVerdict
from distill.evaluation.statistics import Interval


def _search(threshold: float, trials: int) -> dict[float, bool]:
    """Shares that are tried where everything from ``threshold`` on holds."""
    tried: dict[float, bool] = {}
    while (ratio := next_ratio(tried, trials=trials)) is not None:
        assert ratio not in tried
        tried[ratio] = ratio >= threshold
        assert len(tried) <= trials
    return tried


@given(st.floats(0.0, 1.0), st.integers(0, 12))
def test_the_search_ends_around_the_threshold(threshold: float, trials: int) -> None:
    tried = _search(threshold, trials)
    assert all(MIN_RATIO <= ratio < 1 for ratio in tried)
    held = min((ratio for ratio, holds in tried.items() if holds), default=1.0)
    lost = max((ratio for ratio, holds in tried.items() if not holds), default=None)
    if len(tried) < trials:
        assert held / 2 < MIN_RATIO if lost is None else held / lost < STOP_RATIO
    if lost is not None:
        assert lost < threshold <= held


def test_the_first_steps_are_those_of_a_bisection() -> None:
    assert list(_search(0.0, 9)) == [0.5, 0.25, 0.125, 0.0625, 0.0312]
    assert list(_search(0.3, 4)) == pytest.approx([0.5, 0.25, 0.125**0.5, (0.25 * 0.125**0.5) ** 0.5], abs=1e-4)
    assert list(_search(0.9, 3)) == pytest.approx([0.5, 0.5**0.5, 0.5**0.25], abs=1e-4)
    assert not _search(0.5, 0)


def test_one_lucky_candidate_below_a_failed_one_counts() -> None:
    """Verdicts are of finite images: 0.5 was refused, and 0.25 held."""
    assert next_ratio({0.5: False, 0.25: True}, trials=9) == 0.125


VERDICT = DropVerdict(Interval(0.001, -0.002, 0.004), 0.9, 0.003, 1000, 5000)


def _candidate(ratio: float, size: float | None, latency: float = 1.0) -> CompressionCandidate:
    shipped = None if size is None else Int8File("a.onnx", "0" * 64, "U8S8", size, latency)
    return CompressionCandidate(ratio, "trials/x/001", int(1000 * ratio), ratio, VERDICT, shipped, "", 1.0)


@pytest.mark.parametrize(("goal", "ratio"), [("latency", 1.0), ("size", 0.5), ("macs", 0.4)])
def test_the_goal_decides(goal: str, ratio: float) -> None:
    candidates = [
        _candidate(1.0, 3.0, 0.5),
        _candidate(0.5, 1.0, 0.7),
        _candidate(0.4, 1.1, 0.6),
        _candidate(0.2, None),
    ]
    found = best_candidate(candidates, goal)
    assert found is not None
    assert found.ratio == ratio
    assert best_candidate(candidates[3:], goal) is None


def test_of_latencies_that_noise_could_swap_the_smaller_network_counts() -> None:
    candidates = [_candidate(1.0, 3.0, 0.500), _candidate(0.5, 1.0, 0.520), _candidate(0.4, 1.1, 0.530)]
    found = best_candidate(candidates, "latency")
    assert found is not None
    assert found.ratio == 0.5


def test_a_candidate_survives_its_json() -> None:
    for candidate in (_candidate(0.5, 1.0), replace(_candidate(0.2, None), why="too much")):
        assert CompressionCandidate.from_json(candidate.to_json()) == candidate
