"""DIST: a student's softened classes should correlate with its teacher's, within an image and within a class."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.data.batches import Batch
from distill.objectives.logits import logits_of, require_same_shape
from distill.objectives.objective import NetworkOutput, RequiredOutputs, Term, TermContext
from distill.recipe.objectives import DISTTerm

__all__ = ["DIST", "dist_losses"]


class DIST(Term):
    """``T^2 * (inter_weight * inter + intra_weight * intra)``."""

    requires = RequiredOutputs(teacher_logits=True)

    def __init__(self, spec: DISTTerm, context: TermContext) -> None:
        super().__init__()
        self._spec, self.weights = spec, {"inter": spec.inter_weight, "intra": spec.intra_weight}

    def losses(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        ours, theirs = logits_of(student, teacher, standardize=self._spec.standardize)
        inter, intra = dist_losses(ours, theirs, temperature=self._spec.temperature)
        return {"inter": inter, "intra": intra}


def dist_losses(student: Tensor, teacher: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """One minus Pearson's correlation of probabilities, by row and by column (Huang et al., arXiv:2205.10536).

    Neither changes where probabilities are scaled or shifted. A column is a class over the batch, so the second
    depends on the batch, and says nothing of a batch of one. Where a student's probabilities hardly differ, as an
    untrained head of zeros has them, gradients are as large as the differences are small: the authors' formula does so.

    Shapes:
        student: ``(B, C)`` float logits; gradient flows.
        teacher: ``(B, C)`` float logits; treated as constant.
        returns: ``()`` float32 each: over the classes of an image (inter), over the images of a class (intra), each
            from 0 to 2, times ``temperature ** 2``.

    Raises:
        ValueError: The shapes differ.
    """
    require_same_shape(student, teacher)
    with torch.autocast(student.device.type, enabled=False):
        ours = (student.float() / temperature).softmax(dim=1)
        theirs = (teacher.detach().float() / temperature).softmax(dim=1)
        scale = temperature**2
        return scale * _distance(ours, theirs), scale * _distance(ours.T, theirs.T)


def _distance(a: Tensor, b: Tensor, *, eps: float = 1e-8) -> Tensor:
    """Mean over the rows of one minus their correlation, through unit vectors: their product alone would underflow."""
    a, b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    return (1.0 - torch.cosine_similarity(a, b, dim=1, eps=eps)).mean()
