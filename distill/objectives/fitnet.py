"""FitNets: a student's features, through a regressor of their own, should be its teacher's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.data.batches import Batch
from distill.objectives.adapters import projection
from distill.objectives.objective import NetworkOutput, Term, TermContext
from distill.objectives.pairs import StagePairs, as_small, no_autocast
from distill.recipe.objectives import FitNetTerm

__all__ = ["FitNet", "hint_loss"]


class FitNet(Term):
    """``fitnet_weight * sum over stages of hint_loss(regressor(student), teacher)``."""

    def __init__(self, spec: FitNetTerm, context: TermContext) -> None:
        super().__init__()
        self._pairs, self.weights = StagePairs(spec, context), {"fitnet": spec.fitnet_weight}
        self.requires = self._pairs.requires
        self.regressors = nn.ModuleList(projection(*shapes, kind=spec.kind) for shapes in self._pairs.shapes)

    def losses(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        found = []
        for regressor, (ours, theirs) in zip(self.regressors, self._pairs.of(student, teacher), strict=True):
            with no_autocast(ours):
                ours, theirs = as_small(ours, theirs)  # noqa: PLW2901  (averaging commutes with a 1x1 convolution)
                found.append(hint_loss(regressor(ours), theirs))
        return {"fitnet": torch.stack(found).sum()}


def hint_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean square of the difference of features (Romero et al., arXiv:1412.6550).

    Shapes:
        student: ``(B, ...)`` float, regressed already; gradient flows.
        teacher: The same shape; treated as constant.
        returns: ``()`` float32.

    >>> hint_loss(torch.zeros(2, 3), torch.ones(2, 3)).item()
    1.0
    """
    with no_autocast(student):
        return F.mse_loss(student.float(), teacher.detach().float())
