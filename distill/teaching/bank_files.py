"""The files of a bank: how they are called, which of them are distill's, and what they take.

```text
<bank>/bank.json                    the key, the teacher, the classes, a checksum for every file
<bank>/views/00000-000.npy ...      view 0, images 0 and on: (images, classes + features), at most 15 MB each
<bank>/test_logits.npy              the teacher on the test set, float32
<bank>/lock.json                    while somebody writes
<bank>/views/00000-000.npy.lock     while somebody asks about what will be in that file
```
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from distill.files import PARTIAL_SUFFIX

__all__ = [
    "INFO",
    "LOCK",
    "TEST_LOGITS",
    "VIEWS",
    "bank_bytes",
    "chunk_name",
    "claim_name",
    "claims",
    "is_answers",
    "is_plain_file",
    "sorted_out",
    "view_of",
]

INFO, LOCK, TEST_LOGITS, VIEWS = "bank.json", "lock.json", "test_logits.npy", "views"

_CHUNK = re.compile(rf"{VIEWS}/([0-9]{{5,}})-[0-9]{{3,}}\.npy")
_CLAIM = ".lock"
_PARTIAL = re.compile(rf"({VIEWS}/)?\.[^/]+\.[0-9a-f]{{12}}{re.escape(PARTIAL_SUFFIX)}")


def chunk_name(view: int, part: int) -> str:
    """Path, inside the bank, of a part of a view."""
    return f"{VIEWS}/{view:05d}-{part:03d}.npy"


def view_of(name: str) -> int | None:
    """The view that a file is a part of; None for other files.

    >>> view_of("views/00012-000.npy")
    12
    """
    match = _CHUNK.fullmatch(name)
    return int(match[1]) if match else None


def claim_name(name: str) -> str:
    """The lock of whoever makes a file, by its path inside the bank."""
    return f"{VIEWS}/{name.rpartition('/')[2]}{_CLAIM}"


def claims(folder: Path) -> list[Path]:
    """The locks of those who make files of a bank, living or dead."""
    found = sorted((folder / VIEWS).glob(f"*{_CLAIM}"))
    return [path for path in found if _is_claim(path.name) and is_plain_file(path)]


def _is_claim(name: str) -> bool:
    made = name.removesuffix(_CLAIM)
    return name.endswith(_CLAIM) and (made == TEST_LOGITS or view_of(f"{VIEWS}/{made}") is not None)


def is_answers(name: str) -> bool:
    """Whether a file of this name holds answers of the teacher: what ``bank.json`` keeps checksums of."""
    return name == TEST_LOGITS or view_of(name) is not None


def sorted_out(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files in a bank's folder that distill made, and everything else, folders named once; links are not followed.

    Locks are neither: whoever writes or deletes holds them.

    Raises:
        OSError: The folder cannot be listed.
    """
    ours: list[Path] = []
    left: list[Path] = []
    for path in _entries(folder):
        name = path.relative_to(folder).as_posix()
        if name != LOCK and not (path.parent != folder and _is_claim(path.name)):
            is_ours = name == INFO or is_answers(name) or _PARTIAL.fullmatch(name)
            (ours if is_ours and is_plain_file(path) else left).append(path)
    return ours, left


def bank_bytes(folder: Path) -> int:
    """What a bank's own files take on the disk."""
    return sum(path.lstat().st_size for path in sorted_out(folder)[0])


def _entries(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name == VIEWS and not path.is_symlink() and path.is_dir():
            yield from sorted(path.iterdir())
        else:
            yield path


def is_plain_file(path: Path) -> bool:
    """Whether it is a file itself: no link, no folder, no pipe."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False
