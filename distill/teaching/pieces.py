"""Who asks about which piece of a bank: each process takes the next that is missing and that nobody is at.

A piece is a part of a view that is one file. Whoever asks about it holds a lock beside it, which falls with its
process: then another takes it. Processes of one machine, or of several on one file system, need no more than the same
command.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from distill.errors import RunError
from distill.events import Note
from distill.runs import Lock
from distill.teaching.bank import Bank
from distill.teaching.bank_files import chunk_name, claim_name
from distill.teaching.bank_info import chunk_bounds
from distill.team.watch import beat

__all__ = ["Piece", "Pieces", "claimed"]

_LOOK_S = 0.5


@dataclass(frozen=True)
class Piece:
    """Images ``start`` to ``end`` of a view, and how many of all images of all views wanted are behind it."""

    number: int
    part: int
    start: int
    end: int
    behind: int


class Pieces:
    """The pieces of the first ``views`` views that are still missing."""

    def __init__(self, bank: Bank, views: int) -> None:
        self._bank = bank
        self._views = views
        self._first = bank.info.views
        self._claim: Lock | None = None

    def take(self) -> Iterator[Note | Piece | None]:
        """The next piece that nobody is at, None when all are there; before it, that others are waited for."""
        told = False
        while True:
            self._bank.renew()
            missing = self._missing()
            if not missing:
                yield None
                return
            if (piece := self._claimed(missing)) is not None:
                yield piece
                return
            if not told:
                yield Note(f"{self._bank.path}: other processes are at the last {len(missing)} file(s); waiting")
                told = True
            beat()
            time.sleep(_LOOK_S)

    def _missing(self) -> list[tuple[int, int]]:
        info = self._bank.info
        parts = range(len(chunk_bounds(info)))
        places = [(number, part) for number in range(info.views, self._views) for part in parts]
        return [(number, part) for number, part in places if chunk_name(number, part) not in info.begun]

    def _claimed(self, missing: list[tuple[int, int]]) -> Piece | None:
        for number, part in missing:
            lock = _try(self._bank, chunk_name(number, part))
            if lock is None:
                continue
            self._bank.renew()
            if (number, part) not in self._missing():  # finished between the look and the claim
                lock.release()
                continue
            self._claim = lock
            start, end = chunk_bounds(self._bank.info)[part]
            return Piece(number, part, start, end, self._behind())
        return None

    def _behind(self) -> int:
        info, bounds = self._bank.info, chunk_bounds(self._bank.info)
        begun = [bounds[part] for part in range(len(bounds)) for _ in self._begun_of(part)]
        return (info.views - self._first) * info.images + sum(end - start for start, end in begun)

    def _begun_of(self, part: int) -> list[int]:
        names = self._bank.info.begun
        return [number for number in range(self._bank.info.views, self._views) if chunk_name(number, part) in names]

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
