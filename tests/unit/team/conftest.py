"""Child processes that get stuck."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

# deaf(): native code that has let go of the interpreter's lock, and goes on through signals: a mutex that its own
# thread holds already. asleep(): native code that keeps the lock.
_STUCK = """
import ctypes, os, signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell started in the background
_native, _mutex = ctypes.CDLL(None), ctypes.create_string_buffer(256)
_native.pthread_mutex_init(_mutex, None)
def deaf():
    _native.pthread_mutex_lock(_mutex)
    threading.Timer(0.5, print, ["stuck"], {"flush": True}).start()
    _native.pthread_mutex_lock(_mutex)
def asleep(seconds):
    print("stuck", flush=True)
    ctypes.PyDLL(None).sleep(seconds)
"""


@pytest.fixture
def stuck(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """``stuck(code, **variables)`` starts a process and comes back when that is stuck; afterwards none is left."""
    if os.name == "nt" or sys.platform == "darwin":
        pytest.skip("glibc's mutex")
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *, stderr: int = subprocess.PIPE, **variables: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", _STUCK + code],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        started.append(process)
        line = process.stdout.readline()
        assert line == "stuck\n", line + process.stderr.read()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
