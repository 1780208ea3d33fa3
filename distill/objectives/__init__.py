"""What a step minimises: one file an objective, and the table that finds them by a recipe's ``kind``."""

from __future__ import annotations

from collections.abc import Callable

from distill.objectives.combined import Combined
from distill.objectives.dist import DIST, dist_losses
from distill.objectives.dkd import DKD, dkd_losses
from distill.objectives.kd import KD, kd_loss
from distill.objectives.logits import standardize_logits
from distill.objectives.mse import MSE, mse_loss
from distill.objectives.objective import Answer, Asks, LossParts, Objective, Setting, Term
from distill.objectives.supervised import MixedLabels, cross_entropy
from distill.recipe.objectives import ObjectiveSpec, SupervisedObjective, TermSpec

__all__ = [
    "OBJECTIVES",
    "Answer",
    "Asks",
    "Combined",
    "LossParts",
    "MixedLabels",
    "Objective",
    "Setting",
    "Term",
    "build_objective",
    "cross_entropy",
    "dist_losses",
    "dkd_losses",
    "kd_loss",
    "mse_loss",
    "standardize_logits",
]

OBJECTIVES: dict[str, Callable[..., Term]] = {"kd": KD, "dkd": DKD, "dist": DIST, "mse": MSE}


def build_objective(spec: ObjectiveSpec, setting: Setting | None = None, *, label_smoothing: float = 0.0) -> Combined:
    """What a recipe's ``objective`` describes; the cross-entropy of every kind uses ``label_smoothing``."""
    setting = setting or Setting()
    if isinstance(spec, SupervisedObjective):
        return Combined(label_smoothing=label_smoothing)
    terms: dict[str, tuple[TermSpec, Term]] = {
        each.kind: (each, OBJECTIVES[each.kind](each, setting)) for each in (spec, *spec.add)
    }
    return Combined(terms, ce_weight=spec.ce_weight, label_smoothing=label_smoothing)
