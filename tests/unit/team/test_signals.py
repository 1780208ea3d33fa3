"""A signal while Python still imports: one line and its code, whatever the imported module makes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from distill.team.signals import HANG_UP, exit_code, stop_signals

ROOT = Path(__file__).parents[3]

# A module that is interrupted while it is imported, and swallows what it should not.
SWALLOWS = """
import os, signal
try:
    os.kill(os.getpid(), signal.{name})
    for _ in range(1000): pass
except BaseException:
    pass
print("went on", flush=True)
"""


def _python(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(cwd), str(ROOT)])}
    return subprocess.run([sys.executable, *args], cwd=cwd, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("module", ["typer", "torch"], ids=["the command line", "a command"])
@pytest.mark.parametrize(
    ("name", "code", "said"),
    [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated by SIGTERM")],
)
def test_a_signal_while_python_imports(module: str, name: str, code: int, said: str, tmp_path: Path) -> None:
    """``distill`` loads the one at once, the other where a command asks for it."""
    (tmp_path / f"{module}.py").write_text(SWALLOWS.format(name=name))
    done = _python("-m", "distill", "doctor", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"stopped: {said}\n")


def test_while_a_lock_is_held_there_is_something_to_save(tmp_path: Path) -> None:
    """A run imports late, too: what draws its plots, for one."""
    late = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nfor _ in range(9): pass\n"
    (tmp_path / "late.py").write_text(late)
    code = """
from pathlib import Path
from distill.runs import Lock
from distill.team.signals import end_on_signals
end_on_signals()
with Lock(Path("lock.json"), subject="it"):
    try:
        import late
    except KeyboardInterrupt:
        print("saved", flush=True)
end_on_signals()
import late
print("never")
"""
    done = _python("-c", code, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (130, "stopped: interrupted\n")
    assert done.stdout == "saved\n"
    assert not (tmp_path / "lock.json").exists()


# Work that goes on after every error but not after a signal, as what leaves out a run that cannot be read.
CATCHES = """
import os, signal, distill.runs
def look(*_):
    try:
        os.kill(os.getpid(), signal.{name})
        for _ in range(1000): pass
    except Exception:
        print("went on", flush=True)
space = dict(globals(), __name__="distill.runs")
distill.runs.list_runs = type(look)(look.__code__, space)
from distill.cli import main
main(["report"])
"""


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("SIGINT", 130, "interrupted"),
        ("SIGTERM", 143, "terminated by SIGTERM"),
        ("SIGHUP", 143, "terminated by SIGHUP"),
    ],
)
def test_what_catches_errors_does_not_catch_a_signal(name: str, code: int, said: str, tmp_path: Path) -> None:
    done = _python("-c", CATCHES.format(name=name), cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"stopped: {said}\n")


@pytest.mark.skipif(HANG_UP is None, reason="Windows knows no hang-up")
def test_nohup_is_respected() -> None:
    assert signal.SIGHUP in stop_signals()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert set(stop_signals()) == {signal.SIGINT, signal.SIGTERM}
    finally:
        signal.signal(signal.SIGHUP, before)


def test_exit_codes() -> None:
    assert {signal.Signals(number).name: exit_code(number) for number in stop_signals()} == {
        "SIGINT": 130,
        "SIGTERM": 143,
        "SIGHUP": 143,
    }
