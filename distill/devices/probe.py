"""Which layers this machine's kernels get right: tried in processes of their own, forward and backward.

A wrong kernel may spoil the memory that a later one reads, so a process ends with its first finding, and a finding
that was not the first thing its process did is looked into: what was tried there is tried again, each alone.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Self

from distill.devices.child import FORKS
from distill.devices.layer_error import TOLERANCE, LayerTest, LayerTestResult
from distill.devices.layers import Layer
from distill.errors import RunError

__all__ = ["Probe", "probe"]

_SILENCE_S = 1200.0  # a child ends its trials itself, sooner than this
_SUSPECTS = 5  # so many of the trials before a finding may have caused it
_BESIDE = str(Path(__file__).resolve().parents[2])
# Not -m: it puts the working directory first on the path, and a folder of the user's may be called distill.
_START = (
    "import sys; sys.path[:0] = [] if sys.argv[1] in sys.path else [sys.argv[1]]; "
    "from distill.devices.child import main; main()"
)
CHILD = (sys.executable, "-P", "-W", "ignore", "-c", _START, _BESIDE)


@dataclass(frozen=True)
class Probe:
    """How each trial ended, in their order, and whether glibc looked at the heap meanwhile."""

    verdicts: tuple[LayerTestResult, ...]
    heap_check: bool


def probe(
    trials: Sequence[LayerTest],
    *,
    on_verdict: Callable[[LayerTest, LayerTestResult], None] | None = None,
    seconds: float = 20.0,
    child: Sequence[str] = CHILD,
) -> Probe:
    """Try layers in processes of their own, one after another, and say how each trial ended.

    Args:
        on_verdict: Told each as it is settled.
        seconds: A trial that lasts longer hangs; a large layer gets a multiple of what float64 took.
        child: The command that tries them.

    Raises:
        RunError: A process cannot be started, or ends before it tries anything.
    """
    verdicts: dict[int, LayerTestResult] = {}
    heap_check = False
    for isa in dict.fromkeys(trial.setting.isa for trial in trials):
        numbers = [number for number, trial in enumerate(trials) if trial.setting.isa == isa]
        with _Children(child, isa, seconds) as children:
            for group in _groups(numbers, trials):
                rest = group
                while rest:
                    settled = _settled(children, [trials[number] for number in rest])
                    for number, verdict in zip(rest, settled, strict=False):
                        verdicts[number] = verdict
                        if on_verdict is not None:
                            on_verdict(trials[number], verdict)
                    rest = rest[len(settled) :]
            heap_check = heap_check or children.heap_check
    return Probe(tuple(verdicts[number] for number in range(len(trials))), heap_check)


def _groups(numbers: list[int], trials: Sequence[LayerTest]) -> list[list[int]]:
    """What shares a process: a layer's trials in one memory format where a process costs little, else all."""
    if not FORKS:
        return [numbers]

    def shared(number: int) -> tuple[Layer, bool]:
        return trials[number].layer, trials[number].setting.channels_last

    return [list(group) for _, group in groupby(numbers, key=shared)]


def _settled(children: _Children, trials: Sequence[LayerTest]) -> list[LayerTestResult]:
    """The verdicts of one process, up to its first finding; that is put down to the trial that has one alone."""
    verdicts = children.try_together(trials)
    last = len(verdicts) - 1
    if verdicts[last].outcome == "right" or last == 0:
        return verdicts
    alone: dict[int, LayerTestResult] = {}
    for suspect in range(last, max(last - _SUSPECTS, 0) - 1, -1):
        (alone[suspect],) = children.try_together([trials[suspect]])
        if alone[suspect].outcome != "right":
            return [alone.get(number, verdict) for number, verdict in enumerate(verdicts)]
    detail = "; ".join(filter(None, (verdicts[last].detail, "not when tried alone")))
    return [*verdicts[:last], replace(verdicts[last], detail=detail)]


class _Children:
    """Processes that try layers under one instruction set; they are gone when the context ends, or this process.

    Attributes:
        heap_check: Whether one said that its heap is checked.
    """

    def __init__(self, command: Sequence[str], isa: str | None, seconds: float) -> None:
        self.heap_check = False
        self._command, self._isa, self._seconds = tuple(command), isa, seconds
        self._process: subprocess.Popen[str] | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._greeted, self._silent = False, threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._errors.close()

    def try_together(self, trials: Sequence[LayerTest]) -> list[LayerTestResult]:
        """What one process says of them, up to its first finding.

        Raises:
            RunError: It cannot be started, or says nothing at all.
        """
        process = self._process or self._start()
        read_from = os.fstat(self._errors.fileno()).st_size
        with suppress(BrokenPipeError):  # its end is told below
            request = {"seconds": self._seconds, "trials": [asdict(trial) for trial in trials]}
            print(json.dumps(request), file=process.stdin, flush=True)
        verdicts: list[LayerTestResult] = []
        status: int | None = None
        for line in self._lines(process):
            if "ended" in line:
                status = line["ended"]
                break
            if "heap_check" in line:
                self._greeted, self.heap_check = True, line["heap_check"]
            else:
                verdicts.append(_judged(line, trials[len(verdicts)]))
        if status is None:
            status = process.wait()
            self._stop()
        if len(verdicts) < len(trials) and (not verdicts or verdicts[-1].outcome == "right"):
            verdicts.append(self._ended(status, read_from))
        if not self._greeted:
            raise RunError(f"layers cannot be tried out: the process for it ends at once ({verdicts[-1].detail})")
        return verdicts

    def _start(self) -> subprocess.Popen[str]:
        pipe, environment = subprocess.PIPE, _environment(self._isa)
        try:
            self._process = subprocess.Popen(
                self._command, env=environment, stdin=pipe, stdout=pipe, stderr=self._errors, text=True
            )
        except OSError as error:
            raise RunError(f"layers cannot be tried out: {self._command[0]}: {error.strerror or error}") from error
        return self._process

    def _stop(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()

    def _lines(self, process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
        """Its lines of JSON, whatever else is printed there; a process that is silent for too long is killed."""
        assert process.stdout is not None
        while True:
            timer = threading.Timer(_SILENCE_S, self._give_up, [process])
            timer.daemon = True
            timer.start()
            line = process.stdout.readline()
            timer.cancel()
            if not line:
                return
            with suppress(ValueError):
                said = json.loads(line)
                if isinstance(said, dict):
                    yield said

    def _give_up(self, process: subprocess.Popen[str]) -> None:
        self._silent.set()
        process.kill()

    def _ended(self, status: int, read_from: int) -> LayerTestResult:
        """Why a process ended before its trials did."""
        self._errors.seek(read_from)
        said = self._errors.read().decode(errors="replace")
        if "Timeout (" in said or self._silent.is_set():  # faulthandler's word
            self._silent.clear()
            return LayerTestResult("hangs")
        last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "")
        return LayerTestResult("crashes", detail=": ".join(filter(None, (_status_name(status), last))))


def _status_name(status: int) -> str:
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"exit status {status}"


def _environment(isa: str | None) -> dict[str, str]:
    """This process's, with glibc's heap check where there is one, and fresh memory that is never zero by chance."""
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}  # threads that wait leave the core to others
    if isa is not None:
        environment["ONEDNN_MAX_CPU_ISA"] = isa
    if platform.libc_ver()[0] == "glibc" and "LD_PRELOAD" not in environment:
        environment |= {"LD_PRELOAD": "libc_malloc_debug.so.0", "MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "1"}
    return environment


def _judged(line: dict[str, Any], trial: LayerTest) -> LayerTestResult:
    if "failed" in line:
        return LayerTestResult("crashes", detail=line["failed"])
    is_right = line["error"] <= TOLERANCE[trial.setting.precision]
    return LayerTestResult("right" if is_right else "wrong", line["error"], line["tensor"])
