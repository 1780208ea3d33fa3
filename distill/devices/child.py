"""The process in which layers are tried: it may crash, spin for ever, or damage its memory, and nobody else's.

It reads lines of JSON from stdin, what to try, and writes lines of JSON to stdout: what it is, then how each trial
ends, up to the first that is not right. Nothing of a recipe but shapes comes here, and torch is all that is imported.
Where it can fork, each line is tried in a process of its own that starts within milliseconds; elsewhere the first line
is the only one. A trial that does not end is ended by a thread that needs no Python. When stdin ends, whoever asked is
gone, and so are these processes.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import platform
import select
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import torch

from distill.devices.layer_error import TOLERANCE, KernelConfig, LayerTest, deviations, float64_seconds
from distill.devices.layers import Layer

__all__ = ["FORKS", "main"]

FORKS = sys.platform == "linux"  # macOS cannot fork safely what has loaded its frameworks
_GONE = 3  # the exit status where whoever asked is gone
_FLOAT64_S = 600.0  # for the exact passes of one layer, on any machine
_TIMES = 20  # so many times as long as those a trial may take
_POLL_S = 0.01
_PR_SET_PDEATHSIG = 1
_HEAP_CHECK, _HEAP_CHECK_APART = "libc_malloc_debug", (2, 34)  # glibc's own until then


def main() -> None:
    """Try what stdin says."""
    _say(torch=torch.__version__, heap_check=_heap_is_checked())
    if not FORKS:
        line = sys.stdin.readline()
        threading.Thread(target=_end_with_stdin, daemon=True).start()
        _try_all(line)
    while line := sys.stdin.readline():  # whoever asks waits for the end before the next line
        process = os.fork()
        if process == 0:
            _end_with_parent()
            _try_all(line)
        _say(ended=_status(process))


def _status(process: int) -> int:
    """How the process ended; it is ended when stdin is."""
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if select.select([0], [], [], _POLL_S)[0]:
            os.kill(process, signal.SIGKILL)
            os._exit(_GONE)


def _end_with_stdin() -> None:
    while os.read(0, 4096):  # not sys.stdin: a thread that waits in it holds its lock when the interpreter ends
        pass
    os._exit(_GONE)


def _end_with_parent() -> None:
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(_GONE)


def _try_all(line: str) -> None:
    """Try what a line asks for, up to the first finding, and end this process."""
    request = json.loads(line)
    for trial in request["trials"]:
        verdict = _tried(_read(trial), least_s=request["seconds"])
        _say(**verdict)
        if verdict.get("error", 0.0) > TOLERANCE[trial["setting"]["precision"]]:
            break
    os._exit(0)  # a damaged heap would have its say at the very end


def _read(trial: dict[str, Any]) -> LayerTest:
    layer: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in trial["layer"].items()
    }
    return LayerTest(Layer(**layer), tuple(trial["batches"]), KernelConfig(**trial["setting"]))


def _tried(trial: LayerTest, *, least_s: float) -> dict[str, Any]:
    try:
        faulthandler.dump_traceback_later(_FLOAT64_S, exit=True)
        limit_s = max(least_s, _TIMES * float64_seconds(trial))
        faulthandler.dump_traceback_later(limit_s, exit=True)
        tensor, error = max(deviations(trial).items(), key=lambda item: item[1])
        return {"tensor": tensor, "error": error}
    except (RuntimeError, MemoryError) as error:  # as "could not create a primitive"
        return {"failed": f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0]}"}
    finally:
        faulthandler.cancel_dump_traceback_later()


def _say(**line: Any) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _heap_is_checked() -> bool:
    """Whether glibc looks at its heap at every call: it then ends the process at the first damage."""
    name, version = platform.libc_ver()
    if name != "glibc" or not os.environ.get("MALLOC_CHECK_"):
        return False
    if tuple(int(part) for part in version.split(".")[:2]) < _HEAP_CHECK_APART:
        return True
    try:
        return _HEAP_CHECK in Path("/proc/self/maps").read_text()
    except OSError:
        return False


if __name__ == "__main__":
    main()
