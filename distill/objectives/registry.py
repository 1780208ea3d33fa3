"""Objectives by the ``kind`` a recipe names: each builder turns its part of the recipe into one callable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from distill.objectives.logits import kd_loss, standardize_logits
from distill.objectives.supervised import MixedLabels, cross_entropy
from distill.recipe.schema import KDObjective, ObjectiveSpec, SupervisedObjective

__all__ = ["OBJECTIVES", "Loss", "LossParts", "build_loss"]


@dataclass(frozen=True)
class LossParts:
    """What to minimise, and what it is made of.

    Shapes:
        loss: ``()`` float32, the weighted sum; gradient flows to the student.
        parts: ``()`` float32 each, before weights, detached: ``ce``, and ``kd`` where a teacher is asked.
    """

    loss: Tensor
    parts: dict[str, Tensor]


class Loss(Protocol):
    """The one signature of every objective, with a teacher or without; ``mix`` is None where no image was mixed."""

    def __call__(
        self, student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor, mix: MixedLabels | None
    ) -> LossParts: ...


def _build_supervised(spec: SupervisedObjective, label_smoothing: float) -> Loss:
    def loss(
        student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor, mix: MixedLabels | None
    ) -> LossParts:
        ce = cross_entropy(student_logits, labels, label_smoothing=label_smoothing, mix=mix)
        return LossParts(loss=ce, parts={"ce": ce.detach()})

    return loss


def _build_kd(spec: KDObjective, label_smoothing: float) -> Loss:
    def loss(
        student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor, mix: MixedLabels | None
    ) -> LossParts:
        if teacher_logits is None:
            raise ValueError("objective kd needs teacher logits, got None")
        ce = cross_entropy(student_logits, labels, label_smoothing=label_smoothing, mix=mix)
        if spec.standardize:
            student_logits, teacher_logits = standardize_logits(student_logits), standardize_logits(teacher_logits)
        kd = kd_loss(student_logits, teacher_logits, temperature=spec.temperature)
        return LossParts(loss=spec.ce_weight * ce + spec.kd_weight * kd, parts={"ce": ce.detach(), "kd": kd.detach()})

    return loss


OBJECTIVES: dict[str, Callable[..., Loss]] = {"supervised": _build_supervised, "kd": _build_kd}


def build_loss(spec: ObjectiveSpec, *, label_smoothing: float = 0.0) -> Loss:
    """The callable for a recipe's ``objective``; the cross-entropy of every kind uses ``label_smoothing``."""
    return OBJECTIVES[spec.kind](spec, label_smoothing)
