"""What losses on logits share: both sides as they are compared, standardised where the recipe says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from distill.data.batches import Batch
from distill.objectives.objective import NetworkOutput

__all__ = ["logits_of", "mean_over_labels", "other_classes", "require_same_shape", "standardize_logits"]


def logits_of(student: NetworkOutput, teacher: NetworkOutput, *, standardize: bool) -> tuple[Tensor, Tensor]:
    """The student's logits and the teacher's."""
    if not standardize:
        return student.logits, teacher.logits
    return standardize_logits(student.logits), standardize_logits(teacher.logits)


def other_classes(labels: Tensor, classes: int) -> Tensor:
    """Every class but an image's own, in their order.

    Shapes:
        labels: ``(B,)`` int64.
        returns: ``(B, classes - 1)`` int64.

    >>> other_classes(torch.tensor([0, 2]), 3).tolist()
    [[1, 2], [0, 1]]
    """
    columns = torch.arange(classes - 1, device=labels.device)
    return columns + (columns >= labels[:, None])


def mean_over_labels(losses: Callable[[Tensor], Sequence[Tensor]], batch: Batch) -> list[Tensor]:
    """Means over a batch of losses that use the label; a mixed image has those of both its labels, by their shares.

    Args:
        losses: Of each image, ``(B,)`` each, for labels ``(B,)``.

    Shapes:
        returns: ``()`` each.
    """
    own = losses(batch.labels)
    if batch.mix is None:
        return [each.mean() for each in own]
    weight = batch.mix.weight.float()
    pairs = zip(own, losses(batch.mix.partner_labels), strict=True)
    return [(weight * one + (1.0 - weight) * other).mean() for one, other in pairs]


def require_same_shape(student: Tensor, teacher: Tensor) -> None:
    """Refuse logits that would be broadcast.

    Raises:
        ValueError: The shapes differ.
    """
    if student.shape != teacher.shape:
        raise ValueError(f"student logits are {tuple(student.shape)}, teacher logits {tuple(teacher.shape)}")


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
