"""A search that several workers share, through a journal and through a PostgreSQL server of its own."""

from __future__ import annotations

import contextlib
import getpass
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from distill.errors import MissingError, RunError
from distill.events import EpochDone, Event, Note, RunStarted
from distill.pipeline import Options
from distill.recipe import Recipe, parse_recipe
from distill.sweeps import other_workers, sweep
from distill.sweeps.other_workers import is_replaced_already, is_surplus

optuna = pytest.importorskip("optuna")

HERE = Path(__file__).parent
SEARCH = ("optim.lr=1e-4:1e-1:log", "train.batch_size=20:60")


def _recipe(*overrides: str) -> Recipe:
    text = (HERE / "sweeping.py").read_text().split('RECIPE = """')[1].split('"""')[0]
    return parse_recipe(text, source="tiny", overrides=overrides)


# Databases


@pytest.fixture(scope="module")
def server() -> Iterator[Callable[[str], str]]:
    """A PostgreSQL server that only this test knows, reached by a socket in its own folder."""
    pytest.importorskip("psycopg")
    found = shutil.which("pg_ctl") or next(map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))), None)
    if found is None:
        pytest.skip("no PostgreSQL server here")
    bin_dir = Path(found).resolve().parent
    user = getpass.getuser() if os.getuid() else "postgres"  # a server refuses to run as root
    try:
        pwd.getpwnam(user)
    except KeyError:
        pytest.skip("a server cannot run as root, and there is no user postgres")
    folder = Path(tempfile.mkdtemp(prefix="distill-pg-"))
    shutil.chown(folder, user)

    def run(*command: str) -> str:
        own = {"user": user} if os.getuid() == 0 else {}
        done = subprocess.run(
            [str(bin_dir / command[0]), *command[1:]], cwd=folder, check=False, text=True, timeout=120,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **own,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout

    data = str(folder / "data")
    try:
        run("initdb", "-D", data, "-U", "distill", "-A", "trust", "--no-sync")
        settings = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        run("pg_ctl", "-D", data, "-w", "-l", str(folder / "log"), "-o", settings, "start")
        yield lambda name: (
            run("createdb", "-h", str(folder), "-U", "distill", name),
            f"postgresql+psycopg://distill@/{name}?host={folder}",
        )[1]
        run("pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["journal", "sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "journal":
        return f"journal:{tmp_path / 'study.log'}"
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'study.db'}"
    return request.getfixturevalue("server")(f"study_{abs(hash(tmp_path)) % 10**9}")


@pytest.fixture
def read() -> Iterator[Callable[[str], Any]]:
    """A study as Optuna itself reads it."""
    storages = []

    def study_in(url: str) -> Any:
        if url.startswith("journal:"):
            backend = optuna.storages.journal.JournalFileBackend(url.removeprefix("journal:"))
            return optuna.load_study(study_name="tiny", storage=optuna.storages.JournalStorage(backend))
        storages.append(optuna.storages.RDBStorage(url))
        return optuna.load_study(study_name="tiny", storage=storages[-1])

    yield study_in
    for storage in storages:
        storage.scoped_session.remove()
        storage.engine.dispose()


# Workers that die


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts workers; none outlives the test."""
    begun: list[subprocess.Popen] = []

    def start_one(folder: Path, storage: str, trials: int, stands_at: int = 0) -> subprocess.Popen:
        command = [sys.executable, str(HERE / "sweeping.py"), str(folder), storage, str(trials), str(stands_at)]
        begun.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return begun[-1]

    yield start_one
    for process in begun:
        process.kill()
        process.communicate()


def _wait(until: Callable[[], bool], process: subprocess.Popen) -> None:
    for _ in range(6000):
        if until():
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    raise AssertionError("it never came that far")


def test_a_worker_is_killed_and_no_trial_is_lost_or_done_twice(start, read, storage: str, tmp_path: Path) -> None:
    one = start(tmp_path / "one", storage, 5, stands_at=2)
    two = start(tmp_path / "two", storage, 5, stands_at=1)  # so that neither has done all while the other starts
    _wait((tmp_path / "one" / "stands").exists, one)
    _wait((tmp_path / "two" / "stands").exists, two)
    one.kill()
    one.wait()
    (tmp_path / "two" / "go").touch()
    out, err = two.communicate(timeout=280)
    assert two.returncode == 0, err
    assert out.strip() == "5"

    trials = read(storage).trials
    lost = [trial for trial in trials if trial.state.name != "COMPLETE" and trial.params]
    done = [tuple(trial.params.values()) for trial in trials if trial.state.name == "COMPLETE"]
    assert len(lost) == 1
    assert lost[0].state.name == "FAIL"
    assert len(done) == len(set(done)) == 5
    assert tuple(lost[0].params.values()) in done  # what the killed one had chosen was trained by the other
    assert {trial.user_attrs["worker"] for trial in trials if "worker" in trial.user_attrs} >= {
        lost[0].user_attrs["worker"]
    }

    out, err = start(tmp_path / "one", storage, 5).communicate(timeout=120)  # and the killed one may come back
    assert out.strip() == "5", err
    assert len(read(storage).trials) == len(trials)


def test_one_that_lives_keeps_its_trial(start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands for longer than a dead one is waited for, and is heard of all the same."""
    storage = f"journal:{tmp_path / 'study.log'}"
    one = start(tmp_path / "one", storage, 2, stands_at=1)
    _wait((tmp_path / "one" / "stands").exists, one)
    monkeypatch.setattr(other_workers, "BEAT_S", 0.2)
    monkeypatch.setattr(other_workers, "DEAD_AFTER_S", 4.0)
    time.sleep(5)
    options = Options(runs_dir=tmp_path / "two" / "runs", device="cpu", threads=1)
    report = sweep(_recipe(), search=SEARCH, trials=2, storage=storage, prune=False, options=options)
    assert sorted(row.status for row in report.trials) == ["finished", "running"]
    assert "still at work on other machines" in report.notes[0]


def test_a_trial_that_was_taken_over_is_let_go(read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that slept: when it wakes, its trial is another worker's."""
    monkeypatch.setattr(other_workers, "BEAT_S", 0.05)
    storage = f"journal:{tmp_path / 'study.log'}"
    seen: list[Event] = []

    def listen(event: Event) -> None:
        seen.append(event)
        if isinstance(event, EpochDone) and sum(isinstance(each, RunStarted) for each in seen) == 1:
            study = read(storage)
            if study.trials[0].state.name == "RUNNING":
                study.tell(0, state=optuna.trial.TrialState.FAIL)
                time.sleep(0.5)

    options = Options(runs_dir=tmp_path / "runs", device="cpu", threads=1, on_event=listen)
    report = sweep(_recipe(), search=SEARCH, trials=2, storage=storage, prune=False, options=options)
    told = [event.message for event in seen if isinstance(event, Note) and event.level == "warning"]
    assert any(text.startswith("trial 0: nothing was heard of it for too long") for text in told)
    assert [row.status for row in report.trials] == ["finished"] * 2
    assert sorted(trial.state.name for trial in read(storage).trials) == ["COMPLETE", "COMPLETE", "FAIL"]


def test_a_trial_of_another_worker_has_all_its_epochs(tmp_path: Path) -> None:
    storage, reports = f"journal:{tmp_path / 'study.log'}", []
    for worker in ("one", "two"):
        options = Options(runs_dir=tmp_path / worker / "runs", device="cpu", threads=1)
        reports.append(sweep(_recipe(), search=SEARCH, trials=1, storage=storage, prune=False, options=options))
    assert [report.trials[0].epochs for report in reports] == [2, 2]
    assert [report.trials[0].run is None for report in reports] == [False, True]


# What several begin at once


def test_of_those_that_begin_the_last_trial_at_once_one_does(read, storage: str, tmp_path: Path) -> None:
    options = Options(runs_dir=tmp_path / "runs", device="cpu", threads=1)
    sweep(_recipe("train.epochs=1"), search=SEARCH, trials=1, storage=storage, prune=False, options=options)
    workers = [read(storage), read(storage)]
    begun = [study.ask() for study in workers]
    trials = workers[0].get_trials(deepcopy=False)
    found = [is_surplus(trials[trial.number], trials, wanted=2) for trial in begun]
    assert sorted(found) == [False, True]
    for trial in trials[1:]:
        workers[0].tell(trial.number, state=optuna.trial.TrialState.FAIL)


def test_of_those_that_queue_a_lost_trial_again_the_first_counts(read, storage: str, tmp_path: Path) -> None:
    options = Options(runs_dir=tmp_path / "runs", device="cpu", threads=1)
    sweep(_recipe("train.epochs=1"), search=SEARCH, trials=1, storage=storage, prune=False, options=options)
    workers = [read(storage), read(storage)]
    choices = workers[0].trials[0].params
    for study in workers:
        study.enqueue_trial(choices, user_attrs={"retry_of": 0})
    begun = [study.ask() for study in workers]
    trials = workers[0].get_trials(deepcopy=False)
    found = {trial.number: is_replaced_already(trials[trial.number], trials) for trial in begun}
    assert found == {1: False, 2: True}
    for trial in begun:
        workers[0].tell(trial.number, state=optuna.trial.TrialState.FAIL)


# What cannot be


@pytest.mark.parametrize(
    ("url", "module", "package"),
    [
        ("postgresql+psycopg2://me:secret@host/db", "psycopg2", "psycopg2-binary"),
        ("postgresql+psycopg://me:secret@host/db", "psycopg", "'psycopg[binary]'"),
        ("mysql://me:secret@host/db", "MySQLdb", "mysqlclient"),
        ("mysql+pymysql://me:secret@host/db", "pymysql", "pymysql"),
    ],
)
def test_a_driver_that_is_missing_is_named(
    url: str, module: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingError, match=rf"not installed \(no module {module}\)") as caught:
        sweep(_recipe(), search=SEARCH, trials=1, storage=url, options=Options(runs_dir=tmp_path / "runs"))
    assert caught.value.hint == f"pip install {package}"
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("made", ["missing/study.log", "folder", "pipe", "text", "", "rubbish"])
def test_a_journal_that_cannot_be_is_one_line(made: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text").write_text("[1]\n")
    (tmp_path / "rubbish").write_bytes(b"\0\xff\n\n")
    url = f"journal:{tmp_path / made}" if made else "journal:"
    done = threading.Timer(60, os._exit, [1])  # one that waits for a pipe would wait for ever
    done.start()
    try:
        with pytest.raises(RunError, match="cannot open the study in journal:") as caught:
            sweep(_recipe(), search=SEARCH, trials=1, storage=url, options=Options(runs_dir=tmp_path / "runs"))
    finally:
        done.cancel()
    assert "\n" not in caught.value.message
    assert caught.value.hint.startswith("as in journal:/shared/study.log")


@pytest.mark.slow
def test_a_database_that_is_lost_is_one_line_and_the_search_goes_on_when_it_is_back(
    read, server, tmp_path: Path
) -> None:
    import psycopg

    url, admin = server("lost"), server("admin")
    begun: list[Event] = []

    def allow(connections: str) -> None:
        with contextlib.closing(psycopg.connect(admin.replace("+psycopg", ""))) as connection:
            connection.autocommit = True
            connection.cursor().execute(f"ALTER DATABASE lost ALLOW_CONNECTIONS {connections}")
            connection.cursor().execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'lost'")

    def listen(event: Event) -> None:
        if isinstance(event, RunStarted):
            begun.append(event)
        if isinstance(event, EpochDone) and (len(begun), event.epoch) == (2, 1):
            allow("false")

    def search(tell: Any = None) -> Any:
        options = Options(runs_dir=tmp_path / "runs", device="cpu", threads=1, on_event=tell)
        return sweep(_recipe(), search=SEARCH, trials=3, storage=url, prune=False, options=options)

    with pytest.raises(RunError, match=r"the study in postgresql\+psycopg://.* was lost") as caught:
        search(listen)
    assert "\n" not in caught.value.message
    assert "distill sweep --resume" in caught.value.hint
    allow("true")
    assert [row.status for row in search().trials] == ["finished"] * 3
    assert sum(trial.state.name == "COMPLETE" for trial in read(url).trials) == 3
