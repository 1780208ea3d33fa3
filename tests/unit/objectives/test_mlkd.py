"""Multi-level logit distillation: float64 NumPy, and sums over temperatures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distill.objectives import kd_loss, mlkd_losses

from .reference import assert_equals, softmax


def numpy_instance(student: np.ndarray, teacher: np.ndarray, temperatures: list[float]) -> float:
    total = 0.0
    for t in temperatures:
        ours, theirs = softmax(student / t), softmax(teacher / t)
        total += t**2 * (theirs * np.log(theirs / ours)).sum() / len(student)
    return total


def numpy_batch(student: np.ndarray, teacher: np.ndarray, temperatures: list[float]) -> float:
    """Pair by pair."""
    total = 0.0
    for t in temperatures:
        ours, theirs = softmax(student / t), softmax(teacher / t)
        for i in range(len(student)):
            for j in range(len(student)):
                total += (ours[i].dot(ours[j]) - theirs[i].dot(theirs[j])) ** 2 / len(student)
    return total


def numpy_class(student: np.ndarray, teacher: np.ndarray, temperatures: list[float]) -> float:
    total, classes = 0.0, student.shape[1]
    for t in temperatures:
        ours, theirs = softmax(student / t), softmax(teacher / t)
        for a in range(classes):
            for b in range(classes):
                total += (ours[:, a].dot(ours[:, b]) - theirs[:, a].dot(theirs[:, b])) ** 2 / classes
    return total


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(size=(2, 5, 6)) * 3


@pytest.mark.parametrize("temperatures", [[1.0], [2.0, 4.0, 5.0]])
@pytest.mark.parametrize(("part", "reference"), [(0, numpy_instance), (1, numpy_batch), (2, numpy_class)])
def test_values_and_gradients_are_numpys(logits, part, reference, temperatures):
    assert_equals(
        lambda s, t: mlkd_losses(s, t, temperatures=temperatures)[part],
        lambda s, t: reference(s, t, temperatures),
        *logits,
    )


def test_by_image_it_is_kd_at_each_temperature(logits):
    student, teacher = (torch.from_numpy(each).float() for each in logits)
    expected = sum(kd_loss(student, teacher, temperature=t) for t in (2.0, 3.0))
    torch.testing.assert_close(mlkd_losses(student, teacher, temperatures=(2.0, 3.0))[0], expected)


def test_neither_level_knows_the_order_of_images_and_classes(logits):
    """A batch in another order, and classes in another order, the same for both networks, are the same batch."""
    student, teacher = (torch.from_numpy(each).float() for each in logits)
    images, classes = torch.tensor([3, 1, 4, 0, 2]), torch.tensor([5, 0, 3, 1, 2, 4])
    other = mlkd_losses(student[images][:, classes], teacher[images][:, classes], temperatures=(2.0,))
    for one, two in zip(mlkd_losses(student, teacher, temperatures=(2.0,)), other, strict=True):
        torch.testing.assert_close(one, two)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="student logits are"):
        mlkd_losses(torch.zeros(2, 3), torch.zeros(1, 3), temperatures=(1.0,))
