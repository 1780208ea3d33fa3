"""One recipe with several seeds: each is the run that --seed alone makes; a series goes on and can be extended."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from pathlib import Path
from statistics import mean, stdev

import pytest
from typer.testing import CliRunner

from distill import Options, finetune_teacher, load_recipe, train_seeds, train_student
from distill.cli import app
from distill.errors import DivergedError, InterruptedRunError, UsageError
from distill.events import RunStarted, StepDone
from distill.recipe import parse_recipe
from distill.runs import RunFolder

module = sys.modules["distill.pipeline.several_seeds"]
RECIPE = """
schema_version: 1
name: {name}
role: {role}
data: {{name: synthetic, image_size: 16, limit: 64, test_limit: 20}}
augment: {{crop_padding: 2}}
model: {{source: students, name: tiny, width: {width}, input_size: 16}}
train: {{epochs: 2, batch_size: 16, seed: 4}}
{rest}
"""
TAUGHT = "teacher: {run: teacher}\nobjective: {kind: kd}"


def text(name="small", *, width=4, rest="objective: {kind: supervised}", role="student"):
    return RECIPE.format(name=name, role=role, width=width, rest=rest)


def recipe(name="small", **settings):
    return parse_recipe(text(name, **settings), source="test")


def options(runs, **more):
    return Options(runs_dir=runs, device="cpu", **more)


def weights(result):
    return (result.run / "checkpoints" / "last" / "model.safetensors").read_bytes()


def folders(results):
    return [each.run.name for each in results]


def test_each_seed_is_the_run_that_one_alone_makes(tmp_path):
    found = train_seeds(recipe(), seeds=3, options=options(tmp_path / "runs"))
    assert [RunFolder(each.run).recipe().train.seed for each in found] == [4, 5, 6]
    assert folders(found) == ["001", "002", "003"]
    alone = load_recipe(recipe()).model_copy(update={"train": recipe().train.model_copy(update={"seed": 5})})
    assert weights(train_student(alone, options=options(tmp_path / "alone"))) == weights(found[1])
    assert len({weights(each) for each in found}) == 3


def test_a_series_is_extended_and_its_runs_stay_as_they_are(tmp_path):
    first = train_student(recipe(), options=options(tmp_path))  # made by another call
    train_seeds(recipe(), seeds=2, options=options(tmp_path))
    before = [path.stat().st_mtime_ns for path in sorted((tmp_path / "small").glob("00[12]/checkpoints/last/*"))]
    assert before
    found = train_seeds(recipe(), seeds=3, options=options(tmp_path))
    assert folders(found) == ["001", "002", "003"]
    assert found[0].run == first.run
    paths = sorted((tmp_path / "small").glob("00[12]/checkpoints/last/*"))
    assert [path.stat().st_mtime_ns for path in paths] == before


def test_a_series_that_was_stopped_goes_on_and_ends_with_the_same_bytes(tmp_path):
    whole = train_seeds(recipe(), seeds=3, options=options(tmp_path / "whole"))
    steps = 0

    def stop(event):
        nonlocal steps
        steps += isinstance(event, StepDone)
        if isinstance(event, StepDone) and steps == 10:  # in the second run
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(InterruptedRunError):
        train_seeds(recipe(), seeds=3, options=options(tmp_path / "cut", on_event=stop))
    begun = []

    def note(event):
        if isinstance(event, RunStarted):
            begun.append(Path(event.run).name)

    again = train_seeds(recipe(), seeds=3, options=options(tmp_path / "cut", on_event=note))
    assert begun == ["002", "003"]
    assert [weights(each) for each in again] == [weights(each) for each in whole]


@pytest.mark.parametrize(
    "other",
    [
        {"width": 5},
        {"rest": "objective: {kind: supervised}\noptim: {name: adam, lr: 0.01}"},
        {"rest": "objective: {kind: supervised}\nschedule: {kind: constant, warmup_epochs: 1}"},
    ],
)
def test_another_recipe_of_the_same_name_is_another_series(tmp_path, other):
    train_seeds(recipe(), seeds=2, options=options(tmp_path))
    assert folders(train_seeds(recipe(**other), seeds=2, options=options(tmp_path))) == ["003", "004"]
    assert folders(train_seeds(recipe(), seeds=2, options=options(tmp_path))) == ["001", "002"]


def test_another_teacher_other_images_and_another_start_are_other_series(tmp_path):
    for width in (8, 9):
        finetune_teacher(recipe("teacher", width=width, role="teacher"), options=options(tmp_path))
    taught = recipe(rest=TAUGHT)
    assert folders(train_seeds(taught, seeds=2, teacher="teacher/001", options=options(tmp_path))) == ["001", "002"]
    assert folders(train_seeds(taught, seeds=2, teacher="teacher/002", options=options(tmp_path))) == ["003", "004"]
    assert folders(train_seeds(taught, seeds=2, teacher="teacher/001", options=options(tmp_path))) == ["001", "002"]
    fewer = load_recipe(taught)
    fewer = fewer.model_copy(update={"data": fewer.data.model_copy(update={"limit": 48})})
    assert folders(train_seeds(fewer, seeds=1, teacher="teacher/001", options=options(tmp_path))) == ["005"]
    begun = options(tmp_path, init_from="small/001")
    assert folders(train_seeds(taught, seeds=1, teacher="teacher/001", options=begun)) == ["006"]
    assert folders(train_seeds(taught, seeds=1, teacher="teacher/001", options=begun)) == ["006"]


def test_a_damaged_run_is_not_in_the_way(tmp_path):
    first, _ = train_seeds(recipe(), seeds=2, options=options(tmp_path))
    (first.run / "run.json").write_text("{")
    assert folders(train_seeds(recipe(), seeds=2, options=options(tmp_path))) == ["003", "002"]


def test_torchrun_is_told_to_start_each(tmp_path, monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="torchrun's processes are one"):
        train_seeds(recipe(), seeds=2, options=options(tmp_path))


def test_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(text())
    run = CliRunner().invoke
    shown = run(app, ["student", "--recipe", "mine.yaml", "--seeds", "2", "--seed", "7", "--device", "cpu"])
    assert shown.exit_code == 0, shown.output
    printed = run(app, ["student", "-r", "mine.yaml", "--seeds", "2", "--seed", "7", "--json", "--device", "cpu"])
    documents = json.loads(printed.stdout)
    assert [document["seed"] for document in documents] == [7, 8]
    assert [document["run"] for document in documents] == ["runs/small/001", "runs/small/002"]
    top1 = [100 * document["val_top1"] for document in documents]
    assert f"{mean(top1):.2f} ± {stdev(top1):.2f} % (n=2" in shown.stdout
    assert "next: distill compare" in shown.stderr
    refused = run(app, ["student", "--resume", "small", "--seeds", "2"])
    assert (refused.exit_code, "takes no --seeds" in refused.stderr) == (2, True)
    refused = run(app, ["student", "-r", "mine.yaml", "--generations", "2", "--seeds", "2"])
    assert (refused.exit_code, "take no --seeds" in refused.stderr) == (2, True)


def test_another_teacher_under_the_same_name_is_another_series_and_that_is_told(tmp_path):
    runs = tmp_path / "runs"
    teacher = finetune_teacher(recipe("teacher", role="teacher", rest=""), options=options(runs)).run
    told = []
    taught = options(runs, on_event=lambda event: told.append(getattr(event, "message", "")))
    assert folders(train_seeds(recipe(rest=TAUGHT), seeds=2, options=taught)) == ["001", "002"]
    shutil.copytree(teacher, tmp_path / "kept", symlinks=True)
    shutil.rmtree(teacher)
    other = finetune_teacher(recipe("teacher", role="teacher", width=5, rest=""), options=options(runs)).run
    assert other == teacher
    told.clear()
    assert folders(train_seeds(recipe(rest=TAUGHT), seeds=2, options=taught)) == ["003", "004"]
    notes = [each for each in told if "learned from another teacher" in each]
    assert [each.split(" learned")[0] for each in notes] == [str(runs / "small" / name) for name in ("001", "002")]
    assert "teacher (was" in notes[0]
    moved = train_seeds(recipe(rest=TAUGHT), seeds=3, teacher=str(tmp_path / "kept"), options=taught)
    assert folders(moved) == ["001", "002", "005"], "the same weights, wherever they lie"


def test_a_finished_run_counts_though_a_newer_one_of_its_seed_was_stopped(tmp_path):
    first = train_student(recipe(), options=options(tmp_path))

    def stop(event):
        if isinstance(event, StepDone):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(InterruptedRunError):
        train_student(recipe(), options=options(tmp_path, on_event=stop))
    found = train_seeds(recipe(), seeds=2, options=options(tmp_path))
    assert found[0].run == first.run
    assert folders(found) == ["001", "003"]


def test_a_seed_that_diverges_stops_no_other(tmp_path, monkeypatch):
    launch = module.launch

    def diverging(worker, context):
        if context.recipe.train.seed == 4:
            raise DivergedError("the loss is not finite", hint="lower optim.lr")
        return launch(worker, context)

    monkeypatch.setattr(module, "launch", diverging)
    with pytest.raises(DivergedError, match="seed 4: the loss is not finite"):
        train_seeds(recipe(), seeds=3, options=options(tmp_path))
    seeds = [RunFolder(tmp_path / "small" / name).recipe().train.seed for name in ("001", "002")]
    assert seeds == [5, 6]


def test_one_seed_is_a_series_of_one(tmp_path):
    (tmp_path / "small.yaml").write_text(text())
    asked = ["student", "--recipe", str(tmp_path / "small.yaml"), "--runs", str(tmp_path / "runs"), "--device", "cpu"]
    for _ in range(2):
        done = CliRunner().invoke(app, [*asked, "--seeds", "1", "--json"])
        assert done.exit_code == 0, done.output
        assert [each["seed"] for each in json.loads(done.stdout)] == [4]
    assert [each.name for each in (tmp_path / "runs" / "small").iterdir() if each.name.isdigit()] == ["001"]
    tried = CliRunner().invoke(app, [*asked, "--seeds", "3", "--dry-run"])
    assert "that is one run of 3" in tried.output
