"""Folders that are whole or absent: filled aside and renamed into place, and removed when their process died first."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from distill.errors import DistillError
from distill.files import PARTIAL_SUFFIX
from distill.runs import Lock, owner_is_dead

__all__ = ["folder_aside"]

_LOCK_SUFFIX = ".lock"


@contextlib.contextmanager
def folder_aside(folder: Path) -> Iterator[Path]:
    """An empty hidden folder beside ``folder``, removed on the way out unless it was renamed.

    A lock beside it tells that somebody is at work; folders whose process died are removed first.

    Raises:
        OSError: It cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_dead(folder.parent)
    aside = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}{PARTIAL_SUFFIX}")
    lock = Lock(aside.with_name(aside.name + _LOCK_SUFFIX), subject=str(aside))
    with contextlib.suppress(DistillError):  # without one, the folder only stays longer after a death
        lock.acquire()
    try:
        aside.mkdir()
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        lock.release()


def _remove_dead(parent: Path) -> None:
    for lock in parent.glob(f".*{PARTIAL_SUFFIX}{_LOCK_SUFFIX}"):
        if owner_is_dead(lock):
            shutil.rmtree(lock.with_name(lock.name.removesuffix(_LOCK_SUFFIX)), ignore_errors=True)
            with contextlib.suppress(OSError):
                lock.unlink()
