"""What a Dataset of the user's own holds in memory, digested: it is known again without asking for all of it."""

from __future__ import annotations

import datetime
import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

import numpy as np

__all__ = ["digest_array", "digests_held"]

_DEEPEST = 6  # Datasets within Datasets
_ROWS = 1024  # hashed at a time
_PLAIN = (str, bytes, int, float, bool, type(None), np.generic, os.PathLike, datetime.date, datetime.time)


class _Hash(Protocol):
    def update(self, data: Any, /) -> None: ...


def digests_held(dataset: Any) -> dict[str, str]:
    """Hex sha256 of every array, tensor, table, and list or mapping of plain values that a Dataset has, by its name.

    Those of the Datasets in it too. What lies on disk (``np.memmap``) is told by its shape alone; lists that hold
    nothing, None or anything else (images that were kept as they were asked for) are no part of it.
    """
    found: dict[str, str] = {}
    _collect(found, "", dataset, set(), _DEEPEST)
    return found


def _collect(found: dict[str, str], where: str, dataset: Any, seen: set[int], left: int) -> None:
    seen.add(id(dataset))
    for name, value in sorted(getattr(dataset, "__dict__", {}).items()):
        place = f"{where}.{name}"
        with suppress(Exception):  # not to be read: it says nothing
            if (digest := _digest_of(value)) is not None:
                found[place] = digest
                continue
        for number, inner in enumerate(value if isinstance(value, list | tuple) else [value]):
            if left and id(inner) not in seen and hasattr(inner, "__getitem__") and hasattr(inner, "__len__"):
                _collect(found, f"{place}[{number}]", inner, seen, left - 1)


def _digest_of(value: Any) -> str | None:
    digest = hashlib.sha256()
    if isinstance(value, list | tuple) and value and all(hasattr(each, "detach") for each in value):  # TensorDataset
        for each in value:
            digest_array(digest, each.detach().cpu().numpy())
        return digest.hexdigest()
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    elif hasattr(value, "to_numpy"):  # a table's
        value = value.to_numpy()
    if isinstance(value, np.memmap):
        digest.update(f"{value.dtype} {value.shape}".encode())
        return digest.hexdigest()
    if isinstance(value, np.ndarray):
        return digest.hexdigest() if digest_array(digest, value) else None
    if isinstance(value, Mapping):
        value = list(value.items())
    if isinstance(value, list | tuple) and value and not any(each is None for each in value) and _is_plain(value):
        _update_plain(digest, value)
        return digest.hexdigest()
    return None


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.items()))
    return isinstance(value, _PLAIN) or type(value).__module__.startswith("pandas.")  # NA, times


def _update_plain(digest: _Hash, values: list[Any] | tuple[Any, ...]) -> None:
    digest.update(f"{len(values)} ".encode())
    for start in range(0, len(values), _ROWS):
        rows = values[start : start + _ROWS]
        if any(isinstance(each, bytes) for each in rows):  # encoded pictures: not several times in memory
            for each in rows:
                content = each if isinstance(each, bytes) else repr(each).encode("utf-8", "surrogateescape")
                digest.update(f"{len(content)} ".encode())
                digest.update(content)
        else:
            digest.update(repr(rows).encode("utf-8", "surrogateescape"))


def digest_array(digest: _Hash, array: np.ndarray) -> bool:
    """Of every byte, or of values where they are objects; False where these are no plain ones."""
    digest.update(f"{array.dtype} {array.shape} ".encode())
    if array.dtype.hasobject or array.dtype.kind == "T":  # bytes of these are places in memory
        values = [array.item()] if array.ndim == 0 else array.tolist()
        if not _is_plain(values):
            return False
        _update_plain(digest, values)
    elif array.ndim == 0:
        digest.update(array.tobytes())
    else:
        for start in range(0, len(array), _ROWS):
            digest.update(np.ascontiguousarray(array[start : start + _ROWS]).tobytes())
    return True
