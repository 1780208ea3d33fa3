"""Logits in 16 bits: rounded, too coarse to learn from, or beyond what such a number can hold."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from distill.errors import RunError

__all__ = [
    "FEATURES_DTYPE",
    "check_features",
    "check_logits",
    "largest_of",
    "round_answers",
    "round_logits",
    "suited_dtype",
]

FEATURES_DTYPE = "float16"  # of pooled features, in a bank and live
_ENDS = 65_520.0  # from here on a logit in float16 is infinite; the largest number is 65,504
_COARSE = 1_024.0  # from here on neighbouring numbers in float16 are a whole logit apart


def round_logits(logits: Tensor, dtype: str) -> Tensor:
    """Logits as a bank of ``dtype`` would give them back, float32."""
    return logits.to(getattr(torch, dtype)).float()


def largest_of(logits: Tensor) -> Tensor:
    """The largest absolute logit, a scalar on the logits' device; NaN where one is NaN."""
    return logits.detach().abs().amax()


def suited_dtype(largest: float) -> Literal["float16", "float32"]:
    """What ``teacher.logits_dtype: auto`` becomes for a teacher whose logits go up to ``largest``.

    >>> suited_dtype(30.0), suited_dtype(2e4)
    ('float16', 'float32')
    """
    return "float16" if largest < _COARSE else "float32"


def round_answers(answers: Tensor, dtype: str, *, classes: int) -> Tensor:
    """Logits as :func:`round_logits` has them; the pooled features behind them, if any, in :data:`FEATURES_DTYPE`."""
    if answers.shape[1] == classes:
        return round_logits(answers, dtype)
    logits, pooled = answers[:, :classes], answers[:, classes:]
    return torch.cat([round_logits(logits, dtype), round_logits(pooled, FEATURES_DTYPE)], dim=1)


def check_features(largest: float, *, teacher: str) -> None:
    """Refuse pooled features that float16 cannot hold.

    Args:
        largest: The largest absolute feature, before rounding.

    Raises:
        RunError: It is NaN or infinite, or would be after rounding.
    """
    if not largest < _ENDS:
        raise RunError(
            f"the teacher {teacher} has pooled features of up to {largest:,.0f}, and float16 ends at 65,504",
            hint="learn from its logits (objective kd, dkd, nkd, dist), or from features of another stage",
        )


def check_logits(largest: float, *, teacher: str, dtype: str) -> None:
    """Refuse answers that cannot be learned from.

    Args:
        largest: The largest absolute logit, before rounding to ``dtype``.

    Raises:
        RunError: It is NaN or infinite, or would be after rounding.
    """
    if not math.isfinite(largest):
        raise RunError(
            f"the logits of the teacher {teacher} are NaN or infinite",
            hint="its training diverged (train it again with a lower optim.lr, or train.clip_norm), or it is damaged",
        )
    if dtype == "float16" and largest >= _ENDS:
        raise RunError(
            f"the teacher {teacher} answers logits of up to {largest:,.0f}, and float16 ends at 65,504",
            hint="--set teacher.logits_dtype=float32, or auto",
        )
