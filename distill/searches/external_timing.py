"""Timing by a command of the user's own: it takes an ONNX file, on whatever board, and prints JSON. No torch."""

from __future__ import annotations

import json
import math
import os
import shlex
import signal
import subprocess
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from distill.errors import RunError, UsageError
from distill.team.watch import beat
from distill.text import shorten

__all__ = ["check_command", "measure_elsewhere"]

_PATIENCE_S = 600.0
_MAX_BYTES = 1 << 20
_POLL_S = 1.0
_PLACE = "{file}"
_HINT = 'it should print one JSON object, as {"latency_b1_ms": 1.93}, and exit with 0'


def check_command(command: str) -> None:
    """Refuse what cannot be a measuring command.

    Raises:
        UsageError: It has no place for the file, or its quotes do not match.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"--measure {shorten(command)!r}: {error}", hint="quote it as a shell would take it") from None
    if not any(_PLACE in word for word in words):
        raise UsageError(
            f"--measure {shorten(command)!r} has no {_PLACE}", hint="as in --measure 'ssh board ./time.sh {file}'"
        )


def measure_elsewhere(
    command: str, file: Path, wanted: Collection[str], *, patience_s: float = _PATIENCE_S
) -> dict[str, float]:
    """Run the command on a file and read the latencies that it prints, in milliseconds, by their names.

    No shell reads it: its words are passed on as they are. One that takes longer than ``patience_s`` is ended, with
    what it started.

    Raises:
        RunError: It cannot be run, failed, took too long, or did not print a number above 0 for each that is wanted.
    """
    words = [word.replace(_PLACE, str(file)) for word in shlex.split(command)]
    shown = shorten(command)
    try:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise RunError(f"--measure {shown}: cannot be run: {error.strerror}", hint="try it by hand") from error
    try:
        out, err = _waited(process, patience_s)
    except subprocess.TimeoutExpired:
        raise RunError(f"--measure {shown}: still at work after {patience_s:g} s", hint="try it by hand") from None
    finally:
        _end(process)
    if process.returncode != 0:
        reason = shorten((err.decode(errors="replace").strip().splitlines() or ["it says nothing"])[-1], 120)
        raise RunError(f"--measure {shown}: exit code {process.returncode}: {reason}", hint="try it by hand")
    return _read(out, shown, wanted)


def _waited(process: subprocess.Popen[bytes], patience_s: float) -> tuple[bytes, bytes]:
    """Its output, while whoever watches this process is told that it is alive."""
    left = patience_s
    while True:
        try:
            return process.communicate(timeout=min(_POLL_S, left))
        except subprocess.TimeoutExpired:
            beat()
            left -= _POLL_S
            if left <= 0:
                raise


def _end(process: subprocess.Popen[bytes]) -> None:
    """The command, and what it has started: its own session is its process group."""
    if process.poll() is None:
        with suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
    with suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=5)  # a grandchild may hold the pipe


def _read(out: bytes, shown: str, wanted: Collection[str]) -> dict[str, float]:
    text = out[:_MAX_BYTES].decode(errors="replace").strip()
    try:
        tree: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise RunError(f"--measure {shown}: printed {shorten(text, 60)!r}, no JSON", hint=_HINT) from None
    if not isinstance(tree, dict):
        raise RunError(f"--measure {shown}: printed {shorten(text, 60)!r}, no JSON object", hint=_HINT)
    found: dict[str, float] = {}
    for name in wanted:
        value = tree.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise RunError(f"--measure {shown}: {name} is {shorten(repr(value), 40)}, no time above 0", hint=_HINT)
        found[name] = float(value)
    return found
