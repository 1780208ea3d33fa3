"""What is said of a loss: its bounds are of what the verb names."""

from __future__ import annotations

import pytest

from distill.evaluation.drop import DropVerdict
from distill.evaluation.statistics import Interval
from distill.report.verdict import drop_words


@pytest.mark.parametrize(
    ("drop", "words"),
    [
        (Interval(0.002, -0.001, 0.005), "loses 0.20 points of 90.00% [-0.10, 0.50] on 5,000 images"),
        (Interval(-0.03, -0.072, 0.0132), "gains 3.00 points of 90.00% [-1.32, 7.20] on 5,000 images"),
        (Interval(0.0, -0.01, 0.01), "loses 0.00 points of 90.00% [-1.00, 1.00] on 5,000 images"),
    ],
)
def test_a_loss_or_a_gain(drop: Interval, words: str) -> None:
    assert drop_words(DropVerdict(drop, 0.9, 0.003, 5_000, None)) == words
