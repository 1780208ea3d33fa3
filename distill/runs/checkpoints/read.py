"""Read a checkpoint back, after comparing its bytes with their digests; nothing of it is ever executed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from distill.errors import RunError
from distill.runs.checkpoints.folder import MODEL_FILE, RECOVER, RESERVED, RESUME_FILE, linked, read_tree, verify

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Checkpoint", "load_checkpoint"]


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
        from distill.runs.checkpoints.tensors import read_resume

        path = self.path / RESUME_FILE
        verify(path, read_tree(self.path)["sha256"][RESUME_FILE])
        try:
            state = read_resume(path)
        except Exception as cause:  # forged bytes bring about any
            raise RunError(f"{path}: damaged: cannot be loaded safely", hint=RECOVER) from cause
        if not isinstance(state, dict):
            raise RunError(f"{path}: damaged: no state to resume from", hint=RECOVER)
        return state


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, by its folder or by a link to it, after comparing its bytes with their digests.

    Raises:
        RunError: A file of it is missing or damaged.
    """
    from distill.runs.checkpoints.tensors import read_model

    folder = path if path.is_dir() and not path.is_symlink() else linked(path) or path
    tree = read_tree(folder)
    model = folder / MODEL_FILE
    verify(model, tree["sha256"][MODEL_FILE])
    try:
        state = read_model(model)
    except (SafetensorError, OSError, ValueError, LookupError, RuntimeError) as cause:
        raise RunError(f"{model}: damaged: not readable as safetensors", hint=RECOVER) from cause
    meta = {key: value for key, value in tree.items() if key not in RESERVED}
    return Checkpoint(path=folder, epoch=tree["epoch"], step=tree["step"], meta=meta, model_state=state)
