"""Where decoded images have room: kept on the disk and mapped, or decoded anew for every batch."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from distill.recipe.schema import DataSpec

__all__ = ["StorageDecision", "choose_place", "free_memory"]


@dataclass(frozen=True)
class StorageDecision:
    """Whether images are kept; ``why`` is a line for the user, where it is worth one."""

    kept: bool
    why: str | None = None


def choose_place(spec: DataSpec, needed: int, arrays: Path, *, there: int) -> StorageDecision:
    """Settle ``data.decoded``.

    Args:
        needed: Bytes that all decoded images take.
        arrays: Where they would be kept.
        there: Bytes of them that are kept already.
    """
    size = f"decoded images take {needed / 1e9:,.1f} GB"
    if spec.decoded == "per_batch":
        return StorageDecision(False, f"{size}: decoded anew for every batch (data.decoded: per_batch)")
    free = shutil.disk_usage(_existing(arrays)).free
    if spec.decoded == "auto" and needed - there > free:
        where = f"{arrays} has {free / 1e9:,.1f} GB free"
        return StorageDecision(False, f"{size} and {where}: pictures are decoded anew for every batch, which is slower")
    memory = free_memory()
    if memory is not None and needed > memory:
        return StorageDecision(
            True, f"{size} and {memory / 1e9:,.1f} GB of memory are free: they are read from the disk as needed"
        )
    return StorageDecision(True)


def free_memory() -> int | None:
    """Bytes that processes may take now without others being pushed out; None where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    folder = folder.absolute()
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder
