"""Checkpoints are written by a thread where another device trains, which has better to do than to wait for a disk."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from distill.events import CheckpointSaved

__all__ = ["Saver", "saving", "snapshot", "writes_behind"]

T = TypeVar("T")
Write = Callable[[], CheckpointSaved]


def writes_behind(device: torch.device) -> bool:
    """Whether checkpoints are written while training goes on; on a CPU the thread would take what it saves."""
    return device.type != "cpu"


def snapshot(state: T) -> T:
    """Nested dicts, lists and tuples with copies of their tensors on the CPU: what training does next changes none."""
    copied: Any = state
    if isinstance(state, Tensor):
        copied = state.detach().to("cpu", copy=True)
    elif isinstance(state, dict):
        kind = OrderedDict if isinstance(state, OrderedDict) else dict
        copied = kind((key, snapshot(value)) for key, value in state.items())
    elif isinstance(state, list | tuple):
        copied = type(state)(snapshot(value) for value in state)
    return copied


class Saver:
    """Writes one checkpoint after the other, never two at a time; what went wrong is raised at the next look.

    Args:
        behind: In a thread; else at once.
    """

    def __init__(self, *, behind: bool) -> None:
        self.behind = behind
        self._thread = ThreadPoolExecutor(1, "distill-saver") if behind else None
        self._pending: Future[CheckpointSaved] | None = None

    def write(self, write: Write) -> Iterator[CheckpointSaved]:
        """Begin to write, once the one before is whole; tells what is whole now.

        Raises:
            DistillError: The one before, or where nothing is done behind this one, could not be written.
        """
        yield from self.written(wait=True)
        if self._thread is None:
            yield write()
        else:
            self._pending = self._thread.submit(write)

    def written(self, *, wait: bool = False) -> Iterator[CheckpointSaved]:
        """The checkpoint that became whole since the last look, if any.

        Args:
            wait: Until it is.

        Raises:
            DistillError: It could not be written.
        """
        if self._pending is not None and (wait or self._pending.done()):
            pending, self._pending = self._pending, None
            yield pending.result()

    def close(self) -> None:
        """Wait for what is being written: whoever holds the run's lock lets go of it next."""
        if self._thread is not None:
            self._thread.shutdown(wait=True)


@contextmanager
def saving(saver: Saver) -> Iterator[Saver]:
    """Nothing is being written behind this block, however it ends."""
    try:
        yield saver
    finally:
        saver.close()
