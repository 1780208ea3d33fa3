"""Files that are whole or absent: written aside, synced, then renamed into place. Failures become one line."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

from distill.errors import DistillError, RunError, UsageError
from distill.text import first_line

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "PARTIAL_SUFFIX",
    "expanded",
    "files_identity",
    "follow_link",
    "has_controls",
    "in_the_way",
    "json_sha256",
    "link_atomically",
    "link_target",
    "may_write",
    "read_json",
    "read_text",
    "refuse_to_replace",
    "regular",
    "relative",
    "remove_partials",
    "save_array",
    "sha256_file",
    "sync_file",
    "sync_folder",
    "write_atomically",
    "write_export",
    "write_json",
    "write_with",
    "writing",
]

PARTIAL_SUFFIX = ".partial"  # what a killed process leaves behind is hidden and ends so
_NO_SPACE = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_SYNC = (errno.EINVAL, getattr(errno, "ENOTSUP", errno.EINVAL), errno.ENOSYS, errno.EBADF)  # some network folders
_NO_LINKS = (errno.EPERM, getattr(errno, "ENOTSUP", errno.EPERM), errno.EOPNOTSUPP, errno.ENOSYS)  # exFAT, cloud drives
_LINK_TEXT_MAX = 255
_ABANDONED_S = 24 * 3600.0  # nobody is at one file for so long
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


@contextlib.contextmanager
def writing(path: Path, *, elsewhere: str | None = None) -> Iterator[None]:
    """Turn what the operating system refuses while ``path`` is written into one line that names it.

    Args:
        elsewhere: How to have it written to another place, where the user did not name this one.

    Raises:
        DistillError: ``cannot write PATH: No space left on device``, with a hint.
    """
    try:
        yield
    except OSError as error:
        raise _cannot_write(path, error, elsewhere) from error


def _cannot_write(path: Path, error: OSError, elsewhere: str | None) -> DistillError:
    hint = None
    if error.errno in _NO_SPACE:
        other = "" if elsewhere is None else f", or {elsewhere}"
        hint = f"free some space there{other}, then repeat the command; what was there before is as it was"
    elif error.errno in _NOT_ALLOWED:
        hint = f"make the folder writable, or {elsewhere or 'choose another'}"
    elif (above := in_the_way(path)) is not None:
        what = "a file, not a folder" if above.is_file() else "no folder"  # a link that leads nowhere
        return DistillError(f"cannot write {path}: {above} is {what}", hint="choose another place")
    return DistillError(f"cannot write {path}: {error.strerror or error}", hint=hint)


def in_the_way(path: Path) -> Path | None:
    """What stands where one of the folders above ``path`` would be, and is none."""
    return next((each for each in path.parents if os.path.lexists(each) and not each.is_dir()), None)


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with the home folder that ``~`` or ``~user`` at its start means; as it is where there is none such."""
    return Path(os.path.expanduser(path))


def files_identity(root: Path, paths: Iterable[str]) -> list[list[str | int]]:
    """Path, size and times of every file: the time of change too, because copying tools set the other one back."""
    identity: list[list[str | int]] = []
    for path in paths:
        try:
            status = os.stat(root / path)
            identity.append([path, status.st_size, status.st_mtime_ns, status.st_ctime_ns])
        except OSError as error:  # a dangling link; reading it will say so
            identity.append([path, str(error.strerror)])
    return identity


def may_write(folder: Path) -> bool:
    """Whether files can be made in ``folder``, or, where it does not exist, in the nearest one above it that does."""
    nearest = next(each for each in (folder, *folder.parents) if each.exists())
    return os.access(nearest, os.W_OK)


def sync_file(path: Path) -> None:
    """Wait until the file's bytes are on the disk."""
    with open(path, "rb+") as file:
        _sync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Ask the file system to keep the folder's entries (a no-op where folders cannot be synced)."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows
        return
    try:
        _sync(handle)
    finally:
        os.close(handle)


def _sync(handle: int) -> None:
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def write_with(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a file beside ``path``, sync it, and rename it to ``path``.

    Raises:
        DistillError: The disk is full or the folder cannot be written; ``path`` is as before.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not tempfile: its 0600 would hide results from a group, and to ask for the umask is to change it for a moment.
        aside = path.with_name(f".{path.name}.{secrets.token_hex(6)}{PARTIAL_SUFFIX}")
        try:
            os.close(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            write(aside)
            sync_file(aside)
            os.replace(aside, path)
        finally:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
        sync_folder(path.parent)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write ``content`` (text as UTF-8, its line ends as they are) so that ``path`` is either as before or whole."""
    data = content.encode() if isinstance(content, str) else content
    write_with(path, lambda aside: aside.write_bytes(data))


def write_export(path: Path, content: bytes) -> None:
    """As :func:`write_atomically`, where nobody has the folder's lock: what killed writers of ``path`` left there goes.

    That of the last day stays: it may be another process's, at work.
    """
    remove_partials(path.parent, path.name, older_than_s=_ABANDONED_S)
    write_atomically(path, content)


def save_array(path: Path, array: np.ndarray) -> None:
    """The bytes of ``np.save``, into a file of any name. Not whole or absent by itself: ``write_with`` makes it so.

    Raises:
        OSError: The system's own: into a file that it knows, numpy writes in C and loses the error's number.
    """
    import numpy as np

    with open(path, "wb") as file:
        np.save(SimpleNamespace(write=file.write), array, allow_pickle=False)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, NaN and infinity refused."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def json_sha256(tree: Any) -> str:
    """Hex sha256 of what JSON makes of ``tree``: tuples are lists, and the order of keys does not count."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True, allow_nan=False).encode()).hexdigest()


def regular(path: Path) -> Path:
    """The same path, to be opened: opening a pipe waits until somebody writes into it, and a device may never end.

    Raises:
        OSError: Something is there that is no regular file.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path


def refuse_to_replace(path: Path, *, ours: Callable[[bytes], bool], why: str, overwrite: bool) -> None:
    """Keep what is at ``path`` and is not of our making.

    Args:
        ours: Whether what is there, its bytes, may be replaced.
        why: What is said of it if not.
        overwrite: It may be, whatever it is.

    Raises:
        UsageError: It may not.
    """
    if overwrite or not path.exists():
        return
    with contextlib.suppress(OSError):
        if ours(regular(path).read_bytes()):
            return
    raise UsageError(f"{path} is there, and {why}", hint="another name, or --overwrite")


def relative(path: str | os.PathLike[str], start: str | os.PathLike[str] = os.curdir) -> str:
    """The way from a folder to a path; the whole path where there is none, as between two drives of Windows."""
    try:
        return os.path.relpath(path, start)
    except ValueError:
        return os.path.abspath(path)


def read_text(path: Path, *, error: type[DistillError] = RunError, hint: str | None = None) -> str:
    """The UTF-8 text of a regular file.

    Raises:
        DistillError: As ``error``: the file is missing, unreadable, not a file, or not UTF-8.
    """
    try:
        if not path.is_file() and path.exists():  # a pipe or a device would block for ever
            raise error(f"{path}: not a file", hint=hint)
        return path.read_bytes().decode()
    except FileNotFoundError as cause:
        raise error(f"{path}: missing", hint=hint) from cause
    except OSError as cause:
        raise error(f"{path}: cannot be read: {cause.strerror or cause}", hint=hint) from cause
    except UnicodeDecodeError as cause:
        raise error(f"{path}: damaged: not UTF-8 text (byte {cause.start})", hint=hint) from cause


def read_json(path: Path, *, error: type[DistillError] = RunError, hint: str | None = None) -> dict[str, Any]:
    """The JSON object in a file, NaN and infinity refused.

    Raises:
        DistillError: As ``error``: the file is missing, unreadable, no JSON, or no object.
    """
    text = read_text(path, error=error, hint=hint)
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as cause:
        raise error(f"{path}: damaged: not JSON ({first_line(cause)})", hint=hint) from cause
    if not isinstance(value, dict):
        raise error(f"{path}: damaged: a JSON object was expected", hint=hint)
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def link_atomically(link: Path, target: str) -> None:
    """Make ``link`` a relative symbolic link to ``target``, replacing an older link in one step.

    Where the file system has no symbolic links, a small file with the target's name takes its place;
    :func:`follow_link` reads both.

    Raises:
        DistillError: The link cannot be made, or something that is no link has its name.
    """
    aside = link.with_name(f".{link.name}.{secrets.token_hex(6)}{PARTIAL_SUFFIX}")
    with writing(link):
        try:
            _symlink_or_text(aside, target)
            os.replace(aside, link)
        finally:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
        sync_folder(link.parent)


def _symlink_or_text(path: Path, target: str) -> None:
    try:
        os.symlink(target, path)
    except (OSError, NotImplementedError) as error:
        if os.name != "nt" and getattr(error, "errno", None) not in _NO_LINKS:
            raise
        path.write_bytes(f"{target}\n".encode())
        sync_file(path)


def link_target(link: Path) -> str | None:
    """The name that a link of :func:`link_atomically` holds, there or not; None if it is no such link."""
    try:
        if link.is_symlink():
            target = os.readlink(link)
        elif link.is_file() and link.stat().st_size <= _LINK_TEXT_MAX:
            target = link.read_bytes().decode().removesuffix("\n")
        else:
            return None
    except (OSError, ValueError):
        return None
    is_beside = target not in ("", ".", "..") and target == Path(target).name
    return target if is_beside else None  # a link never leaves its folder


def follow_link(link: Path) -> Path | None:
    """What a link of :func:`link_atomically` leads to; None if it is missing, dangling, or leaves its folder."""
    target = link_target(link)
    if target is None:
        return None
    path = link.with_name(target)
    return path if os.path.lexists(path) and not path.is_symlink() else None


def remove_partials(folder: Path, *names: str, older_than_s: float = 0.0) -> None:
    """Remove the hidden files and links that killed writers of ``names`` (of any name, if none is given) left there.

    Only the one writer of ``folder`` may call this; where there may be others, ``older_than_s`` spares what they write.
    """
    with contextlib.suppress(OSError):
        drawn = "[0-9a-f]" * 12
        for pattern in [f"{glob.escape(name)}.{drawn}" for name in names] or ["*.*"]:
            for path in folder.glob(f".{pattern}{PARTIAL_SUFFIX}"):
                is_old = not older_than_s or time.time() - path.lstat().st_mtime > older_than_s
                if is_old and (path.is_symlink() or path.is_file()):
                    path.unlink(missing_ok=True)


def has_controls(text: str) -> bool:
    """Whether text, a path for instance, has control characters or bytes that are no UTF-8: no recipe can hold it."""
    return _CONTROL.search(text) is not None


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes.

    Raises:
        OSError: It cannot be read, or is no regular file.
    """
    with open(regular(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
