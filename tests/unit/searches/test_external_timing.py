"""Commands that measure, and commands that fail, lie, or hang."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from distill.errors import RunError, UsageError
from distill.searches.external_timing import check_command, measure_elsewhere

WANTED = ("latency_b1_ms",)


def command(code: str) -> str:
    return f'{sys.executable} -c "{code}" {{file}}'


def test_what_it_prints_is_read(tmp_path: Path) -> None:
    file = tmp_path / "with a blank.onnx"
    file.write_bytes(b"x" * 7)
    code = "import os, sys; print('{', chr(34) + 'latency_b1_ms' + chr(34), ':', os.path.getsize(sys.argv[1]), '}')"
    assert measure_elsewhere(command(code), file, WANTED) == {"latency_b1_ms": 7.0}


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import sys; sys.exit('no such board')", "exit code 1: no such board"),
        ("print('about two milliseconds')", "no JSON"),
        ("print('[1.5]')", "no JSON object"),
        ("print('{}')", "latency_b1_ms is None, no time above 0"),
        ("print('{%clatency_b1_ms%c: -1.5}' % (34, 34))", "latency_b1_ms is -1.5, no time above 0"),
        ("print('{%clatency_b1_ms%c: 0}' % (34, 34))", "no time above 0"),
        ("print('{%clatency_b1_ms%c: NaN}' % (34, 34))", "no time above 0"),
        ("print('{%clatency_b1_ms%c: Infinity}' % (34, 34))", "no time above 0"),
        ("print('{%clatency_b1_ms%c: true}' % (34, 34))", "no time above 0"),
        ("print('{%clatency_b1_ms%c: %cfast%c}' % (34, 34, 34, 34))", "no time above 0"),
        ("print('[' * 100000)", "no JSON"),
        ("import os; os.kill(os.getpid(), 9)", "exit code -9"),
    ],
)
def test_one_that_fails_or_lies_is_an_error_of_one_line(tmp_path: Path, code: str, said: str) -> None:
    with pytest.raises(RunError) as error:
        measure_elsewhere(command(code), tmp_path / "a.onnx", WANTED)
    assert said in error.value.message
    assert "\n" not in error.value.message
    assert error.value.exit_code == 1


def test_one_that_hangs_is_ended_with_what_it_started(tmp_path: Path) -> None:
    mark = tmp_path / "child"
    code = (
        "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
        f"open('{mark}', 'w').write(str(p.pid)); time.sleep(600)"
    )
    with pytest.raises(RunError, match="still at work after 5 s"):
        measure_elsewhere(command(code), tmp_path / "a.onnx", WANTED, patience_s=5)
    child = int(mark.read_text())
    for _ in range(100):
        if not _lives(child):
            break
        time.sleep(0.05)
    assert not _lives(child)


def _lives(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_one_that_is_not_there() -> None:
    with pytest.raises(RunError, match="cannot be run: No such file"):
        measure_elsewhere("/no/such/thing {file}", Path("a.onnx"), WANTED)


@pytest.mark.parametrize(("text", "said"), [("time.sh", "has no {file}"), ("time.sh '{file}", "No closing quotation")])
def test_what_cannot_be_one_is_told_before_anything_is_measured(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_command(text)


def test_no_shell_reads_it(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with pytest.raises(RunError):
        measure_elsewhere(f"{sys.executable} -c pass {{file}} ; touch {mark}", Path("$(touch x).onnx"), WANTED)
    assert not mark.exists()
    assert os.listdir(tmp_path) == []
