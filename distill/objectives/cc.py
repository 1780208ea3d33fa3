"""Correlation congruence: two images should be as close to a student as they are to its teacher."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.data.batches import Batch
from distill.objectives.objective import NetworkOutput, Term, TermContext
from distill.objectives.pairs import StagePairs, no_autocast
from distill.recipe.objectives import CCTerm

__all__ = ["CC", "cc_loss"]


class CC(Term):
    """``cc_weight * sum over stages of cc_loss``."""

    def __init__(self, spec: CCTerm, context: TermContext) -> None:
        super().__init__()
        self._spec, self._pairs, self.weights = spec, StagePairs(spec, context), {"cc": spec.cc_weight}
        self.requires = self._pairs.requires

    def losses(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        found = [
            cc_loss(ours, theirs, gamma=self._spec.gamma, order=self._spec.order)
            for ours, theirs in self._pairs.of(student, teacher)
        ]
        return {"cc": torch.stack(found).sum()}


def cc_loss(student: Tensor, teacher: Tensor, *, gamma: float, order: int) -> Tensor:
    """Mean square of the difference of the images' correlations (Peng et al., arXiv:1904.01802).

    The correlation of two images is a Gaussian kernel of their features as unit vectors, by its Taylor series:
    ``exp(-2 gamma) * sum over p up to order of (2 gamma)^p / p! * (x . y)^p``. The features themselves are compared,
    without the layer that the authors put behind both.

    Shapes:
        student: ``(B, ...)`` float; gradient flows.
        teacher: ``(B, ...)`` float; treated as constant. The two need nothing but B in common.
        returns: ``()`` float32.

    >>> z = torch.tensor([[1.0, 0.0], [0.5, 2.0]])
    >>> cc_loss(3 * z, z.flip(1), gamma=0.4, order=2).item() < 1e-12
    True
    """
    with no_autocast(student):
        ours = _correlations(student.float(), gamma, order)
        return (ours - _correlations(teacher.detach().float(), gamma, order)).square().mean()


def _correlations(features: Tensor, gamma: float, order: int) -> Tensor:
    unit = F.normalize(features.flatten(1), dim=1)
    cosines = unit @ unit.T
    terms = [(2.0 * gamma) ** power / math.factorial(power) * cosines**power for power in range(order + 1)]
    return math.exp(-2.0 * gamma) * torch.stack(terms).sum(dim=0)
