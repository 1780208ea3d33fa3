"""DIST: float64 NumPy, torchdistill where it is, and what the paper says does not change it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distill.objectives import dist_losses

from .reference import assert_equals, softmax


def numpy_distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean([1 - np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)]))


@pytest.fixture
def logits():
    return np.random.default_rng(1).normal(size=(2, 6, 5)) * 2


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("part", [0, 1])
def test_values_and_gradients_are_numpys(logits, part, temperature):
    def reference(student: np.ndarray, teacher: np.ndarray) -> float:
        a, b = softmax(student / temperature), softmax(teacher / temperature)
        return temperature**2 * (numpy_distance(a, b) if part == 0 else numpy_distance(a.T, b.T))

    assert_equals(lambda s, t: dist_losses(s, t, temperature=temperature)[part], reference, *logits)


def test_equals_torchdistill(logits):
    losses = pytest.importorskip("torchdistill.losses.mid_level")
    student, teacher = (torch.from_numpy(each).float() for each in logits)
    theirs = losses.DISTLoss("m", "output", "m", "output", beta=2.0, gamma=3.0, tau=4.0)
    expected = theirs({"m": {"output": student}}, {"m": {"output": teacher}})
    inter, intra = dist_losses(student, teacher, temperature=4.0)
    torch.testing.assert_close(2 * inter + 3 * intra, expected, rtol=1e-5, atol=1e-5)


def test_is_zero_at_equality_and_blind_to_row_shifts(logits):
    student, teacher = (torch.from_numpy(each).float() for each in logits)
    assert all(loss.abs() < 1e-5 for loss in dist_losses(student, student, temperature=1.0))
    moved = dist_losses(student + torch.arange(6.0)[:, None], teacher - 2, temperature=2.0)
    for one, other in zip(moved, dist_losses(student, teacher, temperature=2.0), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_equal_probabilities_have_no_correlation_and_finite_gradients():
    student = torch.zeros(3, 4, requires_grad=True)
    inter, intra = dist_losses(student, torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), temperature=1.0)
    (inter + intra).backward()
    assert inter.item() == pytest.approx(1.0, abs=1e-5)
    assert student.grad.isfinite().all()
