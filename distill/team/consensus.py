"""What the processes of one run decide together, over the CPU, so that no step waits for a device."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, distributed

from distill.team.stop import StopRequest

if TYPE_CHECKING:
    from distill.team.shares import Team

__all__ = ["Consensus"]

_SECONDS_BETWEEN_QUESTIONS = 0.2
_MAX_STEPS_BETWEEN = 64
_PATIENCE = timedelta(days=7)  # the others wait while the first process validates or saves

T = TypeVar("T")


class Consensus:
    """Stops and saves at the same step in every process; alone it costs nothing.

    A signal may reach one process only, and clocks differ: each step's end is a chance to ask everybody, taken about
    five times a second.
    """

    def __init__(self, team: Team) -> None:
        self.world_size, self.rank = team.world_size, team.rank
        self._group = _cpu_group() if self.world_size > 1 else None
        self._asked_at = time.monotonic()
        self._steps = self._interval = 1

    def ask(self, stop: StopRequest, *, save: bool = False, now: bool = False) -> tuple[bool, bool]:
        """Whether all stop here, and whether all save; ``stop`` may be set already in one that does not stop yet.

        Args:
            save: Whether this process would.
            now: Ask everybody at once, as at the end of an epoch; else only when it is time.
        """
        if self.world_size == 1:
            return bool(stop), save
        self._steps -= 1
        if self._steps > 0 and not now:
            return False, False
        elapsed = max(time.monotonic() - self._asked_at, 1e-3)
        interval = int(self._interval * _SECONDS_BETWEEN_QUESTIONS / elapsed)
        words = torch.tensor([stop.signal or 0, int(save), min(max(interval, 1), _MAX_STEPS_BETWEEN)])
        distributed.all_reduce(words, op=distributed.ReduceOp.MAX, group=self._group)
        number, any_save, self._interval = words.tolist()
        self._steps, self._asked_at = self._interval, time.monotonic()
        if number:  # else one may have come since
            stop.signal = number
        return bool(number), bool(any_save)

    def gather(self, value: T) -> list[T]:
        """The value of every process, by rank, in every process."""
        if self.world_size == 1:
            return [value]
        values: list[T | None] = [None] * self.world_size
        distributed.all_gather_object(values, value, group=self._group)
        return values  # type: ignore[return-value]

    def barrier(self) -> None:
        """Until every process is here."""
        self.gather(None)

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the first one's values."""
        if self.world_size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, src=0)


def _cpu_group() -> distributed.ProcessGroup | None:
    """The default group where it works on the CPU, else one beside it."""
    if distributed.get_backend() == "gloo":
        return None
    group = distributed.new_group(backend="gloo", timeout=_PATIENCE)
    assert not isinstance(group, int), "a group that leaves nobody out"
    return group
