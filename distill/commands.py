"""The command lines that distill itself tells somebody to type."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

__all__ = ["import_command", "prune_command", "rerun_command", "resume_command", "soup_command", "training_verb"]


def training_verb(role: str) -> str:
    """The command that trains recipes of a role.

    >>> training_verb("teacher"), training_verb("baseline")
    ('teacher-finetune', 'student')
    """
    return "teacher-finetune" if role == "teacher" else "student"


def resume_command(role: str, run: str | Path, *, allow_code: bool = False) -> str:
    """What goes on with a run.

    Args:
        allow_code: Its recipe names code of the user's own.

    >>> resume_command("student", Path("runs/a b/001"))
    "distill student --resume 'runs/a b/001'"
    """
    leave = " --allow-code" if allow_code else ""
    return f"distill {training_verb(role)} --resume {shlex.quote(str(run))}{leave}"


def rerun_command(role: str, run: str | Path, *, allow_code: bool = False) -> str:
    """What trains a run once more, to the same bytes; ``allow_code`` as of :func:`resume_command`."""
    leave = " --allow-code" if allow_code else ""
    return f"distill {training_verb(role)} --rerun {shlex.quote(str(run))}{leave}"


def prune_command(run: str | Path) -> str:
    """What cuts a run; the goal is still to be said."""
    return f"distill prune {shlex.quote(str(run))}"


def soup_command(runs: Sequence[str], *, name: str, greedy: bool) -> str:
    """What averages the weights of runs.

    >>> soup_command(["runs/a/001", "runs/a/002"], name="a_soup", greedy=True)
    'distill soup runs/a/001 runs/a/002 --name a_soup --greedy'
    """
    return f"distill soup {shlex.join(runs)} --name {shlex.quote(name)}" + (" --greedy" if greedy else "")


def import_command(file: str) -> str:
    """What makes a run of a checkpoint; the recipe is still to be said."""
    return f"distill import {shlex.quote(file)}"
