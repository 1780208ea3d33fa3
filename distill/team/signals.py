"""What Ctrl-C, SIGTERM and SIGHUP mean: which are heeded, with which exit code, and how they end a process of our own.

A process of our own is the command line's, or one that was started for a device; where a library call runs in
somebody else's process, the handlers there stay theirs (but while a run trains, see :mod:`distill.team.stop`).
"""

from __future__ import annotations

import os
import select
import signal
import stat
import sys
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from distill.errors import InterruptedRunError, Terminated, TerminatedRunError
from distill.team.ranks import process_rank, under_torchrun

__all__ = [
    "HANG_UP",
    "STOPPING",
    "count_held_lock",
    "drop_terminal",
    "end_on_signals",
    "exit_code",
    "exit_immediately",
    "mark_exit_announced",
    "nothing_to_lose",
    "same_press_s",
    "say",
    "stop_signals",
]

HANG_UP = getattr(signal, "SIGHUP", None)  # not on Windows
_announced: int | None = None
_holds = 0
_DOORS = ("distill.__main__", "distill.team.")  # whose functions only lead to the work
STOPPING = (signal.SIGINT, signal.SIGTERM, *(() if HANG_UP is None else (HANG_UP,)))


def same_press_s() -> float:
    """Within so many seconds two signals are one: a terminal's Ctrl-C reaches every process, and is passed on besides.

    torchrun passes on what it gets when it looks up from its own work, which on a busy machine takes a while.
    """
    return 3.0 if under_torchrun() else 1.0


def stop_signals() -> tuple[int, ...]:
    """The signals that stop a run: hang-ups too, unless they are ignored, as ``nohup`` wants it."""
    return tuple(number for number in STOPPING if number != HANG_UP or signal.getsignal(number) is not signal.SIG_IGN)


def exit_code(number: int) -> int:
    """130 for Ctrl-C, 143 for the others."""
    return InterruptedRunError.exit_code if number == signal.SIGINT else TerminatedRunError.exit_code


# A process of our own


def end_on_signals(*, speaks: bool = True) -> None:
    """From here on the first signal ends this process in order, with one line; a second one is the guard's affair.

    Args:
        speaks: Whether that line is this process's to say.
    """
    ending = _Ending(speaks)
    for number in stop_signals():
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, ending)


class _Ending:
    """The handler: raises once, what comes later finds the process at its end."""

    def __init__(self, speaks: bool) -> None:
        self.speaks = speaks
        self.taken = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if number == HANG_UP:
            drop_terminal()
        name = signal.Signals(number).name
        said = "interrupted" if number == signal.SIGINT else f"terminated by {name}"
        if self.taken:
            return
        self.taken = True
        if nothing_to_lose(frame):
            exit_immediately(exit_code(number), f"stopped: {said}" if self.speaks else "")
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Terminated(said)


def nothing_to_lose(frame: FrameType | None) -> bool:
    """Whether a process that is interrupted at ``frame`` has nothing to lose, and may end on the spot.

    So it is among its imports, its arguments, and at its end, while it holds no lock. An exception would not do there:
    what is being imported turns it into errors of its own, or swallows it.
    """
    if _holds:
        return False
    at_the_door = True
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        if frame.f_code.co_name != "<module>" and name.startswith("distill.") and name != "distill.cli":
            at_the_door = at_the_door and name.startswith(_DOORS)
        frame = frame.f_back
    return at_the_door


def count_held_lock(count: int) -> None:
    """One lock more, or one less: while this process holds any, it has something to save."""
    global _holds  # noqa: PLW0603 - of the process
    _holds += count


def mark_exit_announced(code: int) -> None:
    """This process has said why it ends, with this exit code: if it must be helped to end, nothing more is said."""
    global _announced  # noqa: PLW0603 - a process ends once
    _announced = code


def exit_immediately(code: int, line: str = "") -> NoReturn:
    """End this process now: no handler, no ``finally``, no thread has a say.

    Args:
        line: Said on stderr, where stderr takes it.
    """
    if _announced is not None:
        os._exit(_announced)
    if line and process_rank() == 0:
        say(line)
    os._exit(code)


def say(line: str) -> None:
    """A line on stderr past every buffer and lock; nothing where whoever should read it has stopped reading."""
    with suppress(OSError, ValueError):
        if os.name == "nt" or select.select([], [2], [], 0)[1]:
            os.write(2, f"{line}\n".encode(errors="backslashreplace"))


def drop_terminal() -> None:
    """Where the terminal is gone, what would be written to it goes nowhere, and is no error."""
    for stream, text in ((1, sys.stdout), (2, sys.stderr)):
        with suppress(OSError, ValueError, AttributeError, RuntimeError):  # closed, none, or at work right now
            if stat.S_ISCHR(os.fstat(stream).st_mode) and not os.isatty(stream):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream)
                os.close(null)
                text.flush()  # what was not taken yet
