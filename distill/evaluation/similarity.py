"""How alike two networks are inside (CKA of their stages), and in their answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["CKA", "MIN_BATCH", "class_correlations", "mean_divergence", "mean_off_diagonal", "unbiased_hsic"]

MIN_BATCH = 4
"""Fewer images have no unbiased estimate."""


class CKA:
    """Centred kernel alignment of two networks' stages, linear, batch by batch (arXiv:1905.00414, 2010.15327).

    The unbiased estimates of HSIC are summed over batches before they are divided, so that neither the size of a batch
    nor that of a stage decides the result, and no batch but one is held.

    Attributes:
        images: How many were added.
    """

    def __init__(self) -> None:
        self.images = 0
        self._cross: np.ndarray | None = None
        self._ours: np.ndarray | None = None
        self._theirs: np.ndarray | None = None

    def add(self, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
        """Add a batch; one of fewer than :data:`MIN_BATCH` images is left out.

        Shapes:
            ours, theirs: Of each stage ``(B, ...)`` float, of the same images; the stages need not be as many.
        """
        if len(ours[0]) < MIN_BATCH:
            return
        rows, columns = ([_gram(each) for each in stages] for stages in (ours, theirs))
        cross = np.array([[unbiased_hsic(k, l) for l in columns] for k in rows])  # noqa: E741  (as the papers have it)
        own, other = (np.array([unbiased_hsic(each, each) for each in grams]) for grams in (rows, columns))
        self._cross = cross if self._cross is None else self._cross + cross
        self._ours = own if self._ours is None else self._ours + own
        self._theirs = other if self._theirs is None else self._theirs + other
        self.images += len(ours[0])

    def value(self) -> np.ndarray:
        """``(our stages, their stages)`` float64: 1 where they are alike but for a rotation and a scale.

        About 0 where they have nothing in common, and then it may be a little below; NaN of a stage that answers all
        images alike.

        Raises:
            ValueError: Nothing was added.
        """
        if self._cross is None or self._ours is None or self._theirs is None:
            raise ValueError(f"CKA needs a batch of {MIN_BATCH} images")
        scale = np.sqrt(np.maximum(np.outer(self._ours, self._theirs), 0.0))
        return np.divide(self._cross, scale, out=np.full_like(self._cross, np.nan), where=scale > 0)


def _gram(features: Tensor) -> np.ndarray:
    flat = features.detach().float().flatten(1)
    flat = flat - flat.mean(dim=0)  # it changes no estimate, and what all images have in common costs no digits
    return (flat @ flat.T).double().cpu().numpy()


def unbiased_hsic(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    """The unbiased estimate of the Hilbert-Schmidt independence criterion (Song et al., JMLR 2012, eq. 5).

    Shapes:
        k, l: ``(n, n)`` float64, symmetric: products of the same n images' features, n at least 4.

    >>> k = np.diag([1.0, 2.0, 3.0, 4.0, 5.0])
    >>> unbiased_hsic(k, k)
    0.0
    """
    n = len(k)
    k, l = (each - np.diag(np.diag(each)) for each in (k, l))  # noqa: E741
    sums = k.sum(axis=0) @ l.sum(axis=0)
    found = (k * l).sum() + k.sum() * l.sum() / ((n - 1) * (n - 2)) - 2.0 * sums / (n - 2)
    return float(found / (n * (n - 3)))


def class_correlations(logits: np.ndarray) -> np.ndarray:
    """How a network's classes go together: Pearson's correlation of each two classes' logits over images.

    Shapes:
        logits: ``(N, C)``.
        returns: ``(C, C)`` float64; 0 beside a class whose logits are all equal, and 1 on the diagonal.
    """
    centred = logits.astype(np.float64)
    centred = centred - centred.mean(axis=0)
    length = np.linalg.norm(centred, axis=0)
    unit = np.divide(centred, length, out=np.zeros_like(centred), where=length > 0)
    found = unit.T @ unit
    np.fill_diagonal(found, 1.0)
    return found


def mean_off_diagonal(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Mean absolute difference of two matrices ``(C, C)`` beside the diagonal, C at least 2.

    >>> mean_off_diagonal(np.eye(2), np.array([[1.0, 0.5], [0.1, 1.0]]))
    0.3
    """
    beside = ~np.eye(len(ours), dtype=bool)
    return float(np.abs(ours - theirs)[beside].mean())


def mean_divergence(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Mean over images of KL(theirs ‖ ours) of the classes, in nats, at temperature 1.

    Shapes:
        ours, theirs: Logits ``(N, C)`` of the same images.
    """
    one, other = (torch.from_numpy(each).double().log_softmax(dim=1) for each in (ours, theirs))
    return float((other.exp() * (other - one)).sum(dim=1).mean())
