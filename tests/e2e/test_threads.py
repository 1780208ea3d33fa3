"""How many threads a run works with: decided by the work of its layers, recorded, restored, overridable."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import distill
from distill.devices import thread_rule
from distill.evaluation.cost import spec_cost
from distill.events import CheckpointSaved, EpochDone, StepDone
from distill.models.trained import Trained
from distill.pipeline import Options, RunResult, finetune_teacher, rerun, resume_run, train_student
from distill.pipeline.banks import build_bank
from distill.pipeline.context import Context, prepare
from distill.pipeline.teacher import resolve_teacher
from distill.recipe import Recipe, parse_recipe
from distill.runs import RunFolder

SMALL = "{source: students, name: tiny}"
LARGE = "{source: students, name: resnet, blocks: [1], channels: [32], strides: [1]}"
TEXT = """
schema_version: 1
name: own
role: baseline
data: {{name: synthetic, limit: 64, test_limit: 20, val_fraction: 0}}
model: {model}
train: {{epochs: 2, batch_size: 32}}
"""
TAUGHT = "{run: big, logits: live}"


@pytest.fixture
def four_threads() -> Iterator[None]:
    """A process that torch gives four threads, as on a machine of four cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def _recipe(model: str, *overrides: str) -> Recipe:
    return parse_recipe(TEXT.format(model=model), source="test", overrides=overrides)


def _prepared(recipe: Recipe, runs: Path, **options: object) -> Context:
    return prepare(recipe, Options(runs_dir=runs, device="cpu", **options))


@pytest.mark.usefixtures("four_threads")
def test_a_small_network_has_one_thread_and_a_large_one_a_thread_for_each_50_million(tmp_path: Path) -> None:
    small, large = _prepared(_recipe(SMALL), tmp_path), _prepared(_recipe(LARGE, "train.batch_size=24"), tmp_path)
    assert small.recipe.train.threads == small.choices["train.threads"] == 1
    cost = spec_cost(large.recipe.model, 10)
    a_layer = 24 * cost.macs / 4  # two convolutions of a block, the stem's, and the classifier
    assert large.recipe.train.threads == int(a_layer / 50e6) == 2
    assert "a thread for each 50 million, 4 at most" in large.choices["train.threads_why"]
    whole = _prepared(_recipe(LARGE, "train.batch_size=128"), tmp_path)
    assert whole.recipe.train.threads == 4


@pytest.mark.usefixtures("four_threads")
def test_a_batch_in_pieces_and_processes_that_share_it_leave_less_for_each(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(thread_rule, "usable_cores", lambda: 16)
    pieces = _recipe(LARGE, "train.batch_size=96", "train.accumulate=4")
    assert _prepared(pieces, tmp_path).recipe.train.threads == 2
    assert _prepared(_recipe(LARGE, "train.batch_size=96"), tmp_path, devices=4).recipe.train.threads == 2


@pytest.mark.usefixtures("four_threads")
def test_the_recipe_decides_over_the_rule_and_the_command_over_both(tmp_path: Path) -> None:
    three = _recipe(SMALL, "train.threads=3")
    assert _prepared(three, tmp_path).recipe.train.threads == 3
    asked = _prepared(three, tmp_path, threads=2)
    assert asked.recipe.train.threads == 2
    assert not [key for key in asked.choices if "threads" in key]


@pytest.mark.usefixtures("four_threads")
def test_a_run_has_its_threads_and_leaves_the_process_its_own(tmp_path: Path) -> None:
    seen: set[int] = set()

    def listen(event: object) -> None:
        if isinstance(event, StepDone):
            seen.add(torch.get_num_threads())

    options = Options(runs_dir=tmp_path, device="cpu", on_event=listen)
    run = RunFolder(train_student(_recipe(SMALL, "train.threads=2"), options=options).run)
    assert seen == {2}
    assert torch.get_num_threads() == 4
    assert (run.info.threads, run.recipe().train.threads) == (2, 2)


def test_a_run_leaves_the_process_its_random_numbers(tmp_path: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train_student(_recipe(SMALL), options=Options(runs_dir=tmp_path, device="cpu"))
    assert torch.equal(torch.rand(3), expected)


class _Stop(Exception):
    pass


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize("by_an_earlier_version", [False, True])
def test_going_on_and_repeating_take_the_threads_the_run_began_with(tmp_path: Path, by_an_earlier_version) -> None:
    def stop(event: object) -> None:
        if isinstance(event, EpochDone):
            raise _Stop

    options = Options(runs_dir=tmp_path, device="cpu")
    with pytest.raises(_Stop):
        train_student(_recipe(LARGE), options=Options(runs_dir=tmp_path, device="cpu", threads=3, on_event=stop))
    run = RunFolder(next((tmp_path / "own").glob("0*")))
    if by_an_earlier_version:  # its recipe had no such key; run.json had the number
        text = (run.path / "recipe.yaml").read_text()
        assert "  threads: 3\n" in text
        (run.path / "recipe.yaml").write_text(text.replace("  threads: 3\n", ""))
    resume_run(run.path, options=options)
    assert RunFolder(run.path).info.threads == 3
    again = rerun(run.path, options=options)
    assert RunFolder(again.result.run).info.threads == 3
    assert again.differences == ()


@pytest.mark.usefixtures("four_threads")
def test_going_on_with_other_threads_is_told_and_they_are_not_kept(tmp_path: Path) -> None:
    told: list[str] = []

    def stop(event: object) -> None:
        told.append(str(getattr(event, "message", "")))
        if isinstance(event, CheckpointSaved):
            raise _Stop

    options = Options(runs_dir=tmp_path, device="cpu", on_event=stop)
    with pytest.raises(_Stop):
        train_student(_recipe(LARGE, "train.epochs=4", "train.threads=3"), options=options)
    run = RunFolder(next((tmp_path / "own").glob("0*")))
    for threads in (2, None):
        with pytest.raises(_Stop):
            resume_run(run.path, options=replace(options, threads=threads))
        assert run.info.threads == 3
    assert [line for line in told if "this run had" in line] == [
        "this run had 3 threads and goes on with 2: the last bits will differ"
    ]
    result = resume_run(run.path, options=replace(options, on_event=None))
    assert result.epochs == 4
    assert "threads (was 2, is 3)" in rerun(run.path, options=replace(options, on_event=None)).changed


@pytest.mark.usefixtures("four_threads")
def test_a_run_that_starts_over_with_other_threads_has_those(tmp_path: Path) -> None:
    told: list[str] = []

    def stop(event: object) -> None:
        told.append(str(getattr(event, "message", "")))
        if isinstance(event, EpochDone):  # before anything is saved
            raise _Stop

    options = Options(runs_dir=tmp_path, device="cpu", on_event=stop)
    with pytest.raises(_Stop):
        train_student(_recipe(LARGE, "train.threads=3"), options=options)
    run = RunFolder(next((tmp_path / "own").glob("0*")))
    resume_run(
        run.path,
        options=Options(runs_dir=tmp_path, device="cpu", threads=2, on_event=lambda event: told.append(str(event))),
    )
    assert run.info.threads == 2
    assert any("has no checkpoint: it starts over" in line for line in told)
    assert not any("goes on with" in line for line in told)
    assert rerun(run.path, options=Options(runs_dir=tmp_path, device="cpu")).differences == ()


@pytest.mark.usefixtures("four_threads")
def test_a_large_teacher_of_a_small_student_is_asked_on_more_threads(tmp_path: Path, monkeypatch) -> None:
    options, seen = Options(runs_dir=tmp_path, device="cpu"), []
    teacher = finetune_teacher(_recipe(LARGE, "name=big", "role=teacher", "train.epochs=1"), options=options)
    student = _recipe(SMALL, "role=student", f"teacher={TAUGHT}", "objective={kind: kd}", "train.epochs=1")
    real = Trained.__call__
    monkeypatch.setattr(Trained, "__call__", lambda self, x: (seen.append(torch.get_num_threads()), real(self, x))[1])
    run = RunFolder(train_student(student, options=options).run)
    assert (run.recipe().train.threads, run.recipe().teacher.threads, set(seen)) == (1, 4, {4})
    assert json.loads((run.path / "run.json").read_text())["choices"]["teacher.threads"] == 4
    seen.clear()
    build_bank(student, options=options)
    assert set(seen) == {4}
    named = resolve_teacher(student, runs_dir=tmp_path, override=None)
    assert _prepared(named, tmp_path, threads=2).recipe.teacher.threads == 2
    assert teacher.run.is_dir()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return monkeypatch


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize(
    ("verb", "asked", "arguments"),
    [
        ("evaluate", "distill.pipeline.evaluate.assess", {"again": True, "plots": False}),
        ("evaluate_runs", "distill.pipeline.evaluate.assess", {"again": True, "plots": False}),
        ("predict", "distill.pipeline.predict.find_pictures", {"paths": ["a.png"]}),
        ("export", "distill.pipeline.export.load_trained", {}),
        ("prune", "distill.pipeline.prune.load_trained", {"macs": 0.9, "train": False}),
        ("verify_banks", "distill.pipeline.verify.find_banks", {}),
    ],
)
def test_every_verb_works_in_its_threads_and_leaves_the_process_its_own(
    verb: str, asked: str, arguments: dict[str, object], teacher_run: RunResult, here: pytest.MonkeyPatch
) -> None:
    Image.fromarray(np.zeros((16, 16, 3), dtype=np.uint8)).save("a.png")
    module, _, name = asked.rpartition(".")
    inner, used = getattr(importlib.import_module(module), name), []

    def noting(*args: object, **kwargs: object) -> object:
        used.append(torch.get_num_threads())
        return inner(*args, **kwargs)

    here.setattr(importlib.import_module(module), name, noting)
    references = {"evaluate_runs": [[teacher_run.run]], "verify_banks": []}.get(verb, [teacher_run.run])
    options = Options(threads=1, device="cpu")
    getattr(distill, verb)(*references, **arguments, options=options)
    assert set(used) == {1}
    assert torch.get_num_threads() == 4
