"""Write a checkpoint: aside as a whole folder, synced, and renamed into place."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.errors import RunError
from distill.files import PARTIAL_SUFFIX, json_sha256, sha256_file, sync_file, sync_folder, writing
from distill.runs.checkpoints.folder import (
    META_FILE,
    MODEL_FILE,
    REPLACED_SUFFIX,
    RESERVED,
    RESUME_FILE,
    folder_name,
    is_whole,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["save_checkpoint"]


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
    assert not RESERVED & meta.keys(), f"meta uses a name of its own: {RESERVED & meta.keys()}"
    from distill.runs.checkpoints.tensors import assert_plain, write_model, write_resume

    assert_plain(resume_state, "resume_state")
    target = folder / folder_name(epoch, step)
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


def _write_meta(aside: Path, target: Path, meta: dict[str, Any]) -> None:
    digests = {name: sha256_file(aside / name) for name in (MODEL_FILE, RESUME_FILE)}
    try:
        tree = meta | {"sha256": digests | {"meta": json_sha256(meta)}}
        content = json.dumps(tree, indent=2, allow_nan=False) + "\n"
    except ValueError as cause:
        raise RunError(f"{target}: not finite, not written: {meta}") from cause
    (aside / META_FILE).write_bytes(content.encode())
    sync_file(aside / META_FILE)


def _move(aside: Path, target: Path) -> None:
    """Rename a whole folder into place; an older one, from before a kill, stays findable until the new one is there."""
    if not os.path.lexists(target):
        os.rename(aside, target)
        return
    if is_whole(target) and (aside / META_FILE).read_bytes() == (target / META_FILE).read_bytes():
        return  # the repeat made the same
    replaced = target.with_name(f".{target.name}.{os.getpid()}{REPLACED_SUFFIX}")
    shutil.rmtree(replaced, ignore_errors=True)
    os.rename(target, replaced)
    try:
        os.rename(aside, target)
    except OSError:
        os.rename(replaced, target)
        raise
    shutil.rmtree(replaced, ignore_errors=True)
