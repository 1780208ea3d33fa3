"""A system without what only Unix has, simulated in this process: ``python unlike.py CODE`` runs ``CODE`` in it.

Modules that Windows lacks cannot be imported, functions that it lacks are gone, and a file that is open or mapped can
neither be replaced nor removed. What it cannot show: drive letters, Windows' own console, its locks and its signals.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import os
import signal
import subprocess  # noqa: F401  (before a msvcrt is there, by which it knows Windows)
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

ABSENT = ("resource", "fcntl", "termios", "pwd", "grp", "tty", "pty", "syslog")
_GONE = ((os, "sched_getaffinity"), (os, "fork"), (signal, "pthread_sigmask"), (signal, "SIGHUP"))


class _Blocked:
    """An import hook that comes before all others."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _in_use() -> set[str]:
    """Files that this process holds open, or has mapped."""
    paths = set()
    for entry in os.scandir("/proc/self/fd"):
        try:
            paths.add(os.readlink(entry.path))
        except OSError:
            continue
    with builtins.open("/proc/self/maps") as maps:
        paths |= {line.split(maxsplit=5)[5].strip() for line in maps if len(line.split(maxsplit=5)) == 6}
    return paths


def _refusing(real: Any, *, targets: int) -> Any:
    def change(*paths: Any, **options: Any) -> Any:
        if not options:
            used = _in_use()
            for path in paths[:targets]:
                if os.path.realpath(path) in used:
                    raise PermissionError(13, "The process cannot access the file: it is in use", str(path))
        return real(*paths, **options)

    return change


def _msvcrt() -> ModuleType:
    """Windows' locks of bytes, as far as they are asked for: one that another holder has is refused."""
    module: Any = ModuleType("msvcrt")
    module.LK_NBLCK = 2

    def locking(handle: int, mode: int, count: int) -> None:
        assert mode == module.LK_NBLCK, "only this one is simulated"
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    module.locking = locking
    return module  # type: ignore[no-any-return]


def _without_privilege(*_: Any, **__: Any) -> None:
    raise OSError(errno.EPERM, "A required privilege is not held by the client")  # of winerror 1314 Unix knows nothing


def simulate() -> None:
    """Take it all away, in this process."""
    sys.modules["msvcrt"] = _msvcrt()
    for name in ABSENT:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, _Blocked())  # type: ignore[arg-type]
    for home, name in _GONE:
        if hasattr(home, name):
            delattr(home, name)
    os.symlink = _without_privilege
    os.replace, os.rename = (_refusing(real, targets=2) for real in (os.replace, os.rename))
    os.unlink, os.remove = (_refusing(real, targets=1) for real in (os.unlink, os.remove))


if __name__ == "__main__":
    sys.path[0] = str(Path.cwd())
    simulate()
    exec(sys.argv[1])
