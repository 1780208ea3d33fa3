"""A checkpoint is one folder, written aside as a whole, synced, and renamed into place.

``model.safetensors`` holds the weights, ``resume.pt`` what else it takes to go on, ``meta.json`` where training stood
and the digests of all three. ``last`` and ``best`` are links beside the folders, replaced atomically; a copy of a run
may have made text files or folders of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from torch import Tensor

from distill.errors import RunError
from distill.files import (
    PARTIAL_SUFFIX,
    follow_link,
    link_atomically,
    link_target,
    read_json,
    remove_partials,
    sha256_file,
    sync_file,
    sync_folder,
    writing,
)
from distill.runs import process_alive
from distill.train.tensor_files import assert_plain, read_model, read_resume, write_model, write_resume

__all__ = [
    "MODEL_FILE",
    "Checkpoint",
    "best_checkpoint",
    "is_whole",
    "last_checkpoint",
    "load_checkpoint",
    "prune",
    "read_meta",
    "save_checkpoint",
    "set_link",
]

MODEL_FILE, RESUME_FILE, META_FILE = "model.safetensors", "resume.pt", "meta.json"
_REPLACED_SUFFIX = ".replaced"
_NAME = re.compile(r"(?P<epoch>\d{6,})(?:-(?P<step>\d{6,}))?")
_HIDDEN = re.compile(rf"\.(?P<name>{_NAME.pattern})\.(?P<pid>\d+)(?P<kind>\.partial|\.replaced)")
_RESERVED = {"epoch", "step", "sha256"}
_RECOVER = "go on from another checkpoint of the run, or start the run anew"

LinkName = Literal["last", "best"]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose weights were verified and read.

    ``epoch`` epochs and then ``step`` steps of the next were behind it. ``model_state`` are CPU tensors that own their
    memory; ``meta`` is what the loop noted.
    """

    path: Path
    epoch: int
    step: int
    meta: dict[str, Any]
    model_state: dict[str, Tensor]

    def load_resume(self) -> dict[str, Any]:
        """What else it takes to go on, tensors on the CPU; nothing but tensors and plain values is ever unpickled.

        Raises:
            RunError: resume.pt is missing or damaged.
        """
        path = self.path / RESUME_FILE
        _verify(path, _read_tree(self.path)["sha256"][RESUME_FILE])
        try:
            state = read_resume(path)
        except Exception as cause:  # forged bytes bring about any
            raise RunError(f"{path}: damaged: cannot be loaded safely", hint=_RECOVER) from cause
        if not isinstance(state, dict):
            raise RunError(f"{path}: damaged: no state to resume from", hint=_RECOVER)
        return state


def save_checkpoint(
    folder: Path,
    *,
    epoch: int,
    step: int,
    model_state: Mapping[str, Tensor],
    resume_state: dict[str, Any],
    meta: dict[str, Any],
) -> Path:
    """Write a checkpoint into ``folder`` (a run's ``checkpoints``); the same state gives the same model.safetensors.

    Args:
        epoch: Whole epochs behind it.
        step: Steps done in the next epoch; 0 at an epoch's end.
        resume_state: Nested dicts, lists and tuples of tensors, numbers, text and None.
        meta: JSON values, kept beside ``epoch`` and ``step``.

    Raises:
        DistillError: The disk is full, or permission is missing; everything is as it was.
        RunError: ``meta`` has a number that is not finite.
    """
    assert not _RESERVED & meta.keys(), f"meta uses a name of its own: {_RESERVED & meta.keys()}"
    assert_plain(resume_state, "resume_state")
    target = folder / _folder_name(epoch, step)
    aside = folder / f".{target.name}.{os.getpid()}{PARTIAL_SUFFIX}"
    with writing(target):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        try:
            aside.mkdir()
            write_model(aside / MODEL_FILE, model_state)
            write_resume(aside / RESUME_FILE, resume_state)
            _write_meta(aside, target, {"epoch": epoch, "step": step} | meta)
            sync_folder(aside)
            _move(aside, target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        sync_folder(folder)
    return target


def _folder_name(epoch: int, step: int) -> str:
    return f"{epoch:06d}-{step:06d}" if step else f"{epoch:06d}"


def _write_meta(aside: Path, target: Path, meta: dict[str, Any]) -> None:
    digests = {name: sha256_file(aside / name) for name in (MODEL_FILE, RESUME_FILE)}
    try:
        tree = meta | {"sha256": digests | {"meta": _digest(meta)}}
        content = json.dumps(tree, indent=2, allow_nan=False) + "\n"
    except ValueError as cause:
        raise RunError(f"{target}: not finite, not written: {meta}") from cause
    (aside / META_FILE).write_bytes(content.encode())
    sync_file(aside / META_FILE)


def _digest(meta: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _move(aside: Path, target: Path) -> None:
    """Rename a whole folder into place; an older one, from before a kill, stays findable until the new one is there."""
    if not os.path.lexists(target):
        os.rename(aside, target)
        return
    if is_whole(target) and (aside / META_FILE).read_bytes() == (target / META_FILE).read_bytes():
        return  # the repeat made the same
    replaced = target.with_name(f".{target.name}.{os.getpid()}{_REPLACED_SUFFIX}")
    shutil.rmtree(replaced, ignore_errors=True)
    os.rename(target, replaced)
    try:
        os.rename(aside, target)
    except OSError:
        os.rename(replaced, target)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, by its folder or by a link to it, after comparing its bytes with their digests.

    Raises:
        RunError: A file of it is missing or damaged.
    """
    folder = path if path.is_dir() and not path.is_symlink() else _linked(path) or path
    tree = _read_tree(folder)
    model = folder / MODEL_FILE
    _verify(model, tree["sha256"][MODEL_FILE])
    try:
        state = read_model(model)
    except (SafetensorError, OSError, ValueError, LookupError, RuntimeError) as cause:
        raise RunError(f"{model}: damaged: not readable as safetensors", hint=_RECOVER) from cause
    meta = {key: value for key, value in tree.items() if key not in _RESERVED}
    return Checkpoint(path=folder, epoch=tree["epoch"], step=tree["step"], meta=meta, model_state=state)


def read_meta(path: Path) -> dict[str, Any]:
    """``epoch``, ``step`` and what the loop noted, without the weights.

    Raises:
        RunError: meta.json is missing or damaged.
    """
    tree = _read_tree(path)
    return {key: value for key, value in tree.items() if key != "sha256"}


def _read_tree(folder: Path) -> dict[str, Any]:
    path = folder / META_FILE
    tree = read_json(path, hint=_RECOVER)
    digests = tree.get("sha256")
    numbers = all(type(tree.get(key)) is int and tree[key] >= 0 for key in ("epoch", "step"))
    names = {MODEL_FILE, RESUME_FILE, "meta"}
    if not numbers or not isinstance(digests, dict) or digests.keys() != names:
        raise RunError(f"{path}: damaged: epoch, step or sha256 is missing", hint=_RECOVER)
    if digests["meta"] != _digest({key: value for key, value in tree.items() if key != "sha256"}):
        raise RunError(f"{path}: damaged: its bytes are not those that were written", hint=_RECOVER)
    return tree


def _verify(path: Path, digest: str) -> None:
    if not path.is_file():
        raise RunError(f"{path}: missing", hint=_RECOVER)
    try:
        found = sha256_file(path)
    except OSError as cause:
        raise RunError(f"{path}: cannot be read: {cause.strerror}", hint=_RECOVER) from cause
    if found != digest:
        raise RunError(f"{path}: damaged: its bytes are not those that were written", hint=_RECOVER)


def is_whole(path: Path) -> bool:
    """Whether every file of a checkpoint has the bytes that were written."""
    try:
        digests = _read_tree(path)["sha256"]
        for name in (MODEL_FILE, RESUME_FILE):
            _verify(path / name, digests[name])
    except RunError:
        return False
    return True


def set_link(folder: Path, link: LinkName, target: Path) -> None:
    """Point ``last`` or ``best`` at a checkpoint in ``folder``, in one step."""
    assert target.parent == folder, f"{target} is not in {folder}"
    assert _NAME.fullmatch(target.name), f"{target} is no checkpoint"
    if _is_copy(folder / link):
        with writing(folder / link):
            os.rename(folder / link, folder / f".{link}.{os.getpid()}{_REPLACED_SUFFIX}")
    link_atomically(folder / link, target.name)


def last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint to go on from: what ``last`` points at or, where that is lost, the newest whole one; or None."""
    linked = _pointed(folder, "last")
    if linked is not None:
        return linked
    return next((path for path in reversed(_found(folder)) if is_whole(path)), None)


def best_checkpoint(folder: Path) -> Path:
    """The checkpoint that ``best`` points at.

    Raises:
        RunError: There is none.
    """
    linked = _pointed(folder, "best")
    if linked is None:
        raise RunError(
            f"{folder / 'best'}: there is no such checkpoint", hint="the run has not come that far: resume it"
        )
    return linked


def _pointed(folder: Path, link: LinkName) -> Path | None:
    """What ``last`` or ``best`` leads to; where a copy that follows links made a folder of it, what that holds."""
    if (linked := _linked(folder / link)) is not None:
        return linked
    copy = next((path for path in (folder / link, *_replaced(folder, link)) if _is_copy(path)), None)
    return None if copy is None else _original(copy)


def _is_copy(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and (path / META_FILE).is_file()


def _original(copy: Path) -> Path:
    """The checkpoint beside a copy of it; the copy itself, where that is not there any more."""
    with contextlib.suppress(RunError, OSError):
        meta = read_meta(copy)
        original = copy.parent / _folder_name(meta["epoch"], meta["step"])
        if (original / META_FILE).read_bytes() == (copy / META_FILE).read_bytes():
            return original
    return copy


def _replaced(folder: Path, link: LinkName) -> list[Path]:
    """Copies that stood in the place of a link until one was made."""
    return [path for path in _entries(folder) if path.name.startswith(f".{link}.") and path.suffix == _REPLACED_SUFFIX]


def _linked(link: Path) -> Path | None:
    """What a link leads to; a process that died while replacing it has left it aside."""
    path, name = follow_link(link), link_target(link)
    if path is not None or name is None:
        return path
    aside = [
        path for path, match in _hidden(link.parent) if match["name"] == name and match["kind"] == _REPLACED_SUFFIX
    ]
    return aside[0] if aside else None


def _found(folder: Path) -> list[Path]:
    """Checkpoints by epoch and step, with those left aside whose replacement never came."""
    found = {path.name: path for path in _entries(folder) if _NAME.fullmatch(path.name) and path.is_dir()}
    for path, match in _hidden(folder):
        if match["kind"] == _REPLACED_SUFFIX:
            found.setdefault(match["name"], path)
    return [found[name] for name in sorted(found, key=_position)]


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


def prune(folder: Path) -> None:
    """Remove checkpoints that neither ``last`` nor ``best`` points at, and what dead processes left half-written.

    Only the holder of the run's lock may call this. Without a ``last`` that leads somewhere, every checkpoint stays.
    Failing to remove is no error.
    """
    remove_partials(folder, "last", "best")
    for path, match in _hidden(folder):
        is_needed = match["kind"] == _REPLACED_SUFFIX and not (folder / match["name"]).exists()
        pid = int(match["pid"])
        if not is_needed and (pid == os.getpid() or not process_alive(pid)):
            shutil.rmtree(path, ignore_errors=True)
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
