"""How cost grows with work: what is made of measurements, not the measurements."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks import scaling
from benchmarks.scaling import CURVES, Point, build_document, fit_curve, main, measure, plot


def _costs(growth) -> dict[int, list[float]]:
    return {work: [growth(work), 1.5 * growth(work)] for work in (1, 2, 4, 8)}


def test_linear_growth_is_called_near_linear() -> None:
    curve = fit_curve("epochs", _costs(lambda work: 3.0 * work))
    assert curve.exponent == pytest.approx(1.0)
    assert curve.per_doubling == pytest.approx([2.0, 2.0, 2.0])
    assert curve.spread == pytest.approx([0.5] * 4)
    assert curve.verdict == "near-linear"


@pytest.mark.parametrize(
    ("growth", "exponent", "verdict"),
    [
        (lambda work: 3.0 * work**2, 2.0, "faster"),
        (lambda work: 3.0 * work**0.5, 0.5, "slower"),
        (lambda work: 50.0 + work, None, "slower"),
    ],
)
def test_what_bends_is_said(growth, exponent: float | None, verdict: str) -> None:
    curve = fit_curve("images", _costs(growth))
    assert exponent is None or curve.exponent == pytest.approx(exponent)
    assert verdict in curve.verdict


def test_every_point_is_measured_as_often_as_asked_after_one_warm_up() -> None:
    runs: list[tuple[str, int]] = []
    points = [Point(name, work, lambda at=(name, work): runs.append(at)) for name in ("a", "b") for work in (1, 2)]
    costs = measure(points, repeats=3)
    assert {key: len(each) for key, each in costs.items()} == dict.fromkeys([("a", 1), ("a", 2), ("b", 1), ("b", 2)], 3)
    assert sorted(runs[:2]) == [("a", 1), ("b", 1)]
    assert len(runs) == 2 + 4 * 3


def test_document_and_plot(tmp_path: Path) -> None:
    costs = {(name, work): [0.1 * work] for name, (_, amounts) in CURVES.items() for work in amounts}
    document, curves = build_document(costs, repeats=1)
    document = json.loads(json.dumps(document))
    assert [curve["name"] for curve in document["curves"]] == list(CURVES)
    assert plot(curves, tmp_path / "scaling.svg").read_text().startswith("<?xml")


def test_works_double() -> None:
    assert all(b == 2 * a for _, amounts in CURVES.values() for a, b in pairwise(amounts))


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    assert "students" in capsys.readouterr().out
    assert scaling.__doc__
