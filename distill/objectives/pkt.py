"""Probabilistic knowledge transfer: which images are each other's neighbours, to a student as to its teacher."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.data.batches import Batch
from distill.objectives.objective import NetworkOutput, Term, TermContext
from distill.objectives.pairs import StagePairs, no_autocast
from distill.recipe.objectives import PKTTerm

__all__ = ["PKT", "pkt_loss"]


class PKT(Term):
    """``pkt_weight * sum over stages of pkt_loss``."""

    def __init__(self, spec: PKTTerm, context: TermContext) -> None:
        super().__init__()
        self._pairs, self.weights = StagePairs(spec, context), {"pkt": spec.pkt_weight}
        self.requires = self._pairs.requires

    def losses(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        return {"pkt": torch.stack([pkt_loss(ours, theirs) for ours, theirs in self._pairs.of(student, teacher)]).sum()}


def pkt_loss(student: Tensor, teacher: Tensor, *, eps: float = 1e-7) -> Tensor:
    """Divergence of the probabilities that images are neighbours (Passalis and Tefas, arXiv:1803.10837).

    The probability of a neighbour is its cosine similarity, moved to 0..1, over the sum of its row. As in the authors'
    code the mean is over all pairs, not over images.

    Shapes:
        student: ``(B, ...)`` float; gradient flows.
        teacher: ``(B, ...)`` float; treated as constant. The two need nothing but B in common.
        returns: ``()`` float32.

    >>> z = torch.tensor([[1.0, 0.0], [0.5, 2.0]])
    >>> pkt_loss(z, 3 * z).item()
    0.0
    """
    with no_autocast(student):
        ours = _neighbours(student.float(), eps)
        theirs = _neighbours(teacher.detach().float(), eps)
        return (theirs * ((theirs + eps) / (ours + eps)).log()).mean()


def _neighbours(features: Tensor, eps: float) -> Tensor:
    flat = F.normalize(features.flatten(1), dim=1, eps=eps)
    similarity = (flat @ flat.T + 1.0) / 2.0
    return similarity / similarity.sum(dim=1, keepdim=True)
