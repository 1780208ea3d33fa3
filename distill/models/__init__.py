"""The one door to ``teachers/``, ``students/`` and timm: networks, their weights, and what they expect of pixels."""

import distill.models.siblings  # noqa: F401  (before the two packages that it finds)
from distill.models.build import build_model, count_params, meta_model, params_of
from distill.models.check import check_budget, check_network, check_shapes
from distill.models.depth import head_parameters, stages
from distill.models.normalize import Normalize, build_normalize, resolved_model
from distill.models.weights import without_weights

__all__ = [
    "Normalize",
    "build_model",
    "build_normalize",
    "check_budget",
    "check_network",
    "check_shapes",
    "count_params",
    "head_parameters",
    "meta_model",
    "params_of",
    "resolved_model",
    "stages",
    "without_weights",
]
