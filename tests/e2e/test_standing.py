"""A run that stands still says so and can be ended, whoever it is that stands; a closed terminal costs no run."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distill.data.decode_pool import Job, decode_all
from distill.events import silent
from distill.pipeline import Options, resume_run, train_student
from distill.recipe import load_recipe
from distill.runs import RunFolder
from distill.team import watch

HERE = Path(__file__).parent
RECIPE = """
schema_version: 1
name: tiny
role: baseline
data: {name: synthetic, limit: 150, test_limit: 60}
augment: {crop_padding: 2, hflip: 0.5}
model: {source: students, name: tiny}
train: {epochs: 3, batch_size: 32}
"""
BYTES = ("metrics.jsonl", "checkpoints/last/model.safetensors")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    return tmp_path


@pytest.fixture
def start(base: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """A process of its own session in ``base``; what is left of it is killed afterwards."""
    if sys.platform != "linux":
        pytest.skip("glibc's mutex, and Linux's terminals")
    started: list[subprocess.Popen[str]] = []

    def run(*command: str, **how: object) -> subprocess.Popen[str]:
        named = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | how
        started.append(subprocess.Popen(command, cwd=base, text=True, start_new_session=True, **named))
        return started[-1]

    yield run
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def standing(start: Callable[..., subprocess.Popen[str]], case: str) -> subprocess.Popen[str]:
    return start(sys.executable, str(HERE / "standing.py"), case)


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """The first line of its stderr that has these words."""
    for line in process.stderr:
        if words in line:
            return line
    raise AssertionError("it has ended")


def end(process: subprocess.Popen[str], number: int) -> str:
    """Signal it until it has ended, and return what it still said."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        process.send_signal(number)
        time.sleep(0.2)
    assert process.poll() is not None, "it is deaf to signals"
    return process.communicate()[1]


@pytest.mark.slow
def test_a_run_that_stands_still_is_told_and_ended_and_goes_on_where_it_was(start, base: Path) -> None:
    process = standing(start, "run")
    line = read_until(process, " deaf; ")
    assert line.startswith("warning: nothing has moved for ")
    assert "(epoch 2, 2 of its steps done): " in line
    assert line.endswith("; is a kernel wrong on this machine? distill doctor --recipe runs/tiny/001/recipe.yaml\n")
    run = RunFolder(base / "runs" / "tiny" / "001")
    assert run.owner is not None
    said = end(process, signal.SIGTERM)
    assert process.returncode == 143
    assert said.splitlines()[-1] == "stopped: terminated twice, ended at once; what was not saved is lost"
    assert line.removeprefix("warning: ") in (run.path / "run.log").read_text()
    assert (run.owner, run.status) == (None, "interrupted")

    resume_run(run.path, options=Options(runs_dir=base / "runs", threads=1))
    options = Options(runs_dir=base / "others", device="cpu", threads=1)
    whole = train_student(load_recipe(base / "tiny.yaml"), options=options).run
    assert [(run.path / name).read_bytes() for name in BYTES] == [(whole / name).read_bytes() for name in BYTES]


@pytest.mark.slow
def test_a_process_that_waits_for_one_that_stands_still_is_ended_with_it(start) -> None:
    process = standing(start, "group")
    wanted = [r"warning in process 1: nothing has moved for .* deaf$", r"warning: nothing has moved for .*barrier"]
    while wanted:
        line = process.stderr.readline()
        assert line
        wanted = [pattern for pattern in wanted if not re.match(pattern, line)]
    end(process, signal.SIGINT)
    left = subprocess.run(["ps", "-o", "pid=", "-s", str(process.pid)], capture_output=True, text=True, check=False)
    for _ in range(300):  # Python's own resource tracker ends a moment after its process
        if not left.stdout.split():
            break
        time.sleep(0.1)
        left = subprocess.run(["ps", "-o", "pid=", "-s", str(process.pid)], capture_output=True, text=True, check=False)
    assert left.stdout == ""


@pytest.mark.slow
def test_a_closed_terminal_does_not_cost_the_run(start, base: Path) -> None:
    """As when an ssh session breaks: the terminal is gone, and the system hangs up."""
    import pty

    ours, theirs = pty.openpty()
    take = "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
    command = ("student", "--recipe", "tiny.yaml", "--device", "cpu", "--threads", "1")
    more = ("--set", "train.epochs=2000")
    process = start(
        *(sys.executable, "-c", f"{take}; from distill.__main__ import main; main()", *command, *more),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    run = RunFolder(base / "runs" / "tiny" / "001")
    while not run.checkpoints.is_dir() or not any(run.checkpoints.iterdir()):
        assert process.poll() is None
        os.read(ours, 1 << 16)
    os.close(ours)
    assert process.wait(120) == 143
    assert (run.status, run.info.exit_code) == ("interrupted", 143)
    epochs = len(run.metrics())
    meta = os.readlink(run.checkpoints / "last")
    assert int(meta.partition("-")[0]) == epochs  # what was trained is saved, to the step
    assert "Error" not in (run.path / "run.log").read_text()


# A reader, and a bank's builder


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """``told(place)`` waits until somebody was told that nothing moves there, and returns the line."""
    lines: list[str] = []
    say = watch.Watchdog._say

    def noted(self: watch.Watchdog, level: str, text: str) -> None:
        say(self, level, text)
        lines.append(text)

    def wait(place: str) -> str:
        for _ in range(600):
            if found := [line for line in lines if place in line]:
                return found[0]
            time.sleep(0.1)
        raise AssertionError(f"nobody was told: {lines}")

    monkeypatch.setattr(watch, "SILENCE_S", 0.5)
    monkeypatch.setattr(watch.Watchdog, "_say", noted)
    return wait


def test_a_picture_that_cannot_be_read_to_its_end_is_told(told: Callable[[str], str]) -> None:
    lines: list[str] = []

    def read() -> bytes:
        lines.append(told(" decode_all"))
        return b""

    with watch.watching():
        bad = decode_all([Job("train", 0, read)], {"train": None}, size=8, total=1, tell=silent)
    assert set(bad["train"]) == {0}
    assert lines[0].startswith("nothing has moved for ")
    assert re.search(
        r"; ThreadPoolExecutor\S+ at distill\.data\.decode_pool:\d+ _decode > ", lines[0]
    )  # where it reads


def test_a_teacher_that_does_not_answer_is_told(train, told: Callable[[str], str], monkeypatch, capsys) -> None:
    from distill.teaching import build

    lines: list[str] = []
    ask = build.ask

    def slow(*args: object, **named: object) -> object:
        if not lines:
            lines.append(told(" _answers > "))
        return ask(*args, **named)

    monkeypatch.setattr(build, "ask", slow)
    result = train("train.epochs=1", "teacher.logits=bank", "augment.view_seed=77")
    assert lines[0].startswith("nothing has moved for ")
    assert f"warning: {lines[0]}\n" in capsys.readouterr().err
    assert f"warning: {lines[0]}\n" in (result.run / "run.log").read_text()
