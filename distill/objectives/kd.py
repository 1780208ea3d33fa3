"""Knowledge distillation by logits: the divergence from a teacher's softened classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.data.batches import Batch
from distill.objectives.logits import logits_of, require_same_shape
from distill.objectives.objective import NetworkOutput, RequiredOutputs, Term, TermContext
from distill.recipe.objectives import KDTerm

__all__ = ["KD", "kd_loss"]


class KD(Term):
    """``kd_weight * T^2 * KL(teacher || student)``."""

    requires = RequiredOutputs(teacher_logits=True)

    def __init__(self, spec: KDTerm, context: TermContext) -> None:
        super().__init__()
        self._spec, self.weights = spec, {"kd": spec.kd_weight}

    def losses(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        ours, theirs = logits_of(student, teacher, standardize=self._spec.standardize)
        return {"kd": kd_loss(ours, theirs, temperature=self._spec.temperature)}


def kd_loss(student: Tensor, teacher: Tensor, *, temperature: float | Tensor) -> Tensor:
    """KL divergence from the student's softened classes to the teacher's (Hinton et al., arXiv:1503.02531).

    Shapes:
        student: ``(B, C)`` float logits; gradient flows.
        teacher: ``(B, C)`` float logits; treated as constant.
        temperature: A number, or ``()``, to which gradient flows as well.
        returns: ``()`` float32, ``KL(teacher || student)``, mean over the batch, times ``temperature ** 2``.

    Raises:
        ValueError: The shapes differ.

    >>> z = torch.tensor([[2.0, 0.0, -1.0]])
    >>> kd_loss(z, z, temperature=4.0).item()
    0.0
    """
    require_same_shape(student, teacher)  # kl_div would broadcast (1, C) against (B, C) in silence
    with torch.autocast(student.device.type, enabled=False):
        student_log = F.log_softmax(student.float() / temperature, dim=-1)
        teacher_log = F.log_softmax(teacher.detach().float() / temperature, dim=-1)
        # "mean" would divide by the classes too
        divergence = F.kl_div(student_log, teacher_log, reduction="batchmean", log_target=True)
        return divergence * temperature**2
