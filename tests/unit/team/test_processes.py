"""What is said of several processes when some of them failed. Starting real ones: tests/e2e/test_devices.py."""

from __future__ import annotations

import signal

import pytest

from distill.errors import DataError, PeerLostError, RunError, TerminatedRunError
from distill.team.processes import _outcome, _Report

OURS = _Report(0, "result", 42)
BROKEN = _Report(0, "bug", "RuntimeError: connection closed by peer")  # as gloo tells that another process is gone


def test_the_first_ranks_result_whoever_came_first() -> None:
    assert _outcome([_Report(1, "result"), OURS]) == 42


def test_what_a_user_can_cause_explains_the_rest() -> None:
    with pytest.raises(DataError, match="no such file"):
        _outcome([BROKEN, _Report(1, "error", DataError("no such file"))])


def test_of_two_errors_the_first_ranks() -> None:
    with pytest.raises(RunError, match="first"):
        _outcome([_Report(1, "error", RunError("second")), _Report(0, "error", RunError("first"))])


def test_a_death_explains_a_broken_connection() -> None:
    with pytest.raises(RunError, match="process 1 was killed by SIGKILL"):
        _outcome([BROKEN, _Report(1, "died", -signal.SIGKILL)])


@pytest.mark.parametrize("kind", ["died", "bug"])
def test_who_only_noticed_comes_last(kind: str) -> None:
    lost = _Report(0, "error", PeerLostError("another process of this run is gone"))
    value = -signal.SIGKILL if kind == "died" else "TypeError: ours"
    with pytest.raises((RunError, RuntimeError), match=r"killed by SIGKILL|TypeError: ours"):
        _outcome([lost, _Report(1, kind, value)])
    with pytest.raises(PeerLostError):
        _outcome([lost, _Report(1, "error", PeerLostError("and this one"))])


def test_a_signal_before_anybody_listened() -> None:
    with pytest.raises(TerminatedRunError):
        _outcome([_Report(0, "died", -signal.SIGTERM), _Report(1, "died", -signal.SIGTERM)])


def test_a_script_without_a_guard_is_told_about_it() -> None:
    with pytest.raises(RunError, match="before it could begin") as caught:
        _outcome([_Report(1, "died", 1)])
    assert "__main__" in caught.value.hint


def test_an_interruption_stays_one() -> None:
    with pytest.raises(KeyboardInterrupt):
        _outcome([BROKEN, _Report(1, "interrupt")])


def test_a_bug_keeps_its_traceback_and_the_first_to_fail_is_shown() -> None:
    with pytest.raises(RuntimeError, match=r"process 1 of several devices failed:\n\nTypeError: ours"):
        _outcome([_Report(1, "bug", "TypeError: ours"), BROKEN])
