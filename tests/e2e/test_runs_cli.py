"""``distill runs``: the list says what is there; removing leaves what others stand on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distill.cli import app
from distill.pipeline import Options, finetune_teacher, train_student
from distill.runs import open_run


def _cli(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def runs(tmp_path: Path, teacher_recipe: Callable, student_recipe: Callable) -> Path:
    """A teacher and two of its students."""
    options = Options(runs_dir=tmp_path / "runs", threads=1, device="cpu")
    teacher = finetune_teacher(teacher_recipe("train.epochs=1"), options=options)
    for seed in (0, 1):
        train_student(student_recipe(f"train.seed={seed}", "train.epochs=1"), teacher=teacher, options=options)
    return tmp_path / "runs"


def test_the_list(runs: Path) -> None:
    code, stdout, _ = _cli("runs", "list", "--runs", str(runs), "--json")
    assert code == 0
    rows = {Path(row["run"]).relative_to(runs).as_posix(): row for row in json.loads(stdout)}
    assert list(rows) == ["tiny_student/001", "tiny_student/002", "tiny_teacher/001"]
    teacher = rows["tiny_teacher/001"]
    assert (teacher["status"], teacher["epochs"], teacher["of_epochs"], teacher["role"]) == (
        "finished",
        1,
        1,
        "teacher",
    )
    assert teacher["needed_by"] == [str(runs / "tiny_student/001"), str(runs / "tiny_student/002")]
    files = [path for path in (runs / "tiny_teacher/001").rglob("*") if path.is_file() or path.is_symlink()]
    assert teacher["size_bytes"] == sum(path.lstat().st_size for path in files)
    metrics = open_run("tiny_student/002", runs_dir=runs).metrics()
    assert rows["tiny_student/002"]["val_top1"] == metrics[-1]["val_top1"]
    assert "needed by" in _cli("runs", "list", "--runs", str(runs))[1]
    damaged = runs / "tiny_student/002/run.json"
    damaged.write_text("{")
    code, stdout, stderr = _cli("runs", "list", "--runs", str(runs), "--json")
    assert (code, len(json.loads(stdout))) == (0, 2)
    assert f"left out: {damaged}: damaged" in stderr.replace("\n", "")


def test_the_accuracy_is_of_the_epoch_that_ships(tmp_path: Path, teacher_recipe: Callable) -> None:
    """Of a run that ``val_loss`` chose by, another epoch may have been more accurate; nothing holds its weights."""
    options = Options(runs_dir=tmp_path / "runs", threads=1, device="cpu")
    done = finetune_teacher(teacher_recipe("train.epochs=2", "train.monitor=val_loss"), options=options)
    run = open_run(done, runs_dir=tmp_path / "runs")
    shipped = run.result()["val_top1"]
    lines = [line | {"val_top1": min(1.0, shipped + 0.25)} for line in run.metrics()]
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    _, stdout, _ = _cli("runs", "list", "--runs", str(tmp_path / "runs"), "--json")
    assert json.loads(stdout)[0]["val_top1"] == shipped < max(line["val_top1"] for line in run.metrics())


def test_what_others_need_stays(runs: Path) -> None:
    before = sorted(runs.rglob("*"))
    code, _, stderr = _cli("runs", "remove", "tiny_teacher", "--yes", "--runs", str(runs))
    assert code == 2
    assert "is needed by" in stderr
    assert "and 1 more" in stderr
    assert sorted(runs.rglob("*")) == before


def test_a_folder_elsewhere_is_shown_and_kept_where_others_need_it(runs: Path, tmp_path: Path) -> None:
    """``--runs`` is where names are looked up; a folder may lie anywhere, and its users lie beside it."""
    teacher = runs / "tiny_teacher/001"
    code, stdout, stderr = _cli("runs", "remove", str(teacher), "--yes", "--runs", str(tmp_path / "none"))
    assert (code, teacher.is_dir()) == (2, True)
    assert "tiny_teacher" in stdout
    assert "is needed by" in stderr


def test_what_is_needed_does_not_depend_on_where_one_asks(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs name others as they were named then: from the folder that they were made in."""
    for info in runs.rglob("run.json"):
        info.write_text(info.read_text().replace(f"{runs.parent}/", ""))
    monkeypatch.chdir(runs)
    rows = json.loads(_cli("runs", "list", "--runs", str(runs), "--json")[1])
    assert [len(row["needed_by"]) for row in rows] == [0, 0, 2]
    assert _cli("runs", "remove", "tiny_teacher", "--yes", "--runs", str(runs))[0] == 2


@pytest.mark.parametrize("place", ["sweeps/a/trials", "compressed/a/trials/0.5000", "searches/a/runs"])
def test_what_a_trial_needs_stays(runs: Path, place: str) -> None:
    """Without its teacher a sweep could be neither resumed nor widened."""
    (runs.parent / place).mkdir(parents=True)
    (runs / "tiny_student/001").rename(runs.parent / place / "001")
    assert _cli("runs", "remove", "tiny_student/002", "--yes", "--runs", str(runs))[0] == 0
    code, _, stderr = _cli("runs", "remove", "tiny_teacher", "--yes", "--runs", str(runs))
    assert code == 2
    assert place in "".join(stderr.split("\n"))


def test_nobody_to_ask(runs: Path) -> None:
    code, _, stderr = _cli("runs", "remove", "tiny_student/001", "--runs", str(runs))
    assert code == 2
    assert "--yes" in stderr
    assert (runs / "tiny_student/001/run.json").is_file()


@pytest.mark.parametrize("answer", ["n", "y"])
def test_somebody_is_asked(runs: Path, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill.cli.output._is_answered", lambda: True)
    arguments = ["runs", "remove", "tiny_student/001", "--runs", str(runs)]
    result = CliRunner().invoke(app, arguments, input=f"{answer}\n")
    assert result.exit_code == 0
    assert (runs / "tiny_student/001").exists() == (answer == "n")
    assert ("nothing was deleted" in result.stderr) == (answer == "n")


def test_latest_follows(runs: Path) -> None:
    assert os.readlink(runs / "tiny_student/latest") == "002"
    code, _, stderr = _cli("runs", "remove", "tiny_student/002", "--yes", "--runs", str(runs))
    assert code == 0, stderr
    assert not (runs / "tiny_student/002").exists()
    assert os.readlink(runs / "tiny_student/latest") == "001"
    assert open_run("tiny_student", runs_dir=runs).path == runs / "tiny_student/001"


def test_all_of_them_together(runs: Path) -> None:
    code, _, stderr = _cli("runs", "remove", "tiny_student", "tiny_teacher", "--yes", "--runs", str(runs))
    assert code == 0, stderr
    assert "deleted 3 runs" in stderr
    assert list(runs.glob("tiny_*")) == []


@pytest.mark.parametrize("spelled", ["tiny_student", "runs/tiny_student", "runs/tiny_student/", "{}/tiny_student"])
def test_a_folder_of_runs_means_all_of_them_however_it_is_spelled(
    runs: Path, spelled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs.parent)
    code, _, stderr = _cli("runs", "remove", spelled.format(runs), "--yes")
    assert code == 0, stderr
    assert "deleted 2 runs" in stderr
    assert (runs / "tiny_teacher/001/run.json").is_file()


def test_a_name_is_one_of_the_folder_of_runs_that_was_named(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here := tmp_path / "here").mkdir()
    shutil.copytree(runs / "tiny_student", here / "tiny_student", symlinks=True)
    monkeypatch.chdir(here)
    assert _cli("runs", "remove", "tiny_student", "--yes", "--runs", str(runs))[0] == 0
    assert (here / "tiny_student/001/run.json").is_file()
    assert not (runs / "tiny_student").exists()
    code, _, stderr = _cli("runs", "remove", "~nosuchuser/foo", "--yes", "--runs", str(runs))
    assert (code, "error: " in stderr) == (2, True)


def test_an_empty_name_means_no_run(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs / "tiny_student")
    assert _cli("runs", "remove", "", "--yes")[0] != 0
    assert (runs / "tiny_student/001/run.json").is_file()


def test_a_run_at_work_is_left_alone(runs: Path) -> None:
    run = open_run("tiny_student/001", runs_dir=runs)
    with run.lock():
        code, _, stderr = _cli("runs", "remove", "tiny_student/001", "--yes", "--runs", str(runs))
    assert code == 1
    assert "error:" in stderr
    assert (run.path / "run.json").is_file()


def test_a_folder_that_is_no_run(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    code, _, _ = _cli("runs", "remove", str(tmp_path / "mine"), "--yes", "--runs", str(runs))
    assert code != 0
    assert (tmp_path / "mine" / "thesis.tex").is_file()


def test_a_sweep_is_no_run_and_its_trials_are_named(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs.parent)
    (runs.parent / "sweeps" / "s").mkdir(parents=True)
    shutil.copytree(runs / "tiny_student", runs.parent / "sweeps" / "s" / "trials")
    result = CliRunner().invoke(app, ["runs", "remove", "sweeps/s", "--yes"])
    assert result.exit_code == 2
    assert "sweeps/s is a sweep or a search" in result.stderr
    assert "distill runs remove sweeps/s/trials" in result.stderr
