"""Runs are made without collisions, found by path and by name, and listed whatever else stands there."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from distill.errors import DistillError, RunError, UsageError
from distill.recipe import Recipe
from distill.runs import create_run, list_damaged, list_runs, open_run, open_runs
from distill.runs import lock as lock_module
from distill.runs.find import place_named, places_named
from distill.runs.folder import RunFolder


def make(runs_dir: Path, name: str, status: str = "finished", role: str = "student"):
    folder = create_run(runs_dir, name)
    folder.write_info(status=status, role=role)
    folder.write_recipe(tiny_recipe(role))
    return folder


def tiny_recipe(role: str) -> Recipe:
    tree = {
        "name": "a",
        "role": role,
        "data": {"name": "synthetic"},
        "model": {"source": "students", "name": "resnet", "blocks": [1], "channels": [8], "strides": [1]},
    }
    return Recipe.model_validate_json(json.dumps(tree))


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


def test_numbers_go_up_and_past_999(runs):
    assert [create_run(runs, "a").path.name for _ in range(2)] == ["001", "002"]
    (runs / "a" / "999").mkdir()
    assert create_run(runs, "a").path == runs / "a" / "1000"
    assert create_run(runs, "a").path == runs / "a" / "1001"
    assert [folder.path.name for folder in (make(runs, "a"),)] == ["1002"]


def test_a_file_in_the_way_is_stepped_over(runs):
    (runs / "a").mkdir(parents=True)
    (runs / "a" / "001").write_text("mine")
    assert create_run(runs, "a").path.name == "002"


def test_processes_that_start_together_get_different_folders(runs):
    code = (
        "import sys; from pathlib import Path; from distill.runs import create_run\n"
        "assert 'torch' not in sys.modules\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "for _ in range(25): print(create_run(Path(sys.argv[1]), 'a').path.name)"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", code, runs], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    names = [name for child in children for name in child.communicate(timeout=60)[0].split()]
    assert sorted(names) == [f"{number:03d}" for number in range(1, 76)]


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/abs", "a\n", "a\0", "-x", "x" * 65, "a b", "é"])
def test_names_that_cannot_be_folders_are_refused(runs, name):
    with pytest.raises(UsageError, match="not a run's name"):
        create_run(runs, name)
    assert not runs.exists()


def test_a_file_instead_of_the_runs_folder_is_one_line(tmp_path):
    (tmp_path / "runs").write_text("")
    for asked in (lambda: create_run(tmp_path / "runs", "a"), lambda: list_runs(tmp_path / "runs")):
        with pytest.raises(DistillError, match=r"(cannot write .*runs/a|runs is a file)"):
            asked()


def test_latest_points_at_the_highest(runs):
    first, second = make(runs, "a"), make(runs, "a")
    first.point_latest()
    assert os.readlink(runs / "a" / "latest") == "001"
    second.point_latest()
    first.point_latest()
    assert os.readlink(runs / "a" / "latest") == "002"


def test_a_latest_that_a_copy_made_a_folder_of_is_the_last_run_and_left_alone(runs):
    first = make(runs, "a")
    shutil.copytree(first.path, runs / "a" / "latest")
    second = make(runs, "a")
    second.point_latest()
    assert (runs / "a" / "latest" / "run.json").read_bytes() == (first.path / "run.json").read_bytes()
    for reference in ("a/latest", runs / "a" / "latest"):
        assert open_run(reference, runs_dir=runs) == second


def test_a_reference_is_a_path_a_name_or_a_name_and_number(runs, monkeypatch):
    first, second = make(runs, "a"), make(runs, "a")
    second.point_latest()
    make(runs, "a", "interrupted")
    monkeypatch.chdir(runs.parent)
    for reference in ("a", "a/", "a/002", "a/2", "a/latest", runs / "a", runs / "a" / "002", runs / "a" / "latest"):
        assert open_run(reference, runs_dir=runs) == second, reference
    assert open_run("runs/a/001", runs_dir=runs).path == Path("runs/a/001")
    assert open_run("a/1", runs_dir=runs) == first
    assert open_run("a", runs_dir=runs, finished=False).path == runs / "a" / "003"


def test_a_copy_elsewhere_is_a_run(runs, tmp_path):
    folder = make(runs, "a")
    folder.path.rename(tmp_path / "copied")
    opened = open_run(tmp_path / "copied", runs_dir=runs)
    assert opened.name == "copied"


def test_a_folder_of_the_users_with_a_runs_name_does_not_hide_the_run(runs, monkeypatch, tmp_path):
    folder = make(runs, "digits")
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert open_run("digits", runs_dir=runs) == folder


@pytest.mark.parametrize(
    ("status", "role", "message", "hint"),
    [
        ("interrupted", "student", "it was interrupted", "distill student --resume"),
        ("running", "baseline", "it was interrupted", "distill student --resume"),
        ("failed", "teacher", "it has failed", "distill teacher-finetune --resume"),
    ],
)
def test_an_unfinished_run_says_how_to_go_on(runs, status, role, message, hint):
    folder = make(runs, "a", status, role)
    for reference in ("a", "a/001", folder.path):
        with pytest.raises(RunError) as caught:
            open_run(reference, runs_dir=runs)
        assert caught.value.message == f"{folder.path} is not finished: {message}"
        assert caught.value.hint == f"to continue: {hint} {folder.path}"
    assert open_run("a", runs_dir=runs, finished=False) == folder


def test_a_running_run_names_its_process(runs):
    folder = make(runs, "a", "running")
    with folder.lock():
        assert folder.status == "running"
        with pytest.raises(RunError, match=rf"is not finished: process {os.getpid()} on host .* is at work"):
            open_run("a", runs_dir=runs)
    assert folder.status == "interrupted"


def test_a_path_with_spaces_is_quoted_in_the_hint(tmp_path):
    make(tmp_path / "my runs", "a", "failed")
    with pytest.raises(RunError) as caught:
        open_run("a", runs_dir=tmp_path / "my runs")
    assert f"--resume '{tmp_path}/my runs/a/001'" in caught.value.hint


def test_what_is_not_there_gets_a_near_miss(runs):
    with pytest.raises(RunError) as caught:
        open_run("a", runs_dir=runs)
    assert (caught.value.message, caught.value.hint) == (
        f"no run 'a': there are none in {runs}",
        "runs come of distill student and teacher-finetune",
    )
    make(runs, "r18_small")
    make(runs, "teacher")
    with pytest.raises(RunError) as caught:
        open_run("r18_smal", runs_dir=runs)
    assert caught.value.hint == "did you mean 'r18_small'? there are r18_small, teacher"
    with pytest.raises(RunError) as caught:
        open_run("teacher/004", runs_dir=runs)
    assert caught.value.hint == "of teacher there are 001"


@pytest.mark.parametrize(("kind", "again"), [("sweep", "; its table again: distill sweep --resume {}"), ("search", "")])
def test_what_a_sweep_or_a_search_made_is_told_for_what_it_is(tmp_path: Path, kind: str, again: str) -> None:
    place = tmp_path / "mine"
    (place / "trials").mkdir(parents=True)
    (place / f"{kind}.json").write_text("{}")
    with pytest.raises(RunError, match=f"mine is a {kind}, and no run") as caught:
        open_run(str(place), runs_dir=tmp_path / "runs")
    assert caught.value.hint == f"its runs are in {place / 'trials'}{again.format(place)}"


@pytest.mark.parametrize(
    "reference",
    ["", "../secret", "..", ".", "/", "a/../../secret", "\0", "x" * 5000, "a/001/002", "~no-such-user/x", "~\0"],
)
def test_hostile_references_are_one_line(runs, reference, monkeypatch):
    make(runs, "a")
    monkeypatch.chdir(runs.parent)
    with pytest.raises(RunError) as caught:
        open_run(reference, runs_dir=runs)
    assert "\n" not in caught.value.message


@given(st.text(max_size=20))
@example("~\0")
def test_any_text_is_a_run_or_one_error(tmp_path_factory, text):
    runs = tmp_path_factory.getbasetemp() / "any_runs"
    if not runs.exists():
        make(runs, "a")
    message = ""
    try:
        assert open_run(text, runs_dir=runs).path.parent.parent == runs
    except RunError as error:
        message = error.message
    assert message.isprintable()


def test_a_run_killed_before_it_wrote_anything_is_no_run(runs, monkeypatch):
    good, empty = make(runs, "a"), create_run(runs, "a")
    (empty.path / "lock.json").write_text("{}")
    (empty.path / ".run.json.abc.partial").write_text("{")
    monkeypatch.chdir(runs.parent)
    for reference in ("a/002", "runs/a/002", empty.path):
        with pytest.raises(RunError, match="a/002 is empty: its run was stopped before it began"):
            open_run(reference, runs_dir=runs, finished=False)
    assert open_run("a", runs_dir=runs, finished=False) == good
    assert list_runs(runs) == [good]
    assert list_damaged(runs) == []


def test_a_run_killed_before_its_recipe_was_written_never_began(runs):
    folder = make(runs, "a", "running")
    (folder.path / "recipe.yaml").unlink()
    with pytest.raises(RunError, match="stopped before it began"):
        open_run("a/001", runs_dir=runs, finished=False)
    with folder.lock():
        assert not folder.never_began()
    folder.write_info(status="finished")
    assert open_run("a", runs_dir=runs) == folder


@pytest.mark.parametrize(("role", "verb"), [("baseline", "student"), ("teacher", "teacher-finetune")])
def test_a_run_killed_before_run_json_can_be_resumed(runs, role, verb):
    folder = create_run(runs, "a")
    folder.write_recipe(tiny_recipe(role))
    assert folder.status == "interrupted"
    assert open_run(folder.path, runs_dir=runs, finished=False) == folder
    with pytest.raises(RunError, match="it was interrupted") as caught:
        open_run("a", runs_dir=runs)
    assert caught.value.hint == f"to continue: distill {verb} --resume {folder.path}"
    assert list_runs(runs) == [folder]
    (folder.path / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(RunError, match=r"run\.json: missing"):
        open_run(folder.path, runs_dir=runs, finished=False)


DEAD = {"pid": 4_000_000, "host": platform.node(), "boot": None, "process_start": 1, "since": "", "token": "t"}


def test_a_new_run_clears_away_what_the_dead_left_below_its_name_and_nothing_else(runs):
    lock = json.dumps(DEAD | {"boot": lock_module._boot_id()})
    dead, half, alive, mine = (make(runs, "a", "interrupted") for _ in range(4))
    other = make(runs, "b", "interrupted")
    for run in (dead, half, other):
        (run.path / "lock.json").write_text(lock)
        (run.path / ".metrics.jsonl.0123456789ab.partial").write_text("half")
    for path in half.path.iterdir():
        if path.name not in ("lock.json", ".metrics.jsonl.0123456789ab.partial"):
            path.unlink()
    (mine.path / ".metrics.jsonl.0123456789ab.partial").write_text("being written, for all we know")
    with alive.lock():
        (alive.path / ".x.0123456789ab.partial").write_text("being written")
        made = create_run(runs, "a")
        assert (alive.path / "lock.json").exists()
        assert (alive.path / ".x.0123456789ab.partial").exists()
    assert made.path.name == "005"
    assert not half.path.exists(), "a run that never began"
    assert sorted(path.name for path in dead.path.iterdir() if path.name.startswith((".", "lock"))) == []
    assert dead.status == "interrupted"
    assert (mine.path / ".metrics.jsonl.0123456789ab.partial").exists()
    assert (other.path / "lock.json").exists()


def test_of_a_name_there_are_several_runs_and_of_a_folder_one(runs, monkeypatch):
    first, second = make(runs, "a"), make(runs, "a")
    make(runs, "a", "interrupted")
    trial = make(runs, "a")
    trial.write_info(sweep={"name": "s", "trial": 0, "params": {}})
    second.point_latest()
    for reference in ("a", "a/", runs / "a"):
        assert open_runs(reference, runs_dir=runs) == [first, second], reference
    for reference in ("a/2", "a/002", "a/latest", runs / "a" / "002", runs / "a" / "latest"):
        assert open_runs(reference, runs_dir=runs) == [second], reference
    shutil.copytree(first.path, runs.parent / "copy")
    assert [run.path for run in open_runs(runs.parent / "copy", runs_dir=runs)] == [runs.parent / "copy"]
    monkeypatch.chdir(runs / "a" / "001")
    assert len(open_runs(".", runs_dir=runs)) == 1
    with pytest.raises(RunError, match="no run 'b'"):
        open_runs("b", runs_dir=runs)


def test_a_recipe_that_was_not_trained_says_what_trains_it_and_a_network_that_comes_trained_is_a_near_miss(runs):
    for name, verb in (("r18_small", "student"), ("resnet152_cifar10", "teacher-finetune")):
        with pytest.raises(RunError) as caught:
            open_run(name, runs_dir=runs)
        assert (caught.value.message, caught.value.hint) == (
            f"no run {name!r} in {runs}",
            f"it is a recipe, which nobody trained here: distill {verb} --recipe {name}",
        )
    make(runs, "other")
    with pytest.raises(RunError) as caught:
        open_run("lite2_cifr10", runs_dir=runs)
    assert caught.value.hint == "did you mean 'lite2_cifar10'? there are other"


def test_names_never_mean_a_trial_of_a_sweep(runs):
    """Trials once lay among the runs of their name."""
    real = make(runs, "a")
    trial = make(runs, "a")
    trial.write_info(sweep={"name": "s", "trial": 0, "params": {}})
    assert open_run("a", runs_dir=runs) == real
    assert open_run(runs / "a", runs_dir=runs) == real
    assert open_run("a/002", runs_dir=runs) == trial
    only = make(runs, "b")
    only.write_info(sweep={"name": "s", "trial": 0, "params": {}})
    with pytest.raises(RunError, match="no run 'b'") as caught:
        open_run("b", runs_dir=runs)
    assert caught.value.hint == "of b there are 001, trials of a sweep: name one by its folder"


def test_lists_are_sorted_and_pass_over_what_is_foreign(runs):
    for name in ("b", "a", "b"):
        make(runs, name)
    (runs / "b" / "1000").mkdir()
    (runs / "b" / "1000" / "run.json").write_text('{"status": "failed"}')
    (runs / "b" / "latest").symlink_to("002")
    (runs / "b" / "notes").mkdir()
    (runs / ".hidden").mkdir()
    (runs / "mine.txt").write_text("x")
    (runs / "empty").mkdir()
    create_run(runs, "never_began")
    (runs / "a" / "002").symlink_to("001")
    assert [str(folder.path.relative_to(runs)) for folder in list_runs(runs)] == ["a/001", "b/001", "b/002", "b/1000"]
    assert list_damaged(runs) == []


def test_damaged_runs_are_listed_apart_and_passed_over_by_name(runs):
    good, bad = make(runs, "a"), make(runs, "a")
    (bad.path / "run.json").write_text("{")
    lost = create_run(runs, "b")
    (lost.path / "metrics.jsonl").write_text("")
    assert list_runs(runs) == [good]
    assert [(folder, str(error).split(": ")[0]) for folder, error in list_damaged(runs)] == [
        (bad, f"{bad.path}/run.json"),
        (lost, f"{lost.path}/run.json"),
    ]
    assert open_run("a", runs_dir=runs) == good
    with pytest.raises(RunError, match=r"b/001/run\.json: missing"):
        open_run("b", runs_dir=runs)
    with pytest.raises(RunError, match=r"a/002/run\.json: damaged"):
        open_run("a/002", runs_dir=runs)


def test_results_are_read_and_missing_ones_named(runs):
    folder = make(runs, "a")
    with pytest.raises(RunError, match=r"result\.json: missing") as caught:
        folder.result()
    assert caught.value.hint.startswith("restore it from a copy")
    folder.write_result({"test_top1": 0.5})
    assert folder.result() == {"test_top1": 0.5}


# What a record names


def deep(root: Path) -> RunFolder:
    """A trial of a sweep, which lies deeper than runs do."""
    path = root / "sweeps" / "s" / "trials" / "003"
    path.mkdir(parents=True)
    return RunFolder(path)


@pytest.mark.parametrize("name", ["runs/teacher/001", "../project/runs/teacher/001", "/gone/away/runs/teacher/001"])
def test_a_trial_finds_what_its_record_names_from_another_folder(tmp_path: Path, monkeypatch, name: str) -> None:
    trial, teacher = deep(tmp_path / "project"), make(tmp_path / "project" / "runs", "teacher").path
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    assert place_named(name, trial).resolve() == teacher
    assert place_named(name, RunFolder(Path("../project/sweeps/s/trials/003"))).resolve() == teacher
    bank = teacher / "banks" / "abc"
    bank.mkdir(parents=True)
    assert place_named(f"{name}/banks/abc", trial).resolve() == bank
    assert place_named(f"{name}/banks/def", trial) == Path(f"{name}/banks/def")


def test_of_several_places_the_one_that_fits_is_meant(tmp_path: Path, monkeypatch) -> None:
    ours, theirs = (make(tmp_path / work / "runs", "teacher").path for work in ("ours", "theirs"))
    student = make(tmp_path / "ours" / "runs", "student")
    monkeypatch.chdir(tmp_path / "theirs")
    name = "runs/teacher/001"
    assert place_named(name, student).resolve() == theirs  # as it is written
    assert place_named(name, student, fits=lambda place: place.resolve() == ours).resolve() == ours
    assert place_named(name, student, fits=lambda place: False).resolve() == theirs
    other = make(tmp_path / "runs", "other").path  # a namesake further up is not what was meant
    assert place_named("runs/other/001", student, fits=lambda place: False) == Path("runs/other/001")
    assert place_named("runs/other/001", student).resolve() == other
    assert [place.resolve() for place in places_named(name, student)][:2] == [theirs, ours]
