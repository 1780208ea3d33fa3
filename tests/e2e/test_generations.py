"""Students that teach: generations, assistants, and a chain that was stopped."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from distill import Options, finetune_teacher, train_generations, train_student
from distill.cli import app
from distill.errors import BudgetError, InterruptedRunError, UsageError
from distill.events import RunStarted, StepDone
from distill.recipe import parse_recipe
from distill.runs import RunFolder

RECIPE = """
schema_version: 1
name: {name}
role: {role}
data: {{name: synthetic, image_size: 16, limit: 64, test_limit: 20}}
augment: {{crop_padding: 2}}
model: {{source: {source}, name: tiny, width: {width}, input_size: 16}}
train: {{epochs: 2, batch_size: 16}}
{rest}
"""
TAUGHT = "teacher: {run: teacher}\nobjective: {kind: kd}"


def recipe(name, *, width=4, rest=TAUGHT):
    text = RECIPE.format(name=name, role="student" if rest else "teacher", source="students", width=width, rest=rest)
    return parse_recipe(text, source="test")


@pytest.fixture
def runs(tmp_path):
    finetune_teacher(recipe("teacher", width=8, rest=""), options=Options(runs_dir=tmp_path, device="cpu"))
    return tmp_path


def teacher_of(result):
    return json.loads((result.run / "run.json").read_text())["teacher"]["run"]


def weights(result):
    return (result.run / "checkpoints" / "last" / "model.safetensors").read_bytes()


def test_each_generation_learns_from_the_one_before(runs):
    found = train_generations([recipe("small")], generations=3, options=Options(runs_dir=runs, device="cpu")).runs
    assert [RunFolder(each.run).recipe().name for each in found] == ["small", "small_gen2", "small_gen3"]
    assert [RunFolder(each.run).recipe().train.seed for each in found] == [0, 1, 2]
    assert [teacher_of(each) for each in found[1:]] == [str(each.run) for each in found[:-1]]
    alone = train_student(recipe("small"), options=Options(runs_dir=runs, device="cpu"))
    assert weights(alone) == weights(found[0])


def test_a_chain_of_assistants_that_was_stopped_goes_on_and_ends_with_the_same_bytes(runs):
    recipes = [recipe("assistant", width=6), recipe("small")]
    whole = train_generations(recipes, options=Options(runs_dir=runs, device="cpu")).runs
    steps = 0

    def stop(event):
        nonlocal steps
        steps += isinstance(event, StepDone)
        if isinstance(event, StepDone) and steps == 10:  # in the second student
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(InterruptedRunError):
        train_generations(recipes, options=Options(runs_dir=runs, device="cpu", on_event=stop))
    begun = []
    again = train_generations(
        recipes,
        options=Options(
            runs_dir=runs, device="cpu", on_event=lambda e: begun.append(e) if isinstance(e, RunStarted) else None
        ),
    ).runs
    assert [event.name for event in begun] == ["small"]  # the assistant was finished
    assert [each.run.name for each in again] == ["002", "002"]
    assert [weights(each) for each in again] == [weights(each) for each in whole]
    assert not list((runs / ".begun").glob("*.json"))


def test_a_stopped_chain_goes_on_from_whatever_folder(runs, monkeypatch):
    home = runs / "home"
    home.mkdir()
    (runs / "teacher").rename(home / "teacher")
    (home / "inner").mkdir()
    monkeypatch.chdir(runs)
    begun = []

    def stop(event):
        begun.append(event) if isinstance(event, RunStarted) else None
        if isinstance(event, StepDone) and len(begun) == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(InterruptedRunError):
        train_generations(
            [recipe("small")], generations=2, options=Options(runs_dir=Path("home"), device="cpu", on_event=stop)
        )
    monkeypatch.chdir(home / "inner")
    options = Options(runs_dir=Path(".."), device="cpu")
    found = train_generations([recipe("small")], generations=2, teacher=home / "teacher/001", options=options).runs
    assert [each.run.name for each in found] == ["001", "001"]
    assert not list((home / ".begun").glob("*.json"))


def test_what_cannot_be_a_chain_is_told_before_anything_is_trained(runs):
    options = Options(runs_dir=runs, device="cpu")
    with pytest.raises(UsageError, match="learns from no teacher"):
        train_generations([recipe("small"), recipe("teacher", rest="")], options=options)
    large = recipe("large", width=4)
    large = large.model_copy(update={"model": large.model.model_copy(update={"max_params": 3})})
    with pytest.raises(BudgetError):
        train_generations([recipe("small"), large], options=options)
    assert not (runs / "small").exists()


def test_the_command_line_prints_one_document(runs, tmp_path):
    (tmp_path / "small.yaml").write_text(
        RECIPE.format(name="small", role="student", source="students", width=4, rest=TAUGHT)
    )
    arguments = ["student", "--recipe", str(tmp_path / "small.yaml"), "--runs", str(runs), "--device", "cpu", "--quiet"]
    done = CliRunner().invoke(app, [*arguments, "--generations", "2", "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert [path.split("/")[-2] for path in document["generations"]] == ["small", "small_gen2"]
    assert document["run"] == document["generations"][-1]
    refused = CliRunner().invoke(app, [*arguments, "--generations", "2", "--dry-run"])
    assert refused.exit_code != 0
