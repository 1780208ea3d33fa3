"""Activation boundaries: a student's neurons should be on where its teacher's are, however strongly."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distill.data.batches import Batch
from distill.objectives.adapters import connector, halved_backwards
from distill.objectives.objective import NetworkOutput, Term, TermContext
from distill.objectives.pairs import StagePairs, as_small, no_autocast, require_maps
from distill.recipe.objectives import ABTerm

__all__ = ["AB", "ab_loss"]


class AB(Term):
    """``ab_weight * sum over stages of ab_loss(connector(student), teacher)``, each stage half the next one's."""

    def __init__(self, spec: ABTerm, context: TermContext) -> None:
        super().__init__()
        self._spec, self._pairs, self.weights = spec, StagePairs(spec, context), {"ab": spec.ab_weight}
        self.requires = self._pairs.requires
        require_maps(spec, self._pairs)
        self.connectors = nn.ModuleList(connector(*shapes) for shapes in self._pairs.shapes)

    def losses(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        found = []
        for connect, (ours, theirs) in zip(self.connectors, self._pairs.of(student, teacher), strict=True):
            with no_autocast(ours):
                small, target = as_small(ours, theirs)
                found.append(ab_loss(connect(small), target, margin=self._spec.margin))
        return {"ab": halved_backwards(found)}


def ab_loss(student: Tensor, teacher: Tensor, *, margin: float) -> Tensor:
    """Squared distance to the right side of a margin, summed over an image's neurons (Heo et al., arXiv:1811.03233).

    Where the teacher's is on (above 0) the student's should be above ``margin``, elsewhere below ``-margin``.

    Shapes:
        student: ``(B, C, H, W)`` float, before the activation; gradient flows.
        teacher: The same shape; treated as constant.
        returns: ``()`` float32, mean over the batch.

    >>> ab_loss(torch.tensor([[-1.0, 0.0, 3.0]]), torch.tensor([[-5.0, 5.0, 5.0]]), margin=1.0).item()
    1.0
    """
    with no_autocast(student):
        signed = torch.where(teacher.detach() > 0, student.float(), -student.float())
        return (margin - signed).clamp(min=0).square().flatten(1).sum(dim=1).mean()
