"""Sweeps through the real verbs: what is trained, what is not trained again, and what is left behind."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from distill.errors import DistillError, InterruptedRunError, MissingError, RunError, UsageError
from distill.events import EpochDone, Event, Note, RunStarted
from distill.files import write_atomically
from distill.pipeline import Options, RunResult, evaluate_run, export, finetune_teacher, resume_run, train_student
from distill.recipe import Recipe, dump_recipe, load_recipe
from distill.runs import RunFolder, list_runs, open_run
from distill.sweeps import SweepReport, resume_sweep, sweep
from distill.teaching.bank import Bank

LR = "optim.lr=0.001,0.05"


class Listener:
    """Counts runs, and presses Ctrl-C after an epoch of a run."""

    def __init__(self, *, stop_at: tuple[int, int] | None = None) -> None:
        self.runs: list[tuple[str, int]] = []
        self.stop_at = stop_at

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self.runs.append((event.run, event.epoch))
        if isinstance(event, EpochDone) and (len(self.runs), event.epoch) == self.stop_at:
            os.kill(os.getpid(), 2)


@pytest.fixture
def tiny(student_recipe: Callable[..., Recipe]) -> Callable[..., Recipe]:
    """The tiny student without a teacher."""
    return lambda *overrides: student_recipe("objective.kind=supervised", "train.epochs=2", *overrides)


@pytest.fixture
def options(tmp_path: Path) -> Callable[..., Options]:
    def make(listener: Any = None) -> Options:
        return Options(runs_dir=tmp_path / "runs", threads=1, on_event=listener)

    return make


def _tops(report: SweepReport) -> list[float | None]:
    return [row.val_top1 for row in report.trials]


def _sweep_folder(report: SweepReport) -> Path:
    return Path(report.folder)


# Grids


def test_a_grid_trains_every_combination_and_writes_the_best_as_a_recipe(tiny, options, tmp_path: Path) -> None:
    report = sweep(tiny(), grid=["optim.name=adam,sgd", LR], seeds=2, options=options())
    assert report.folder == str(tmp_path / "sweeps" / "tiny_student")
    assert len(report.trials) == 8
    assert len(report.groups) == 4
    assert all(row.status == "finished" and Path(row.run).is_dir() for row in report.trials)
    assert report.best is not None
    top = max(report.groups, key=lambda group: group.val_top1)
    assert report.best.val_top1 == top.val_top1
    best = load_recipe(report.best.recipe)
    assert (best.optim.name, best.optim.lr) == (report.best.params["optim.name"], report.best.params["optim.lr"])
    assert best.train.seed == 0
    assert Path(report.best.recipe).read_text().startswith("# Best of 8 trials")
    info = RunFolder(Path(report.trials[3].run)).info
    assert info.extra["sweep"] == {
        "name": "tiny_student",
        "trial": 3,
        "params": {"optim.name": "sgd", "optim.lr": 0.05},
    }
    assert (
        json.loads((_sweep_folder(report) / "result.json").read_text())["trials"][0]["val_top1"]
        == report.trials[0].val_top1
    )
    assert b"<svg" in Path(report.plot).read_bytes()
    assert not (_sweep_folder(report) / "lock.json").exists()


def test_a_value_that_is_listed_twice_is_told_of_and_trained_once(tiny, options) -> None:
    told: list[Any] = []
    report = sweep(tiny("train.epochs=1"), grid=["optim.lr=0.05,5e-2"], options=options(told.append))
    assert len(report.trials) == 1
    notes = [event.message for event in told if isinstance(event, Note)]
    assert "--grid optim.lr: 5e-2 is listed more than once, and taken once" in notes


def test_a_trial_is_the_run_that_the_verb_itself_would_make(tiny, options, tmp_path: Path) -> None:
    from distill.pipeline import train_student

    report = sweep(tiny(), grid=[LR], options=options())
    alone = train_student(tiny("optim.lr=0.05"), options=Options(runs_dir=tmp_path / "other", threads=1))
    assert (Path(report.trials[1].run) / "metrics.jsonl").read_bytes() == (alone.run / "metrics.jsonl").read_bytes()


def test_trials_live_with_their_sweep_and_no_name_means_one(teacher_recipe, student_recipe, options, tmp_path) -> None:
    teacher = finetune_teacher(teacher_recipe("train.epochs=1"), options=options())
    report = sweep(teacher_recipe("train.epochs=1"), grid=[LR], options=options())
    trials = tmp_path / "sweeps" / "tiny_teacher" / "trials"
    assert [row.run for row in report.trials] == [str(trials / "001"), str(trials / "002")]
    assert [run.path for run in list_runs(tmp_path / "runs")] == [teacher.run]
    assert open_run("tiny_teacher", runs_dir=tmp_path / "runs").path == teacher.run
    student = train_student(student_recipe("train.epochs=1"), options=options())
    assert RunFolder(student.run).info.teacher["run"] == str(teacher.run)
    assert evaluate_run(report.trials[1].run, options=options()).run == str(trials / "002")


class Killed(BaseException):
    """As kill -9 would: nothing is caught, nothing saved."""


@pytest.mark.parametrize("kind", ["grid", "search"])
def test_what_a_killed_sweep_left_is_cleared_by_the_next(tiny, options, tmp_path: Path, kind: str) -> None:
    """Killed before the trial was written down: nothing in its folder is of use."""
    if kind == "search":
        pytest.importorskip("optuna")
    asked = {"grid": [LR]} if kind == "grid" else {"search": SEARCH, "trials": 2}

    def killed(event: Event) -> None:
        if isinstance(event, RunStarted):
            raise Killed

    with pytest.raises(Killed):
        sweep(tiny(), **asked, options=options(killed))
    folder = tmp_path / "sweeps" / "tiny_student"
    (orphan,) = (folder / "trials").glob("[0-9]*")
    (folder / ".trials.json.0123456789ab.partial").write_text("half")
    (folder / "trials" / "007").mkdir()
    mine = folder / "trials" / "008"
    (mine / "checkpoints").mkdir(parents=True)
    report = sweep(tiny(), **asked, options=options())
    assert [path.name for path in folder.glob(".*")] == []
    kept = {Path(row.run) for row in report.trials} | {mine}
    assert {path for path in (folder / "trials").glob("[0-9]*")} == kept
    assert orphan not in kept or RunFolder(orphan).status == "finished"


def test_what_is_finished_is_not_trained_again_and_more_values_join(tiny, options) -> None:
    first = sweep(tiny(), grid=[LR], options=options())
    again, wider = Listener(), Listener()
    assert sweep(tiny(), grid=[LR], options=options(again)).trials == first.trials
    assert again.runs == []
    report = sweep(tiny(), grid=["optim.lr=0.001,0.02,0.05"], options=options(wider))
    assert len(wider.runs) == 1
    assert [report.trials[n].run for n in (0, 2)] == [row.run for row in first.trials]
    assert [row.seed for row in sweep(tiny(), grid=[LR], seeds=2, options=options()).trials] == [0, 0, 1, 1, 0]


def test_other_values_of_the_same_keys_join_what_was_there(tiny, options) -> None:
    """What a sweep found stays found: its best is the best of all its trials."""
    first = sweep(tiny(), grid=["optim.lr=0.05,0.001"], seeds=2, options=options())
    second = Listener()
    report = sweep(tiny(), grid=["optim.lr=1e-7"], options=options(second))
    assert len(second.runs) == 1
    assert [row.params["optim.lr"] for row in report.trials] == [1e-7, 0.05, 0.001, 0.05, 0.001]
    assert [row.seed for row in report.trials] == [0, 0, 0, 1, 1]
    assert _tops(report)[1:] == _tops(first)
    assert [group.seeds for group in report.groups] == [1, 2, 2]
    assert (report.best.params, report.best.run) == (first.best.params, first.best.run)
    assert load_recipe(report.best.recipe) == load_recipe(first.best.recipe)
    assert Path(report.best.recipe).read_text().startswith("# Best of 5 trials")
    assert resume_sweep("tiny_student", options=options()).trials == report.trials


def test_a_stopped_trial_that_is_no_longer_asked_for_is_shown_and_left(tiny, options) -> None:
    with pytest.raises(InterruptedRunError):
        sweep(tiny(), grid=[LR], options=options(Listener(stop_at=(2, 1))))
    report = sweep(tiny(), grid=["optim.lr=0.02"], options=options())
    assert [row.status for row in report.trials] == ["finished", "finished", "interrupted"]


def test_ctrl_c_says_how_to_go_on_and_going_on_ends_with_the_same_numbers(tiny, options, tmp_path: Path) -> None:
    whole = sweep(tiny(), grid=[LR], name="whole", options=options())
    with pytest.raises(InterruptedRunError) as error:
        sweep(tiny(), grid=[LR], name="cut", options=options(Listener(stop_at=(2, 1))))
    assert error.value.exit_code == 130
    assert error.value.hint == f"to continue: distill sweep --resume {tmp_path / 'sweeps' / 'cut'}"
    listener = Listener()
    report = resume_sweep("cut", options=options(listener))
    assert [epoch for _, epoch in listener.runs] == [1]  # the second run alone, from its first epoch on
    assert _tops(report) == _tops(whole)
    for one, two in zip(whole.trials, report.trials, strict=True):
        assert (Path(one.run) / "metrics.jsonl").read_bytes() == (Path(two.run) / "metrics.jsonl").read_bytes()


def test_a_removed_run_is_trained_again(tiny, options) -> None:
    import shutil

    first = sweep(tiny(), grid=[LR], options=options())
    shutil.rmtree(first.trials[0].run)
    listener = Listener()
    assert _tops(sweep(tiny(), grid=[LR], options=options(listener))) == _tops(first)
    assert len(listener.runs) == 1


def test_a_trial_that_diverges_fails_alone_and_stays_failed(tiny, options) -> None:
    report = sweep(tiny(), grid=["optim.lr=0.05,1e9"], options=options())
    assert [row.status for row in report.trials] == ["finished", "failed"]
    assert "not finite" in report.trials[1].error or "nan" in report.trials[1].error.lower()
    assert report.best.trial == 0
    listener = Listener()
    sweep(tiny(), grid=["optim.lr=0.05,1e9"], options=options(listener))
    assert listener.runs == []


def test_what_the_machine_refuses_ends_the_sweep_and_is_no_trials_failure(tiny, options) -> None:
    def full(_: EpochDone) -> None:
        raise OSError(28, "No space left on device")

    listener = Listener()
    broken = lambda event: full(event) if isinstance(event, EpochDone) else listener(event)  # noqa: E731
    with pytest.raises(DistillError, match="No space left"):
        sweep(tiny(), grid=[LR], options=options(broken))
    assert len(listener.runs) == 1
    report = sweep(tiny(), grid=[LR], options=options())
    assert [row.status for row in report.trials] == ["finished", "finished"]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
    ids=["of a GPU", "of the machine", "of a map"],
)
def test_a_trial_that_takes_too_much_memory_fails_alone(tiny, options, error: Exception) -> None:
    listener = Listener()

    def broken(event: Event) -> None:
        listener(event)
        if isinstance(event, EpochDone) and len(listener.runs) == 1:
            raise error

    report = sweep(tiny(), grid=[LR], options=options(broken))
    assert [row.status for row in report.trials] == ["failed", "finished"]
    assert "out of memory" in report.trials[0].error


def test_what_is_no_choice_of_the_trial_ends_the_sweep(tiny, options) -> None:
    listener = Listener()

    def broken(event: Event) -> None:
        listener(event)
        if isinstance(event, EpochDone):
            raise RunError("a checkpoint that does not fit") from RuntimeError("size mismatch")

    with pytest.raises(RunError, match="does not fit"):
        sweep(tiny(), grid=[LR], options=options(broken))
    assert len(listener.runs) == 1


def test_a_trial_that_fails_before_it_begins_says_why(tiny, options) -> None:
    began: list[Event] = []

    def broken(event: Event) -> None:
        if isinstance(event, RunStarted):
            began.append(event)
            if len(began) == 1:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    report = sweep(tiny(), grid=[LR], options=options(broken))
    assert [row.status for row in report.trials] == ["failed", "finished"]
    assert "out of memory" in report.trials[0].error
    again = sweep(tiny(), grid=[LR], options=options())  # it may fit by now
    assert [row.status for row in again.trials] == ["finished", "finished"]


def test_a_search_that_draws_a_choice_twice_prefers_no_such_choice(tiny, options) -> None:
    report = sweep(tiny(), search=["optim.lr=[1e-6,1e-5,0.05]"], trials=5, options=options())
    tops = [row.val_top1 for row in report.trials]
    assert len({row.params["optim.lr"] for row in report.trials}) < len(tops)
    assert (report.best.val_top1, report.best.seeds) == (max(tops), 1)


def test_when_every_trial_fails_the_sweep_does(tiny, options) -> None:
    with pytest.raises(RunError, match="every trial failed"):
        sweep(tiny(), grid=["optim.lr=1e9,5e8"], options=options())


def test_trials_share_one_teacher_and_one_bank(student_recipe, teacher_run: RunResult, options, monkeypatch) -> None:
    from distill.sweeps import trainer

    loads = []
    load = trainer.load_splits
    monkeypatch.setattr(trainer, "load_splits", lambda *args, **more: loads.append(args) or load(*args, **more))
    recipe = student_recipe("augment.view_seed=11")
    teacher = str(teacher_run.run)
    report = sweep(recipe, grid=["objective.temperature=1.0,2.0"], teacher=teacher, options=options())
    taught = [RunFolder(Path(row.run)).info.teacher for row in report.trials]
    assert [about["logits"] for about in taught] == ["bank", "bank"]
    assert len({about["bank"] for about in taught}) == 1
    assert Bank.open(Path(taught[0]["bank"])).info.views == 3
    assert len(loads) == 1
    grid = ["objective.kind=kd,supervised"]
    both = sweep(recipe, grid=grid, teacher=teacher, name="with-and-without", options=options())
    assert [RunFolder(Path(row.run)).info.teacher is None for row in both.trials] == [False, True]


def test_a_file_teaches_all_trials_and_is_found_from_another_folder(
    student_recipe, teacher_run: RunResult, options, monkeypatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    export(teacher_run.run, out="teacher.onnx", options=options())
    recipe = student_recipe("train.epochs=1", "augment.view_seed=12", "teacher.logits=live")
    report = sweep(recipe, grid=[LR], teacher="teacher.onnx", options=options())
    here = str(tmp_path / "teacher.onnx")
    assert [RunFolder(Path(row.run)).info.teacher["onnx"] for row in report.trials] == [here, here]
    best = load_recipe(report.best.recipe).teacher
    assert (best.onnx, best.run) == (here, None)
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    assert _tops(resume_sweep(report.folder, options=options())) == _tops(report)
    with pytest.raises(UsageError, match="holds another sweep: other --teacher"):
        sweep(recipe, grid=[LR], teacher=str(teacher_run.run), options=options())


def test_nothing_is_trained_while_some_trial_is_wrong(tiny, options, tmp_path: Path) -> None:
    for wrong in (["optim.lr=0.1,x"], ["optim.name=sgd,sdg"]):
        with pytest.raises(UsageError):
            sweep(tiny(), grid=wrong, options=options())
    with pytest.raises(UsageError, match="val_fraction is 0"):
        sweep(tiny("data.val_fraction=0"), grid=[LR], options=options())
    with pytest.raises(UsageError, match="nothing to vary"):
        sweep(tiny(), options=options())
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "sweeps").exists()


@pytest.mark.parametrize("given", [{"trials": 3}, {"storage": "sqlite:///study.db"}], ids=str)
def test_a_grid_is_resumed_without_what_is_a_searchs(tiny, options, given: dict[str, Any]) -> None:
    sweep(tiny("train.epochs=1"), grid=["optim.lr=0.05"], options=options())
    with pytest.raises(UsageError, match=f"is a grid and takes no --{next(iter(given))}(\n|$)") as error:
        resume_sweep("tiny_student", **given, options=options())
    assert error.value.exit_code == 2
    assert "repeat its first command with more values" in error.value.hint


def test_another_sweep_of_that_name_is_refused(tiny, options) -> None:
    sweep(tiny(), grid=[LR], options=options())
    with pytest.raises(UsageError, match=r"holds another sweep: other train\.batch_size"):
        sweep(tiny("train.batch_size=20"), grid=[LR], options=options())


def _pictures(root: Path, *, seed: int) -> None:
    draw = np.random.default_rng(seed)
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            (root / split / label).mkdir(parents=True, exist_ok=True)
            for number in range(10):
                pixels = draw.integers(0, 255, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / label / f"{number}.png")


@pytest.mark.parametrize(
    "asked",
    [{"grid": ["optim.lr=0.001,0.05"]}, {"search": ["optim.lr=0.001:0.05"], "trials": 2}],
    ids=["grid", "search"],
)
def test_trials_on_other_images_are_not_ranked_together(tiny, options, tmp_path: Path, asked: dict) -> None:
    if "search" in asked:
        pytest.importorskip("optuna")
    root = tmp_path / "pictures"
    _pictures(root, seed=0)
    recipe = tiny(f"data={{name: folder, root: '{root}', image_size: 16}}", "train.batch_size=4")
    with pytest.raises(InterruptedRunError):
        sweep(recipe, **asked, options=options(Listener(stop_at=(2, 1))))
    _pictures(root, seed=1)
    listener = Listener()
    with pytest.raises(RunError, match=r"trial 0.* stood on something else than is here now: data \(was ") as caught:
        sweep(recipe, **asked, options=options(listener))
    assert caught.value.hint == "restore it, or begin another sweep: --name NAME"
    assert listener.runs == []
    _pictures(root, seed=0)
    assert [row.status for row in sweep(recipe, **asked, options=options()).trials] == ["finished"] * 2


@pytest.mark.parametrize("damage", ["{}", "no JSON", None])
def test_an_earlier_trial_that_cannot_be_ranked_is_left_out_and_told(
    student_recipe, teacher_recipe, options, damage: str | None
) -> None:
    teacher = finetune_teacher(teacher_recipe("train.epochs=1"), options=options())
    recipe = student_recipe("train.epochs=1", "teacher.logits=live", f"teacher.run={teacher.run}")
    before = sweep(recipe, grid=[LR], options=options())
    gone = Path(before.trials[0].run)
    if damage is None:
        RunFolder(gone).write_info(teacher={"run": str(teacher.run), "sha256": "0" * 64})
    else:
        (gone / "result.json").write_text(damage)
    told: list[str] = []
    heard = options(lambda event: told.append(event.message) if isinstance(event, Note) else None)
    report = sweep(recipe, grid=["optim.lr=0.02"], options=heard)
    assert [row.params["optim.lr"] for row in report.trials] == [0.02, 0.05]
    (line,) = [text for text in told if "left out of the table" in text]
    assert str(gone) in line
    with pytest.raises(RunError):  # where it is asked for, it is needed
        sweep(recipe, grid=[LR], options=options())


def test_trials_of_a_teacher_that_was_trained_anew_are_not_ranked_together(
    student_recipe, teacher_recipe, options
) -> None:
    teacher = finetune_teacher(teacher_recipe("train.epochs=1"), options=options())
    recipe = student_recipe("train.epochs=1")
    sweep(recipe, grid=["optim.lr=0.001"], options=options())
    shutil.rmtree(teacher.run)
    assert finetune_teacher(teacher_recipe("train.epochs=1", "train.seed=5"), options=options()).run == teacher.run
    with pytest.raises(RunError, match=r"trial 0, .*, stood on something else than is here now: teacher \(was "):
        sweep(recipe, grid=["optim.lr=0.001,0.05"], options=options())


def test_a_sweep_is_one_processs_at_a_time(tiny, options, tmp_path: Path) -> None:
    from distill.sweeps.folder import SweepFolder

    with SweepFolder(tmp_path / "sweeps" / "tiny_student").lock(), pytest.raises(RunError, match="in use by process"):
        sweep(tiny(), grid=[LR], options=options())


def test_the_command_prints_one_document_and_takes_its_own_best(tiny, tmp_path: Path, monkeypatch) -> None:
    from typer.testing import CliRunner

    from distill.cli import app

    monkeypatch.chdir(tmp_path)
    write_atomically(tmp_path / "mine.yaml", dump_recipe(tiny()))

    def run(*args: str) -> Any:
        monkeypatch.setattr("sys.argv", ["distill", "sweep", *args])  # what best.yaml says it was found by
        return CliRunner().invoke(app, ["sweep", *args, "--threads", "1"], catch_exceptions=False)

    done = run("--recipe", "mine.yaml", "--grid", LR, "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["best"]["recipe"] == "sweeps/tiny_student/best.yaml"
    assert all(Path(trial["run"]).is_dir() for trial in document["trials"])
    assert "next: distill student --recipe sweeps/tiny_student/best.yaml" in done.stderr
    table = run("--resume", "tiny_student")
    assert table.exit_code == 0
    wider = run("--recipe", "mine.yaml", "--grid", "optim.lr=0.02")
    assert wider.exit_code == 0
    assert "2 earlier trials of this sweep stay in the table" in wider.stderr
    told = Path(document["best"]["recipe"]).read_text()
    assert told.count("# Found by: distill sweep ") == 2  # resuming asked for nothing new
    assert told.index("optim.lr=0.001,0.05") < told.index("optim.lr=0.02")
    assert "best recipe: sweeps/tiny_student/best.yaml" in table.stdout
    assert run("--resume", "tiny_student", "--grid", LR).exit_code == 2
    assert run("--grid", LR).exit_code == 2
    repeated = run("--recipe", document["best"]["recipe"], "--seeds", "2", "--name", "seeds", "--json")
    assert json.loads(repeated.stdout)["best"]["seeds"] == 2


# Searches


SEARCH = ["optim.lr=1e-4:1e-1:log", "optim.name=[adam,sgd]", "train.batch_size=20:60"]


def test_without_optuna_one_line_says_what_to_install(tiny, options, monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingError, match="Optuna") as error:
        sweep(tiny(), search=SEARCH, trials=2, options=options())
    assert error.value.exit_code == 4
    assert "pip install optuna" in error.value.hint


def test_a_search_stays_in_its_ranges_and_repeats_itself(tiny, options) -> None:
    pytest.importorskip("optuna")
    one = sweep(tiny("train.epochs=1"), search=SEARCH, trials=4, name="s", options=options())
    assert len(one.trials) == 4
    for row in one.trials:
        assert 1e-4 <= row.params["optim.lr"] <= 1e-1
        assert isinstance(row.params["train.batch_size"], int)
        recipe = RunFolder(Path(row.run)).recipe()
        assert (recipe.optim.lr, recipe.optim.name) == (row.params["optim.lr"], row.params["optim.name"])
    assert len({row.params["optim.lr"] for row in one.trials}) == 4
    assert load_recipe(one.best.recipe).optim.lr == one.best.params["optim.lr"]
    again = Listener()
    assert sweep(tiny("train.epochs=1"), search=SEARCH, trials=4, name="s", options=options(again)).trials == one.trials
    assert again.runs == []
    more = resume_sweep("s", trials=5, options=options(again))
    assert (len(more.trials), len(again.runs)) == (5, 1)


def test_a_command_that_asked_for_no_more_trials_found_nothing(tiny, options) -> None:
    pytest.importorskip("optuna")

    def typed(command: str) -> Any:
        return replace(options(), command=("distill", "sweep", command))

    def found_by(report: SweepReport) -> list[str]:
        return re.findall(r"^# Found by: distill sweep (.*)$", Path(report.best.recipe).read_text(), re.MULTILINE)

    recipe, asked = tiny("train.epochs=1"), {"search": ["optim.lr=1e-4:1e-1:log"]}
    assert found_by(sweep(recipe, **asked, trials=2, options=typed("first"))) == ["first"]
    assert found_by(resume_sweep("tiny_student", trials=1, options=typed("fewer"))) == ["first"]
    assert found_by(sweep(recipe, **asked, trials=1, options=typed("again"))) == ["first"]
    assert found_by(resume_sweep("tiny_student", trials=3, options=typed("more"))) == ["first", "more"]


def test_a_stopped_search_makes_the_choices_it_would_have_made(tiny, options) -> None:
    pytest.importorskip("optuna")
    listener = Listener(stop_at=(2, 1))
    with pytest.raises(InterruptedRunError) as error:
        sweep(tiny(), search=SEARCH, trials=2, options=options(listener))
    assert "distill sweep --resume" in error.value.hint
    again = Listener()
    report = resume_sweep("tiny_student", options=options(again))
    assert again.runs == [(listener.runs[1][0], 1)]
    assert [row.status for row in report.trials] == ["finished", "finished"]
    assert report.trials[1].epochs == 2


def test_a_killed_trial_is_tried_again(tiny, options, tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    sweep(tiny(), search=SEARCH, trials=1, options=options())
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'sweeps' / 'tiny_student' / 'study.db'}")
    study = optuna.load_study(study_name="tiny_student", storage=storage)
    lost = study.ask(study.trials[0].distributions)  # what a killed process leaves: a trial that says it runs
    storage.scoped_session.remove()
    storage.engine.dispose()
    report = resume_sweep("tiny_student", trials=2, options=options())
    assert [row.number for row in report.trials] == [0, 2]
    assert report.trials[1].params["optim.lr"] == lost.params["optim.lr"]


def test_hopeless_trials_are_pruned_and_leave_a_run_that_can_go_on(tiny, options, monkeypatch) -> None:
    optuna = pytest.importorskip("optuna")
    monkeypatch.setattr(optuna.pruners, "MedianPruner", lambda **_: optuna.pruners.ThresholdPruner(lower=2.0))
    report = sweep(tiny(), search=SEARCH, trials=1, prune=False, name="unpruned", options=options())
    assert report.trials[0].status == "finished"
    with pytest.raises(RunError, match="no trial was finished"):
        sweep(tiny(), search=SEARCH, trials=2, name="pruned", options=options())
    result = json.loads((Path(report.folder).parent / "pruned" / "result.json").read_text())
    assert [(trial["status"], trial["epochs"]) for trial in result["trials"]] == [("pruned", 1), ("pruned", 1)]
    run = RunFolder(Path(result["trials"][0]["run"]))
    assert (run.status, run.info.exit_code, run.info.extra["pruned"]) == ("interrupted", 0, True)
    assert "pruned after epoch 1 of 2" in run.info.extra["error"]
    assert resume_run(run.path).epochs == 2  # its checkpoint was on disk


def test_two_folders_share_one_study(tiny, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    reports = [
        sweep(
            tiny("train.epochs=1"),
            search=SEARCH,
            trials=trials,
            storage=url,
            options=Options(runs_dir=tmp_path / host / "runs", threads=1),
        )
        for host, trials in (("a", 2), ("b", 4))
    ]
    assert [len(report.trials) for report in reports] == [2, 4]
    assert [row.run is None for row in reports[1].trials] == [True, True, False, False]
    assert len({row.params["optim.lr"] for row in reports[1].trials}) == 4
    with pytest.raises(UsageError, match="another recipe or search"):
        sweep(
            tiny(), search=SEARCH, trials=4, storage=url, options=Options(runs_dir=tmp_path / "c" / "runs", threads=1)
        )


def test_importances_need_enough_trials(tiny, options) -> None:
    pytest.importorskip("optuna")
    search = ["optim.lr=1e-4:1e-1:log", "optim.name=[adam,sgd]"]
    report = sweep(tiny("train.epochs=1", "data.limit=60"), search=search, trials=10, prune=False, options=options())
    if len(set(_tops(report))) > 1:
        assert set(report.importances) == {"optim.lr", "optim.name"}
        assert sum(report.importances.values()) == pytest.approx(1.0)


def test_the_best_recipe_names_the_teacher_that_the_trials_had(student_recipe, teacher_recipe, options) -> None:
    """Of a name the newest run is another one, once that is trained again."""
    first = finetune_teacher(teacher_recipe("train.epochs=1"), options=options())
    recipe = student_recipe("train.epochs=1")
    report = sweep(recipe, grid=["optim.lr=0.001,0.05"], options=options())
    finetune_teacher(teacher_recipe("train.epochs=1", "train.seed=1"), options=options())
    best = load_recipe(report.best.recipe)
    assert best.teacher.run == f"{first.run.parent.name}/{first.run.name}"
    trained = train_student(best, options=options())
    assert RunFolder(trained.run).info.teacher["run"] == str(first.run)


def test_trials_that_are_judged_by_other_images_are_warned_of(tiny, options) -> None:
    told: list[str] = []
    heard = options(lambda event: told.append(event.message) if isinstance(event, Note) else None)
    sweep(tiny("train.epochs=1"), grid=["data.split_seed=0,1"], options=heard)
    assert any(text.startswith("data.split_seed decides which validation images") for text in told)
    told.clear()
    sweep(tiny("train.epochs=1"), grid=["optim.lr=0.1"], options=heard, name="other")
    assert not any("decides which validation images" in text for text in told)


def test_one_teacher_under_two_names_is_no_ensemble(student_recipe, teacher_recipe, options, tmp_path: Path) -> None:
    teacher = finetune_teacher(teacher_recipe("train.epochs=1"), options=options())
    with pytest.raises(UsageError, match="is named twice among the teachers"):
        sweep(
            student_recipe("train.epochs=1"), grid=[LR], teacher=[str(teacher.run), "tiny_teacher"], options=options()
        )
    assert not (tmp_path / "sweeps").exists()
