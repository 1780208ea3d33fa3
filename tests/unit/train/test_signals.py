"""Signals are collected, and a second Ctrl-C is obeyed at once."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from distill.errors import InterruptedRunError, TerminatedRunError
from distill.train import signals
from distill.train.signals import StopRequest, watch_signals


def _send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [(signal.SIGINT, InterruptedRunError, 130), (signal.SIGTERM, TerminatedRunError, 143)],
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
    monkeypatch.setattr(signals, "_SAME_PRESS_S", 60.0)
    with watch_signals() as stop:
        _send(signal.SIGINT)
        _send(signal.SIGINT)
        assert stop.signal == signal.SIGINT


def test_a_second_press_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_SAME_PRESS_S", 0.0)
    with watch_signals():
        _send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            _send(signal.SIGINT)


def test_sigterm_may_come_again_and_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_SAME_PRESS_S", 0.0)
    with watch_signals() as stop:
        _send(signal.SIGTERM)
        _send(signal.SIGTERM)
    assert stop.signal == signal.SIGTERM


def test_another_thread_collects_nothing() -> None:
    found: list[StopRequest] = []

    def work() -> None:
        with watch_signals() as stop:
            found.append(stop)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not found[0]
