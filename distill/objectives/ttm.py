"""Transformed teacher matching: a teacher is softened, and its student is not."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.data.batches import Batch
from distill.objectives.logits import logits_of, require_same_shape
from distill.objectives.objective import NetworkOutput, RequiredOutputs, Term, TermContext
from distill.recipe.objectives import TTMTerm

__all__ = ["TTM", "ttm_loss"]


class TTM(Term):
    """``ttm_weight * KL(softened teacher || student)``; weighted by image, it is WTTM."""

    requires = RequiredOutputs(teacher_logits=True)

    def __init__(self, spec: TTMTerm, context: TermContext) -> None:
        super().__init__()
        self._spec, self.weights = spec, {"ttm": spec.ttm_weight}

    def losses(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        ours, theirs = logits_of(student, teacher, standardize=self._spec.standardize)
        return {"ttm": ttm_loss(ours, theirs, temperature=self._spec.temperature, weighted=self._spec.weighted)}


def ttm_loss(student: Tensor, teacher: Tensor, *, temperature: float, weighted: bool = False) -> Tensor:
    """Divergence from a student's classes, not softened, to its teacher's, softened (Zheng, Yang, arXiv:2402.11148).

    Softening is the power transform ``p ** (1 / temperature)``, normalised. In WTTM each image's divergence is
    multiplied by the sum of its powers, which grows as the teacher is less sure.

    Shapes:
        student: ``(B, C)`` float logits; gradient flows.
        teacher: ``(B, C)`` float logits; treated as constant.
        returns: ``()`` float32, mean over the batch; no factor of ``temperature``.

    Raises:
        ValueError: The shapes differ.

    >>> z = torch.tensor([[2.0, 0.0, -1.0]])
    >>> ttm_loss(z / 4, z, temperature=4.0).abs().item() < 1e-6
    True
    """
    require_same_shape(student, teacher)
    with torch.autocast(student.device.type, enabled=False):
        powers = F.log_softmax(teacher.detach().float(), dim=1) / temperature
        divergence = F.kl_div(
            F.log_softmax(student.float(), dim=1), F.log_softmax(powers, dim=1), reduction="none", log_target=True
        ).sum(dim=1)
        return (powers.exp().sum(dim=1) * divergence if weighted else divergence).mean()
