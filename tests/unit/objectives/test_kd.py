"""kd_loss and standardize_logits: timm's task, float64 NumPy, and what every distillation loss must obey."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from distill.objectives.kd import kd_loss
from distill.objectives.logits import standardize_logits


def numpy_kd(student: np.ndarray, teacher: np.ndarray, temperature: float) -> float:
    def probabilities(logits: np.ndarray) -> np.ndarray:
        exponentials = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    p, q = probabilities(teacher.astype(np.float64)), probabilities(student.astype(np.float64))
    return float(temperature**2 * (p * np.log(p / q)).sum(axis=1).mean())


@st.composite
def logit_pairs(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    shape = (draw(st.integers(1, 6)), draw(st.integers(2, 20)))
    scale = draw(st.sampled_from([0.01, 1.0, 10.0]))
    return tuple(torch.from_numpy((rng.normal(size=shape) * scale).astype(np.float32)) for _ in range(2))


temperatures = st.sampled_from([0.5, 1.0, 4.0, 20.0])


def test_hand_value():
    student = torch.tensor([[0.0, 0.0]])
    teacher = torch.tensor([[2 * math.log(3.0), 0.0]])  # at T = 2: 0.75, 0.25 against 0.5, 0.5
    expected = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert kd_loss(student, teacher, temperature=2.0).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.5, 4.0])
@pytest.mark.parametrize("classes", [10, 100])
def test_equals_timm(temperature, classes):
    timm_task = pytest.importorskip("timm.task")

    class Fixed(nn.Module):
        num_classes, in_chans = classes, 3
        pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}  # noqa: RUF012

        def __init__(self, logits):
            super().__init__()
            self.logits = nn.Parameter(logits)

        def forward(self, images):
            return self.logits

    generator = torch.Generator().manual_seed(classes)
    student, teacher = torch.randn(2, 8, classes, generator=generator) * 5
    labels = torch.randint(classes, (8,), generator=generator)
    task = timm_task.LogitDistillationTask(
        Fixed(student), Fixed(teacher), criterion=nn.CrossEntropyLoss(), temperature=temperature, verbose=False
    )
    theirs = task(torch.zeros(8, 3, 2, 2), labels)["kd_loss"]
    torch.testing.assert_close(kd_loss(student, teacher, temperature=temperature), theirs.detach())


@settings(max_examples=40, deadline=None)
@given(pair=logit_pairs(), temperature=temperatures)
def test_equals_numpy_and_is_not_negative(pair, temperature):
    student, teacher = pair
    loss = kd_loss(student, teacher, temperature=temperature).item()
    expected = numpy_kd(student.numpy(), teacher.numpy(), temperature)
    rounding = 1e-6 * temperature**2  # each log-probability has a relative error of 1e-7
    assert loss == pytest.approx(expected, rel=1e-4, abs=rounding)
    assert loss >= -rounding


@settings(max_examples=40, deadline=None)
@given(pair=logit_pairs(), temperature=temperatures, shift=st.floats(-5, 5), seed=st.integers(0, 999))
def test_is_blind_to_row_shifts_and_to_the_order_of_classes(pair, temperature, shift, seed):
    student, teacher = pair
    loss = kd_loss(student, teacher, temperature=temperature)
    tolerance = {"rtol": 1e-3, "atol": 1e-5 * temperature**2}
    rows = torch.linspace(-shift, shift, len(student))[:, None]
    torch.testing.assert_close(kd_loss(student + rows, teacher - rows, temperature=temperature), loss, **tolerance)
    order = torch.randperm(student.shape[1], generator=torch.Generator().manual_seed(seed))
    permuted = kd_loss(student[:, order], teacher[:, order], temperature=temperature)
    torch.testing.assert_close(permuted, loss, **tolerance)


@settings(max_examples=20, deadline=None)
@given(pair=logit_pairs(), temperature=temperatures)
def test_is_exactly_zero_at_equality_with_no_gradient(pair, temperature):
    student = pair[0].requires_grad_()
    loss = kd_loss(student, student.detach().clone(), temperature=temperature)
    loss.backward()
    assert loss.item() == 0.0
    torch.testing.assert_close(student.grad, torch.zeros_like(student), rtol=0, atol=1e-6 * temperature)


@settings(max_examples=20, deadline=None)
@given(pair=logit_pairs(), temperature=temperatures)
def test_gradient_equals_a_float64_numeric_one_and_spares_the_teacher(pair, temperature):
    student, teacher = pair[0].requires_grad_(), pair[1].requires_grad_()
    kd_loss(student, teacher, temperature=temperature).backward()
    assert teacher.grad is None

    at, fixed = student.detach().numpy().astype(np.float64), teacher.detach().numpy()
    numeric, step = np.zeros_like(at), 1e-5
    for position in np.ndindex(at.shape):
        ahead, behind = at.copy(), at.copy()
        ahead[position] += step
        behind[position] -= step
        slope = numpy_kd(ahead, fixed, temperature) - numpy_kd(behind, fixed, temperature)
        numeric[position] = slope / (2 * step)
    np.testing.assert_allclose(student.grad.numpy(), numeric, rtol=1e-3, atol=2e-6 * max(1.0, temperature))


def test_at_high_temperature_it_is_half_the_mean_square_of_centred_logits():
    """The limit of Hinton et al., section 2.1; T = 100 still leaves float32 enough digits."""
    student, teacher = torch.randn(2, 16, 10, generator=torch.Generator().manual_seed(3))
    difference = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    limit = (difference**2).sum(1).mean() / (2 * 10)
    assert kd_loss(student, teacher, temperature=100.0).item() == pytest.approx(limit.item(), rel=0.03)


def test_a_certain_teacher_gives_cross_entropy():
    student = torch.tensor([[1.0, 0.0, -2.0], [0.0, 3.0, 1.0]])
    teacher = torch.tensor([[1e4, 0.0, 0.0], [0.0, 0.0, 1e4]])
    expected = nn.functional.cross_entropy(student, torch.tensor([0, 2]))
    torch.testing.assert_close(kd_loss(student, teacher, temperature=1.0), expected)


def test_is_float32_under_autocast_and_takes_a_float16_teacher():
    student = torch.tensor([[1.0, -3.0, 0.25]], dtype=torch.bfloat16)
    teacher = torch.tensor([[0.1, 2.0, -7.0]], dtype=torch.float16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = kd_loss(student, teacher, temperature=3.0)
        standard = standardize_logits(student)
    assert loss.dtype == standard.dtype == torch.float32
    assert loss.item() == kd_loss(student.float(), teacher.float(), temperature=3.0).item()
    assert torch.equal(standard, standardize_logits(student.float()))


def test_refuses_shapes_that_would_broadcast():
    with pytest.raises(ValueError, match=r"student logits are \(4, 10\), teacher logits \(1, 10\)"):
        kd_loss(torch.zeros(4, 10), torch.zeros(1, 10), temperature=4.0)


def test_standardize_equals_numpy_with_the_unbiased_deviation():
    logits = torch.randn(7, 12, generator=torch.Generator().manual_seed(0)) * 9 + 4
    exact = logits.numpy().astype(np.float64)
    expected = (exact - exact.mean(1, keepdims=True)) / (exact.std(1, ddof=1, keepdims=True) + 1e-7)
    np.testing.assert_allclose(standardize_logits(logits).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_standardize_hand_value():
    torch.testing.assert_close(
        standardize_logits(torch.tensor([[2.0, 4.0, 9.0]])),
        torch.tensor([[-3.0, -1.0, 4.0]]) / math.sqrt(13.0),
    )


@settings(max_examples=40, deadline=None)
@given(pair=logit_pairs(), shift=st.floats(-3, 3), factor=st.floats(0.5, 8.0))
def test_standardized_logits_forget_shift_and_scale(pair, shift, factor):
    logits = pair[0] / pair[0].std(dim=1, keepdim=True)
    moved = standardize_logits(logits * factor + shift)
    torch.testing.assert_close(moved, standardize_logits(logits), rtol=1e-3, atol=1e-4)


def test_standardize_of_equal_logits_is_finite():
    logits = torch.full((2, 5), 3.0, requires_grad=True)
    standard = standardize_logits(logits)
    kd_loss(standard, torch.randn(2, 5, generator=torch.Generator().manual_seed(0)), temperature=2.0).backward()
    assert torch.equal(standard, torch.zeros(2, 5))
    assert logits.grad.isfinite().all()
