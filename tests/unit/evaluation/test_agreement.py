"""Consensus, and the spread over seeds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from distill.evaluation.agreement import agreement
from distill.evaluation.mean_std import mean_std

ROOT = Path(__file__).parents[3]


def test_counts_equal_answers():
    a = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0], [0.0, 9.0, 1.0], [5.0, 4.0, 3.0]])
    b = np.array([[9.0, 8.0, 0.0], [2.0, 1.0, 0.0], [0.1, 0.2, 0.1], [-5.0, -4.0, -3.0]])
    assert agreement(a, b) == 0.5
    assert agreement(a, a * 3 + 1) == 1.0


def test_refuses_different_sets_of_images():
    with pytest.raises(ValueError, match=r"\(4, 3\) and \(5, 3\)"):
        agreement(np.zeros((4, 3)), np.zeros((5, 3)))
    with pytest.raises(ValueError, match="no images"):
        agreement(np.zeros((0, 3)), np.zeros((0, 3)))


def test_mean_and_sample_deviation():
    assert mean_std([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]) == pytest.approx((5.0, (32 / 7) ** 0.5))
    assert mean_std((0.91,)) == (0.91, None)
    assert mean_std([0.1, 0.1, 0.1]) == (pytest.approx(0.1), 0.0)
    with pytest.raises(ValueError, match="no values"):
        mean_std([])


def test_doctests():
    command = [sys.executable, "-m", "pytest", "--doctest-modules", "-q", "-p", "no:cacheprovider"]
    places = [str(ROOT / "distill" / "evaluation" / f"{name}.py") for name in ("agreement", "correct", "mean_std")]
    done = subprocess.run([*command, *places], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout, done.stdout
