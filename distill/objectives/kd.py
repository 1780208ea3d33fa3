"""Knowledge distillation by logits: cross-entropy, and the divergence from a teacher's softened classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.data.batches import Batch
from distill.objectives.objective import Answer, Asks, LossParts
from distill.objectives.supervised import cross_entropy
from distill.recipe.schema import KDObjective

__all__ = ["KD", "kd_loss", "standardize_logits"]


class KD:
    """``ce_weight * CE + kd_weight * T^2 * KL(teacher || student)``."""

    asks = Asks(logits=True)

    def __init__(self, spec: KDObjective, *, label_smoothing: float) -> None:
        self._spec, self._label_smoothing = spec, label_smoothing

    def __call__(self, student: Answer, teacher: Answer | None, batch: Batch) -> LossParts:
        if teacher is None:
            raise ValueError("objective kd needs teacher logits, got None")
        spec, ours, theirs = self._spec, student.logits, teacher.logits
        ce = cross_entropy(ours, batch.labels, label_smoothing=self._label_smoothing, mix=batch.mix)
        if spec.standardize:
            ours, theirs = standardize_logits(ours), standardize_logits(theirs)
        kd = kd_loss(ours, theirs, temperature=spec.temperature)
        return LossParts(loss=spec.ce_weight * ce + spec.kd_weight * kd, parts={"ce": ce.detach(), "kd": kd.detach()})


def kd_loss(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """KL divergence from the student's softened classes to the teacher's (Hinton et al., arXiv:1503.02531).

    Shapes:
        student: ``(B, C)`` float logits; gradient flows.
        teacher: ``(B, C)`` float logits; treated as constant.
        returns: ``()`` float32, ``KL(teacher || student)``, mean over the batch, times ``temperature ** 2``.

    Raises:
        ValueError: The shapes differ.

    >>> z = torch.tensor([[2.0, 0.0, -1.0]])
    >>> kd_loss(z, z, temperature=4.0).item()
    0.0
    """
    if student.shape != teacher.shape:  # kl_div would broadcast (1, C) against (B, C) in silence
        raise ValueError(f"student logits are {tuple(student.shape)}, teacher logits {tuple(teacher.shape)}")
    with torch.autocast(student.device.type, enabled=False):
        student_log = F.log_softmax(student.float() / temperature, dim=-1)
        teacher_log = F.log_softmax(teacher.detach().float() / temperature, dim=-1)
        # "mean" would divide by the classes too
        divergence = F.kl_div(student_log, teacher_log, reduction="batchmean", log_target=True)
        return divergence * temperature**2


def standardize_logits(logits: Tensor, *, eps: float = 1e-7) -> Tensor:
    """Z-score of each row: ``(z - mean) / (std + eps)`` (Sun et al., arXiv:2403.01427).

    ``std`` divides by C - 1 as in the authors' code. Their formula divides by C: at temperature T it softens as this
    does at ``T * sqrt((C - 1) / C)``. A row of equal logits becomes zeros and has gradients of the order of
    ``1 / eps``, so initialise a classifier with small random weights, not with zeros.

    Shapes:
        logits: ``(B, C)`` float, C at least 2; gradient flows.
        returns: ``(B, C)`` float32.

    >>> standardize_logits(torch.tensor([[1.0, 2.0, 3.0]])).round(decimals=4)
    tensor([[-1.,  0.,  1.]])
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.float()
        centred = logits - logits.mean(dim=-1, keepdim=True)
        return centred / (logits.std(dim=-1, keepdim=True) + eps)
