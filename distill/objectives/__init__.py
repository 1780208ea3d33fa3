"""What a step minimises: pure functions of logits and labels, and the table that finds them by a recipe's ``kind``."""

from __future__ import annotations

from distill.objectives.logits import kd_loss, standardize_logits
from distill.objectives.registry import OBJECTIVES, Loss, LossParts, build_loss
from distill.objectives.supervised import MixedLabels, cross_entropy

__all__ = [
    "OBJECTIVES",
    "Loss",
    "LossParts",
    "MixedLabels",
    "build_loss",
    "cross_entropy",
    "kd_loss",
    "standardize_logits",
]
