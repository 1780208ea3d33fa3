"""Which checkpoints a run has: found, pointed at, verified, removed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path
from typing import Any, Literal

from distill.errors import RunError
from distill.files import (
    PARTIAL_SUFFIX,
    follow_link,
    json_sha256,
    link_atomically,
    link_target,
    read_json,
    remove_partials,
    sha256_file,
    writing,
)
from distill.runs.lock import process_alive

__all__ = [
    "META_FILE",
    "MODEL_FILE",
    "RECOVER",
    "REPLACED_SUFFIX",
    "RESERVED",
    "RESUME_FILE",
    "best_checkpoint",
    "folder_name",
    "is_whole",
    "last_checkpoint",
    "linked",
    "prune",
    "read_meta",
    "read_tree",
    "set_link",
    "verify",
]

MODEL_FILE, RESUME_FILE, META_FILE = "model.safetensors", "resume.pt", "meta.json"
REPLACED_SUFFIX = ".replaced"
RESERVED = {"epoch", "step", "sha256"}
RECOVER = "restore it from a copy; of an unfinished run it can be removed: --resume takes another, or starts over"
_NAME = re.compile(r"(?P<epoch>\d{6,})(?:-(?P<step>\d{6,}))?")
_HIDDEN = re.compile(rf"\.(?P<name>{_NAME.pattern})\.(?P<pid>\d+)(?P<kind>\.partial|\.replaced)")

LinkName = Literal["last", "best"]


def read_meta(path: Path) -> dict[str, Any]:
    """``epoch``, ``step`` and what the loop noted, without the weights.

    Raises:
        RunError: meta.json is missing or damaged.
    """
    tree = read_tree(path)
    return {key: value for key, value in tree.items() if key != "sha256"}


def read_tree(folder: Path) -> dict[str, Any]:
    """All of meta.json, digests too.

    Raises:
        RunError: It is missing or damaged.
    """
    path = folder / META_FILE
    tree = read_json(path, hint=RECOVER)
    digests = tree.get("sha256")
    numbers = all(type(tree.get(key)) is int and tree[key] >= 0 for key in ("epoch", "step"))
    names = {MODEL_FILE, RESUME_FILE, "meta"}
    if not numbers or not isinstance(digests, dict) or digests.keys() != names:
        raise RunError(f"{path}: damaged: epoch, step or sha256 is missing", hint=RECOVER)
    if digests["meta"] != json_sha256({key: value for key, value in tree.items() if key != "sha256"}):
        raise RunError(f"{path}: damaged: its bytes are not those that were written", hint=RECOVER)
    return tree


def verify(path: Path, digest: str) -> None:
    """Compare a file's bytes with their digest.

    Raises:
        RunError: It is missing, damaged, or cannot be read.
    """
    if not path.is_file():
        raise RunError(f"{path}: missing", hint=RECOVER)
    try:
        actual = sha256_file(path)
    except OSError as cause:
        raise RunError(f"{path}: cannot be read: {cause.strerror}", hint=RECOVER) from cause
    if actual != digest:
        raise RunError(f"{path}: damaged: its bytes are not those that were written", hint=RECOVER)


def is_whole(path: Path) -> bool:
    """Whether every file of a checkpoint has the bytes that were written."""
    try:
        digests = read_tree(path)["sha256"]
        for name in (MODEL_FILE, RESUME_FILE):
            verify(path / name, digests[name])
    except RunError:
        return False
    return True


def folder_name(epoch: int, step: int) -> str:
    """Of the checkpoint after ``epoch`` epochs and ``step`` steps of the next."""
    return f"{epoch:06d}-{step:06d}" if step else f"{epoch:06d}"


def set_link(folder: Path, link: LinkName, target: Path) -> None:
    """Point ``last`` or ``best`` at a checkpoint in ``folder``, in one step."""
    assert target.parent == folder, f"{target} is not in {folder}"
    assert _NAME.fullmatch(target.name), f"{target} is no checkpoint"
    if _is_copy(folder / link):
        with writing(folder / link):
            os.rename(folder / link, folder / f".{link}.{os.getpid()}{REPLACED_SUFFIX}")
    link_atomically(folder / link, target.name)


def last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint to go on from: what ``last`` points at or, where that is lost, the newest whole one; or None."""
    path = _pointed(folder, "last")
    if path is not None:
        return path
    return next((path for path in reversed(_found(folder)) if is_whole(path)), None)


def best_checkpoint(folder: Path) -> Path:
    """The checkpoint that ``best`` points at.

    Raises:
        RunError: There is none.
    """
    path = _pointed(folder, "best")
    if path is None:
        raise RunError(
            f"{folder / 'best'}: there is no such checkpoint",
            hint="resume it if it is unfinished; else restore it from a copy",
        )
    return path


def _pointed(folder: Path, link: LinkName) -> Path | None:
    """What ``last`` or ``best`` leads to; where a copy that follows links made a folder of it, what that holds."""
    if (path := linked(folder / link)) is not None:
        return path
    copy = next((path for path in (folder / link, *_replaced(folder, link)) if _is_copy(path)), None)
    return None if copy is None else _original(copy)


def _is_copy(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and (path / META_FILE).is_file()


def _original(copy: Path) -> Path:
    """The checkpoint beside a copy of it; the copy itself, where that is not there any more."""
    with contextlib.suppress(RunError, OSError):
        meta = read_meta(copy)
        original = copy.parent / folder_name(meta["epoch"], meta["step"])
        if (original / META_FILE).read_bytes() == (copy / META_FILE).read_bytes():
            return original
    return copy


def _replaced(folder: Path, link: LinkName) -> list[Path]:
    """Copies that stood in the place of a link until one was made."""
    return [path for path in _entries(folder) if path.name.startswith(f".{link}.") and path.suffix == REPLACED_SUFFIX]


def linked(link: Path) -> Path | None:
    """What a link leads to; a process that died while replacing it has left it aside."""
    path, name = follow_link(link), link_target(link)
    if path is not None or name is None:
        return path
    aside = [path for path, match in _hidden(link.parent) if match["name"] == name and match["kind"] == REPLACED_SUFFIX]
    return aside[0] if aside else None


def _found(folder: Path) -> list[Path]:
    """Checkpoints by epoch and step, with those left aside whose replacement never came."""
    folders = {path.name: path for path in _entries(folder) if _NAME.fullmatch(path.name) and path.is_dir()}
    for path, match in _hidden(folder):
        if match["kind"] == REPLACED_SUFFIX:
            folders.setdefault(match["name"], path)
    return [folders[name] for name in sorted(folders, key=_position)]


def _position(name: str) -> tuple[int, int]:
    match = _NAME.fullmatch(name)
    assert match is not None
    return int(match["epoch"]), int(match["step"] or 0)


def _hidden(folder: Path) -> list[tuple[Path, re.Match[str]]]:
    matches = ((path, _HIDDEN.fullmatch(path.name)) for path in _entries(folder))
    return [(path, match) for path, match in matches if match is not None]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def clear_half_written(folder: Path) -> None:
    """Remove what dead processes left half-written or half-removed. Only the holder of the run's lock may call this."""
    remove_partials(folder, "last", "best")
    for path, match in _hidden(folder):
        is_needed = match["kind"] == REPLACED_SUFFIX and not (folder / match["name"]).exists()
        pid = int(match["pid"])
        if not is_needed and (pid == os.getpid() or not process_alive(pid)):
            shutil.rmtree(path, ignore_errors=True)


def prune(folder: Path) -> None:
    """Remove checkpoints that neither ``last`` nor ``best`` points at, and what dead processes left half-written.

    Only the holder of the run's lock may call this. Without a ``last`` that leads somewhere, every checkpoint stays.
    Failing to remove is no error.
    """
    clear_half_written(folder)
    for link in ("last", "best"):
        for path in _replaced(folder, link) if os.path.lexists(folder / link) else ():
            shutil.rmtree(path, ignore_errors=True)
    kept = [_pointed(folder, link) for link in ("last", "best")]
    if kept[0] is None:
        return
    for path in _found(folder):
        if path not in kept and not path.name.startswith("."):
            _remove(path)


def _remove(path: Path) -> None:
    """Rename first: a folder that is half removed must not look like a checkpoint."""
    aside = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    with contextlib.suppress(OSError):
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(path, aside)
        shutil.rmtree(aside, ignore_errors=True)
