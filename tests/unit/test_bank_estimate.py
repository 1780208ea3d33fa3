"""How long a bank will take is reckoned from whole batches that are warmed up, where there are any."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from distill.teaching import build


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        ([(64, 9.0), (64, 1.0), (64, 3.0), (64, 50.0)], 4.0 / 128),  # the fourth is not waited for
        ([(64, 9.0), (64, 1.0), (3, 8.0)], 1.0 / 64),
        ([(64, 9.0), (1, 8.0)], 9.0 / 64),  # a rest of one image has a shape of its own to warm up
        ([(20, 2.0)], 0.1),
        ([], 0.0),
    ],
)
def test_what_is_left_over_tells_nothing(
    batches: Iterable[tuple[int, float]], expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0

    def answers() -> Iterator[int]:
        nonlocal now
        for size, seconds in batches:
            now += seconds
            yield size

    monkeypatch.setattr(build.time, "perf_counter", lambda: now)
    assert build._seconds_per_image(answers()) == pytest.approx(expected)
