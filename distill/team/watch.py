"""Work that stands still says so: for how long, and where.

Whatever moves calls :func:`beat`: a batch was taken, a picture read, a model timed. That is an addition. A thread looks
once a second whether anything did. It speaks for a thread that is inside native code which has let go of the
interpreter's lock: a spinning kernel, a disk or another process that does not answer. Behind it stands
``faulthandler``, whose thread is no Python: where the lock is kept, it prints every thread's place.
"""

from __future__ import annotations

import faulthandler
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TypeVar

__all__ = ["Watchdog", "beat", "enable_faulthandler", "extended_silence_limit", "place", "watching", "with_heartbeat"]

SILENCE_S = 60.0
BEATS = 50  # a step that takes long by itself is no silence: so many of the usual ones are
PATIENCE = 10  # times as long while this process waits for the first one to validate, measure or write
_TICK_S = 1.0  # also how often faulthandler is armed: each time it ends a thread and starts another
_PACE = 100  # what is usual: the last so many looks at which something had moved
# Compiling takes minutes and moves nothing. A compiled step that runs has neither of these on its stack.
_COMPILING = (
    "torch._dynamo.convert_frame",
    "torch._inductor.compile_fx",
    "torch._inductor.async_compile",
    "torch._inductor.runtime.triton_heuristics",
)
_OURS = ("distill.", "students.", "teachers.")

Item = TypeVar("Item")

_current: Watchdog | None = None
_owned = False


class Watchdog:
    """Looks after the thread that made it.

    Attributes:
        log: Told the same lines as stderr.
        hint: What to do about a silence.
        at: The epoch and the steps of it that are done, both from 0.
    """

    def __init__(self, *, rank: int = 0, silence_s: float | None = None) -> None:
        self.rank = rank
        self.log: Callable[[str], object] | None = None
        self.hint: str | None = None
        self.at: tuple[int, int] | None = None
        self.beats = 0
        self.factor = 1
        self.pace: deque[float] = deque(maxlen=_PACE)
        self._silence_s = SILENCE_S if silence_s is None else silence_s
        self._silent_s = 0.0
        self._seen = 0
        self._told: list[str] | None = None
        self._ident = threading.get_ident()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="distill-watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no longer."""
        self._ended.set()
        self._thread.join(1.0)
        if _dumps():
            faulthandler.cancel_dump_traceback_later()

    @property
    def limit_s(self) -> float:
        """How long nothing may move before it is told."""
        pace = list(self.pace)
        usual = statistics.median(pace) if pace else 0.0
        return self.factor * max(self._silence_s, BEATS * usual)

    def _run(self) -> None:
        tick = min(_TICK_S, self._silence_s / 8)
        last = time.monotonic()
        while not self._ended.wait(tick):
            now = time.monotonic()
            if _dumps():
                _arm(self.limit_s)
            self.look(min(now - last, 2 * tick))  # a process that was stopped or asleep was not silent
            last = now

    def look(self, elapsed_s: float) -> None:
        """Whether anything moved since the last look, ``elapsed_s`` ago."""
        beats = self.beats
        self._silent_s += elapsed_s
        if beats != self._seen:
            if self._told is not None:
                self._say("note", f"it moves again, after {self._silent_s:.0f} s")
            self.pace.append(self._silent_s / (beats - self._seen))
            self._seen, self._silent_s, self._told = beats, 0.0, None
        elif self._silent_s >= self.limit_s:
            self._tell()

    def _tell(self) -> None:
        stacks = sys._current_frames()
        if any(_is_compiling(frame) for frame in stacks.values()):
            return
        self._silence_s *= 2  # what is slow, and does not stand, is not to fill the log
        own = stacks.pop(self._ident, None)
        where = "" if self.at is None else f" (epoch {self.at[0] + 1}, {self.at[1]} of its steps done)"
        places = [place(own)] if own is not None else []
        places += _others(stacks)
        if places == self._told:  # still there; a first look may have come on the way to where it stands
            return
        self._told = places
        hint = f"; {self.hint}" if self.hint else ""
        self._say("warning", f"nothing has moved for {self._silent_s:.0f} s{where}: {'; '.join(places)}{hint}")

    def _say(self, level: str, text: str) -> None:
        text = "".join(letter if letter.isprintable() else "?" for letter in text)
        process = f" in process {self.rank}" if self.rank else ""
        with suppress(OSError, ValueError, AttributeError):  # closed, or gone
            sys.stderr.write(f"{level}{process}: {text}\n")  # in one piece: several processes write there at once
            sys.stderr.flush()
        if self.log is not None:
            self.log(f"{level}: {text}")


def beat() -> None:
    """Something moved. Costs next to nothing, watched or not."""
    if _current is not None:
        _current.beats += 1


def with_heartbeat(items: Iterable[Item]) -> Iterator[Item]:
    """The same items; each one that is asked for shows that the work moves."""
    for item in items:
        beat()
        yield item


@contextmanager
def watching(*, rank: int = 0, silence_s: float | None = None) -> Iterator[Watchdog]:
    """Work that may take long and moves all the while: a silence in it is told.

    Within other such work it is a part of that.

    Args:
        rank: Of this process among those that work together.
        silence_s: How long nothing may move, at least.
    """
    global _current  # noqa: PLW0603 - beats come from wherever work is done
    if (watch := _current) is not None:
        before = watch.log, watch.hint, watch.at
        watch.pace.clear()  # another kind of work has another pace
        try:
            yield watch
        finally:
            watch.pace.clear()
            watch.log, watch.hint, watch.at = before
        return
    _current = watch = Watchdog(rank=rank, silence_s=silence_s)
    watch.start()
    try:
        yield watch
    finally:
        _current = None
        watch.stop()


@contextmanager
def extended_silence_limit() -> Iterator[None]:
    """A wait for the first process, which works alone: that may take long."""
    watch = _current
    if watch is None or watch.rank == 0:
        yield
        return
    watch.factor *= PATIENCE
    try:
        yield
    finally:
        watch.factor //= PATIENCE
        beat()


# Where


def place(frame: FrameType | None) -> str:
    """A stack in a line: the two innermost calls and our own two innermost ones, ``module:line function``, in order."""
    calls = []
    while frame is not None:
        name = str(frame.f_globals.get("__name__", "?"))
        calls.append((name, f"{name}:{frame.f_lineno} {frame.f_code.co_qualname}"))
        frame = frame.f_back
    ours = [number for number, (name, _) in enumerate(calls) if name.startswith(_OURS)]
    shown = sorted({0, 1, *ours[:2]} & set(range(len(calls))), reverse=True)
    return " > ".join(calls[number][1] for number in shown)


def _others(stacks: dict[int, FrameType]) -> list[str]:
    """The places of other threads that do our work: the main one may be waiting for them."""
    others = []
    for thread in threading.enumerate():
        frame = stacks.get(thread.ident or 0)
        if frame is not None and thread.name not in _HOUSEKEEPING and _works(frame):
            others.append(f"{thread.name} at {place(frame)}")
    return others[:2]


_HOUSEKEEPING = ("distill-watch", "distill-guard", "distill-parent")


def _works(frame: FrameType | None) -> bool:
    names = list(_modules(frame))
    return any(name.startswith(_OURS) for name in names) and "distill.runs.lock" not in names


def _is_compiling(frame: FrameType | None) -> bool:
    return any(name in _COMPILING for name in _modules(frame))


def _modules(frame: FrameType | None) -> Iterator[str]:
    while frame is not None:
        yield str(frame.f_globals.get("__name__", ""))
        frame = frame.f_back


# Behind the interpreter's lock


def enable_faulthandler() -> None:
    """This process is ours: what it dies of says where, and faulthandler's timer is ours as well."""
    global _owned  # noqa: PLW0603 - faulthandler is the process's
    _owned = True
    with suppress(OSError, ValueError, AttributeError, RuntimeError):  # stderr is no file
        if not faulthandler.is_enabled():
            faulthandler.enable()


def _dumps() -> bool:
    """A process that has enabled faulthandler itself, as pytest does, may use its one timer."""
    return _owned or not faulthandler.is_enabled()


def _arm(seconds: float) -> None:
    with suppress(OSError, ValueError, RuntimeError):
        faulthandler.dump_traceback_later(seconds, file=2)
