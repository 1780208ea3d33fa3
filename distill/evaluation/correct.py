"""Which answers are right."""

from __future__ import annotations

import numpy as np

__all__ = ["correct"]


def correct(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which images are given their label: ``(N,)`` bool, of logits ``(N, C)`` and labels ``(N,)``.

    >>> correct(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 0])).tolist()
    [True, False]
    """
    return np.asarray(logits.argmax(axis=1) == labels)
