"""Several teachers that are named by their runs: ``teacher: {banks: [{run: A}, {run: B}]}``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distill.cli import app
from distill.comparison import compare
from distill.errors import RecipeError, RunError, UsageError
from distill.events import Event, Note
from distill.pipeline import (
    Options,
    build_bank,
    build_banks,
    dry_run,
    finetune_teacher,
    rerun,
    train_generations,
    train_student,
)
from distill.pipeline.card import model_card
from distill.pipeline.teacher import taught_by
from distill.recipe import Recipe, dump_recipe, load_recipe
from distill.runs import RunFolder, open_run
from distill.runs.remove import remove_runs
from distill.sweeps import sweep
from distill.teaching.bank import Bank


@dataclass
class House:
    """A folder of runs with two teachers in it."""

    runs: Path
    student: Callable[..., Recipe]
    told: list[Event]

    @property
    def options(self) -> Options:
        return Options(runs_dir=self.runs, threads=1, on_event=self.told.append)

    def taught_by(self, *members: str, more: str = "", changes: tuple[str, ...] = ()) -> Recipe:
        return self.student(f"teacher={{banks: [{', '.join(members)}]{more}}}", *changes)

    def banks(self) -> list[Path]:
        return sorted(self.runs.glob("tiny_teacher/[0-9]*/banks/*"))


@pytest.fixture
def house(tmp_path: Path, teacher_recipe: Callable[..., Recipe], student_recipe: Callable[..., Recipe]) -> House:
    house = House(tmp_path / "runs", student_recipe, [])
    for seed in (0, 1):
        finetune_teacher(teacher_recipe("train.epochs=1", f"train.seed={seed}"), options=house.options)
    house.told.clear()
    return house


def _weights(run: Path) -> bytes:
    return (run / "checkpoints" / "last" / "model.safetensors").read_bytes()


def test_it_learns_what_it_learns_from_their_banks_named_by_path(house: House) -> None:
    named = house.taught_by("{run: tiny_teacher/001}", "{run: tiny_teacher, weight: 3}")
    by_run = train_student(named, options=house.options)
    assert [path.parts[-3] for path in house.banks()] == ["001", "002"]
    one, two = house.banks()
    again = house.taught_by(f"{{path: '{one}'}}", f"{{path: '{two}', weight: 3}}")
    by_path = train_student(again, options=house.options)
    assert _weights(by_run.run) == _weights(by_path.run)
    alone = train_student(house.taught_by(f"{{path: '{one}'}}"), options=house.options)
    assert _weights(by_run.run) != _weights(alone.run)  # the other one had a say


def test_several_are_named_in_the_place_of_the_recipes_own(house: House) -> None:
    recipe = house.taught_by("{run: tiny_teacher/001}", "{run: tiny_teacher/002}")
    in_the_recipe = train_student(recipe, options=house.options)
    one, two = (open_run(f"tiny_teacher/{number}", runs_dir=house.runs) for number in ("001", "002"))
    in_the_call = train_student(house.student(), teacher=[one, two.path], options=house.options)
    assert _weights(in_the_recipe.run) == _weights(in_the_call.run)
    alone = train_student(recipe, teacher=one, options=house.options)
    assert _weights(alone.run) == _weights(train_student(house.student(), teacher=[one], options=house.options).run)


def test_they_are_named_on_the_command_line(house: House, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(dump_recipe(house.student()))
    command = ["student", "--recipe", str(tmp_path / "s.yaml"), "--runs", str(house.runs), "--device", "cpu", "--quiet"]
    done = CliRunner().invoke(app, [*command, "--teacher", "tiny_teacher/001", "-t", "tiny_teacher/002"])
    assert done.exit_code == 0, done.output
    assert len(open_run("tiny_student", runs_dir=house.runs).info.teacher["banks"]) == 2
    refused = CliRunner().invoke(app, [*command, "--teacher", "tiny_teacher", "--teacher", "their.onnx"])
    assert (refused.exit_code, "their.onnx teaches alone" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("teacher.logits=live", "the recipe's teacher.logits: live needs run or onnx"),
        ("objective={kind: at}", "the recipe's objective at asks a live teacher"),
        ("objective={kind: rkd}", "the recipe's objective rkd asks for features: those of several"),
    ],
)
def test_what_only_one_teacher_can_give_is_not_asked_of_several(house: House, setting: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        train_student(house.student(setting), teacher=["tiny_teacher/001", "tiny_teacher/002"], options=house.options)
    assert house.banks() == []


def test_the_run_keeps_the_banks_and_goes_on_whatever_a_name_means_then(house: House) -> None:
    result = train_student(house.taught_by("{run: tiny_teacher}", "{run: tiny_teacher/001}"), options=house.options)
    run = RunFolder(result.run)
    teacher = run.recipe().teacher
    one, two = map(str, house.banks())
    assert [(bank.path, bank.run) for bank in teacher.banks] == [(two, None), (one, None)]
    assert [each["path"] for each in run.info.teacher["banks"]] == [two, one]
    assert run.info.teacher["name"] == "tiny_teacher + tiny_teacher"
    weights = [Bank.read(Path(bank.path)).info.identity.weights for bank in teacher.banks]
    assert weights[0] != weights[1]
    assert f"`{weights[0]}, {weights[1]}`" in model_card(run.path, latency=False, options=house.options)


def test_it_is_repeated_and_compared_where_all_of_it_has_moved(house: House, tmp_path: Path) -> None:
    train_student(house.taught_by("{run: tiny_teacher/001}", "{run: tiny_teacher/002}"), options=house.options)
    before = compare(["tiny_student"], runs_dir=house.runs, latency=False)
    moved = house.runs.rename(tmp_path / "moved")
    after = compare(["tiny_student"], runs_dir=moved, latency=False)
    told = [(row.name, row.test_top1, row.delta_top1, row.agreement) for row in before.rows]
    assert len(told) == 4
    assert [(row.name, row.test_top1, row.delta_top1, row.agreement) for row in after.rows] == told
    assert rerun("tiny_student", options=Options(runs_dir=moved, threads=1)).differences == ()


def test_what_the_student_says_of_asking_holds_for_each(house: House) -> None:
    recipe = house.taught_by(
        "{run: tiny_teacher/001}", "{run: tiny_teacher/002}", more=", precision: bf16, logits_dtype: float32"
    )
    result = train_student(recipe, options=house.options)
    for path in house.banks():
        info = Bank.read(path).info
        assert (info.identity.precision, info.key.dtype) == ("bf16", "float32")
    assert RunFolder(result.run).recipe().teacher.precision == "auto"


def test_a_dry_run_asks_the_first_and_builds_nothing(house: House) -> None:
    report = dry_run(house.taught_by("{run: tiny_teacher/002}", "{run: tiny_teacher/001}"), options=house.options)
    assert Path(report.teacher) == (house.runs / "tiny_teacher" / "002").absolute()
    assert house.banks() == []
    assert any(isinstance(event, Note) and "the first one, live" in event.message for event in house.told)


def test_a_sweep_builds_each_bank_once(house: House) -> None:
    recipe = house.taught_by("{run: tiny_teacher/001}", "{run: tiny_teacher/002}", changes=("train.epochs=1",))
    report = sweep(recipe, grid=["objective.temperature=1,2"], options=house.options)
    assert [trial.status for trial in report.trials] == ["finished", "finished"]
    assert len(house.banks()) == 2
    building = [event for event in house.told if isinstance(event, Note) and event.message.startswith("building")]
    assert len(building) == 2
    assert sweep(recipe, grid=["objective.temperature=1,2"], options=house.options) == report  # nothing is trained


def test_generations_begin_with_an_ensemble(house: House) -> None:
    recipe = house.taught_by("{run: tiny_teacher/001}", "{run: tiny_teacher/002}", changes=("train.epochs=1",))
    first, second = train_generations([recipe], generations=2, options=house.options).runs
    assert len(RunFolder(first.run).info.teacher["banks"]) == 2
    assert RunFolder(second.run).info.teacher["run"] == str(first.run)


def test_a_teacher_whose_bank_is_read_stays(house: House) -> None:
    student = train_student(
        house.taught_by("{run: tiny_teacher/001}", "{run: tiny_teacher/002}"), options=house.options
    )
    for number in ("001", "002"):
        teacher = open_run(f"tiny_teacher/{number}", runs_dir=house.runs)
        with pytest.raises(UsageError, match=f"is needed by {student.run}"):
            remove_runs([teacher], runs_dir=house.runs)
        assert teacher.path.is_dir()


def test_a_bank_is_built_for_one_of_them_at_a_time(house: House) -> None:
    recipe = house.taught_by("{run: tiny_teacher/001}", "{run: tiny_teacher/002}")
    with pytest.raises(UsageError, match="names 2 teachers") as caught:
        build_bank(recipe, options=house.options)
    assert caught.value.hint.endswith(f"--teacher {house.runs.absolute() / 'tiny_teacher' / '001'}")
    built = build_bank(recipe, teacher="tiny_teacher/002", options=house.options)
    assert house.banks() == [Path(built.path)]


def test_banks_of_several_are_built_by_one_command(house: House, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(dump_recipe(house.student()))
    command = [
        "cache",
        "build",
        "--recipe",
        str(tmp_path / "s.yaml"),
        "--runs",
        str(house.runs),
        "--device",
        "cpu",
        "-q",
    ]
    named = ["--teacher", "tiny_teacher/002", "-t", "tiny_teacher/001"]
    refused = CliRunner().invoke(app, [*command, *named, "--out", str(tmp_path / "bank")])
    assert (refused.exit_code, "is one bank, and there are 2 teachers" in refused.stderr) == (2, True)
    lost = CliRunner().invoke(app, [*command, "-t", "tiny_teacher/001", "-t", "tiny_teacher/009"])
    assert (lost.exit_code, house.banks()) == (2, [])
    done = CliRunner().invoke(app, [*command, *named, "--views", "1", "--json"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert [Path(row["path"]).parent.parent.name for row in rows] == ["002", "001"]
    assert {Path(row["path"]) for row in rows} == set(house.banks())
    assert [row["views"] for row in rows] == [1, 1]
    told = len(house.told)
    recipe = house.taught_by("{run: tiny_teacher/001}", "{run: tiny_teacher/002}")
    assert [row.views > 1 for row in build_banks(recipe, options=house.options)] == [True, True]
    assert len(house.banks()) == 2  # they were gone on with
    train_student(recipe, options=house.options)
    assert sum(isinstance(event, Note) and "building" in event.message for event in house.told[told:]) == 2


def test_a_teacher_that_is_not_there_is_told_before_anything_is_built(house: House) -> None:
    with pytest.raises(RunError, match="tiny_teacher/009"):
        train_student(house.taught_by("{run: tiny_teacher}", "{run: tiny_teacher/009}"), options=house.options)
    assert house.banks() == []


def test_a_member_that_a_recipe_trains_is_told_how(house: House) -> None:
    recipe = house.taught_by("{run: tiny_teacher}", "{run: fast_cifar10/002}")
    with pytest.raises(RunError, match="the teacher fast_cifar10/002 has no run in") as caught:
        train_student(recipe, options=house.options)
    assert caught.value.hint.startswith("train it first: distill student --recipe fast_cifar10;")


@pytest.mark.parametrize(
    ("member", "more", "reason"),
    [
        ("{}", "", "exactly one"),
        ("{run: a, path: b}", "", "exactly one"),
        ("{path: b}", ", precision: bf16", "precision is for a teacher's run"),
    ],
)
def test_a_member_that_makes_no_sense_is_refused(student_recipe, member: str, more: str, reason: str) -> None:
    with pytest.raises(RecipeError, match=reason):
        student_recipe(f"teacher={{banks: [{member}]{more}}}")


def test_a_sweep_is_taught_by_the_several_that_were_named(house: House) -> None:
    recipe, two = house.student("train.epochs=1"), ["tiny_teacher/001", "tiny_teacher/002"]
    report = sweep(recipe, grid=["optim.lr=0.01,0.02"], teacher=two, options=house.options)
    assert all(row.status == "finished" for row in report.trials)
    assert report.best is not None
    assert load_recipe(report.best.recipe).teacher == taught_by(recipe, two).teacher
    definition = Path(report.folder) / "sweep.json"
    assert json.loads(definition.read_text())["teacher"] == two
    for row in report.trials:
        about = RunFolder(Path(row.run)).info.teacher or {}
        assert sorted(Path(each["path"]) for each in about["banks"]) == house.banks()
    with pytest.raises(UsageError, match="other --teacher"):
        sweep(recipe, grid=["optim.lr=0.01,0.02"], teacher=two[0], options=house.options)
