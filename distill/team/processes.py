"""Start several processes, pass signals on to them, and bring home what they return or raise."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Literal

from distill.errors import (
    DistillError,
    InterruptedRunError,
    PeerLostError,
    RunError,
    Terminated,
    TerminatedRunError,
    UsageError,
    stop_error,
)
from distill.team.guard import ending_first, guard_process, is_stopping, reset
from distill.team.signals import HANG_UP, STOPPING, drop_terminal, end_on_signals, stop_signals
from distill.team.watch import enable_faulthandler

__all__ = ["run_processes"]

_GRACE_S = 20.0  # for the others to save and say what they saw, once one has failed
_LAST_GRACE_S = 3.0  # once the first process, which alone writes the run, has ended
_ORPHAN_GRACE_S = 60.0  # to save, once the process that started us is gone

Kind = Literal["result", "error", "interrupt", "bug", "died"]


@dataclass(frozen=True)
class _Report:
    """How one process ended: a result, a DistillError, a traceback; of one that died, its exit code."""

    rank: int
    kind: Kind
    value: Any = None


@dataclass(frozen=True)
class _Child:
    rank: int
    process: BaseProcess
    inbox: Connection

    def report(self) -> _Report:
        """What it sent before it ended."""
        try:
            return self.inbox.recv()
        except (EOFError, OSError):
            self.process.join()
            return _Report(self.rank, *_last_words(self.process.exitcode))


def _last_words(code: int | None) -> tuple[Kind, Any]:
    """What the exit code of a process says that sent nothing."""
    if code == InterruptedRunError.exit_code:
        return "interrupt", None
    if code == TerminatedRunError.exit_code:
        return "error", TerminatedRunError("terminated")
    return "died", code


def run_processes(target: Callable[..., Any], args: tuple[Any, ...], *, count: int) -> Any:
    """Run ``target(rank, count, *args)`` in ``count`` new processes and return what that of rank 0 returns.

    Signals are passed on, and a second one ends them all; they have ended when this returns or raises.

    Raises:
        DistillError: What one of them raised.
        RunError: One of them was killed.
        KeyboardInterrupt: They were interrupted where nothing collects signals; or stopped twice.
    """
    task = _pickled((target, args))
    children: list[_Child] = []
    with _passing_signals_on(children) as forced:
        try:
            with _signals_held():  # a process that is not listening yet would die of one
                for rank in range(count):
                    children.append(_start(rank, count, task))
            reports = _collect(children)
        finally:
            _end(children)
        if forced:
            raise KeyboardInterrupt if forced[0] == signal.SIGINT else Terminated("terminated twice")
        result = _outcome(reports)
        reset()
        return result


def _pickled(task: Any) -> bytes:
    try:
        return pickle.dumps(task)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UsageError(
            f"several devices need processes of their own, and this cannot be sent to them: {error}",
            hint="on_event must be a function of a module or an object that can be pickled",
        ) from error


# In the process that starts the others


def _start(rank: int, count: int, task: bytes) -> _Child:
    context = multiprocessing.get_context("spawn")
    inbox, outbox = context.Pipe(duplex=False)
    process = context.Process(target=_child_main, args=(rank, count, task, outbox), name=f"distill-{rank}")
    with _environment(TORCH_CPP_LOG_LEVEL="ERROR"):  # DDP's advice, and hosts without a name, are no news
        process.start()
    outbox.close()  # so that its end is the end of the pipe
    return _Child(rank, process, inbox)


@contextmanager
def _environment(**defaults: str) -> Iterator[None]:
    """Variables for a process that starts in the block, where they are not set."""
    added = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ |= added
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _collect(children: list[_Child]) -> list[_Report]:
    """The reports in order of arrival; once one has failed, the others have little time left."""
    waiting: dict[object, _Child] = {child.inbox: child for child in children}
    reports: list[_Report] = []
    deadline: float | None = None
    while waiting and (deadline is None or time.monotonic() < deadline):
        left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        for inbox in connection.wait([child.inbox for child in waiting.values()], timeout=left):
            report = waiting.pop(inbox).report()
            reports.append(report)
            if report.kind != "result":
                grace = _LAST_GRACE_S if report.rank == 0 else _GRACE_S
                deadline = min(deadline or float("inf"), time.monotonic() + grace)
    return reports


def _end(children: list[_Child]) -> None:
    """No process is left behind."""
    until = time.monotonic() + _LAST_GRACE_S
    for child in children:
        child.process.join(max(until - time.monotonic(), 0.0))
        if child.process.is_alive():
            child.process.kill()
            child.process.join()
        child.process.close()
        child.inbox.close()


def _outcome(reports: list[_Report]) -> Any:
    """The first process's result, or the failure that explains the others: what a user can cause comes first."""
    failures = sorted((report for report in reports if report.kind != "result"), key=_weight)
    if not failures:
        return next(report.value for report in reports if report.rank == 0)
    report = failures[0]
    if report.kind == "error":
        raise report.value
    if report.kind == "interrupt":
        raise KeyboardInterrupt
    if report.kind == "bug":
        raise RuntimeError(f"process {report.rank} of several devices failed:\n\n{report.value}")
    raise _death(report)


def _weight(report: _Report) -> tuple[int, int]:
    order = {"error": 0, "interrupt": 1, "died": 2, "bug": 3}
    if isinstance(report.value, PeerLostError):  # the others' connections break when one dies
        return len(order), report.rank
    return order[report.kind], report.rank if report.kind == "error" else 0


def _death(report: _Report) -> DistillError:
    code = report.value
    if code == -signal.SIGTERM:
        return TerminatedRunError("terminated while the processes were starting")
    if code is not None and code < 0:
        return RunError(
            f"process {report.rank} was killed by {signal.Signals(-code).name}",
            hint="was the machine out of memory? the last checkpoint is intact: go on with --resume",
        )
    return RunError(
        f"process {report.rank} ended before it could begin (exit code {code})",
        hint="a script that trains on several devices needs: if __name__ == '__main__'",
    )


@contextmanager
def _passing_signals_on(children: list[_Child]) -> Iterator[list[int]]:
    """The children decide what a signal means; hands out the signals by which they were ended without being asked."""
    forced: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield forced
        return

    def handle(number: int, _frame: object) -> None:
        if number == HANG_UP:
            drop_terminal()
        for child in children:
            with suppress(ValueError, OSError):  # closed, or gone
                if child.process.is_alive() and child.process.pid is not None:
                    os.kill(child.process.pid, number)

    def end(number: int) -> None:
        forced.append(number)
        for child in children:
            with suppress(ValueError, OSError):
                child.process.kill()

    before = {number: signal.signal(number, handle) for number in stop_signals()}
    try:
        with ending_first(end):
            yield forced
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Signals wait until the block ends; processes started in it inherit that, and let them in when they listen."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # started by the first process otherwise, which lets signals in again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# In a process that was started


def _child_main(rank: int, count: int, task: bytes, outbox: Connection) -> None:
    os.dup2(2, 1)  # stdout is for the result, which the first process prints; gloo would greet there
    report = _Report(rank, "died")
    try:
        _listen()
        threading.Thread(target=_follow_parent, name="distill-parent", daemon=True).start()
        target, args = pickle.loads(task)
        report = _Report(rank, "result", target(rank, count, *args))
    except DistillError as error:
        report = _Report(rank, "error", error)
    except Terminated as stopped:
        report = _Report(rank, "error", stop_error(stopped))
    except KeyboardInterrupt:
        report = _Report(rank, "interrupt")
    except BaseException:
        report = _Report(rank, "bug", traceback.format_exc())
    finally:
        for number in STOPPING:  # the end is near anyway, and must not be lost
            signal.signal(number, signal.SIG_IGN)
    if rank != 0 and report.kind == "result":
        report = _Report(rank, "result")
    with suppress(OSError):  # nobody is left to read it
        outbox.send(report)


def _listen() -> None:
    """Outside of training, which collects signals itself, they end the process as they end a command."""
    end_on_signals(speaks=False)
    guard_process(speaks=False)
    enable_faulthandler()
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


def _follow_parent() -> None:
    """A run whose starter was killed saves and ends: nobody could stop it any more."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    if not is_stopping():  # a second signal would end it unsaved
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_ORPHAN_GRACE_S)
    os._exit(1)
