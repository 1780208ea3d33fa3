"""What a step minimises: one file an objective, and the table that finds them by a recipe's ``kind``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from distill.errors import RecipeError
from distill.objectives.ab import AB
from distill.objectives.at import AT
from distill.objectives.cc import CC
from distill.objectives.class_weights import resolve_class_weights
from distill.objectives.combined import Combined
from distill.objectives.crd import CRD
from distill.objectives.ctkd import CTKD
from distill.objectives.dist import DIST, dist_losses
from distill.objectives.dkd import DKD, dkd_losses
from distill.objectives.fitnet import FitNet
from distill.objectives.fsp import FSP
from distill.objectives.ft import FT
from distill.objectives.kd import KD, kd_loss
from distill.objectives.logits import standardize_logits
from distill.objectives.mlkd import MLKD, mlkd_losses
from distill.objectives.mse import MSE, mse_loss
from distill.objectives.nkd import NKD, nkd_losses
from distill.objectives.nst import NST
from distill.objectives.objective import LossParts, NetworkOutput, Objective, RequiredOutputs, Term, TermContext
from distill.objectives.ofd import OFD
from distill.objectives.own import OwnLoss
from distill.objectives.pkt import PKT
from distill.objectives.reviewkd import ReviewKD
from distill.objectives.rkd import RKD
from distill.objectives.simkd import SimKD
from distill.objectives.sp import SP
from distill.objectives.supervised import MixedLabels, cross_entropy
from distill.objectives.ttm import TTM, ttm_loss
from distill.objectives.vid import VID
from distill.recipe.objectives import ObjectiveSpec, SupervisedObjective, TermSpec

__all__ = [
    "OBJECTIVES",
    "Combined",
    "LossParts",
    "MixedLabels",
    "NetworkOutput",
    "Objective",
    "RequiredOutputs",
    "Term",
    "TermContext",
    "build_objective",
    "cross_entropy",
    "dist_losses",
    "dkd_losses",
    "kd_loss",
    "mlkd_losses",
    "mse_loss",
    "nkd_losses",
    "resolve_class_weights",
    "standardize_logits",
    "ttm_loss",
]

OBJECTIVES: dict[str, Callable[..., Term]] = {
    "kd": KD,
    "dkd": DKD,
    "dist": DIST,
    "mse": MSE,
    "nkd": NKD,
    "mlkd": MLKD,
    "ttm": TTM,
    "ctkd": CTKD,
    "fitnet": FitNet,
    "at": AT,
    "nst": NST,
    "fsp": FSP,
    "ab": AB,
    "ofd": OFD,
    "ft": FT,
    "sp": SP,
    "rkd": RKD,
    "pkt": PKT,
    "cc": CC,
    "vid": VID,
    "crd": CRD,
    "reviewkd": ReviewKD,
    "simkd": SimKD,
    "python": OwnLoss,
    "python_labels": OwnLoss,
}


def build_objective(
    spec: ObjectiveSpec,
    context: TermContext | None = None,
    *,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    unlabelled: bool = False,
) -> Combined:
    """What a recipe's ``objective`` describes; the cross-entropy of every kind uses all of these.

    Args:
        class_weights: What :func:`resolve_class_weights` made of the spec's and the data.
        unlabelled: Some images have no label, and pay no cross-entropy.
    """
    if isinstance(spec, SupervisedObjective):
        return Combined(label_smoothing=label_smoothing, class_weights=class_weights)
    context = context or TermContext()
    terms = {each.kind: (each, _term(each, context)) for each in spec.terms}
    if unlabelled and any(isinstance(term, OwnLoss) and term.asks_labels for _, term in terms.values()):
        raise RecipeError("objective python asks for every image's label: data.unlabelled has none")
    return Combined(
        terms,
        ce_weight=spec.ce_weight,
        ce_from_epoch=spec.ce_from_epoch,
        label_smoothing=label_smoothing,
        class_weights=class_weights,
        unlabelled=unlabelled,
    )


def _term(spec: TermSpec, context: TermContext) -> Term:
    """Its initial weights come from the context's seed alone; the global random state is neither read nor moved."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(context.seed)
        return OBJECTIVES[spec.kind](spec, context)
