"""Reliability, risk-coverage and temperature: against scikit-learn, torchmetrics, SciPy's optimiser, and by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from distill.errors import RunError
from distill.evaluation.confidence import fit_temperature, reliability, risk_coverage
from distill.evaluation.metrics import evaluate_logits
from distill.results.calibration import Temperature


def _answers(n: int = 600, classes: int = 7, *, sure: float = 2.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose top-1 is far from 0 and 1, and their labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, n)
    logits = generator.normal(size=(n, classes)) + 1.2 * np.eye(classes)[labels]
    return (sure * logits).astype(np.float32), labels


def test_bins_are_scikit_learns() -> None:
    logits, labels = _answers()
    found = reliability(logits, labels)
    probabilities = softmax(logits.astype(np.float64), axis=1)
    right = probabilities.argmax(1) == labels
    accuracy, confidence = calibration_curve(right, probabilities.max(1), n_bins=15, strategy="uniform")
    filled = [each for each in found.bins if each.n]
    assert [each.accuracy for each in filled] == pytest.approx(accuracy)
    assert [each.confidence for each in filled] == pytest.approx(confidence)
    counts, edges = np.histogram(probabilities.max(1), bins=15, range=(0, 1))
    assert [each.n for each in found.bins] == counts.tolist()
    assert [each.low for each in found.bins] == pytest.approx(edges[:-1])
    assert [(each.accuracy, each.confidence) for each in found.bins if not each.n] == [(None, None)] * (
        15 - len(filled)
    )
    assert found.nll == pytest.approx(log_loss(labels, probabilities))
    assert found.mce == pytest.approx(np.abs(accuracy - confidence).max())
    assert (found.n, found.accuracy) == (600, right.mean())


def test_the_bins_come_to_the_ece_of_every_table() -> None:
    logits, labels = _answers(3000)
    table = evaluate_logits(torch.from_numpy(logits), torch.from_numpy(labels), list("abcdefg"))
    found = reliability(logits, labels)
    assert found.ece == pytest.approx(table.ece, abs=1e-5)
    assert found.nll == pytest.approx(table.nll, rel=1e-9)
    assert found.accuracy == table.top1
    assert sum(each.n * abs(each.accuracy - each.confidence) for each in found.bins if each.n) / 3000 == found.ece


def test_a_confidence_of_one_is_in_the_last_bin() -> None:
    found = reliability(np.array([[1000.0, 0.0], [0.0, 0.0]]), np.array([0, 0]))
    assert [each.n for each in found.bins] == [0] * 7 + [1] + [0] * 6 + [1]
    assert found.bins[-1].confidence == 1.0


def _risk_by_hand(logits: np.ndarray, labels: np.ndarray) -> list[float]:
    confidence = softmax(logits.astype(np.longdouble), axis=1).max(1)
    order = sorted(range(len(labels)), key=lambda place: -confidence[place])
    errors, risks = 0, []
    for answered, place in enumerate(order, start=1):
        errors += int(logits[place].argmax() != labels[place])
        risks.append(errors / answered)
    return risks


def test_risk_coverage_is_the_one_made_by_hand() -> None:
    logits, labels = _answers(250)
    found = risk_coverage(logits, labels)
    risks = _risk_by_hand(logits, labels)
    assert found.aurc == pytest.approx(np.mean(risks))
    for coverage, risk in zip(found.coverage, found.risk, strict=True):
        assert risk == pytest.approx(risks[round(coverage * 250) - 1])
    assert (len(found.coverage), found.coverage[-1]) == (100, 1.0)
    assert found.risk[-1] == pytest.approx(1 - (logits.argmax(1) == labels).mean())
    assert found.coverage_at_risk_5 == max((k for k in range(1, 251) if risks[k - 1] <= 0.05), default=0) / 250


def test_ties_count_as_the_mean_over_their_orders() -> None:
    # three images of one confidence between a surer and a less sure one; of the three one is wrong
    logits = np.array([[9.0, 0], [2, 0], [2, 0], [0, 2], [1, 0]])
    labels = np.array([0, 0, 0, 0, 1])
    wrong = [0, 0, 0, 1, 1]
    aurcs = []
    for middle in itertools.permutations([1, 2, 3]):
        errors = np.cumsum([wrong[place] for place in (0, *middle, 4)])
        aurcs.append(np.mean(errors / np.arange(1, 6)))
    assert risk_coverage(logits, labels).aurc == pytest.approx(np.mean(aurcs))


def test_images_that_are_sure_to_the_last_digit_are_told_apart() -> None:
    logits = np.array([[50.0, 0.0], [60.0, 0.0]])  # float64 takes both for a probability of 1
    assert risk_coverage(logits, np.array([1, 0])).risk == (0.0, 0.5)
    assert risk_coverage(logits, np.array([0, 1])).risk == (1.0, 0.5)


def test_the_best_order_has_no_excess() -> None:
    logits = np.array([[5.0, 0], [4, 0], [3, 0], [2, 0]])
    best, worst = risk_coverage(logits, np.array([0, 0, 1, 1])), risk_coverage(logits, np.array([1, 1, 0, 0]))
    assert (best.excess_aurc, best.aurc) == (0.0, pytest.approx((0 + 0 + 1 / 3 + 2 / 4) / 4))
    assert worst.excess_aurc == pytest.approx((1 + 1 + 2 / 3 + 2 / 4) / 4 - best.aurc)
    assert (best.coverage_at_risk_1, worst.coverage_at_risk_1) == (0.5, 0.0)


@pytest.mark.parametrize("sure", [0.3, 1.0, 3.0])
def test_the_temperature_is_the_one_an_optimiser_and_a_grid_find(sure: float) -> None:
    logits, labels = _answers(2000, sure=sure)

    def nll(temperature: float) -> float:
        return -log_softmax(logits.astype(np.float64) / temperature, axis=1)[np.arange(2000), labels].mean()

    found = fit_temperature(logits, labels)
    best = minimize_scalar(nll, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-10})
    assert found.value == pytest.approx(best.x, rel=1e-5)
    grid = np.geomspace(0.05, 20, 400)
    assert found.nll_after <= min(map(nll, grid))
    assert found.value == pytest.approx(grid[np.argmin([nll(each) for each in grid])], rel=0.02)
    assert (found.nll_before, found.nll_after) == pytest.approx((nll(1.0), nll(found.value)))
    assert not found.at_bound


def test_the_temperature_undoes_a_scale() -> None:
    logits, labels = _answers(2000, sure=1.0)
    plain, louder = fit_temperature(logits, labels), fit_temperature(4 * logits, labels)
    assert louder.value == pytest.approx(4 * plain.value, rel=1e-9)
    assert louder.nll_after == pytest.approx(plain.nll_after)
    assert louder.ece_after < louder.ece_before


def test_what_has_no_best_temperature_stops_at_a_bound() -> None:
    right = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert (fit_temperature(right, np.array([0, 1])).value, fit_temperature(right, np.array([1, 0])).value) == (
        0.05,
        20,
    )
    assert fit_temperature(right, np.array([0, 1])).at_bound


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), shift=st.floats(-50, 50), temperature=st.floats(0.1, 10))
def test_a_constant_on_a_row_changes_nothing_and_order_does_not_count(
    seed: int, shift: float, temperature: float
) -> None:
    logits, labels = _answers(40, seed=seed)
    wide, order = logits.astype(np.float64), np.random.default_rng(seed).permutation(40)
    plain = reliability(wide, labels, temperature=temperature)
    assert reliability(wide + shift, labels, temperature=temperature).ece == pytest.approx(plain.ece, abs=1e-9)
    assert reliability(wide[order], labels[order], temperature=temperature).ece == pytest.approx(plain.ece)
    assert risk_coverage(wide[order], labels[order]).aurc == pytest.approx(risk_coverage(wide, labels).aurc)
    assert plain.accuracy == reliability(wide, labels).accuracy


def test_to_json_and_back() -> None:
    logits, labels = _answers(50)
    for found in (reliability(logits, labels), risk_coverage(logits, labels), fit_temperature(logits, labels)):
        assert type(found).from_json(found.to_json()) == found
    with pytest.raises(ValueError, match="no temperature"):
        Temperature.from_json(fit_temperature(logits, labels).to_json() | {"value": -1.0})


def test_what_does_not_fit_is_refused() -> None:
    for logits, labels in (((0, 3), (0,)), ((4, 3), (5,)), ((4,), (4,))):
        with pytest.raises(ValueError, match="do not fit"):
            reliability(np.zeros(logits), np.zeros(labels, dtype=np.int64))
    with pytest.raises(RunError, match="NaN"):
        fit_temperature(np.array([[np.nan, 0.0]]), np.array([0]))
