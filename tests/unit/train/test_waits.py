"""Runs waits.py in a process of its own: torch learns of another device only before its first backward pass."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def _passed(which: str, count: int) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "waits.py"), "-k", which]
    child = subprocess.run(command, check=False, cwd=HERE.parents[2], capture_output=True, text=True)
    assert child.returncode == 0, child.stdout + child.stderr
    assert f"{count} passed" in child.stdout, child.stdout


def test_no_step_waits_and_every_bit_is_the_cpus() -> None:
    _passed("no_step_waits or device_that_computes", 7)


def test_banks_and_lookahead_ask_little_of_the_device() -> None:
    _passed("too_large or many_batches or lookahead", 4)


def test_planted_faults_are_found() -> None:
    _passed("planted", 5)
