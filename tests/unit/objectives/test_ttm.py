"""TTM and WTTM: float64 NumPy, and what the paper says of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distill.objectives import kd_loss, ttm_loss

from .reference import assert_equals, softmax


def numpy_ttm(student: np.ndarray, teacher: np.ndarray, temperature: float, *, weighted: bool) -> float:
    powers = softmax(teacher) ** (1 / temperature)
    target = powers / powers.sum(axis=1, keepdims=True)
    divergence = (target * np.log(target / softmax(student))).sum(axis=1)
    return float((divergence * powers.sum(axis=1)).mean() if weighted else divergence.mean())


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(size=(2, 5, 6)) * 3


@pytest.mark.parametrize("temperature", [1.0, 10.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_values_and_gradients_are_numpys(logits, temperature, weighted):
    assert_equals(
        lambda s, t: ttm_loss(s, t, temperature=temperature, weighted=weighted),
        lambda s, t: numpy_ttm(s, t, temperature, weighted=weighted),
        *logits,
    )


def test_at_temperature_1_it_is_kd_and_weighing_changes_nothing(logits):
    student, teacher = (torch.from_numpy(each).float() for each in logits)
    for weighted in (False, True):
        found = ttm_loss(student, teacher, temperature=1.0, weighted=weighted)
        torch.testing.assert_close(found, kd_loss(student, teacher, temperature=1.0))


def test_wttm_gives_an_unsure_answer_more_weight():
    """At T 2 the powers of two equal classes sum to the root of 2, those of a certain answer to 1."""
    sure, unsure = torch.tensor([[60.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    student = torch.tensor([[1.0, -1.0]])
    for teacher, weight in ((sure, 1.0), (unsure, 2**0.5)):
        plain, weighted = (ttm_loss(student, teacher, temperature=2.0, weighted=each) for each in (False, True))
        assert (weighted / plain).item() == pytest.approx(weight, rel=1e-5)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="student logits are"):
        ttm_loss(torch.zeros(2, 3), torch.zeros(1, 3), temperature=1.0)
