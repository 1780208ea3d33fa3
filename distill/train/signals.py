"""Ctrl-C and SIGTERM during training: finish the step, save, then stop. A second Ctrl-C stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from distill.errors import DistillError, InterruptedRunError, TerminatedRunError

__all__ = ["StopRequest", "watch_signals"]


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

    def handle(number: int, _frame: object) -> None:
        if request.signal == signal.SIGINT == number:
            raise KeyboardInterrupt
        request.signal = number

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
