"""Runs are folders: made, opened, locked, listed, and read. Needs no torch."""

from __future__ import annotations

from distill.runs.find import begun_runs, check_runs_dir, create_run, list_damaged, list_runs, open_run, open_runs
from distill.runs.folder import RunFolder
from distill.runs.info import RunInfo, Status, git_state, own_commit
from distill.runs.lock import Lock, Owner, lock_owner, owner_is_dead, process_alive, utc_now

__all__ = [
    "Lock",
    "Owner",
    "RunFolder",
    "RunInfo",
    "Status",
    "begun_runs",
    "check_runs_dir",
    "create_run",
    "git_state",
    "list_damaged",
    "list_runs",
    "lock_owner",
    "open_run",
    "open_runs",
    "own_commit",
    "owner_is_dead",
    "process_alive",
    "utc_now",
]
