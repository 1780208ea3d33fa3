"""What losses are compared with: a float64 NumPy function of one or several arrays, and its numeric gradient."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from distill.objectives import NetworkOutput

__all__ = ["SHAPES", "answer", "assert_equals", "numeric_gradient", "softmax"]

SHAPES = {
    "stem": (4, 8, 8),
    "stage1": (4, 8, 8),
    "stage1.preact": (4, 8, 8),
    "stage2": (8, 4, 4),
    "stage2.preact": (8, 4, 4),
    "pooled": (8,),
}
"""Stages of a small network, without the batch."""


def answer(shapes: dict[str, tuple[int, ...]], seed: int, *, count: int = 4) -> NetworkOutput:
    """What a network with these stages says of ``count`` images of three classes: anything."""
    generator = torch.Generator().manual_seed(seed)
    features = {name: torch.randn(count, *shape, generator=generator) for name, shape in shapes.items()}
    return NetworkOutput(torch.randn(count, 3, generator=generator), features)


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def numeric_gradient(function: Callable[[np.ndarray], float], at: np.ndarray, *, step: float = 1e-5) -> np.ndarray:
    gradient = np.zeros_like(at)
    for position in np.ndindex(at.shape):
        ahead, behind = at.copy(), at.copy()
        ahead[position] += step
        behind[position] -= step
        gradient[position] = (function(ahead) - function(behind)) / (2 * step)
    return gradient


def assert_equals(
    loss: Callable[[Tensor, Tensor], Tensor],
    reference: Callable[[np.ndarray, np.ndarray], float],
    student: np.ndarray,
    teacher: np.ndarray,
    *,
    tolerance: float = 1e-5,
) -> None:
    """Value and gradient agree to ``tolerance``, relative to the largest; the teacher gets no gradient."""
    ours = torch.from_numpy(student).float().requires_grad_()
    theirs = torch.from_numpy(teacher).float().requires_grad_()
    exact, fixed = ours.detach().double().numpy(), theirs.detach().double().numpy()
    value = loss(ours, theirs)
    value.backward()
    assert theirs.grad is None
    expected = reference(exact, fixed)
    assert abs(value.item() - expected) <= tolerance * max(1.0, abs(expected)), (value.item(), expected)
    gradient = numeric_gradient(lambda at: reference(at, fixed), exact)
    scale = max(np.abs(gradient).max(), 1e-3)
    assert ours.grad is not None
    np.testing.assert_allclose(ours.grad.numpy() / scale, gradient / scale, rtol=0, atol=tolerance)
