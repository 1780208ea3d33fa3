"""Names of recipes that distill makes of others: pruned, quantised."""

from __future__ import annotations

import hashlib

from distill.references import LONGEST_NAME

__all__ = ["derived_name"]

_DIGEST = 8


def derived_name(name: str, suffix: str) -> str:
    """``name`` with a suffix; of a name that would be too long its beginning and a digest of it.

    >>> derived_name("r18_small", "_macs50")
    'r18_small_macs50'
    >>> derived_name("n" * 60, "_macs50"), len(derived_name("n" * 60, "_macs50"))
    ('nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn_fb886b45_macs50', 64)
    """
    if len(name) + len(suffix) <= LONGEST_NAME:
        return name + suffix
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST]
    return f"{name[: LONGEST_NAME - len(suffix) - _DIGEST - 1]}_{digest}{suffix}"
