"""Named random streams: the same numbers on every machine, NumPy version, and for every order of asking.

Choices come from the raw bits of Philox (NumPy promises those across versions, unlike its distributions), keyed by
sha256 of the stream's name. Two streams with different keys share nothing, so that switching one augmentation on
never shifts the draws of another.
"""

from __future__ import annotations

import hashlib

import numpy as np

__all__ = ["derive_seed", "integers", "permutation", "quantized", "raw_bits", "uniform"]


def derive_seed(seed: int, use: str) -> int:
    """A 63-bit seed of another generator for one use (``"init"``, ``"dropout"``), the same on every machine."""
    digest = hashlib.sha256(f"{use}\x1f{seed}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def raw_bits(n: int, *key: int | str) -> np.ndarray:
    """``n`` raw 64-bit words of the stream named by ``key``.

    Shapes:
        returns: ``(n,)`` uint64.
    """
    digest = hashlib.sha256("\x1f".join(map(str, key)).encode()).digest()
    words = np.frombuffer(digest[:16], dtype="<u8").astype(np.uint64)
    return np.random.Philox(key=words).random_raw(n)


def uniform(n: int, *key: int | str) -> np.ndarray:
    """Numbers in [0, 1), multiples of 2**-53: float64 ``(n,)``."""
    return (raw_bits(n, *key) >> np.uint64(11)) * 2.0**-53


def integers(n: int, high: int, *key: int | str) -> np.ndarray:
    """Whole numbers in [0, ``high``): int64 ``(n,)``; for ``high`` far below 2**53, where the bias is nothing."""
    return (uniform(n, *key) * high).astype(np.int64)


def permutation(n: int, *key: int | str) -> np.ndarray:
    """A permutation of ``range(n)``: int64 ``(n,)``, the stable sort order of raw bits."""
    return np.argsort(raw_bits(n, *key), kind="stable")


def quantized(values: np.ndarray, unit: float) -> np.ndarray:
    """Rounds to multiples of ``unit``, a power of two, so that the last bit of a library's ``exp`` changes nothing."""
    return np.rint(values / unit) * unit
