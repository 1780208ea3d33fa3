"""A second signal ends a process that cannot be told; the first one does not, and nobody's handlers are lost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from distill.team import guard
from distill.team.guard import Guard, guarding
from distill.team.signals import HANG_UP, same_press_s

ROOT = Path(__file__).parents[3]
OURS = """
from distill.team import guard
from distill.team.guard import reset, ending_first, guard_process, guarding
from distill.team.signals import end_on_signals, mark_exit_announced
"""
PROCESS = f"{OURS}\nguard.same_press_s = lambda: 0.0\nend_on_signals()\nguard_process()\n"


def _until_ended(process: subprocess.Popen[str], number: int) -> str:
    """What it said on stderr, after as many signals as it took."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        process.send_signal(number)
        time.sleep(0.1)
    assert process.poll() is not None, "a second signal did not end it"
    return process.stderr.read()


@pytest.mark.parametrize(
    ("number", "code", "what"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_a_second_signal_ends_what_cannot_hear_it(stuck, number: int, code: int, what: str) -> None:
    process = stuck(f"{PROCESS}\ndeaf()")
    said = _until_ended(process, number)
    assert process.returncode == code
    assert said == f"stopped: {what} twice, ended at once; what was not saved is lost\n"


def test_the_first_signal_ends_nothing(stuck) -> None:
    process = stuck(f"{PROCESS}\nguard.NOTE_AFTER_S = 0.1\ndeaf()")
    process.send_signal(signal.SIGTERM)
    note = process.stderr.readline()  # comes after the guard has seen the signal
    assert note.startswith("note: stopping when the present step has ended and is saved; a second Ctrl-C")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2 * guard.PATIENCE_S)


def test_what_was_said_is_not_said_again(stuck) -> None:
    process = stuck(f"{PROCESS}\nmark_exit_announced(3)\ndeaf()")
    assert _until_ended(process, signal.SIGTERM) == ""
    assert process.returncode == 3


def test_one_press_that_comes_twice_is_one() -> None:
    counted = Guard()
    counted.count(signal.SIGINT, 100.0)
    counted.count(signal.SIGINT, 100.0 + same_press_s())
    assert counted.is_stopping
    assert counted.end_at is None
    counted.count(signal.SIGINT, 101.0 + same_press_s())
    assert counted.end_at == 101.0 + same_press_s() + guard.PATIENCE_S
    counted.count(signal.SIGINT, 101.1 + same_press_s())
    assert counted.end_at == 101.1 + same_press_s()


def test_torchrun_passes_signals_on_late(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "1")
    counted = Guard()
    counted.count(signal.SIGINT, 100.0)
    counted.count(signal.SIGINT, 102.9)
    assert counted.end_at is None
    counted.count(signal.SIGINT, 103.1)
    assert counted.end_at is not None


@pytest.mark.skipif(HANG_UP is None, reason="Windows knows no hang-up")
def test_hanging_up_twice_does_not_cost_the_saving() -> None:
    counted = Guard()
    counted.count(signal.SIGHUP, 100.0)
    counted.count(signal.SIGHUP, 200.0)
    assert counted.is_stopping
    assert counted.end_at is None
    counted.count(signal.SIGTERM, 300.0)
    assert counted.end_at is not None


def test_work_that_goes_on_has_forgotten_the_signal() -> None:
    counted = Guard()
    counted.count(signal.SIGINT, 100.0)
    counted.reset()
    counted.count(signal.SIGINT, 200.0)
    assert counted.end_at is None


def test_other_signals_are_not_counted() -> None:
    counted = Guard()
    counted.count(signal.SIGINT, 100.0)
    counted.count(signal.SIGCHLD, 200.0)
    assert counted.end_at is None


@pytest.fixture
def callers() -> socket.socket:
    """The reading end of a wake-up descriptor that was there before, as asyncio's."""
    read, write = socket.socketpair()
    write.setblocking(False)
    read.settimeout(30)
    before = signal.set_wakeup_fd(write.fileno())
    handler = signal.signal(signal.SIGUSR1, lambda *_: None)
    yield read
    signal.set_wakeup_fd(before)
    signal.signal(signal.SIGUSR1, handler)
    read.close()
    write.close()


def test_the_callers_descriptor_is_told_and_given_back(callers: socket.socket) -> None:
    theirs = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(theirs)
    before = _guards()
    with guarding(), guarding():
        os.kill(os.getpid(), signal.SIGUSR1)
        assert callers.recv(1) == bytes([signal.SIGUSR1])
        began = _guards() - before
        assert len(began) == 1
    assert signal.set_wakeup_fd(theirs) == theirs
    _expect_end(began)


def test_a_forked_child_with_a_copy_of_the_socket_keeps_no_thread_alive() -> None:
    before = _guards()
    with guarding():
        began = _guards() - before
        child = os.fork()
        if child == 0:
            signal.pause()
    try:
        _expect_end(began)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _guards() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "distill-guard"}


def _expect_end(threads: set[threading.Thread]) -> None:
    for thread in threads:
        thread.join(60.0)  # at once, but for a machine that does other things
    assert not any(thread.is_alive() for thread in threads)


def test_another_thread_installs_nothing(callers: socket.socket) -> None:
    failures: list[Exception] = []

    def work() -> None:
        try:
            with guarding():
                assert not guard.is_stopping()
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failures == []
    os.kill(os.getpid(), signal.SIGUSR1)
    assert callers.recv(1) == bytes([signal.SIGUSR1])


def test_children_end_first_and_their_parent_in_order(stuck: Callable[[str], subprocess.Popen[str]]) -> None:
    """The parent of a group waits for it in Python: it learns of the end and leaves as it likes."""
    code = """
import signal, threading
gone = threading.Event()
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: None)
guard_process()
with ending_first(lambda number: gone.set()):
    print("stuck", flush=True)
    gone.wait()
sys.stdout.flush()
os._exit(7)
"""
    process = stuck(f"{OURS}\nguard.same_press_s, guard.NOTE_AFTER_S = lambda: 0.0, 0.1\n{code}")
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline().startswith("note: ")  # it has arrived
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 7


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_childs_signals_are_its_own(tmp_path: Path) -> None:
    code = """
import os, signal, time
guard_process()
child = os.fork()
if child == 0:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
        os.kill(os.getpid(), number)
    os._exit(0 if signal.set_wakeup_fd(-1) == -1 else 1)
_, status = os.waitpid(child, 0)
print(status, guard.is_stopping())
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", OURS + code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "0 False\n"
