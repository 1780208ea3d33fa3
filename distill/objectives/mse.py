"""Regression of a teacher's logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.data.batches import Batch
from distill.objectives.logits import logits_of, require_same_shape
from distill.objectives.objective import NetworkOutput, RequiredOutputs, Term, TermContext
from distill.recipe.objectives import MSETerm

__all__ = ["MSE", "mse_loss"]


class MSE(Term):
    """``mse_weight * mean((student - teacher)^2)``."""

    requires = RequiredOutputs(teacher_logits=True)

    def __init__(self, spec: MSETerm, context: TermContext) -> None:
        super().__init__()
        self._spec, self.weights = spec, {"mse": spec.mse_weight}

    def losses(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        ours, theirs = logits_of(student, teacher, standardize=self._spec.standardize)
        return {"mse": mse_loss(ours, theirs)}


def mse_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean square of the difference over images and classes (Ba and Caruana, arXiv:1312.6184; arXiv:2105.08919).

    Shapes:
        student: ``(B, C)`` float logits; gradient flows.
        teacher: ``(B, C)`` float logits; treated as constant.
        returns: ``()`` float32.

    Raises:
        ValueError: The shapes differ.

    >>> mse_loss(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 4.0]])).item()
    2.0
    """
    require_same_shape(student, teacher)
    with torch.autocast(student.device.type, enabled=False):
        return F.mse_loss(student.float(), teacher.detach().float())
