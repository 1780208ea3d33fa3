"""Which of several processes this one is, where torchrun started them. Nothing here imports torch."""

from __future__ import annotations

import os

__all__ = ["local_process_count", "process_count", "process_rank", "under_torchrun"]


def under_torchrun() -> bool:
    """Whether torchrun started this process, which then is one of ``process_count()``."""
    return {"TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"} <= os.environ.keys()


def process_rank() -> int:
    """The number of this process among those that torchrun started on all machines; 0 without torchrun.

    A plain ``RANK`` in the environment is not trusted: schedulers set it for purposes of their own.
    """
    return int(os.environ["RANK"]) if under_torchrun() else 0


def process_count() -> int:
    """How many processes torchrun started on all machines; 1 without torchrun."""
    return int(os.environ["WORLD_SIZE"]) if under_torchrun() else 1


def local_process_count() -> int:
    """How many of them run on this machine; 1 without torchrun."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if under_torchrun() else 1
