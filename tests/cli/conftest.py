"""The command line in this process, its library replaced where a test is about the command line alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from distill.cli import app

Run = Callable[..., Result]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``cli("recipe", "list")`` in an empty folder; a bug's traceback is the test's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISTILL_RUNS", raising=False)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*args: str, input: str | None = None, **env: str) -> Result:
        return CliRunner().invoke(app, list(args), env=env, input=input, catch_exceptions=False)

    return run
