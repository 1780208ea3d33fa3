"""What a Dataset of the user's own holds in memory, digested: it is known again without asking for all of it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Protocol

import numpy as np

__all__ = ["digest_array", "digest_held"]

_DEEPEST = 6  # Datasets within Datasets
_ROWS = 1024  # hashed at a time
_PLAIN = (str, bytes, int, float, bool, type(None), np.generic)


class _Hash(Protocol):
    def update(self, data: Any, /) -> None: ...


def digest_held(digest: _Hash, dataset: Any) -> None:
    """Every array, tensor, table and list of plain values or arrays that a Dataset has, and of the Datasets in it.

    What lies on disk (``np.memmap``), and lists of anything else, are no part of it.
    """
    _digest(digest, dataset, set(), _DEEPEST)


def _digest(digest: _Hash, dataset: Any, seen: set[int], left: int) -> None:
    seen.add(id(dataset))
    for name, value in sorted(getattr(dataset, "__dict__", {}).items()):
        with suppress(Exception):  # not to be read: it says nothing
            digest.update(f" {name} ".encode())
            _digest_value(digest, value, seen, left)


def _digest_value(digest: _Hash, value: Any, seen: set[int], left: int) -> None:
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    elif hasattr(value, "to_numpy"):  # a table's
        value = value.to_numpy()
    if isinstance(value, np.memmap):
        digest.update(f"{value.dtype} {value.shape} ".encode())
    elif isinstance(value, np.ndarray):
        digest_array(digest, value)
    elif isinstance(value, list | tuple):
        if all(map(_is_plain, value)):
            digest.update(repr(value).encode("utf-8", "surrogateescape"))
        for inner in value:
            if not _is_plain(inner) and not isinstance(inner, list | tuple):
                _digest_value(digest, inner, seen, left)
    else:
        _descend(digest, value, seen, left)


def _descend(digest: _Hash, value: Any, seen: set[int], left: int) -> None:
    if left and id(value) not in seen and hasattr(value, "__getitem__") and hasattr(value, "__len__"):
        _digest(digest, value, seen, left - 1)


def _is_plain(value: Any) -> bool:
    return isinstance(value, _PLAIN) or (isinstance(value, list | tuple) and all(map(_is_plain, value)))


def digest_array(digest: _Hash, array: np.ndarray) -> None:
    """Of every byte; of an array of objects the values, where they are plain."""
    digest.update(f"{array.dtype} {array.shape} ".encode())
    if array.dtype == object:
        values = array.tolist()
        if all(map(_is_plain, values)):
            digest.update(repr(values).encode("utf-8", "surrogateescape"))
    elif array.ndim == 0:
        digest.update(array.tobytes())
    else:
        for start in range(0, len(array), _ROWS):
            digest.update(np.ascontiguousarray(array[start : start + _ROWS]).tobytes())
