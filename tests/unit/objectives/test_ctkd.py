"""CTKD: KD at a temperature that is learned against the student."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from distill.data.batches import Batch
from distill.objectives import NetworkOutput, TermContext, kd_loss
from distill.objectives.ctkd import CTKD, reversal_strength, reversed_gradient
from distill.recipe.objectives import CTKDTerm

from .reference import softmax

START = 1.0 + 20.0 / (1.0 + math.exp(-1.0))


@pytest.fixture
def logits():
    student, teacher = torch.randn(2, 6, 10, generator=torch.Generator().manual_seed(1)) * 3
    return student.requires_grad_(), teacher


def answer(term, student, teacher):
    index = torch.arange(len(student))
    batch = Batch(torch.zeros(len(student), 3, 1, 1), index % 10, index, index, None)
    return term.losses(NetworkOutput(student), NetworkOutput(teacher), batch)


def test_for_the_student_it_is_kd_at_the_temperature_that_is_told(logits):
    student, teacher = logits
    term = CTKD(CTKDTerm(kind="ctkd"), TermContext())
    found = answer(term, student, teacher)
    assert found["temperature"].item() == pytest.approx(START, rel=1e-6)
    (gradient,) = torch.autograd.grad(found["ctkd"], student)
    expected = kd_loss(student, teacher, temperature=START)
    torch.testing.assert_close(found["ctkd"], expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, student)[0])


@pytest.mark.parametrize(
    ("epoch", "strength"), [(0, 0.5 - 0.5 * math.cos(math.pi / 10)), (4, 0.5), (9, 1.0), (50, 1.0)]
)
def test_a_step_of_gradient_descent_raises_the_loss_by_temperature_with_growing_strength(logits, epoch, strength):
    student, teacher = (each.detach() for each in logits)
    term = CTKD(CTKDTerm(kind="ctkd"), TermContext())
    term.begin_epoch(epoch)
    answer(term, student, teacher)["ctkd"].backward()

    def loss(position: float) -> float:
        temperature = 1 + 20 / (1 + math.exp(-position))
        s, t = (softmax(each.double().numpy() / temperature) for each in (student, teacher))
        return float(temperature**2 * (t * np.log(t / s)).sum(axis=1).mean())

    slope = (loss(1.001) - loss(0.999)) / 0.002
    assert abs(slope) > 1e-3
    assert term.position.grad.item() == pytest.approx(-strength * slope, rel=1e-3)


def test_the_temperature_stays_within_its_range(logits):
    term = CTKD(CTKDTerm(kind="ctkd", lowest_temperature=2.0, highest_temperature=6.0), TermContext())
    for position, expected in ((-40.0, 2.0), (0.0, 4.0), (40.0, 6.0)):
        term.position.data.fill_(position)
        assert answer(term, *logits)["temperature"].item() == pytest.approx(expected)
    with pytest.raises(ValueError, match="must be below"):
        CTKDTerm(kind="ctkd", lowest_temperature=4.0, highest_temperature=4.0)


def test_without_a_curriculum_it_is_whole_from_the_start():
    assert reversal_strength(0, 0) == 1.0
    assert [reversal_strength(epoch, 2) for epoch in range(3)] == pytest.approx([0.5, 1.0, 1.0])


def test_a_reversed_gradient_leaves_the_value():
    value = torch.tensor(1.2345678, requires_grad=True)
    turned = reversed_gradient(value, 0.25)
    assert turned.item() == value.item()
    turned.backward()
    assert value.grad.item() == -0.25
