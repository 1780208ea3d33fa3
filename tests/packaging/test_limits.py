"""Tests that die, or never end: the run ends soon, with a failure that names them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUSY = "import ctypes\ndef test_busy():\n    ctypes.PyDLL(None).sleep(600)\n"  # native code that keeps the interpreter
TWO_WORKERS = ("-n", "2", "--dist", "loadfile", "-p", "no:cacheprovider")

pytestmark = [pytest.mark.skipif(os.name != "posix", reason="sleep(3), and bash"), pytest.mark.slow]


def _pytest(tmp_path: Path, *options: str, before: tuple[str, ...] = (), **files: str) -> tuple[int, str]:
    """Exit code and output of these files' tests, under this project's own conftest.py."""
    for name, text in files.items():
        (tmp_path / f"test_{name}.py").write_text(text)
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    command = [*before, sys.executable, "-m", "pytest", *TWO_WORKERS, *options, str(tmp_path)]
    done = subprocess.run(
        command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=150, check=False
    )
    return done.returncode, done.stdout.decode(errors="replace")


def test_a_worker_that_dies_ends_the_run(tmp_path: Path) -> None:
    dies = "import os\ndef test_before():\n    pass\ndef test_dies():\n    os.abort()\ndef test_after():\n    pass\n"
    code, said = _pytest(tmp_path, dies=dies, busy=BUSY)
    assert code == 1
    assert "crashed while running 'test_dies.py::test_dies'" in said
    assert "was lost: Not properly terminated" in said
    assert "1 failed, 1 passed" in said


def test_a_worker_that_dies_between_tests_ends_the_run(tmp_path: Path) -> None:
    dies = (
        "import os, pytest\n@pytest.fixture(scope='session', autouse=True)\ndef dies():\n    yield\n    os._exit(0)\n"
    )
    code, said = _pytest(tmp_path, dies=dies + "def test_passes(dies):\n    pass\n", busy=BUSY)
    assert code == 1
    assert "was lost: Not properly terminated" in said


def test_a_test_that_never_ends_is_stopped_and_named(tmp_path: Path) -> None:
    pytest.importorskip("pytest_timeout")
    hangs = "import ctypes\ndef test_hangs():\n    ctypes.CDLL(None).sleep(600)\n"
    options = ("--timeout", "4", "--timeout-method", "thread", "-o", "faulthandler_timeout=2")
    code, said = _pytest(tmp_path, *options, hangs=hangs, quick="def test_quick():\n    pass\n")
    assert code == 1
    assert "crashed while running 'test_hangs.py::test_hangs'" in said
    assert 'test_hangs.py", line 3 in test_hangs' in said


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_a_run_past_its_limit_names_each_test_that_was_running(tmp_path: Path) -> None:
    other = BUSY.replace("test_busy", "test_busy_too")
    for seconds in ("12", "90"):  # on a busy machine the tests have not begun after 12
        code, said = _pytest(tmp_path, before=("bash", str(ROOT / ".ci" / "limit"), seconds), one=BUSY, two=other)
        if "in test_busy\n" in said and "in test_busy_too\n" in said:
            break
    assert code == 124
    assert f"error: not done after {seconds} s" in said
    assert 'test_one.py", line 3 in test_busy\n' in said
    assert 'test_two.py", line 3 in test_busy_too\n' in said


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(("command", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_within_the_limit_the_exit_code_is_the_commands(command: str, code: int) -> None:
    done = subprocess.run(["bash", str(ROOT / ".ci" / "limit"), "20", "bash", "-c", command], timeout=60, check=False)
    assert done.returncode == code


def test_the_test_command_sets_the_limits() -> None:
    said = (ROOT / ".ci" / "test").read_text()
    assert "--timeout 600 --timeout-method thread -o faulthandler_timeout=590" in said
    assert "bash .ci/limit 3600" in (ROOT / ".ci" / "run").read_text()
