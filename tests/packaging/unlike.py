"""A system that is not at hand, simulated in this process: ``python unlike.py windows|macos CODE`` runs ``CODE`` in it.

Windows: modules that it lacks cannot be imported, functions that it lacks are gone, and a file that is open or mapped
can neither be replaced nor removed. What that cannot show: Windows' own console, its locks and its signals.

macOS: ``sys.platform`` is darwin, there is no /proc, no glibc, and nothing that Linux alone has; processes are spawned;
the GPU is there by what PyTorch says, first of all devices, and has none of the operators. What that cannot show: any
operator that it does have, its memory, clang's own libraries, and a file system that ignores case.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import importlib
import io
import multiprocessing
import os
import platform
import select
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


def simulate_windows() -> None:
    """Take away what Windows lacks, in this process."""
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


_LINUX = {
    os: "sched_getaffinity sched_setaffinity posix_fadvise posix_fallocate copy_file_range memfd_create eventfd",
    signal: "sigtimedwait sigwaitinfo SIGPWR SIGSTKFLT SIGRTMIN SIGRTMAX",
    select: "epoll",
}


def _without_proc(real: Any) -> Any:
    def look(path: Any = ".", *others: Any, **options: Any) -> Any:
        text = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
        if text == "/proc" or text.startswith(("/proc/", "/sys/")):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), text)
        return real(path, *others, **options)

    return look


def simulate_macos() -> None:
    """Take away what macOS lacks, in this process. What is compiled for Linux is loaded before."""
    for name in ("torch", "torchvision", "timm", "scipy.stats", "sklearn.datasets", "onnxruntime", "onnxscript"):
        importlib.import_module(name)
    for name in ("urllib.request", "ctypes.util", "asyncio", "multiprocessing.spawn", "concurrent.futures.process"):
        importlib.import_module(name)
    import torch

    sys.platform = "darwin"
    platform.system = lambda: "Darwin"
    platform.processor, platform.machine = (lambda: "arm"), (lambda: "arm64")
    platform.libc_ver = lambda *_, **__: ("", "")
    for home, names in _LINUX.items():
        for name in names.split():
            if hasattr(home, name):
                delattr(home, name)
    for home, names in {os: "open stat lstat scandir listdir readlink", io: "open", builtins: "open"}.items():
        for name in names.split():
            setattr(home, name, _without_proc(getattr(home, name)))
    multiprocessing.set_start_method("spawn", force=True)
    torch.backends.mps.is_available = lambda: True
    torch.mps.recommended_max_memory, torch.mps.driver_allocated_memory = (lambda: 8 << 30), (lambda: 0)
    torch.mps.manual_seed = lambda seed: None
    torch.mps.get_rng_state = lambda: torch.zeros(1, dtype=torch.uint8)
    torch.mps.set_rng_state = lambda state: None


if __name__ in ("__main__", "__mp_main__"):  # the second in processes that are spawned
    sys.path[0] = str(Path.cwd())
    {"windows": simulate_windows, "macos": simulate_macos}[sys.argv[1]]()
    if __name__ == "__main__":
        exec(sys.argv[2])
