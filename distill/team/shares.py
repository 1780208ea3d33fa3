"""One process that works, or several: what the first one has, what all have, and which share of the images is whose."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from distill.team.watch import extended_silence_limit

__all__ = ["SINGLE_PROCESS", "Distributed", "SingleProcess", "Team", "shard_bounds"]

_T = TypeVar("_T")


class Team(Protocol):
    """The processes of one run; the one of rank 0 writes."""

    rank: int
    world_size: int

    @property
    def is_main_process(self) -> bool:
        """Whether this is the process that writes, validates and speaks."""
        ...

    def broadcast(self, value: _T) -> _T:
        """What the first process has, in every process."""
        ...

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in every process."""
        ...

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean over all processes, in every process."""
        ...

    def gather(self, rows: Tensor, count: int) -> Tensor:
        """In the first process the shares of all, ``(count, C)``, of ``(n, C)`` each; see :func:`shard_bounds`."""
        ...


def shard_bounds(team: Team, count: int) -> tuple[int, int]:
    """The rows of ``count`` that this process works on: ``(first, end)``, equal blocks, the last ones shorter.

    >>> shard_bounds(SINGLE_PROCESS, 10)
    (0, 10)
    """
    step = -(-count // team.world_size)
    return min(team.rank * step, count), min((team.rank + 1) * step, count)


class SingleProcess:
    """A single process."""

    rank, world_size, is_main_process = 0, 1, True

    def broadcast(self, value: _T) -> _T:
        return value

    def sum(self, tensor: Tensor) -> Tensor:
        return tensor

    def mean(self, tensor: Tensor) -> Tensor:
        return tensor

    def gather(self, rows: Tensor, count: int) -> Tensor:
        assert len(rows) == count
        return rows


SINGLE_PROCESS = SingleProcess()


class Distributed:
    """The processes that a launched ``lightning_fabric.Fabric`` joins."""

    def __init__(self, fabric: Any) -> None:
        self._fabric = fabric
        self.rank, self.world_size = fabric.global_rank, fabric.world_size

    @property
    def is_main_process(self) -> bool:
        return self.rank == 0

    def broadcast(self, value: _T) -> _T:
        with extended_silence_limit():  # the first one may be validating, saving, or reading a bank
            return self._fabric.broadcast(value)

    def sum(self, tensor: Tensor) -> Tensor:
        return self._reduced(tensor, "sum")

    def mean(self, tensor: Tensor) -> Tensor:
        return self._reduced(tensor, "mean")

    def _reduced(self, tensor: Tensor, how: str) -> Tensor:
        return tensor if self.world_size == 1 else self._fabric.all_reduce(tensor, reduce_op=how)

    def gather(self, rows: Tensor, count: int) -> Tensor:
        if self.world_size == 1:
            return rows
        step = -(-count // self.world_size)
        padded = torch.zeros((step, rows.shape[1]), dtype=rows.dtype, device=self._fabric.device)
        padded[: len(rows)] = rows.to(padded.device)
        shares = [torch.empty_like(padded) for _ in range(self.world_size)] if self.rank == 0 else None
        torch.distributed.gather(padded, shares, dst=0)
        return torch.cat(shares)[:count].cpu() if shares else rows
