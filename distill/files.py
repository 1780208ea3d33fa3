"""Files that are whole or absent: written aside, synced, then renamed into place."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["link_atomically", "sha256_file", "sync_folder", "write_atomically", "write_json", "write_with"]


def sync_folder(folder: Path) -> None:
    """Ask the file system to keep the folder's entries (a no-op where folders cannot be synced)."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_with(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a file beside ``path``, sync it, and rename it to ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    os.close(handle)
    aside = Path(name)
    try:
        write(aside)
        with open(aside, "rb+") as file:
            os.fsync(file.fileno())
        aside.chmod(0o666 & ~_umask())  # mkstemp's 0600 would hide results from a group
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write ``content`` (text as UTF-8) so that ``path`` is either as before or whole."""
    data = content.encode() if isinstance(content, str) else content
    write_with(path, lambda aside: aside.write_bytes(data) and None)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, NaN and infinity refused."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def link_atomically(link: Path, target: str) -> None:
    """Make ``link`` a relative symbolic link to ``target``, replacing an older link in one step."""
    aside = link.with_name(f".{link.name}.{os.getpid()}.partial")
    aside.unlink(missing_ok=True)
    os.symlink(target, aside)
    os.replace(aside, link)
    sync_folder(link.parent)


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
