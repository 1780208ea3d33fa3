"""Neuron selectivity transfer: where a student's channels look should be distributed as its teacher's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.data.batches import Batch
from distill.objectives.objective import NetworkOutput, Term, TermContext
from distill.objectives.pairs import StagePairs, as_small, no_autocast, require_maps
from distill.recipe.objectives import NSTTerm

__all__ = ["NST", "nst_loss"]


class NST(Term):
    """``nst_weight * sum over stages of nst_loss``."""

    def __init__(self, spec: NSTTerm, context: TermContext) -> None:
        super().__init__()
        self._pairs, self.weights = StagePairs(spec, context), {"nst": spec.nst_weight}
        self.requires = self._pairs.requires
        require_maps(spec, self._pairs)

    def losses(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        return {"nst": torch.stack([nst_loss(ours, theirs) for ours, theirs in self._pairs.of(student, teacher)]).sum()}


def nst_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of channels, kernel ``(x . y)^2`` (Huang and Wang, arXiv:1707.01219).

    Each channel's map is a unit vector; an image's channels are the samples.

    Shapes:
        student: ``(B, C, H, W)`` float; gradient flows.
        teacher: ``(B, D, H', W')`` float; treated as constant. The larger map is averaged to the smaller one's size.
        returns: ``()`` float32.

    >>> nst_loss(torch.ones(2, 3, 4, 4), 5 * torch.ones(2, 7, 4, 4)).abs().item() < 1e-6
    True
    """
    with no_autocast(student):
        ours, theirs = (
            F.normalize(each.flatten(2), dim=2) for each in as_small(student.float(), teacher.detach().float())
        )
        return _kernel(theirs, theirs) + _kernel(ours, ours) - 2 * _kernel(ours, theirs)


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.transpose(1, 2)).square().mean()
