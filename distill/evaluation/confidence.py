"""Reliability, risk against coverage, and temperature, from logits; float64 throughout, no torch."""

from __future__ import annotations

import numpy as np

from distill.errors import RunError
from distill.evaluation.correct import correct
from distill.results.calibration import Reliability, ReliabilityBin, RiskCoverage, Temperature

__all__ = ["BINS", "fit_temperature", "reliability", "risk_coverage"]

BINS = 15
"""Of equal width: of every reliability diagram, and of every ECE."""
_POINTS = 100  # of a drawn curve; AURC is of all
_MIN_TEMPERATURE, _MAX_TEMPERATURE = 0.05, 20.0


def reliability(logits: np.ndarray, labels: np.ndarray, *, temperature: float = 1.0) -> Reliability:
    """Confidence against accuracy in bins of equal width.

    Args:
        temperature: What the logits are divided by.

    Shapes:
        logits: ``(N, C)`` finite; labels: ``(N,)`` from 0 to C - 1.

    Raises:
        ValueError: The shapes do not fit, or there are no images.
    """
    scores = _checked(logits, labels) / temperature
    confidence, right = 1 / (1 + _doubt(scores)), correct(scores, labels)
    place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    sums = [np.bincount(place, weights=each, minlength=BINS) for each in (confidence, right.astype(np.float64))]
    gaps = np.abs(sums[0] - sums[1])
    bins = tuple(
        ReliabilityBin(at / BINS, (at + 1) / BINS, int(n), *((float(s[at] / n) if n else None) for s in sums))
        for at, n in enumerate(counts)
    )
    return Reliability(
        bins=bins,
        ece=float(gaps.sum() / len(scores)),
        mce=float((gaps[counts > 0] / counts[counts > 0]).max()),
        confidence=float(confidence.mean()),
        accuracy=float(right.mean()),
        nll=_nll(scores, labels),
        n=len(scores),
    )


def risk_coverage(logits: np.ndarray, labels: np.ndarray) -> RiskCoverage:
    """Errors among the images that the model is surest of, for every share of them.

    Images of exactly equal confidence count as in the mean over all their orders.

    Shapes:
        logits, labels: As for :func:`reliability`.

    Raises:
        ValueError: As there.
    """
    scores = _checked(logits, labels)
    n, wrong = len(scores), (~correct(scores, labels)).astype(np.float64)
    answered = np.arange(1, n + 1)
    risk = _errors_by_doubt(_doubt(scores), wrong) / answered
    best = np.maximum(answered - (n - int(wrong.sum())), 0) / answered
    shown = np.unique(np.ceil(np.arange(1, _POINTS + 1) * n / _POINTS).astype(np.int64)) - 1
    return RiskCoverage(
        coverage=tuple((answered[shown] / n).tolist()),
        risk=tuple(risk[shown].tolist()),
        aurc=float(risk.mean()),
        excess_aurc=max(float(risk.mean() - best.mean()), 0.0),
        coverage_at_risk_1=_coverage_at(risk, 0.01),
        coverage_at_risk_5=_coverage_at(risk, 0.05),
        n=n,
    )


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> Temperature:
    """The temperature of least NLL (Guo et al., arXiv:1706.04599), from 0.05 to 20.

    NLL is convex in 1 / temperature: its slope has one zero, which is bracketed and found to twelve digits.

    Shapes:
        logits, labels: Of validation images, as for :func:`reliability`.

    Raises:
        ValueError: As there.
        RunError: Some logits are NaN or infinite.
    """
    scores = _checked(logits, labels)
    if not np.isfinite(scores).all():
        raise RunError("the model's logits are NaN or infinite", hint="its training diverged")
    value = _least_nll_temperature(scores, labels)
    before, after = reliability(scores, labels), reliability(scores, labels, temperature=value)
    return Temperature(
        value=value,
        at_bound=value in (_MIN_TEMPERATURE, _MAX_TEMPERATURE),
        n=len(scores),
        nll_before=before.nll,
        nll_after=after.nll,
        ece_before=before.ece,
        ece_after=after.ece,
    )


def _least_nll_temperature(scores: np.ndarray, labels: np.ndarray) -> float:
    from scipy.optimize import brentq  # a second to import

    own = scores[np.arange(len(scores)), labels]

    def slope(inverse: float) -> float:
        """Of NLL by 1 / temperature: the mean score by probability, less the true class's."""
        shifted = inverse * (scores - scores.max(axis=1, keepdims=True))
        shares = np.exp(shifted)
        shares /= shares.sum(axis=1, keepdims=True)
        return float(((shares * scores).sum(axis=1) - own).mean())

    if slope(1 / _MIN_TEMPERATURE) <= 0:  # the surer the better
        return _MIN_TEMPERATURE
    if slope(1 / _MAX_TEMPERATURE) >= 0:
        return _MAX_TEMPERATURE
    return float(1 / brentq(slope, 1 / _MAX_TEMPERATURE, 1 / _MIN_TEMPERATURE, xtol=1e-13, rtol=1e-12))


def _checked(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or len(labels) == 0:
        raise ValueError(f"logits of shape {logits.shape} and labels of shape {labels.shape} do not fit")
    return np.asarray(logits, dtype=np.float64)


def _doubt(scores: np.ndarray) -> np.ndarray:
    """``(1 - c) / c`` of the confidence c: tells images apart whose confidence is 1 to the last digit."""
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares[np.arange(len(scores)), scores.argmax(axis=1)] = 0.0
    return np.asarray(shares.sum(axis=1))


def _nll(scores: np.ndarray, labels: np.ndarray) -> float:
    shifted = scores - scores.max(axis=1, keepdims=True)
    return float((np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(scores)), labels]).mean())


def _errors_by_doubt(doubt: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """How many errors are among the k surest images, k = 1 ... N; ties share theirs evenly."""
    order = np.argsort(doubt, kind="stable")
    values, wrong = doubt[order], wrong[order]
    ends = np.append(np.flatnonzero(np.diff(values)) + 1, len(values))
    known = np.concatenate([[0.0], np.cumsum(wrong)[ends - 1]])
    return np.interp(np.arange(1, len(values) + 1), np.concatenate([[0], ends]), known)


def _coverage_at(risk: np.ndarray, most: float) -> float:
    allowed = np.flatnonzero(risk <= most + 1e-12)
    return float((allowed[-1] + 1) / len(risk)) if len(allowed) else 0.0
