"""Kill real runs at random moments, resume them, and compare their end with runs that were never killed.

Usage:
    python -m benchmarks.crash --kills 50 [--seed S] [--only student] [--behind] [--keep FOLDER]

Every run goes through the command line in a process of its own and dies by SIGKILL: half of the time at a random moment
of its life, half of the time right before or behind a random change of a file (a sync, a rename, a link, an opening for
writing), where there is most to lose. What is left is resumed, and killed again, up to three times. At its end
``model.safetensors`` and ``metrics.jsonl`` (of a bank: every file) must have the bytes of the run that was left alone.

To import torch once and not for every life, the parent imports it and forks; it never computes anything itself.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported; a process with threads must not fork
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import importlib
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

__all__ = ["main"]

TEACHER = """
schema_version: 1
name: crash_teacher
role: teacher
data: {name: synthetic, limit: 150, test_limit: 50}
augment: {crop_padding: 2, hflip: 0.5}
model: {source: teachers, name: tiny}
optim: {name: sgd, lr: 0.05}
train: {epochs: 3, batch_size: 32, ema: 0.9, checkpoint_minutes: 0.000001}
"""

STUDENT = """
schema_version: 1
name: crash_student
role: student
data: {name: synthetic, limit: 150, test_limit: 50}
augment: {crop_padding: 2, hflip: 0.5, mixup: {alpha: 0.4}}
model: {source: students, name: tiny}
teacher: {run: crash_teacher, logits: bank}
objective: {kind: kd, ce_weight: 0.5, kd_weight: 0.5, temperature: 2.0}
optim: {name: adam, lr: 0.01}
schedule: {kind: cosine, warmup_epochs: 1}
train: {epochs: 5, batch_size: 40, checkpoint_minutes: 0.000001}
"""

_FLAGS: tuple[list[str], ...] = ([], ["--json"], ["--quiet"], ["--json", "--quiet"])
_MAX_KILLS = 3  # of one run
_CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.symlink", "os.truncate"}


@dataclass(frozen=True)
class Death:
    """When a process dies: after so many seconds, or at so many changes of files; never, where both are None."""

    seconds: float | None = None
    change: int | None = None


@dataclass(frozen=True)
class Life:
    """How a process ended: its exit code, negative for a signal; what it said; and how much it did."""

    code: int
    text: str
    seconds: float
    changes: int


@dataclass(frozen=True)
class Scenario:
    """A command to kill, and what must come of it.

    Attributes:
        begin: Its arguments, for a folder of runs.
        resume: Arguments that go on with it; None repeats the command itself.
        end: The bytes that must agree, by name.
        needs_teacher: Whether a trained teacher must be there first.
    """

    name: str
    begin: Callable[[Path], list[str]]
    resume: Callable[[Path], list[str]] | None
    end: Callable[[Path], dict[str, bytes]]
    needs_teacher: bool


def _teacher_args(home: Path) -> list[str]:
    return ["teacher-finetune", "--recipe", str(home / "teacher.yaml"), *_common(home)]


def _student_args(home: Path) -> list[str]:
    return ["student", "--recipe", str(home / "student.yaml"), *_common(home)]


def _bank_args(home: Path) -> list[str]:
    return ["cache", "build", "--recipe", str(home / "student.yaml"), "--out", str(home / "bank"), *_common(home)]


def _sweep_args(home: Path) -> list[str]:
    return ["sweep", "--recipe", str(home / "student.yaml"), "--grid", "optim.lr=0.01,0.03", *_common(home)]


def _common(home: Path) -> list[str]:
    return ["--runs", str(home / "runs"), "--device", "cpu", "--threads", "1"]


def _resume(command: str, name: str) -> Callable[[Path], list[str]]:
    def args(home: Path) -> list[str]:
        newest = max((home / "runs" / name).glob("[0-9]*"), default=home / "runs" / name / "001")
        return [command, "--resume", str(newest), "--runs", str(home / "runs")]

    return args


def _run_bytes(name: str) -> Callable[[Path], dict[str, bytes]]:
    def read(home: Path) -> dict[str, bytes]:
        run = max((home / "runs" / name).glob("[0-9]*"))
        names = ["metrics.jsonl", "checkpoints/best/model.safetensors", "checkpoints/last/model.safetensors"]
        found = {file: (run / file).read_bytes() for file in names}
        left = sorted(path.name for path in run.glob("**/.*") if "banks" not in path.parts)
        status = json.loads((run / "run.json").read_text())["status"]
        latest = os.readlink(run.parent / "latest")
        return found | {"left behind": str(left).encode(), "state": f"{status}, {latest == run.name}".encode()}

    return read


def _bank_bytes(home: Path) -> dict[str, bytes]:
    folder = home / "bank"
    files = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.npy"))}
    return files | {"left behind": str([path.name for path in folder.rglob(".*")]).encode()}


def _sweep_bytes(home: Path) -> dict[str, bytes]:
    """Every trial's run, by what the sweep varied, and what else lies in the sweep's folder."""
    from distill.runs import list_runs

    sweep = home / "sweeps" / "crash_student"
    runs = list_runs(sweep)
    found = {f"lr {run.recipe().optim.lr:g}": run.path for run in runs}
    names = ("metrics.jsonl", "checkpoints/best/model.safetensors")
    ends = {f"{key}: {name}": (path / name).read_bytes() for key, path in found.items() for name in names}
    left = sorted(path.name for path in sweep.glob("**/.*")) + [run.status for run in runs]
    return ends | {"left behind": f"{len(list((sweep / 'trials').glob('[0-9]*')))} trials, {left}".encode()}


SCENARIOS = {
    each.name: each
    for each in (
        Scenario("student", _student_args, _resume("student", "crash_student"), _run_bytes("crash_student"), True),
        Scenario(
            "teacher", _teacher_args, _resume("teacher-finetune", "crash_teacher"), _run_bytes("crash_teacher"), False
        ),
        Scenario("bank", _bank_args, None, _bank_bytes, True),
        Scenario("sweep", _sweep_args, None, _sweep_bytes, True),
    )
}


class Harness:
    """Runs commands in forked processes below one folder, kills them, and compares."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.draw = random.Random(seed)
        self.kills = self.resumed = self.begun_anew = 0
        os.environ["DISTILL_CACHE"] = str(root / "cache")
        (root / "cache").mkdir(parents=True)
        self._teacher = self._home("teacher")
        self._expect(self._live(_teacher_args(self._teacher), Death()), self._teacher)

    def baseline(self, scenario: Scenario) -> tuple[Life, dict[str, bytes]]:
        """The command left alone, and its end."""
        home = self._home(f"baseline_{scenario.name}", with_teacher=scenario.needs_teacher)
        life = self._live(scenario.begin(home), Death())
        self._expect(life, home)
        return life, scenario.end(home)

    def trial(self, scenario: Scenario, whole: Life, expected: dict[str, bytes], number: int) -> list[str]:
        """One run, killed up to three times; what of its end differs."""
        home = self._home(f"trial_{number:04d}", with_teacher=scenario.needs_teacher)
        deaths = iter([self._death(whole) for _ in range(self.draw.randint(1, _MAX_KILLS))])
        args = scenario.begin(home)
        while True:
            life = self._live([*args, *self.draw.choice(_FLAGS)], next(deaths, Death()))
            if life.code == 0:
                break
            args = self._next(scenario, life, home)
        if scenario.resume is not None:  # a finished run says its result again, and changes nothing
            self._expect(self._live(scenario.resume(home), Death()), home)
        found = scenario.end(home)
        different = [name for name in sorted(expected | found) if expected.get(name) != found.get(name)]
        if not different:
            shutil.rmtree(home)
        said = {name: found.get(name, b"")[:80].decode(errors="replace") for name in ("left behind", "state")}
        return [f"{scenario.name}: {name} differs {said.get(name, '')}, see {home}" for name in different]

    def _next(self, scenario: Scenario, life: Life, home: Path) -> list[str]:
        """What a user would type now."""
        if life.code == -signal.SIGKILL:
            self.kills += 1
            self.resumed += scenario.resume is not None
            return scenario.begin(home) if scenario.resume is None else scenario.resume(home)
        nothing_there = "no run" in life.text or "start it anew" in life.text or "does not exist" in life.text
        if life.code == 1 and nothing_there:
            self.begun_anew += 1
            return scenario.begin(home)
        self._expect(life, home)
        raise AssertionError("unreachable")

    def _death(self, whole: Life) -> Death:
        if self.draw.random() < 0.5:
            return Death(seconds=self.draw.uniform(0, whole.seconds))
        return Death(change=self.draw.randint(1, whole.changes))

    def _home(self, name: str, *, with_teacher: bool = False) -> Path:
        home = self.root / name
        home.mkdir()
        (home / "teacher.yaml").write_text(TEACHER)
        (home / "student.yaml").write_text(STUDENT)
        if with_teacher:
            shutil.copytree(self._teacher / "runs", home / "runs", symlinks=True)
        return home

    def _expect(self, life: Life, home: Path) -> None:
        if life.code != 0:
            raise SystemExit(f"a process that nobody killed ended with {life.code}, see {home}\n{life.text}")

    def _live(self, args: list[str], death: Death) -> Life:
        """Run the command line in a process of its own, and kill it when its time has come."""
        log, tally = self.root / "said.txt", self.root / "changes.txt"
        tally.unlink(missing_ok=True)
        started = time.monotonic()
        pid = os.fork()
        if pid == 0:
            _be_the_command(args, death.change, self.root, log, tally)
        status = _wait(pid, None if death.seconds is None else started + death.seconds)
        code = os.waitstatus_to_exitcode(status)
        changes = int(tally.read_text()) if tally.exists() else 0
        return Life(code, log.read_text() if log.exists() else "", time.monotonic() - started, changes)


def _wait(pid: int, deadline: float | None) -> int:
    """Wait for a child, and kill it at the deadline."""
    while deadline is not None and time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        time.sleep(0.002)
    if deadline is not None:
        os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def _be_the_command(args: list[str], change: int | None, root: Path, log: Path, tally: Path) -> None:
    """The child: never returns."""
    code = 70
    try:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(handle, stream)
        counted = _count_changes(root, log, tally, change)
        from distill.cli import main as distill

        sys.argv = ["distill", *args]
        try:
            distill(args)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        tally.write_text(str(counted[0]))
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _count_changes(root: Path, log: Path, tally: Path, fatal: int | None) -> list[int]:
    """Count changes of files below ``root``; die at the fatal one: before it happens, or (a sync) behind it."""
    counted = [0]
    below, own = str(root), (str(log), str(tally))

    def count() -> None:
        counted[0] += 1
        if counted[0] == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(event: str, details: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = details
            is_ours = isinstance(path, str) and path.startswith(below) and path not in own
            if is_ours and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                count()
        elif event in _CHANGES:
            count()

    sys.addaudithook(watch)
    sync = os.fsync

    def synced(fd: Any) -> None:  # a number, or what has one
        sync(fd)
        count()

    os.fsync = synced
    return counted


def _import_everything() -> None:
    """What the commands import late; measuring a teacher's latency is cut short, the least of its work is enough."""
    importlib.import_module("distill.comparison")
    importlib.import_module("distill.pipeline")
    importlib.import_module("distill.sweeps")
    from distill.evaluation.latency import measure_latency

    briefly = partial(measure_latency, rounds=2, warmup=1, seconds_per_model=0.01)
    mock.patch("distill.teaching.build.measure_latency", briefly).start()


def _trials(names: list[str]) -> Iterator[str]:
    while True:
        yield from names


def main(arguments: list[str] | None = None) -> int:
    """Kill until there are enough kills; 1 where any end differed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="how many processes to kill")
    parser.add_argument("--seed", type=int, default=None, help="of the moments; drawn and printed where absent")
    parser.add_argument("--only", choices=sorted(SCENARIOS), action="append", help="kill this command alone")
    parser.add_argument("--keep", type=Path, default=None, help="a new folder for what is written, left there")
    parser.add_argument("--behind", action="store_true", help="checkpoints written by a thread, as where a GPU trains")
    options = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    names = options.only or list(SCENARIOS)
    _import_everything()
    if options.behind:
        mock.patch("distill.train.loop.writes_behind", return_value=True).start()
    with tempfile.TemporaryDirectory(prefix="distill-crash-") as temporary:
        root = (options.keep or Path(temporary) / "crash").absolute()
        problems = _kill(Harness(root, seed), names, options.kills, seed)
        if problems and options.keep is None:
            problems.append("repeat it with the same --seed and --keep FOLDER to look at what is left")
    print("\n".join(problems) if problems else "every end has the bytes of a run that was never killed")
    return 1 if problems else 0


def _kill(harness: Harness, names: list[str], kills: int, seed: int) -> list[str]:
    wholes = {name: harness.baseline(SCENARIOS[name]) for name in names}
    for name, (life, end) in wholes.items():
        print(f"{name}: {life.seconds:.1f} s, {life.changes} changes of files, {len(end)} things to compare")
    problems, count = [], 0
    for count, name in enumerate(_trials(names), start=1):
        problems += harness.trial(SCENARIOS[name], *wholes[name], count)
        if harness.kills >= kills:
            break
    print(
        f"{harness.kills} kills in {count} runs (seed {seed}): {harness.resumed} resumed, "
        f"of which {harness.begun_anew} had not begun; {len(problems)} differences"
    )
    return problems


if __name__ == "__main__":
    sys.exit(main())
