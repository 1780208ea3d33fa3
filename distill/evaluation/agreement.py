"""How often two models give the same answer."""

from __future__ import annotations

import numpy as np

__all__ = ["agreement", "agreement_if_alike"]


def agreement(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Fraction of images for which both models prefer the same class (top-1 agreement, arXiv:2106.05945).

    Two models may be equally accurate and agree little; a student that agrees with its teacher repeats its mistakes.

    Shapes:
        ours, theirs: ``(N, C)``, of the same images in the same order.

    Raises:
        ValueError: The shapes differ, or there are no images.

    >>> agreement(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[5.0, 0.0], [9.0, 1.0]]))
    0.5
    """
    if ours.shape != theirs.shape or ours.ndim != 2:
        raise ValueError(f"logits of shapes {ours.shape} and {theirs.shape} cannot agree")
    if len(ours) == 0:
        raise ValueError("agreement over no images")
    return int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum()) / len(ours)


def agreement_if_alike(ours: np.ndarray, theirs: np.ndarray | None) -> float | None:
    """As :func:`agreement`; None where there are no others' logits, or they are of another shape."""
    return None if theirs is None or theirs.shape != ours.shape else agreement(ours, theirs)
