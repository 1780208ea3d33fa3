"""Folders that are whole or absent: filled aside and renamed into place, and removed when their process died first."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from distill.errors import DistillError, RunError
from distill.events import Note, Tell
from distill.files import PARTIAL_SUFFIX
from distill.runs import Lock, owner_is_dead

__all__ = ["atomic_folder", "remove_abandoned", "resumable_folder", "resumable_path"]

_LOCK_SUFFIX = ".lock"
_RESUMABLE_SUFFIX = ".going"
_ABANDONED_SECONDS = 7 * 24 * 3600
_PATIENCE_S = 24 * 3600.0


@contextlib.contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
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


def resumable_path(parent: Path, name: str) -> Path:
    """Where :func:`resumable_folder` lets be filled what will be whole later."""
    return parent / f".{name}{_RESUMABLE_SUFFIX}"


@contextlib.contextmanager
def resumable_folder(parent: Path, name: str, tell: Tell) -> Iterator[Path]:
    """A hidden folder that stays when its process is stopped, for the next one; renamed, it is gone.

    Where another process is at work in it, that is told, and waited for.

    Raises:
        OSError: It cannot be made.
    """
    parent.mkdir(parents=True, exist_ok=True)
    folder = resumable_path(parent, name)
    lock = Lock(folder.with_name(folder.name + _LOCK_SUFFIX), subject=str(folder))
    try:
        lock.acquire()
    except RunError as busy:
        tell(Note(f"{busy.message}: waiting for it"))
        lock.wait_s = _PATIENCE_S
        lock.acquire()
    try:
        folder.mkdir(exist_ok=True)
        yield folder
    finally:
        lock.release()


def remove_abandoned(parent: Path) -> None:
    """Drop what was begun, and not gone on with for a week."""
    for folder in parent.glob(f".*{_RESUMABLE_SUFFIX}"):
        lock = folder.with_name(folder.name + _LOCK_SUFFIX)
        with contextlib.suppress(OSError):
            newest = max(path.stat().st_mtime for path in [folder, *folder.iterdir()])
            if time.time() - newest > _ABANDONED_SECONDS and (not lock.exists() or owner_is_dead(lock)):
                shutil.rmtree(folder, ignore_errors=True)
                lock.unlink(missing_ok=True)


def _remove_dead(parent: Path) -> None:
    for lock in parent.glob(f".*{PARTIAL_SUFFIX}{_LOCK_SUFFIX}"):
        if owner_is_dead(lock):
            shutil.rmtree(lock.with_name(lock.name.removesuffix(_LOCK_SUFFIX)), ignore_errors=True)
            with contextlib.suppress(OSError):
                lock.unlink()
