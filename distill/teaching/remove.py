"""Delete a bank: the files that distill made, and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from distill.errors import RunError
from distill.files import PARTIAL_SUFFIX, writing
from distill.runs import Lock

__all__ = ["Removal", "is_bank", "remove_bank"]

_LOCK, _INFO = "lock.json", "bank.json"
_PARTIAL = rf"\.[^/]+\.[0-9a-f]{{12}}{re.escape(PARTIAL_SUFFIX)}"
_OURS = re.compile(rf"bank\.json|lock\.json|test_logits\.npy|views/[0-9]{{5,}}-[0-9]{{3,}}\.npy|(views/)?{_PARTIAL}")


@dataclass(frozen=True)
class Removal:
    """What became of a bank.

    Attributes:
        size_bytes: How much was deleted.
        left: What lay in the folder and is not distill's: it is still there, and so is the folder.
    """

    path: Path
    size_bytes: int
    left: tuple[Path, ...]


def is_bank(folder: Path) -> bool:
    """Whether distill made this folder as a bank, damaged or not; a link to one is none."""
    info = folder / _INFO
    if folder.is_symlink() or not _is_plain_file(info) or not (folder / "views").is_dir():
        return False
    try:
        document = json.loads(info.read_text())
    except (OSError, ValueError):
        return True  # a damaged description, beside its views
    return not isinstance(document, dict) or "format" in document or not document


def remove_bank(folder: Path) -> Removal:
    """Delete a bank's files and, where nothing else is in it, its folder. Links are not followed.

    Raises:
        RunError: The folder is no bank, or a process is building it.
        DistillError: Something cannot be deleted.
    """
    if not is_bank(folder):
        raise RunError(f"{folder} is not a bank of distill's; nothing in it was deleted")
    with Lock(folder / _LOCK, subject=str(folder)), writing(folder):
        ours, left = _sorted_out(folder)
        size = 0
        # bank.json goes last: a deletion that is cut short leaves a damaged bank, which can be deleted again.
        for path in sorted(ours, key=lambda path: path.name == _INFO):
            size += path.lstat().st_size
            path.unlink()
    for emptied in (folder / "views", folder):
        with contextlib.suppress(OSError):  # not empty, or a link
            emptied.rmdir()
    if folder.parent.name == "banks":
        with contextlib.suppress(OSError):
            folder.parent.rmdir()
    return Removal(folder, size, tuple(left))


def _sorted_out(folder: Path) -> tuple[list[Path], list[Path]]:
    """Files that distill made, and everything else, folders named once."""
    ours, left = [], []
    for path in _entries(folder):
        name = path.relative_to(folder).as_posix()
        if name == _LOCK:
            continue  # held, and gone when it is given back
        (ours if _OURS.fullmatch(name) and _is_plain_file(path) else left).append(path)
    return ours, left


def _entries(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name == "views" and not path.is_symlink() and path.is_dir():
            yield from sorted(path.iterdir())
        else:
            yield path


def _is_plain_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False
