"""Ctrl-C and SIGTERM during training: finish the step, save, then stop. A second Ctrl-C stops at once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from distill.errors import DistillError, InterruptedRunError, TerminatedRunError

__all__ = ["StopRequest", "watch_signals"]

_SAME_PRESS_S = 1.0  # with several devices a Ctrl-C comes twice: from the terminal, and from the first process


class StopRequest:
    """Set by a signal, looked at by the loop between steps."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def error(self, run: str, *, hint: str | None = None) -> DistillError:
        """The error that ends the command with the signal's exit code, 130 or 143."""
        if self.signal == signal.SIGTERM:
            return TerminatedRunError(f"terminated; {run} is saved", hint=hint)
        return InterruptedRunError(f"interrupted; {run} is saved", hint=hint)


@contextmanager
def watch_signals() -> Iterator[StopRequest]:
    """Collect SIGINT and SIGTERM while the block runs (only the main thread may; elsewhere nothing is collected)."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    first_at = time.monotonic()

    def handle(number: int, _frame: object) -> None:
        nonlocal first_at
        now = time.monotonic()
        if request.signal is None:
            request.signal, first_at = number, now
        elif number == signal.SIGINT and now - first_at > _SAME_PRESS_S:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
