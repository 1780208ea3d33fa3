"""Normalised knowledge distillation: the target class weighed by its teacher, and the others among themselves."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.data.batches import Batch
from distill.objectives.logits import logits_of, mean_over_labels, other_classes, require_same_shape
from distill.objectives.objective import NetworkOutput, RequiredOutputs, Term, TermContext
from distill.recipe.objectives import NKDTerm

__all__ = ["NKD", "nkd_losses"]


class NKD(Term):
    """``target_weight * target + others_weight * T^2 * others``."""

    requires = RequiredOutputs(teacher_logits=True)

    def __init__(self, spec: NKDTerm, context: TermContext) -> None:
        super().__init__()
        self._spec, self.weights = spec, {"target": spec.target_weight, "others": spec.others_weight}

    def losses(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        ours, theirs = logits_of(student, teacher, standardize=self._spec.standardize)
        of = partial(nkd_losses, ours, theirs, temperature=self._spec.temperature)
        return dict(zip(self.weights, mean_over_labels(of, batch), strict=True))


def nkd_losses(student: Tensor, teacher: Tensor, labels: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """The cross-entropy of the target class, and of the others, with a teacher's (Yang et al., arXiv:2303.13005).

    The first is ``-t log s`` of the target class, its probabilities t and s not softened: an image counts as much as
    the teacher is sure of it. The second is the cross-entropy of the other classes, softened, as if the target class
    did not exist; it is least, and not zero, where both networks agree. (The authors released a mask that leaves the
    target class among the others; this is the paper's.)

    Shapes:
        student: ``(B, C)`` float logits, C at least 2; gradient flows.
        teacher: ``(B, C)`` float logits; treated as constant.
        labels: ``(B,)`` int64, the target classes.
        returns: ``(B,)`` float32 each, the second times ``temperature ** 2``.

    Raises:
        ValueError: The shapes differ.

    >>> z = torch.tensor([[2.0, 0.0, 0.0]])
    >>> [round(loss.item(), 4) for loss in nkd_losses(z, z, torch.tensor([0]), temperature=1.0)]
    [0.1885, 0.6931]
    """
    require_same_shape(student, teacher)
    with torch.autocast(student.device.type, enabled=False):
        ours, theirs = student.float(), teacher.detach().float()
        target, others = labels[:, None], other_classes(labels, student.shape[1])
        sure = theirs.softmax(dim=1).gather(1, target)
        of_target = -(sure * F.log_softmax(ours, dim=1).gather(1, target))[:, 0]
        rest_s = F.log_softmax(ours.gather(1, others) / temperature, dim=1)
        rest_t = (theirs.gather(1, others) / temperature).softmax(dim=1)
        return of_target, -(temperature**2) * (rest_t * rest_s).sum(dim=1)
