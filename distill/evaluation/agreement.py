"""How often two models give the same answer."""

from __future__ import annotations

import numpy as np
from torch import Tensor

__all__ = ["agreement", "agreement_if_alike"]


def agreement(a_logits: Tensor | np.ndarray, b_logits: Tensor | np.ndarray) -> float:
    """Fraction of images for which both models prefer the same class (top-1 agreement, arXiv:2106.05945).

    Two models may be equally accurate and agree little; a student that agrees with its teacher repeats its mistakes.

    Shapes:
        a_logits, b_logits: ``(N, C)``, of the same images in the same order.

    Raises:
        ValueError: The shapes differ, or there are no images.

    >>> agreement(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[5.0, 0.0], [9.0, 1.0]]))
    0.5
    """
    a, b = (
        np.asarray(each.detach().float().cpu() if isinstance(each, Tensor) else each) for each in (a_logits, b_logits)
    )
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(f"logits of shapes {a.shape} and {b.shape} cannot agree")
    if len(a) == 0:
        raise ValueError("agreement over no images")
    return int((a.argmax(axis=1) == b.argmax(axis=1)).sum()) / len(a)


def agreement_if_alike(ours: np.ndarray, theirs: np.ndarray | None) -> float | None:
    """As :func:`agreement`; None where there are no others' logits, or they are of another shape."""
    return None if theirs is None or theirs.shape != ours.shape else agreement(ours, theirs)
