"""One process at a time, by real processes: refused, waited for, taken over from the dead, exactly once."""

from __future__ import annotations

import errno
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distill.errors import DistillError, RunError
from distill.runs import Lock, create_run, process_alive
from distill.runs import lock as lock_module
from distill.runs.lock import STALE_AFTER_S, lock_owner, owner_is_dead

HOLD = """
import sys
from pathlib import Path
from distill.errors import RunError
from distill.runs import Lock
print("ready", flush=True); sys.stdin.readline()
try:
    with Lock(Path(sys.argv[1]), subject="runs/x/003"):
        print("held", flush=True); sys.stdin.readline()
    print("released", flush=True)
except RunError as error:
    print("refused", error.message, flush=True)
"""


class Child:
    """A process that takes the lock when told, and holds it until told."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.hear() == "ready"

    @property
    def pid(self) -> int:
        return self.process.pid

    def tell(self) -> None:
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.end()

    def end(self) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(timeout=30)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lock.json"


@pytest.fixture
def children(path):
    started = [Child(path) for _ in range(3)]
    yield started
    for child in started:
        if child.process.poll() is None:
            child.process.kill()
        if not child.process.stdin.closed:
            child.end()


def write_owner(path: Path, *, age_s: float = 0.0, **changes) -> None:
    """A lock file as a process that is gone, or on another machine, would leave it."""
    owner = {
        "pid": 4_000_000,
        "host": platform.node(),
        "boot": lock_module._boot_id(),
        "process_start": 1,
        "since": "2026-01-01T00:00:00+00:00",
        "token": "t",
    }
    path.write_text(json.dumps(owner | changes))
    os.utime(path, (time.time() - age_s,) * 2)


def take(path: Path) -> None:
    with Lock(path, subject="runs/x/003") as lock:
        lock.touch()


def test_held_says_by_whom_and_released_leaves_nothing(path):
    with Lock(path, subject="runs/x/003"):
        owner = lock_owner(path)
        assert (owner.pid, owner.host) == (os.getpid(), platform.node())
        with pytest.raises(RunError) as caught:
            take(path)
        assert caught.value.message == f"runs/x/003 is in use by process {os.getpid()} on host {platform.node()}"
        assert caught.value.exit_code == 1
    assert not path.exists()
    assert lock_owner(path) is None


def test_another_process_is_refused_and_death_frees(path, children):
    first, second, _ = children
    first.tell()
    assert first.hear() == "held"
    second.tell()
    assert second.hear() == f"refused runs/x/003 is in use by process {first.pid} on host {platform.node()}"
    assert lock_owner(path).pid == first.pid
    first.kill()
    assert path.exists()
    assert lock_owner(path) is None
    take(path)
    assert not path.exists()


def test_only_a_lock_that_names_a_dead_process_is_a_dead_ones(path, children):
    assert not owner_is_dead(path)
    path.touch()
    assert not owner_is_dead(path), "somebody may be about to take it"
    first = children[0]
    first.tell()
    assert first.hear() == "held"
    assert not owner_is_dead(path)
    first.kill()
    assert owner_is_dead(path)
    write_owner(path, host="elsewhere", boot="another")
    assert not owner_is_dead(path), "heard of lately"
    write_owner(path, host="elsewhere", boot="another", age_s=STALE_AFTER_S + 1)
    assert owner_is_dead(path)


@pytest.mark.parametrize("left", ["nothing", "stale", "empty"])
def test_of_several_that_take_over_at_once_one_wins(path, children, left):
    if left == "stale":
        write_owner(path)
    elif left == "empty":
        path.touch()
    for child in children:
        child.tell()
    heard = [child.hear().split()[0] for child in children]
    assert sorted(heard) == ["held", "refused", "refused"]


def test_waiting_gets_it_when_the_other_ends(path, children):
    first = children[0]
    first.tell()
    assert first.hear() == "held"
    first.process.stdin.write("\n")
    first.process.stdin.flush()
    with Lock(path, subject="bank", wait_s=20.0):
        assert lock_owner(path).pid == os.getpid()


def test_looking_does_not_disturb_taking(path, children):
    looker = children[0]
    with open(path, "w") as file:
        lock_module.fcntl.flock(file, lock_module.fcntl.LOCK_SH)
        looker.tell()
        time.sleep(0.1)
        lock_module.fcntl.flock(file, lock_module.fcntl.LOCK_UN)
        assert looker.hear() == "held"


@pytest.mark.parametrize(
    ("age_s", "changes"),
    [
        (0.0, {}),  # a dead process of this boot
        (0.0, {"pid": 1, "process_start": 999_999_999}),  # its number was given to another process
        (0.0, {"host": "another-container"}),  # same kernel: the kernel's lock is the truth
        (10 * 365 * 86_400.0, {"boot": "before"}),  # this machine, before it was started again
        (STALE_AFTER_S + 5.0, {"host": "elsewhere", "boot": "other"}),  # another machine, silent for long
    ],
)
def test_stale_locks_are_taken_over(path, age_s, changes):
    write_owner(path, age_s=age_s, **changes)
    assert lock_owner(path) is None
    take(path)
    assert not path.exists()


@pytest.mark.parametrize(
    "changes", [{"host": "elsewhere", "boot": "other"}, {"boot": "other"}, {"host": "elsewhere", "boot": None}]
)
def test_another_machine_heard_of_lately_holds_its_lock(path, changes):
    write_owner(path, age_s=1.0, pid=12, **changes)
    before = path.read_bytes()
    host = changes.get("host", platform.node())
    with pytest.raises(RunError, match=rf"^runs/x/003 is in use by process 12 on host {host}\nhint: ") as caught:
        take(path)
    assert lock_owner(path).pid == 12
    assert path.read_bytes() == before
    if host == "elsewhere":
        assert caught.value.hint == f"if that machine is gone, the lock is free after 10 minutes, or remove {path}"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": "x"}', b"\xff", b"[" * 60_000, b'{"pid": 1}'])
def test_a_damaged_lock_file_locks_nobody_out(path, content):
    path.write_bytes(content)
    assert lock_owner(path) is None
    take(path)


def test_a_lock_that_was_lost_is_noticed(path):
    with Lock(path, subject="runs/x/003") as lock:
        write_owner(path, host="elsewhere")
        with pytest.raises(RunError, match="runs/x/003: this process lost its lock"):
            lock.touch()
    assert json.loads(path.read_text())["host"] == "elsewhere"
    os.unlink(path)
    with Lock(path, subject="a") as lock:
        os.unlink(path)
        with pytest.raises(RunError, match="lost its lock"):
            lock.touch()


def test_the_heartbeat_renews_the_file(path, monkeypatch):
    monkeypatch.setattr(lock_module, "HEARTBEAT_S", 0.02)
    with Lock(path, subject="a"):
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 20
        while path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime > 0


def test_without_kernel_locks_the_process_number_and_start_decide(path, monkeypatch):
    def unsupported(*_args):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(lock_module.fcntl, "flock", unsupported)
    with Lock(path, subject="runs/x/003"), pytest.raises(RunError, match=f"process {os.getpid()} "):
        take(path)
    for changes in ({}, {"pid": os.getpid(), "process_start": 1}):
        write_owner(path, **changes)
        assert lock_owner(path) is None
        take(path)


def test_a_link_is_not_written_through(path, tmp_path):
    mine = tmp_path / "mine"
    mine.write_text("precious")
    os.symlink(mine, path)
    with pytest.raises(DistillError, match=r"cannot write .*lock\.json"):
        take(path)
    assert lock_owner(path) is None
    assert mine.read_text() == "precious"


def test_a_folder_that_is_gone_is_one_line(tmp_path):
    with pytest.raises(DistillError, match=r"^cannot write .*lock\.json: No such file or directory(\n|$)"):
        take(tmp_path / "gone" / "lock.json")


def test_living_and_dead_processes(children):
    child = children[0]
    start = lock_module._process_start(child.pid)
    assert process_alive(child.pid)
    assert process_alive(child.pid, start)
    assert not process_alive(child.pid, start + 1)
    child.process.kill()
    while b") Z " not in Path(f"/proc/{child.pid}/stat").read_bytes():
        time.sleep(0.01)
    assert not process_alive(child.pid)
    child.end()
    assert not process_alive(child.pid)
    assert not any(process_alive(pid) for pid in (0, -1, 2**70))
    assert process_alive(1)


def test_a_run_folder_is_tidied_under_its_lock(tmp_path):
    folder = create_run(tmp_path, "a")
    (folder.path / ".run.json.abc.partial").write_text("half")
    with folder.lock() as lock:
        assert [path.name for path in folder.path.iterdir()] == ["lock.json"]
        lock.touch()
        with pytest.raises(RunError, match=rf"^{folder.path} is in use by process"), folder.lock():
            pass
    assert list(folder.path.iterdir()) == []
