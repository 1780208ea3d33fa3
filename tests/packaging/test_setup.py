"""``make`` on machines that lack something: one clear line, and nothing half made."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(os.name != "posix", reason="make and sh")


def _fake_python(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def _setup(python: Path | str, venv: Path, *, path: str | None = None) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHON": str(python), "VENV": str(venv)} | ({"PATH": path} if path else {})
    shell = shutil.which("sh")
    assert shell is not None
    return subprocess.run(
        [shell, str(ROOT / ".ci" / "setup"), "test"], env=env, capture_output=True, text=True, timeout=60, check=False
    )


def _says(done: subprocess.CompletedProcess[str], words: str, venv: Path) -> None:
    assert done.returncode == 2
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert words in error
    assert hint.startswith("hint:  ")
    assert not venv.exists()


def test_a_python_too_old(tmp_path: Path) -> None:
    old = _fake_python(tmp_path / "old", '[ "$1" = --version ] && { echo "Python 3.9.2"; exit 0; }\nexit 1')
    _says(_setup(old, tmp_path / "venv"), f"distill needs Python 3.11 or newer; {old}: Python 3.9.2", tmp_path / "venv")


def test_no_such_python(tmp_path: Path) -> None:
    _says(_setup(tmp_path / "none", tmp_path / "venv"), "not found", tmp_path / "venv")


def test_no_python_at_all(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for tool in ("dirname", "cksum", "cut"):
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / "bin" / tool).symlink_to(found)
    done = _setup("", tmp_path / "venv", path=str(tmp_path / "bin"))
    _says(done, "distill needs Python 3.11 or newer; python3: not found", tmp_path / "venv")


def test_no_ensurepip(tmp_path: Path) -> None:
    script = f'case "$*" in *ensurepip*) exit 1;; esac\nexec {sys.executable} "$@"'
    bare = _fake_python(tmp_path / "bare", script)
    _says(_setup(bare, tmp_path / "venv"), "venv or ensurepip module is missing", tmp_path / "venv")


def test_an_old_environment_in_the_place(tmp_path: Path) -> None:
    folder = tmp_path / "venv" / "bin"
    folder.mkdir(parents=True)
    _fake_python(folder / "python", '[ "$1" = --version ] && { echo "Python 3.10.1"; exit 0; }\nexit 1')
    done = _setup(sys.executable, tmp_path / "venv")
    assert done.returncode == 2
    assert "holds Python 3.10.1" in done.stderr


def test_a_fresh_environment_says_how_to_call_distill(tmp_path: Path) -> None:
    """The next thing that a reader types is ``distill``, which no shell knows yet."""
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    _fake_python(venv / "bin" / "python", "exit 0")  # new enough, and pip installs what it is told to
    done = _setup(sys.executable, venv)
    assert done.returncode == 0, done.stderr
    assert f". {venv}/bin/activate" in done.stdout.splitlines()[-1]
    assert _setup(sys.executable, venv).stdout == ""  # there already: nothing to say
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert ". .venv/bin/activate" in readme
    assert "pipx install ." in readme
    assert "uv tool install ." in readme


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_the_two_commands_of_the_readme() -> None:
    env = {key: value for key, value in os.environ.items() if not key.startswith("MAKE") and key != "VENV"}
    command = ["make", "-n", "quickstart", "test"]
    shown = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    lines = shown.stdout.splitlines()
    assert lines[:2] == ["sh .ci/setup", ".venv/bin/distill quickstart"]
    assert lines[2].startswith("echo")  # where the command is that has just run
    assert ". .venv/bin/activate" in lines[2]
    assert lines[3] == "sh .ci/setup test"
    assert lines[4:] == ["sh .ci/test"]
    assert "make lint test" in (ROOT / ".ci" / "run").read_text()
