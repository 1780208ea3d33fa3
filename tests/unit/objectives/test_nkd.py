"""Normalised KD: float64 NumPy, and what the paper says of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from distill.data.batches import Batch, Mix
from distill.objectives import NetworkOutput, TermContext, nkd_losses
from distill.objectives.nkd import NKD
from distill.recipe.objectives import NKDTerm

from .reference import assert_equals, softmax

LABELS = np.array([0, 2, 5, 1, 4])


def numpy_target(student: np.ndarray, teacher: np.ndarray, _: float) -> float:
    pairs = zip(softmax(student), softmax(teacher), LABELS, strict=True)
    return float(np.mean([-t[label] * np.log(s[label]) for s, t, label in pairs]))


def numpy_others(student: np.ndarray, teacher: np.ndarray, temperature: float) -> float:
    total = 0.0
    for s, t, label in zip(student, teacher, LABELS, strict=True):
        rest = [np.delete(each, label)[None] / temperature for each in (s, t)]
        ours, theirs = softmax(rest[0])[0], softmax(rest[1])[0]
        total -= (theirs * np.log(ours)).sum()
    return temperature**2 * total / len(LABELS)


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(size=(2, 5, 6)) * 3


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize(("part", "reference"), [(0, numpy_target), (1, numpy_others)])
def test_values_and_gradients_are_numpys(logits, part, reference, temperature):
    labels = torch.from_numpy(LABELS)
    assert_equals(
        lambda s, t: nkd_losses(s, t, labels, temperature=temperature)[part].mean(),
        lambda s, t: reference(s, t, temperature),
        *logits,
    )


def test_of_a_teacher_that_is_sure_the_first_is_the_cross_entropy(logits):
    student, labels = torch.from_numpy(logits[0]).float(), torch.from_numpy(LABELS)
    target, others = nkd_losses(student, 1000 * F.one_hot(labels, 6).float(), labels, temperature=1.0)
    torch.testing.assert_close(target, F.cross_entropy(student, labels, reduction="none"))
    assert others.isfinite().all()


def test_others_do_not_know_the_target_and_are_least_where_both_agree(logits):
    student, labels = torch.from_numpy(logits[0]).float(), torch.from_numpy(LABELS)
    moved = student + 5 * F.one_hot(labels, 6)
    teacher = student.clone().requires_grad_(False)
    one, other = (nkd_losses(each, teacher, labels, temperature=2.0)[1] for each in (student, moved))
    torch.testing.assert_close(one, other)
    ours = student.clone().requires_grad_()
    nkd_losses(ours, teacher, labels, temperature=2.0)[1].sum().backward()
    assert ours.grad.abs().max() < 1e-5


def test_a_mixed_image_has_both_labels(logits):
    student, teacher = (torch.from_numpy(each).float() for each in logits)
    labels, partner = torch.from_numpy(LABELS), torch.from_numpy(LABELS[::-1].copy())
    weight = torch.tensor([0.1, 0.3, 0.5, 0.7, 1.0])
    index = torch.arange(5)
    batch = Batch(torch.zeros(5, 3, 1, 1), labels, index, index, Mix(partner_labels=partner, weight=weight))
    got = NKD(NKDTerm(kind="nkd"), TermContext()).losses(NetworkOutput(student), NetworkOutput(teacher), batch)
    own, other = (nkd_losses(student, teacher, each, temperature=1.0) for each in (labels, partner))
    for place, name in enumerate(("target", "others")):
        torch.testing.assert_close(got[name], (weight * own[place] + (1 - weight) * other[place]).mean())


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="student logits are"):
        nkd_losses(torch.zeros(2, 3), torch.zeros(1, 3), torch.zeros(2, dtype=torch.long), temperature=1.0)
