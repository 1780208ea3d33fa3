"""Relational distillation: distances and angles between images, in a student's features as in its teacher's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.data.batches import Batch
from distill.objectives.objective import NetworkOutput, Term, TermContext
from distill.objectives.pairs import StagePairs, no_autocast
from distill.recipe.objectives import RKDTerm

__all__ = ["RKD", "rkd_angle_loss", "rkd_distance_loss"]

_EPS = 1e-12


class RKD(Term):
    """``distance_weight * distances + angle_weight * angles``, summed over stages."""

    def __init__(self, spec: RKDTerm, context: TermContext) -> None:
        super().__init__()
        self._pairs = StagePairs(spec, context)
        self.weights = {"rkd_distance": spec.distance_weight, "rkd_angle": spec.angle_weight}
        self.requires = self._pairs.requires

    def losses(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        pairs = self._pairs.of(student, teacher)
        distances = torch.stack([rkd_distance_loss(ours, theirs) for ours, theirs in pairs]).sum()
        angles = torch.stack([rkd_angle_loss(ours, theirs) for ours, theirs in pairs]).sum()
        return {"rkd_distance": distances, "rkd_angle": angles}


def rkd_distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss of the distances between images, each in units of its batch's mean (Park et al., arXiv:1904.05068).

    Shapes:
        student: ``(B, ...)`` float; gradient flows.
        teacher: ``(B, ...)`` float; treated as constant. The two need nothing but B in common.
        returns: ``()`` float32. Where all images of a batch are one point to the student it has no gradient.
    """
    with no_autocast(student):
        return F.smooth_l1_loss(_distances(student.float()), _distances(teacher.detach().float()))


def rkd_angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss of the cosines of the angles that three images make (Park et al., arXiv:1904.05068).

    Shapes:
        student: ``(B, ...)`` float; gradient flows.
        teacher: ``(B, ...)`` float; treated as constant. The two need nothing but B in common.
        returns: ``()`` float32. ``(B, B, D)`` numbers are held for it.
    """
    with no_autocast(student):
        return F.smooth_l1_loss(_cosines(student.float()), _cosines(teacher.detach().float()))


def _distances(features: Tensor) -> Tensor:
    """``(B, B)`` distances over the mean of those that are above 0."""
    flat = features.flatten(1)
    flat = flat - flat.mean(dim=0)  # no distance changes, and what all images have in common cancels no digits
    squares = flat.square().sum(dim=1)
    squared = (squares[:, None] + squares[None] - 2 * flat @ flat.T).clamp(min=_EPS)
    # a point is at no distance from itself, and the root has no slope there
    itself = torch.eye(len(flat), dtype=torch.bool, device=flat.device)
    distances = squared.sqrt().masked_fill(itself, 0.0)
    count = (distances > 0).sum().clamp(min=1)
    mean = distances.sum() / count
    return distances / mean.clamp(min=_EPS)


def _cosines(features: Tensor) -> Tensor:
    """``(B, B, B)``: of the angle at each image between two others."""
    flat = features.flatten(1)
    arms = F.normalize(flat[None] - flat[:, None], dim=2)
    return arms @ arms.transpose(1, 2)
