"""Similarity-preserving distillation: images that are alike to a teacher should be alike to its student."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.data.batches import Batch
from distill.objectives.objective import NetworkOutput, Term, TermContext
from distill.objectives.pairs import StagePairs, no_autocast
from distill.recipe.objectives import SPTerm

__all__ = ["SP", "sp_loss"]


class SP(Term):
    """``sp_weight * sum over stages of sp_loss``."""

    def __init__(self, spec: SPTerm, context: TermContext) -> None:
        super().__init__()
        self._pairs, self.weights = StagePairs(spec, context), {"sp": spec.sp_weight}
        self.requires = self._pairs.requires

    def losses(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        return {"sp": torch.stack([sp_loss(ours, theirs) for ours, theirs in self._pairs.of(student, teacher)]).sum()}


def sp_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean square of the difference of similarity matrices (Tung and Mori, arXiv:1907.09682).

    The similarity of two images is the product of their features; each image's row is brought to norm 1.

    Shapes:
        student: ``(B, ...)`` float; gradient flows.
        teacher: ``(B, ...)`` float; treated as constant. The two need nothing but B in common.
        returns: ``()`` float32.

    >>> z = torch.tensor([[1.0, 0.0], [0.5, 2.0]])
    >>> sp_loss(z, 2 * z.flip(1)).item()
    0.0
    """
    with no_autocast(student):
        return (_similarity(student.float()) - _similarity(teacher.detach().float())).square().mean()


def _similarity(features: Tensor) -> Tensor:
    flat = features.flatten(1)
    return F.normalize(flat @ flat.T, dim=1)
