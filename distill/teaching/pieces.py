"""Who asks about which piece of a bank: each process takes the next that is missing and that nobody is at.

A piece is a part of a view that is one file. Whoever asks about it holds a lock beside it, which falls with its
process: then another takes it. Processes of one machine, or of several on one file system, need no more than the same
command.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from distill.errors import RunError
from distill.events import Note
from distill.runs import Lock, lock_owner
from distill.teaching.bank import Bank
from distill.teaching.bank_files import chunk_name, claim_name
from distill.teaching.bank_info import chunk_bounds
from distill.team.watch import beat
from distill.text import counted

__all__ = ["Chunk", "ChunkQueue", "claimed"]

_LOOK_S = 0.5


@dataclass(frozen=True)
class Chunk:
    """Images ``start`` to ``end`` of a view, and how many of all images of all views wanted are behind it."""

    number: int
    part: int
    start: int
    end: int
    behind: int


class ChunkQueue:
    """The pieces of the first ``views`` views that are still missing."""

    def __init__(self, bank: Bank, views: int) -> None:
        self._bank = bank
        self._views = views
        self._first = bank.info.views
        self._claim: Lock | None = None

    def take(self) -> Generator[Note, None, Chunk | None]:
        """The next piece that nobody is at, None when all are there; it tells where others are waited for."""
        told = False
        while missing := self._missing():
            if (piece := self._claimed(missing)) is not None:
                return piece
            if not told:
                yield Note(
                    f"{self._bank.path}: other processes are at the last {counted(len(missing), 'file')}; waiting"
                )
                told = True
            beat()
            time.sleep(_LOOK_S)
        return None

    def _missing(self) -> list[tuple[int, int]]:
        """What is not stored, by whomever, as of now."""
        self._bank.renew()
        info = self._bank.info
        parts = range(len(chunk_bounds(info)))
        places = [(number, part) for number in range(info.views, self._views) for part in parts]
        return [(number, part) for number, part in places if chunk_name(number, part) not in info.begun]

    def _claimed(self, missing: list[tuple[int, int]]) -> Chunk | None:
        for place in missing:
            name = chunk_name(*place)
            if lock_owner(self._bank.path / claim_name(name)) is not None:
                continue  # a look is free, and a try waits for a moment
            self._claim = _try(self._bank, name)
            if self._claim is None:
                continue
            left = self._missing()
            if place in left:
                return self._piece(place, left)
            self.let_go()  # finished between the look and the claim
        return None

    def _piece(self, place: tuple[int, int], missing: list[tuple[int, int]]) -> Chunk:
        info, bounds = self._bank.info, chunk_bounds(self._bank.info)
        number, part = place
        ahead = sum(end - start for start, end in (bounds[each] for _, each in missing))
        return Chunk(number, part, *bounds[part], behind=(self._views - self._first) * info.images - ahead)

    def let_go(self) -> None:
        """Give the piece back, stored or not."""
        claim, self._claim = self._claim, None
        if claim is not None:
            claim.release()


@contextmanager
def claimed(bank: Bank, name: str, *, wait_s: float) -> Iterator[bool]:
    """Hold a file of a bank that takes long to make; False where another process is at it after ``wait_s``."""
    lock = _try(bank, name, wait_s=wait_s)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            lock.release()


def _try(bank: Bank, name: str, *, wait_s: float = 0.0) -> Lock | None:
    lock = Lock(bank.path / claim_name(name), subject=str(bank.path / name), wait_s=wait_s)
    try:
        lock.acquire()
    except RunError:
        return None
    return lock
