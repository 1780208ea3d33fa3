"""Networks that come trained, by name: the weights of a finished run in half precision, and what is known of them.

A folder below ``distill/released`` holds run.json, recipe.yaml, result.json, model.safetensors, meta.json (of the
checkpoint, with its digests), NOTICE.md and, where it is not distill's own, the licence. Asked for where no run has its
name, it is copied to where that run would be; from there it is a run like any other, but for training on.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from distill.errors import RunError
from distill.files import link_atomically, read_json, writing
from distill.runs.checkpoints.folder import META_FILE, MODEL_FILE, folder_name

__all__ = ["RELEASED", "assemble", "copy_released", "released_networks"]

RELEASED = Path(__file__).resolve().parents[1] / "released"
_OF_THE_RUN = ("recipe.yaml", "result.json", "NOTICE.md", "run.json")
_AT_TIMES = ("LICENSE",)  # of weights that began as somebody else's
_AGAIN = "install distill again"


def released_networks() -> dict[str, Path]:
    """Every network that comes trained: its recipe's name to its folder, sorted by name."""
    files = sorted(RELEASED.glob(f"*/{MODEL_FILE}"))
    return {path.parent.name: path.parent for path in files}


def copy_released(name: str, runs_dir: Path) -> Path | None:
    """The folder of a run made of what comes with distill; None where nothing of that name does.

    It appears as a whole or not at all.

    Raises:
        RunError: What came with distill is not whole any more.
        DistillError: It cannot be written.
    """
    source = released_networks().get(name)
    if source is None:
        return None
    for file in (META_FILE, MODEL_FILE, *_OF_THE_RUN):
        if not (source / file).is_file():
            raise RunError(f"{source / file}: missing", hint=_AGAIN)
    parent = runs_dir / name
    with writing(parent):
        parent.mkdir(parents=True, exist_ok=True)
    aside = parent / f".released.{os.getpid()}.partial"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        with writing(aside):
            assemble(source, aside)
            return _settle(aside, parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def assemble(source: Path, target: Path) -> None:
    """Lay the files of ``source`` out as a run's folder, at ``target``, which is not there yet."""
    meta = read_json(source / META_FILE, hint=_AGAIN)
    checkpoint = target / "checkpoints" / folder_name(meta["epoch"], meta["step"])
    checkpoint.mkdir(parents=True)
    for name in (META_FILE, MODEL_FILE):
        shutil.copyfile(source / name, checkpoint / name)
    for link in ("last", "best"):
        link_atomically(checkpoint.parent / link, checkpoint.name)
    for name in (*_OF_THE_RUN, *(name for name in _AT_TIMES if (source / name).is_file())):
        shutil.copyfile(source / name, target / name)


def _settle(aside: Path, parent: Path) -> Path:
    """Give the folder the first number that is free."""
    number = 1
    while True:
        path = parent / f"{number:03d}"
        number += 1
        if not path.exists():
            try:
                aside.rename(path)
            except OSError:
                if not path.exists():  # or another process took the number a moment ago
                    raise
            else:
                return path
