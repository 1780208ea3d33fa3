"""How runs, recipes and folders are named, and what callers from Python may hand over: text, a path or the object.

Each function says in one line what it cannot use; the command line never gets here with anything but text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from distill.errors import UsageError

__all__ = ["LONGEST_NAME", "NAME", "check_name", "count_of", "folder_of", "listed", "run_of"]

LONGEST_NAME = 64
NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{LONGEST_NAME - 1}}}")
"""Of a recipe, and so of the folder of its runs; of a sweep, a search, a chain."""


def check_name(name: str, what: str) -> str:
    """The name, where it can be one.

    Args:
        what: Whose it is, as in ``a sweep``.

    Raises:
        UsageError: It cannot.
    """
    if not NAME.fullmatch(name):
        hint = f"letters, digits, '_', '-', '.', {LONGEST_NAME} at most, no '.' first"
        raise UsageError(f"not {what}'s name: {name!r}", hint=hint)
    return name


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
