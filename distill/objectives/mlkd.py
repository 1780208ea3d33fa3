"""Multi-level logit distillation: the same logits by image, by pairs of images and by pairs of classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from distill.data.batches import Batch
from distill.objectives.kd import kd_loss
from distill.objectives.logits import logits_of, require_same_shape
from distill.objectives.objective import NetworkOutput, RequiredOutputs, Term, TermContext
from distill.recipe.objectives import MLKDTerm

__all__ = ["MLKD", "mlkd_losses"]


class MLKD(Term):
    """Each level by its weight; the levels are sums over temperatures."""

    requires = RequiredOutputs(teacher_logits=True)

    def __init__(self, spec: MLKDTerm, context: TermContext) -> None:
        super().__init__()
        self._spec = spec
        self.weights = {
            "instance": spec.instance_level_weight,
            "batch": spec.batch_level_weight,
            "class": spec.class_level_weight,
        }

    def losses(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        ours, theirs = logits_of(student, teacher, standardize=self._spec.standardize)
        return dict(zip(self.weights, mlkd_losses(ours, theirs, temperatures=self._spec.temperatures), strict=True))


def mlkd_losses(student: Tensor, teacher: Tensor, *, temperatures: Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
    """What images, pairs of images and pairs of classes differ in, at several temperatures (Jin et al., CVPR 2023).

    The first is :func:`~distill.objectives.kd.kd_loss`. With P the softened classes of a batch, the second is the
    squared difference of both networks' ``P P'``, divided by the images, and the third that of their ``P' P``, divided
    by the classes. Each is the sum over temperatures. The authors show each image in a weak and a strong view and, of
    the weak one, learn from what the teacher is least sure of; here it is one view, and all of it.

    Shapes:
        student: ``(B, C)`` float logits; gradient flows.
        teacher: ``(B, C)`` float logits; treated as constant.
        returns: ``()`` float32 each.

    Raises:
        ValueError: The shapes differ.

    >>> z = torch.tensor([[2.0, 0.0, -1.0]])
    >>> [loss.item() for loss in mlkd_losses(z, z, temperatures=[2.0, 4.0])]
    [0.0, 0.0, 0.0]
    """
    require_same_shape(student, teacher)
    with torch.autocast(student.device.type, enabled=False):
        images, classes = student.shape
        instance = of_batch = of_classes = student.new_zeros((), dtype=torch.float32)
        for temperature in temperatures:
            ours = (student.float() / temperature).softmax(dim=1)
            theirs = (teacher.detach().float() / temperature).softmax(dim=1)
            instance = instance + kd_loss(student, teacher, temperature=temperature)
            of_batch = of_batch + (ours @ ours.T - theirs @ theirs.T).square().sum() / images
            of_classes = of_classes + (ours.T @ ours - theirs.T @ theirs).square().sum() / classes
        return instance, of_batch, of_classes
