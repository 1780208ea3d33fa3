"""A signal during training: finish the step, save, then stop. A second one stops at once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from distill.errors import DistillError, InterruptedRunError, Terminated, TerminatedRunError
from distill.team.guard import reset
from distill.team.signals import HANG_UP, drop_terminal, same_press_s, stop_signals

__all__ = ["StopRequest", "stopping_saves", "watch_signals"]


class StopRequest:
    """Set by a signal, looked at by the loop between steps."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def error(self, run: str, *, hint: str | None = None) -> DistillError:
        """The error that ends the command with the signal's exit code, 130 or 143."""
        if self.signal == signal.SIGINT:
            return InterruptedRunError(f"interrupted; {run} is saved", hint=hint)
        return TerminatedRunError(f"terminated; {run} is saved", hint=hint)


@contextmanager
def stopping_saves(folder: object, *, hint: str) -> Iterator[None]:
    """Work of many runs that is stopped within says how to go on with all of it, not with the one run it was at.

    Args:
        folder: Where all of it is kept.
        hint: How to go on.
    """
    said = f"{folder} and its runs are saved"
    try:
        yield
    except (Terminated, TerminatedRunError):
        raise TerminatedRunError(f"terminated; {said}", hint=hint) from None
    except (KeyboardInterrupt, InterruptedRunError):
        raise InterruptedRunError(f"interrupted; {said}", hint=hint) from None


@contextmanager
def watch_signals() -> Iterator[StopRequest]:
    """Collect the signals that stop a run while the block runs.

    Only the main thread may; elsewhere nothing is collected. Once the first signal is a second old, another Ctrl-C or
    SIGTERM is raised, and :mod:`distill.team.guard` ends a process that cannot hear it.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    first_at = time.monotonic()
    reset()  # what came before has stopped something else

    def handle(number: int, _frame: object) -> None:
        nonlocal first_at
        now = time.monotonic()
        if number == HANG_UP:
            drop_terminal()
        if request.signal is None:
            request.signal, first_at = number, now
        elif number != HANG_UP and now - first_at > same_press_s():
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated("terminated twice")

    before = {number: signal.signal(number, handle) for number in stop_signals()}
    try:
        yield request
        if request:  # in the last epoch: the run ended as if nothing had come
            reset()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
