"""Attention transfer: where in its maps a teacher is strong, so should its student be."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.data.batches import Batch
from distill.objectives.objective import NetworkOutput, Term, TermContext
from distill.objectives.pairs import StagePairs, as_small, no_autocast, require_maps
from distill.recipe.objectives import ATTerm

__all__ = ["AT", "at_loss"]


class AT(Term):
    """``at_weight * sum over stages of at_loss``."""

    def __init__(self, spec: ATTerm, context: TermContext) -> None:
        super().__init__()
        self._pairs, self.weights = StagePairs(spec, context), {"at": spec.at_weight}
        self.requires = self._pairs.requires
        require_maps(spec, self._pairs)

    def losses(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        return {"at": torch.stack([at_loss(ours, theirs) for ours, theirs in self._pairs.of(student, teacher)]).sum()}


def at_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean square of the difference of attention maps (Zagoruyko and Komodakis, arXiv:1612.03928).

    A map's attention is the mean over channels of its squares, flattened to a unit vector. The mean over images and
    places is the authors' code's; their formula has the norm of the difference.

    Shapes:
        student: ``(B, C, H, W)`` float; gradient flows.
        teacher: ``(B, D, H', W')`` float; treated as constant. The larger map is averaged to the smaller one's size.
        returns: ``()`` float32.

    >>> at_loss(torch.ones(2, 3, 4, 4), 5 * torch.ones(2, 7, 4, 4)).item()
    0.0
    """
    with no_autocast(student):
        ours, theirs = as_small(student.float(), teacher.detach().float())
        return (_attention(ours) - _attention(theirs)).square().mean()


def _attention(maps: Tensor) -> Tensor:
    return F.normalize(maps.square().mean(dim=1).flatten(1), dim=1)
