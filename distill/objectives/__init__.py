"""What a step minimises: one file an objective, and the table that finds them by a recipe's ``kind``."""

from __future__ import annotations

from collections.abc import Callable

from distill.objectives.kd import KD, kd_loss, standardize_logits
from distill.objectives.objective import Answer, Asks, LossParts, Objective
from distill.objectives.supervised import MixedLabels, Supervised, cross_entropy
from distill.recipe.schema import ObjectiveSpec

__all__ = [
    "OBJECTIVES",
    "Answer",
    "Asks",
    "LossParts",
    "MixedLabels",
    "Objective",
    "build_objective",
    "cross_entropy",
    "kd_loss",
    "standardize_logits",
]

OBJECTIVES: dict[str, Callable[..., Objective]] = {"supervised": Supervised, "kd": KD}


def build_objective(spec: ObjectiveSpec, *, label_smoothing: float = 0.0) -> Objective:
    """What a recipe's ``objective`` describes; the cross-entropy of every kind uses ``label_smoothing``."""
    return OBJECTIVES[spec.kind](spec, label_smoothing=label_smoothing)
