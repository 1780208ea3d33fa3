"""Decoupled knowledge distillation: what a teacher says of the target class, and what of the others."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.data.batches import Batch
from distill.objectives.logits import logits_of, mean_over_labels, other_classes, require_same_shape
from distill.objectives.objective import NetworkOutput, RequiredOutputs, Term, TermContext
from distill.recipe.objectives import DKDTerm

__all__ = ["DKD", "dkd_losses"]


class DKD(Term):
    """``T^2 * (tckd_weight * TCKD + nckd_weight * NCKD)``."""

    requires = RequiredOutputs(teacher_logits=True)

    def __init__(self, spec: DKDTerm, context: TermContext) -> None:
        super().__init__()
        self._spec, self.weights = spec, {"tckd": spec.tckd_weight, "nckd": spec.nckd_weight}

    def losses(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        ours, theirs = logits_of(student, teacher, standardize=self._spec.standardize)
        of = partial(dkd_losses, ours, theirs, temperature=self._spec.temperature)
        return dict(zip(self.weights, mean_over_labels(of, batch), strict=True))


def dkd_losses(student: Tensor, teacher: Tensor, labels: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """Target-class and non-target-class divergence of each image (Zhao et al., arXiv:2203.08679).

    The first compares two probabilities, of the target class and of all others together; the second compares the
    others among themselves, as if the target class did not exist. Their sum, the second weighted by the teacher's
    probability of the others, is :func:`~distill.objectives.kd.kd_loss`.

    Shapes:
        student: ``(B, C)`` float logits, C at least 2; gradient flows.
        teacher: ``(B, C)`` float logits; treated as constant.
        labels: ``(B,)`` int64, the target classes.
        returns: ``(B,)`` float32 each, times ``temperature ** 2``.

    Raises:
        ValueError: The shapes differ.

    >>> z = torch.tensor([[2.0, 0.0, -1.0]])
    >>> [loss.item() for loss in dkd_losses(z, z, torch.tensor([0]), temperature=4.0)]
    [0.0, 0.0]
    """
    require_same_shape(student, teacher)
    with torch.autocast(student.device.type, enabled=False):
        ours, theirs = student.float() / temperature, teacher.detach().float() / temperature
        target, others = labels[:, None], other_classes(labels, student.shape[1])
        pair_s, pair_t = _binary(ours, target, others), _binary(theirs, target, others)
        rest_s = F.log_softmax(ours.gather(1, others), dim=1)
        rest_t = F.log_softmax(theirs.gather(1, others), dim=1)
        scale = temperature**2
        return scale * _kl(pair_s, pair_t), scale * _kl(rest_s, rest_t)


def _binary(logits: Tensor, target: Tensor, others: Tensor) -> Tensor:
    """Log-probabilities ``(B, 2)`` of the target class and of all others together."""
    rest = logits.gather(1, others).logsumexp(dim=1, keepdim=True)
    return F.log_softmax(torch.cat([logits.gather(1, target), rest], dim=1), dim=1)


def _kl(student: Tensor, teacher: Tensor) -> Tensor:
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)
