"""Budgets that are named as enough hold what they were named for, as they are printed."""

from __future__ import annotations

import pytest

from distill.results.search import budget_text
from distill.searches.prices import rounded_up


@pytest.mark.parametrize(
    ("quantity", "needed"),
    [
        ("params", 123_444.0),
        ("params", 4_935_242.0),
        ("size_mb", 1.00034),
        ("latency_b1_ms", 0.5701),
        ("gmacs", 0.012),
        ("latency_b32_ms", 999.9),
    ],
)
def test_what_is_printed_holds_and_is_at_most_a_hundredth_more(quantity: str, needed: float) -> None:
    name, _, typed = budget_text(quantity, rounded_up(quantity, needed)).partition(" <= ")
    assert name == quantity
    assert needed <= float(typed) <= needed * 1.011
