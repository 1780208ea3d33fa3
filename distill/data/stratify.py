"""Choose positions class by class, from named streams: the same choice on every machine."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from distill.data.streams import permutation

__all__ = ["balanced_subset", "stratified_counts", "stratified_fraction"]


def stratified_fraction(labels: np.ndarray, fraction: float, *key: int | str) -> np.ndarray:
    """Sorted positions of about ``fraction`` of the data, in every class alike.

    The total is ``fraction * N`` rounded, shared out by largest remainder. A class of two or more images gives at
    least one and keeps at least one; a class of one image gives none.

    Shapes:
        labels: ``(N,)`` integers.
        returns: ``(n,)`` int64.
    """
    if fraction <= 0:
        return np.empty(0, dtype=np.int64)
    return _first_of_each_class(labels, stratified_counts(np.bincount(labels), fraction), *key)


def stratified_counts(sizes: np.ndarray, fraction: float) -> np.ndarray:
    """How many :func:`stratified_fraction` takes of each class.

    Shapes:
        sizes: ``(C,)`` int64, images of each class.
        returns: ``(C,)`` int64.
    """
    most = np.maximum(sizes - 1, 0)
    counts = np.clip(np.floor(sizes * fraction).astype(np.int64), np.minimum(1, most), most)
    missing = max(0, round(int(sizes.sum()) * fraction) - int(counts.sum()))
    owed = np.where(counts < most, sizes * fraction - counts, -np.inf)
    most_owed = np.argsort(-owed, kind="stable")[:missing]
    counts[most_owed[np.isfinite(owed[most_owed])]] += 1
    return counts


def balanced_subset(labels: np.ndarray, n: int, *key: int | str) -> np.ndarray:
    """Sorted positions of ``n`` images (all, where there are fewer), as equal in number over classes as can be.

    Small classes give all they have and the others share the rest; a larger ``n`` only adds positions.

    Shapes:
        labels: ``(N,)`` integers.
        returns: ``(min(n, N),)`` int64.
    """
    if n >= len(labels):
        return np.arange(len(labels), dtype=np.int64)
    sizes = np.bincount(labels)
    level = bisect_right(range(int(sizes.max()) + 1), n, key=lambda most: int(np.minimum(sizes, most).sum())) - 1
    counts = np.minimum(sizes, level)
    counts[np.flatnonzero(sizes > level)[: n - int(counts.sum())]] += 1
    return _first_of_each_class(labels, counts, *key)


def _first_of_each_class(labels: np.ndarray, counts: np.ndarray, *key: int | str) -> np.ndarray:
    """Shuffle by ``key``, keep the first ``counts[c]`` images of every class ``c``, and sort."""
    order = permutation(len(labels), *key)
    shuffled = labels[order]
    kept = [order[shuffled == label][:count] for label, count in enumerate(counts) if count]
    return np.sort(np.concatenate(kept)) if kept else np.empty(0, dtype=np.int64)
