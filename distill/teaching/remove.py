"""Delete a bank: the files that distill made, and nothing else."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

from distill.errors import RunError
from distill.files import writing
from distill.runs import Lock
from distill.teaching.bank_files import INFO, LOCK, VIEWS, claims, is_plain_file, sorted_out

__all__ = ["Removal", "is_bank", "remove_bank"]


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
    info, has_views = folder / INFO, (folder / VIEWS).is_dir()
    if folder.is_symlink() or not is_plain_file(info):
        return False
    try:
        document = json.loads(info.read_text())
    except (OSError, ValueError):
        return has_views  # a damaged description, beside its views
    if not isinstance(document, dict) or not document:
        return has_views
    return "format" in document and (has_views or "checksums" in document)


def remove_bank(folder: Path) -> Removal:
    """Delete a bank's files and, where nothing else is in it, its folder. Links are not followed.

    Raises:
        RunError: The folder is no bank, or a process is building it.
        DistillError: Something cannot be deleted.
    """
    if not is_bank(folder):
        raise RunError(f"{folder} is not a bank of distill's; nothing in it was deleted")
    with Lock(folder / LOCK, subject=str(folder)), writing(folder):
        for claim in claims(folder):
            with Lock(claim, subject=str(folder)):  # a dead one's goes, a living one refuses
                pass
        ours, left = sorted_out(folder)
        size = 0
        # bank.json goes last: a deletion that is cut short leaves a damaged bank, which can be deleted again.
        for path in sorted(ours, key=lambda path: path.name == INFO):
            size += path.lstat().st_size
            path.unlink()
    for emptied in (folder / VIEWS, folder):
        with contextlib.suppress(OSError):  # not empty, or a link
            emptied.rmdir()
    if folder.parent.name == "banks":
        with contextlib.suppress(OSError):
            folder.parent.rmdir()
    return Removal(folder, size, tuple(left))
