"""A checkpoint is one folder, written aside as a whole, synced, and renamed into place.

``model.safetensors`` holds the weights, ``resume.pt`` what else it takes to go on, ``meta.json`` where training stood
and the digests of all three. ``last`` and ``best`` are links beside the folders, replaced atomically; a copy of a run
may have made text files or folders of them. ``tensors.py`` alone needs torch, and is imported when tensors are moved.
"""

from __future__ import annotations

from distill.runs.checkpoints.folder import (
    MODEL_FILE,
    best_checkpoint,
    is_whole,
    last_checkpoint,
    prune,
    read_meta,
    set_link,
)
from distill.runs.checkpoints.read import Checkpoint, load_checkpoint
from distill.runs.checkpoints.write import save_checkpoint

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
