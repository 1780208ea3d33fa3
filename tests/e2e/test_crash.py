"""Killed at any moment, a run that is resumed ends with the bytes of one that was never killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _benchmark(module: str, *args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *args],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("command", ["student", "teacher", "bank", "sweep", "student --behind"])
def test_killed_runs_end_with_the_same_bytes(command: str, tmp_path: Path) -> None:
    done = _benchmark("crash", "--kills", "3", "--seed", "3", "--only", *command.split(), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every end has the bytes of a run that was never killed" in done.stdout
    assert "3 kills in" in done.stdout or "4 kills in" in done.stdout or "5 kills in" in done.stdout


@pytest.mark.slow
def test_damage_of_every_sort_gets_a_clear_message(tmp_path: Path) -> None:
    done = _benchmark("fuzz", "--cases", "90", "--seed", "11", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "90 cases, 0 problems" in done.stdout
