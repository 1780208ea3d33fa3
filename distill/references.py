"""What callers from Python may hand over where a run, a recipe or a folder is named: text, a path or the object itself.

Each function says in one line what it cannot use; the command line never gets here with anything but text.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from distill.errors import UsageError

__all__ = ["count_of", "folder_of", "listed", "run_of"]


def folder_of(value: Any, what: str) -> Path:
    """A folder, from text or a path.

    Raises:
        UsageError: It is something else, or a file.

    >>> folder_of("runs", "runs_dir")
    PosixPath('runs')
    """
    if not isinstance(value, str | os.PathLike):
        raise UsageError(f"{what}: a path is wanted, not {_kind(value)}")
    if os.path.isfile(value):
        raise UsageError(f"{what}: {value} is a file", hint="name a folder")
    return Path(value)


def run_of(value: Any) -> str:
    """How a run or an exported file is named: text, a path, a run folder, or what a verb returned.

    Raises:
        UsageError: It is something else.
    """
    for attribute in ("file", "run", "path"):  # of an exported file, of a result, of a run folder
        inner = getattr(value, attribute, None)
        if isinstance(inner, os.PathLike):
            return os.fspath(inner)
    if isinstance(value, str | os.PathLike):
        return os.fspath(value)
    raise UsageError(
        f"a run is wanted, not {_kind(value)}", hint="its name, its folder, or what train_student(...) returned"
    )


def listed(value: Any) -> tuple[Any, ...]:
    """Several things, or one alone: text is one thing and no sequence of letters.

    >>> listed("train.epochs=1"), listed(["a", "b"])
    (('train.epochs=1',), ('a', 'b'))
    """
    if isinstance(value, str | os.PathLike) or not isinstance(value, Iterable):
        return (value,)
    return tuple(value)


def count_of(value: Any, what: str, *, least: int = 1) -> int:
    """A whole number, not below ``least``.

    Raises:
        UsageError: It is something else, or less.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{what} should be a whole number, {least} or more, got {value!r}")
    return value


def _kind(value: Any) -> str:
    return "nothing" if value is None else type(value).__name__
