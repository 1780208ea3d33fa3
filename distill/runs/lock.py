"""One process at a time: a lock file that falls with its process, and says who holds it.

The kernel's lock on the file (``flock``) decides between processes of one machine: it is free the moment its owner
dies, and of two that take over at once exactly one gets it. The file's content names the owner, for messages and for
other machines, where kernel locks may not reach (shared network folders); there a heartbeat, the file's modification
time, tells the living from the dead.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import secrets
import threading
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from distill.errors import RunError
from distill.files import writing
from distill.team.signals import count_held_lock

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["HEARTBEAT_S", "STALE_AFTER_S", "Lock", "Owner", "lock_owner", "owner_is_dead", "process_alive", "utc_now"]

HEARTBEAT_S = 60.0
STALE_AFTER_S = 600.0  # another machine's lock without a heartbeat for so long is nobody's
_PATIENCE_S = 0.5  # whoever looks whether a run is alive holds its lock for an instant
_BUSY = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
_SAFE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_FAR = 1 << 30  # Windows locks bytes, and a locked byte cannot be read: lock one far behind the content


def utc_now() -> str:
    """The time as ISO text, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Owner:
    """The process that a lock file names. ``token`` is drawn anew for every taking of a lock."""

    pid: int
    host: str
    boot: str | None
    process_start: int | None
    since: str
    token: str

    def __str__(self) -> str:
        return f"process {self.pid} on host {self.host}" if self.token else "another process"


_UNKNOWN = Owner(pid=0, host="", boot=None, process_start=None, since="", token="")


class Lock:
    """A lock held from ``with`` to its end, or to the death of the process.

    Args:
        path: The lock file; it exists while somebody holds the lock, or after somebody died with it.
        subject: What is locked, as messages name it.
        wait_s: How long to wait for another holder; 0 refuses at once.
    """

    def __init__(self, path: Path, *, subject: str, wait_s: float = 0.0) -> None:
        self.path = path
        self.subject = subject
        self.wait_s = wait_s
        self._handle: int | None = None
        self._owner = _UNKNOWN
        self._ended = threading.Event()

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            RunError: Somebody else holds it.
            DistillError: The folder cannot be written.
        """
        assert self._handle is None, "a lock is taken once"
        deadline = time.monotonic() + max(self.wait_s, _PATIENCE_S)
        while (holder := self._attempt()) is not None:
            if time.monotonic() >= deadline:
                raise RunError(f"{self.subject} is in use by {holder}", hint=self._hint(holder))
            time.sleep(0.05)
        self._ended.clear()
        threading.Thread(target=self._beat, name=f"lock {self.path}", daemon=True).start()

    def _hint(self, holder: Owner) -> str:
        if holder.host in ("", platform.node()):
            return "wait until it has ended, or stop it"
        minutes = STALE_AFTER_S / 60
        return f"if that machine is gone, the lock is free after {minutes:g} minutes, or remove {self.path}"

    def _attempt(self) -> Owner | None:
        """Who is in the way; None when the lock is ours."""
        with writing(self.path):
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | _SAFE, 0o666)
            try:
                holder = self._claim(handle)
            except BaseException:
                os.close(handle)
                raise
            if holder is None:
                self._handle = handle
                count_held_lock(1)
            else:
                os.close(handle)
            return holder

    def _claim(self, handle: int) -> Owner | None:
        locked = _kernel_lock(handle, shared=False)
        if locked is False:
            return _read_owner(handle) or _UNKNOWN
        if not _is_at(handle, self.path):  # its last owner removed it before we had it; look again
            return _UNKNOWN
        before = _read_owner(handle)
        if before is not None and _lives(before, os.fstat(handle).st_mtime, kernel_locks=locked is True):
            return before
        self._owner = _this_process()
        _write_owner(handle, self._owner)
        if locked is None:  # no kernel locks here: of several that wrote, the last has it
            time.sleep(0.2)
            after = _read_owner(handle)
            return None if after == self._owner else after or _UNKNOWN
        return None

    def touch(self) -> None:
        """Show that the owner is alive.

        Raises:
            RunError: The lock is no longer ours: its file was removed, or another machine took this process for dead.
        """
        assert self._handle is not None, "not locked"
        if not self._is_ours():
            raise RunError(
                f"{self.subject}: this process lost its lock",
                hint="another may write there now; resume when it has ended",
            )
        os.utime(self.path)

    def _is_ours(self) -> bool:
        handle = self._handle
        return handle is not None and _is_at(handle, self.path) and _read_owner(handle) == self._owner

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            with contextlib.suppress(OSError, RunError, AssertionError):  # the next touch() in the foreground says it
                self.touch()

    def release(self) -> None:
        """Give the lock back; a no-op when it is not held, or in a forked child of its owner."""
        self._ended.set()
        handle, self._handle = self._handle, None
        if handle is None:
            return
        with contextlib.suppress(OSError):
            if self._owner.pid == os.getpid() and _is_at(handle, self.path) and _read_owner(handle) == self._owner:
                os.ftruncate(handle, 0)  # Windows cannot remove an open file: empty means free
                self.path.unlink()
        os.close(handle)
        count_held_lock(-1)


def lock_owner(path: Path) -> Owner | None:
    """The living process that holds the lock file, or None. Reads only."""
    owner, lives = _look(path)
    return owner if lives else None


def owner_is_dead(path: Path) -> bool:
    """Whether the lock file names a process that died; False where none is named, as while one takes it. Reads only."""
    owner, lives = _look(path)
    return owner is not None and not lives


def _look(path: Path) -> tuple[Owner | None, bool]:
    """Whom a lock file names, and whether that process lives."""
    try:
        handle = os.open(path, os.O_RDONLY | _SAFE)
    except OSError:
        return None, False
    try:
        locked = _kernel_lock(handle, shared=True)
        owner = _read_owner(handle)
        if locked is False:
            return owner or _UNKNOWN, True
        return owner, owner is not None and _lives(owner, os.fstat(handle).st_mtime, kernel_locks=locked is True)
    finally:
        os.close(handle)


def _kernel_lock(handle: int, *, shared: bool) -> bool | None:
    """Lock the open file: True if got, False if another has it, None where the file system has no locks."""
    try:
        if fcntl is not None:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        else:
            import msvcrt

            os.lseek(handle, _FAR, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    except OSError as error:
        return False if error.errno in _BUSY else None
    return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path, follow_symlinks=False))
    except OSError:
        return False


def _read_owner(handle: int) -> Owner | None:
    """The owner a lock file names; None if it is empty or damaged, as after a death while writing it."""
    try:
        os.lseek(handle, 0, os.SEEK_SET)
        tree = json.loads(os.read(handle, 1 << 16))
        owner = Owner(**{name: tree[name] for name in Owner.__dataclass_fields__})
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    texts = all(isinstance(text, str) for text in (owner.host, owner.since, owner.token))
    return owner if texts and isinstance(owner.pid, int) and owner.token else None


def _write_owner(handle: int, owner: Owner) -> None:
    content = (json.dumps(asdict(owner)) + "\n").encode()
    os.ftruncate(handle, 0)  # in place: the kernel's lock belongs to this very file, not to its name
    os.lseek(handle, 0, os.SEEK_SET)
    os.write(handle, content)
    os.fsync(handle)


def _this_process() -> Owner:
    pid = os.getpid()
    return Owner(
        pid=pid,
        host=platform.node(),
        boot=_boot_id(),
        process_start=_process_start(pid),
        since=utc_now(),
        token=secrets.token_hex(8),
    )


def _lives(owner: Owner, beat: float, *, kernel_locks: bool) -> bool:
    """Whether the owner named in a lock file lives, although no kernel lock was in the way.

    ``beat`` is when it was last heard of, in seconds since the epoch.
    """
    same_host = owner.host == platform.node()
    same_kernel = owner.boot == _boot_id() and (owner.boot is not None or same_host)
    if same_kernel and kernel_locks:  # also from another container, whose process numbers and host name differ
        return False
    if same_kernel and same_host:
        return process_alive(owner.pid, owner.process_start)
    if same_host and beat < _boot_time():  # two machines may share a name: another boot alone proves nothing
        return False
    return time.time() - beat < STALE_AFTER_S


def process_alive(pid: int, start: int | None = None) -> bool:
    """Whether a process of this machine lives; ``start`` tells it from a later one that was given its number."""
    if pid <= 0:
        return False
    if os.name == "nt":  # os.kill(pid, 0) would end it there
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    now = _process_start(pid)
    return now != 0 and (start is None or now is None or now == start)


def _process_start(pid: int) -> int | None:
    """Clock ticks from boot to the start of a process; 0 for one that is dead but not yet buried, None if unknown."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name, in brackets, may hold anything
    if len(fields) < 20:
        return None
    return 0 if fields[0] in "ZX" else int(fields[19])


def _boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip() or None
    except (OSError, ValueError):
        return None


def _boot_time() -> float:
    """When this machine started, in seconds since the epoch; 0 if unknown."""
    try:
        return time.time() - float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 0.0
