"""Signals are collected, and a second one is obeyed at once."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from distill.errors import InterruptedRunError, Terminated, TerminatedRunError
from distill.team import stop as signals
from distill.team.stop import StopRequest, watch_signals


def _send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [
        (signal.SIGINT, InterruptedRunError, 130),
        (signal.SIGTERM, TerminatedRunError, 143),
        (signal.SIGHUP, TerminatedRunError, 143),
    ],
    ids=["Ctrl-C", "SIGTERM", "a closed terminal"],
)
def test_a_signal_is_collected_and_becomes_its_error(number: int, kind: type, code: int) -> None:
    before = signal.getsignal(number)
    with watch_signals() as stop:
        assert not stop
        _send(number)
        assert stop
        assert stop.signal == number
    error = stop.error("runs/x/001", hint="go on")
    assert isinstance(error, kind)
    assert (error.exit_code, error.hint) == (code, "go on")
    assert "runs/x/001 is saved" in error.message
    assert signal.getsignal(number) is before


def test_one_press_that_comes_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "same_press_s", lambda: 60.0)
    for number in (signal.SIGINT, signal.SIGTERM):
        with watch_signals() as stop:
            _send(number)
            _send(number)
            assert stop.signal == number


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_second_one_stops_at_once(number: int, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "same_press_s", lambda: 0.0)
    with watch_signals():
        _send(number)
        with pytest.raises(kind):
            _send(number)


def test_a_terminal_that_closes_twice_waits_for_the_saving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "same_press_s", lambda: 0.0)
    with watch_signals() as stop:
        _send(signal.SIGHUP)
        _send(signal.SIGHUP)
    assert stop.signal == signal.SIGHUP


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with watch_signals() as stop:
            _send(signal.SIGHUP)
            assert not stop
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_collects_nothing() -> None:
    found: list[StopRequest] = []

    def work() -> None:
        with watch_signals() as stop:
            found.append(stop)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not found[0]
