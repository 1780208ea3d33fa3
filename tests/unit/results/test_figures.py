"""A model's figures go through JSON unchanged, and damage is named; a role that nobody listed is shown all the same."""

from __future__ import annotations

import io
import json
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from distill.report.comparison import comparison_table
from distill.report.plots import plot_comparison
from distill.results.figures import Figures, Latency
from distill.results.metrics import EvalResult, PerClass
from distill.results.roles import ROLES, RoleName, role_order
from distill.results.rows import Comparison, Row

_numbers = st.floats(0, 1e6)
_latencies = st.builds(Latency, st.just(1), _numbers, _numbers, st.integers(0, 100))
_figures = st.builds(
    Figures,
    params=st.none() | st.integers(0, 10**9),
    gmacs=st.none() | _numbers,
    latency_ms=st.just({}) | st.fixed_dictionaries({1: _latencies}),
    hardware=st.none() | st.text(),
    test_top1=st.none() | st.floats(0, 1),
    test_content=st.none() | st.text(),
)


@given(_figures)
def test_figures_survive_json(figures: Figures) -> None:
    assert Figures.from_json(json.loads(json.dumps(figures.to_json()))) == figures


def test_other_keys_are_none_of_theirs_and_what_is_absent_is_none() -> None:
    assert Figures.from_json({"name": "teacher", "epochs": 3, "params": 5}) == Figures(params=5)
    assert Figures().to_json() == {}


@pytest.mark.parametrize("name", [each.name for each in fields(Figures)])
@pytest.mark.parametrize("value", [[1], {"1": 2}, True])
def test_damage_is_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        Figures.from_json({name: value})


def test_metrics_survive_json() -> None:
    per_class = (PerClass("a", 0.5, 1.0, 2 / 3, 1.0, 1), PerClass("b", 0.0, 0.0, 0.0, 0.0, 1))
    result = EvalResult(0.5, None, 0.25, 0.5, 1 / 3, 0.7, 0.1, 2, per_class, ((1, 0), (1, 0)))
    assert EvalResult.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_a_row_shows_its_figures() -> None:
    latency = {1: Latency(1, 2.0, 3.0, 9), 32: Latency(32, 64.0, 70.0, 9)}
    row = Row("a", "student", "runs/a/001", "digits", "kd", 1).with_figures(
        Figures(params=7, gmacs=0.5, size_mb=1.5, latency_ms=latency, test_top1=0.9, test_ece=0.1)
    )
    assert (row.params, row.gmacs, row.size_mb, row.test_top1, row.ece) == (7, 0.5, 1.5, 0.9, 0.1)
    assert (row.latency_b1_ms, row.latency_b1_p90_ms, row.latency_b32_ms, row.images_per_s) == (2.0, 3.0, 64.0, 500.0)


def test_every_role_of_a_recipe_has_a_look_of_its_own() -> None:
    assert set(get_args(RoleName)) <= ROLES.keys()
    looks = list(ROLES.values())
    for part in ("style", "color", "marker"):
        assert len({getattr(look, part) for look in looks}) == len(looks)


def test_a_role_that_nobody_listed_is_shown_last(tmp_path: Path) -> None:
    rows = [
        Row(name, role, "r", "digits", "kd", 1, test_top1=0.9, params=5)
        for name, role in (("a", "int8"), ("b", "student"))
    ]
    comparison = Comparison(tuple(sorted(rows, key=lambda row: role_order(row.role))), "cpu", 1)
    assert [row.role for row in comparison.rows] == ["student", "int8"]
    plot_comparison(comparison, tmp_path / "all.svg")
    console = Console(file=io.StringIO(), width=160)
    console.print(comparison_table(comparison, 160))
    assert "int8" in console.file.getvalue()
