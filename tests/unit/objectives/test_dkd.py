"""Decoupled KD: float64 NumPy, and the identity with KD that the paper starts from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distill.data.batches import Batch, Mix
from distill.objectives import NetworkOutput, TermContext, dkd_losses, kd_loss
from distill.objectives.dkd import DKD
from distill.recipe.objectives import DKDTerm

from .reference import assert_equals, softmax

LABELS = np.array([0, 2, 5, 1, 4])


def numpy_tckd(student: np.ndarray, teacher: np.ndarray, t: float) -> float:
    total = 0.0
    for s, z, label in zip(softmax(student / t), softmax(teacher / t), LABELS, strict=True):
        total += z[label] * np.log(z[label] / s[label])
        total += (1 - z[label]) * np.log((1 - z[label]) / (1 - s[label]))
    return t**2 * total / len(LABELS)


def numpy_nckd(student: np.ndarray, teacher: np.ndarray, t: float) -> float:
    total = 0.0
    for s, z, label in zip(softmax(student / t), softmax(teacher / t), LABELS, strict=True):
        rest_s, rest_z = np.delete(s, label) / (1 - s[label]), np.delete(z, label) / (1 - z[label])
        total += (rest_z * np.log(rest_z / rest_s)).sum()
    return t**2 * total / len(LABELS)


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(size=(2, 5, 6)) * 3


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize(("part", "reference"), [(0, numpy_tckd), (1, numpy_nckd)])
def test_values_and_gradients_are_numpys(logits, part, reference, temperature):
    labels = torch.from_numpy(LABELS)
    assert_equals(
        lambda s, t: dkd_losses(s, t, labels, temperature=temperature)[part].mean(),
        lambda s, t: reference(s, t, temperature),
        *logits,
    )


def test_weighted_by_the_teachers_other_classes_they_are_kd(logits):
    student, teacher = (torch.from_numpy(each).float() for each in logits)
    labels, temperature = torch.from_numpy(LABELS), 2.0
    tckd, nckd = dkd_losses(student, teacher, labels, temperature=temperature)
    others = 1 - (teacher / temperature).softmax(1).gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close((tckd + others * nckd).mean(), kd_loss(student, teacher, temperature=temperature))


def test_is_zero_at_equality_and_finite_for_a_certain_teacher(logits):
    student = torch.from_numpy(logits[0]).float()
    labels = torch.from_numpy(LABELS)
    assert all(loss.abs().max() < 1e-6 for loss in dkd_losses(student, student, labels, temperature=4.0))
    certain = torch.zeros(5, 6).scatter(1, labels[:, None], 1e4)
    student.requires_grad_()
    sum(loss.sum() for loss in dkd_losses(student, certain, labels, temperature=1.0)).backward()
    assert student.grad.isfinite().all()


def test_a_mixed_image_pays_for_both_labels_by_its_weight(logits):
    student, teacher = (torch.from_numpy(each).float() for each in logits)
    labels = torch.from_numpy(LABELS)
    partner, weight = labels.flip(0), torch.linspace(0.1, 0.9, 5)
    index = torch.arange(5)
    batch = Batch(torch.zeros(5, 3, 1, 1), labels, index, index, Mix(partner_labels=partner, weight=weight))
    parts = DKD(DKDTerm(kind="dkd"), TermContext()).losses(NetworkOutput(student), NetworkOutput(teacher), batch)
    own = dkd_losses(student, teacher, labels, temperature=4.0)
    other = dkd_losses(student, teacher, partner, temperature=4.0)
    for name, a, b in zip(("tckd", "nckd"), own, other, strict=True):
        torch.testing.assert_close(parts[name], (weight * a + (1 - weight) * b).mean())
