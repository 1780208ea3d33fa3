"""A second signal ends the process, also where nobody can tell its main thread.

Python runs signal handlers between two instructions of the main thread. A kernel that spins, or a read from a disk that
is gone, never comes to the next instruction. The number of each signal is written to a socket at once, though
(``signal.set_wakeup_fd``), and a thread that reads it needs the interpreter's lock alone. Native code that keeps that
lock too cannot be ended by a signal that Python handles: there :mod:`distill.team.watch` has the place printed, and
``kill -9`` ends it.

The first signal is the handlers' affair: a run finishes its step, saves and stops.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from distill.team.signals import STOPPING, exit_code, exit_immediately, same_press_s, say

__all__ = ["Guard", "ending_first", "guard_process", "guarding", "is_stopping", "reset"]

PATIENCE_S = 0.8  # after the second signal, for the main thread to leave in order
ENDING_S = 2.0  # once other processes were ended first: their parent only waits for them, and can leave in order
NOTE_AFTER_S = 5.0  # a step may take long: then the user should know what is being waited for, and what a second does

OnForcedEnd = Callable[[int], object]

_current: Guard | None = None
_first: list[OnForcedEnd] = []


class Guard:
    """Counts the signals that reach this process, in a thread.

    Args:
        speaks: Say what happens; off where another process of the same command does.

    Attributes:
        end_at: When it is ended by force, by the monotonic clock.
    """

    def __init__(self, *, speaks: bool = True) -> None:
        self.speaks = speaks
        self._before = -1
        self._number: int = signal.SIGINT
        self._first_at: float | None = None
        self.end_at: float | None = None
        self._noted = self._stopped = False
        self._thread = threading.Thread(target=self._run, name="distill-guard", daemon=True)

    @property
    def is_stopping(self) -> bool:
        """Whether a signal came."""
        return self._first_at is not None

    def start(self) -> None:
        """Begin to count, in the main thread; whoever was told of signals before is told still."""
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._thread.start()

    def stop(self) -> None:
        """Give the wake-up descriptor back."""
        self._stopped = True
        signal.set_wakeup_fd(self._before)
        with suppress(OSError):
            self._writer.shutdown(socket.SHUT_WR)  # the end of the thread, also where a forked child holds a copy
        self._writer.close()
        self._thread.join(1.0)

    def reset(self) -> None:
        """The signals so far are dealt with, and work goes on."""
        self._first_at = self.end_at = None
        self._noted = False

    def _run(self) -> None:
        with self._reader:  # closed by the thread that waits at it: it may get its turn late
            self._count_until_the_end()

    def _count_until_the_end(self) -> None:
        while not self._stopped:
            with suppress(OSError):
                if select.select([self._reader], [], [], self._wait_s())[0]:
                    numbers = self._reader.recv(64)
                    if not numbers:
                        return
                    self._hand_on(numbers)
                    for number in numbers:
                        self.count(number, time.monotonic())
            if not self._stopped:
                self._act()

    def _wait_s(self) -> float | None:
        now = time.monotonic()
        if self.end_at is not None:
            return max(self.end_at - now, 0.0)
        if self._first_at is not None and not self._noted:
            return max(self._first_at + NOTE_AFTER_S - now, 0.0)
        return None

    def _hand_on(self, numbers: bytes) -> None:
        if self._before >= 0:
            with suppress(OSError):
                os.write(self._before, numbers)

    def count(self, number: int, now: float) -> None:
        """A signal came at ``now`` by the monotonic clock."""
        if number not in STOPPING:
            return
        if self._first_at is None:
            self._first_at = now
        elif number not in (signal.SIGINT, signal.SIGTERM):
            return  # a shell and the system hang up one after the other; that must not cost the saving
        elif self.end_at is not None:
            self.end_at = now  # a third one
        elif now - self._first_at > same_press_s():
            self.end_at = now + PATIENCE_S
        self._number = number

    def _act(self) -> None:
        now = time.monotonic()
        if self.end_at is not None and now >= self.end_at:
            self._end()
        elif self._first_at is not None and not self._noted and now - self._first_at >= NOTE_AFTER_S:
            self._noted = True
            if self.speaks:
                say("note: stopping when the present step has ended and is saved; a second Ctrl-C ends it at once")

    def _end(self) -> None:
        if _first:  # they end, then their parent does, in order if it can
            callbacks, _first[:] = list(_first), []
            for callback in callbacks:
                with suppress(Exception):
                    callback(self._number)
            self.end_at = time.monotonic() + ENDING_S
            return
        what = "interrupted" if self._number == signal.SIGINT else "terminated"
        line = f"stopped: {what} twice, ended at once; what was not saved is lost"
        exit_immediately(exit_code(self._number), line if self.speaks else "")


def is_stopping() -> bool:
    """Whether a signal came to this process and is being dealt with."""
    return _current is not None and _current.is_stopping


def reset() -> None:
    """A signal came too late to stop anything: the next one is a first one again."""
    if _current is not None:
        _current.reset()


@contextmanager
def guarding() -> Iterator[None]:
    """While the block runs, a second Ctrl-C or SIGTERM ends this process within a second, whatever it is doing.

    Only the main thread may ask for it; elsewhere, or where it is so already, nothing is done.
    """
    if _current is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    guard = _begin(speaks=True)
    try:
        yield
    finally:
        _set(None)
        guard.stop()


def guard_process(*, speaks: bool = True) -> None:
    """The same for as long as the process lives: its very end, too, may wait for a thread that never ends."""
    if _current is None:
        _begin(speaks=speaks)


@contextmanager
def ending_first(end: OnForcedEnd) -> Iterator[None]:
    """While the block runs, a forced end of this process first calls ``end(signal)``, which ends other processes."""
    _first.append(end)
    try:
        yield
    finally:
        with suppress(ValueError):  # called already
            _first.remove(end)


def _begin(*, speaks: bool) -> Guard:
    guard = Guard(speaks=speaks)
    guard.start()
    _set(guard)
    return guard


def _set(guard: Guard | None) -> None:
    global _current  # noqa: PLW0603 - a process has one wake-up descriptor, and so one guard
    _current = guard


def _forked() -> None:
    """A forked child's signals are none of its parent's."""
    if _current is not None:
        with suppress(ValueError):
            signal.set_wakeup_fd(-1)
        _set(None)
        _first.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
