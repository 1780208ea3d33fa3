"""Regression of logits: float64 NumPy, and the limit of KD that it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distill.objectives import kd_loss, mse_loss

from .reference import assert_equals


@pytest.fixture
def logits():
    return np.random.default_rng(2).normal(size=(2, 6, 5)) * 3


def test_values_and_gradients_are_numpys(logits):
    assert_equals(mse_loss, lambda s, t: float(((s - t) ** 2).mean()), *logits)


def test_of_centred_logits_it_is_twice_kd_at_high_temperature(logits):
    student, teacher = (torch.from_numpy(each - each.mean(1, keepdims=True)).float() for each in logits)
    assert kd_loss(student, teacher, temperature=100.0).item() == pytest.approx(
        mse_loss(student, teacher).item() / 2, rel=0.05
    )


def test_refuses_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match=r"student logits are \(4, 10\), teacher logits \(1, 10\)"):
        mse_loss(torch.zeros(4, 10), torch.zeros(1, 10))
