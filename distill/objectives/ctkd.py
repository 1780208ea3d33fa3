"""Curriculum temperature: the temperature is learned as well, against the student, and by and by with more strength."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from distill.data.batches import Batch
from distill.objectives.kd import kd_loss
from distill.objectives.logits import logits_of
from distill.objectives.objective import NetworkOutput, RequiredOutputs, Term, TermContext
from distill.recipe.objectives import CTKDTerm

__all__ = ["CTKD", "reversal_strength", "reversed_gradient"]


class CTKD(Term):
    """``kd_weight * T^2 * KL``, T one learned temperature for all images (Li et al., arXiv:2211.16231).

    Its gradient is reversed: what lessens the student's loss raises it for T.
    """

    requires = RequiredOutputs(teacher_logits=True)

    def __init__(self, spec: CTKDTerm, context: TermContext) -> None:
        super().__init__()
        self._spec = spec
        self.weights = {"ctkd": spec.kd_weight, "temperature": 0.0}  # the second is told, and is no loss
        self.position = nn.Parameter(torch.ones(()))  # the authors' beginning: at 0.73 of the range
        self._strength = 1.0

    def begin_epoch(self, epoch: int) -> None:
        self._strength = reversal_strength(epoch, self._spec.curriculum_epochs)

    def losses(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        ours, theirs = logits_of(student, teacher, standardize=self._spec.standardize)
        low, high = self._spec.lowest_temperature, self._spec.highest_temperature
        temperature = low + (high - low) * reversed_gradient(self.position, self._strength).sigmoid()
        return {"ctkd": kd_loss(ours, theirs, temperature=temperature), "temperature": temperature.detach()}


def reversal_strength(epoch: int, curriculum_epochs: int) -> float:
    """How strongly the temperature learns in the epoch after ``epoch`` whole ones: a cosine from 0 to 1.

    >>> [round(reversal_strength(epoch, 4), 2) for epoch in range(6)]
    [0.15, 0.5, 0.85, 1.0, 1.0, 1.0]
    """
    if epoch + 1 >= curriculum_epochs:
        return 1.0
    return 0.5 * (1.0 - math.cos(math.pi * (epoch + 1) / curriculum_epochs))


def reversed_gradient(value: Tensor, strength: float) -> Tensor:
    """The value itself; its gradient is turned round and multiplied by ``strength``."""
    return value.detach() + strength * (value.detach() - value)
