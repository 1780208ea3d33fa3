"""run.json: what a run is, how it was made, and how it stands."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from distill.errors import RunError
from distill.text import cut

__all__ = ["RunInfo", "Status", "git_state", "own_commit"]

Status = Literal["running", "finished", "interrupted", "failed"]
_STATUSES = ("running", "finished", "interrupted", "failed")
_ROLES = ("teacher", "student", "baseline")
_GIT_SECONDS = 3.0


@dataclass(frozen=True)
class RunInfo:
    """The content of run.json. Keys that this version does not know are kept in ``extra``.

    ``seeds`` are by purpose (train, split, view); ``git`` has ``commit`` and ``dirty``; ``choices`` tells what each
    ``auto`` of the recipe became and why; times are ISO text in UTC. ``status`` is as last written: a run that was
    killed still reads "running" here, see :attr:`RunFolder.status`.
    """

    status: Status = "running"
    name: str = ""
    role: str = ""
    command: tuple[str, ...] = ()
    started: str | None = None
    finished: str | None = None
    exit_code: int | None = None
    device: str | None = None
    threads: int | None = None
    seeds: dict[str, int] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    git: dict[str, Any] | None = None
    teacher: dict[str, Any] | None = None
    data: dict[str, Any] | None = None
    choices: dict[str, Any] | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def trained_on(self) -> str | None:
        """Fingerprint of the images that it was trained on; None where that was not written down."""
        return (self.data or {}).get("fingerprint")

    def updated(self, **changes: Any) -> RunInfo:
        """A copy with other values; names that are no field go to ``extra``."""
        known = {name: value for name, value in changes.items() if name in _FIELDS}
        unknown = {name: value for name, value in changes.items() if name not in _FIELDS and name != "extra"}
        if "command" in known:
            known["command"] = tuple(known["command"])
        return replace(self, **known, extra=self.extra | changes.get("extra", {}) | unknown)

    def to_json(self) -> dict[str, Any]:
        """One flat JSON object: the fields, then ``extra``."""
        tree = {name: getattr(self, name) for name in _FIELDS}
        return tree | {"command": list(self.command)} | self.extra

    @classmethod
    def from_json(cls, tree: dict[str, Any], *, source: Path) -> RunInfo:
        """Read what :meth:`to_json` gave; missing keys have their defaults.

        Raises:
            RunError: A value has the wrong type, or there is no status; the message names ``source`` and the key.
        """
        if "status" not in tree:
            raise RunError(f"{source}: damaged: no status")
        for name, value in tree.items():
            if name in _CHECKS and not _CHECKS[name][0](value):
                raise RunError(f"{source}: damaged: {name} should be {_CHECKS[name][1]}, got {cut(repr(value), 60)}")
        return cls().updated(**{key: value for key, value in tree.items() if key != "extra"})


_FIELDS = tuple(item.name for item in fields(RunInfo) if item.name != "extra")
_Check = tuple[Callable[[Any], bool], str]


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_TEXT_OR_NONE: _Check = (lambda value: value is None or isinstance(value, str), "text or null")
_INT_OR_NONE: _Check = (lambda value: value is None or _is_int(value), "an integer or null")
_OBJECT_OR_NONE: _Check = (lambda value: value is None or isinstance(value, dict), "an object or null")
_CHECKS: dict[str, _Check] = {
    "status": (lambda value: isinstance(value, str) and value in _STATUSES, f"one of {', '.join(_STATUSES)}"),
    "name": (lambda value: isinstance(value, str), "text"),
    "role": (lambda value: value == "" or (isinstance(value, str) and value in _ROLES), f"one of {', '.join(_ROLES)}"),
    "command": (
        lambda value: isinstance(value, list) and all(isinstance(part, str) for part in value),
        "a list of text",
    ),
    "started": _TEXT_OR_NONE,
    "finished": _TEXT_OR_NONE,
    "exit_code": _INT_OR_NONE,
    "device": _TEXT_OR_NONE,
    "threads": _INT_OR_NONE,
    "seeds": (lambda value: isinstance(value, dict) and all(map(_is_int, value.values())), "an object of integers"),
    "versions": (
        lambda value: isinstance(value, dict) and all(isinstance(text, str) for text in value.values()),
        "an object of text",
    ),
    "git": _OBJECT_OR_NONE,
    "teacher": _OBJECT_OR_NONE,
    "data": _OBJECT_OR_NONE,
    "choices": _OBJECT_OR_NONE,
}


def git_state(folder: Path) -> dict[str, Any] | None:
    """The commit checked out at ``folder`` and whether tracked files differ from it; None outside a repository."""
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no") if commit else None
    if not commit or changed is None:
        return None
    return {"commit": commit, "dirty": changed != ""}


def own_commit() -> str | None:
    """The commit of distill itself, ten digits, ``+`` behind it where files differ; None where it was installed."""
    home = Path(__file__).parents[2]
    if _git(home, "ls-files", "--error-unmatch", "distill/__init__.py") is None:  # another's repository around it
        return None
    state = git_state(home)
    return None if state is None else state["commit"][:10] + ("+" if state["dirty"] else "")


def _git(folder: Path, *arguments: str) -> str | None:
    # Neither writes the index nor starts what a repository's configuration names.
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=_GIT_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"GIT_TERMINAL_PROMPT": "0"},
        )
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None
