"""Every shipped recipe takes one step through the real verbs, on four images, with random weights."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.main import get_command

from distill.cli import app
from distill.data.datasets import Dataset
from distill.data.images import Split
from distill.data.splits import Splits
from distill.pipeline import Options, dry_run, finetune_teacher, train_student
from distill.recipe import Recipe, load_recipe, parse_recipe
from distill.recipe.schema import DataSpec
from distill.runs import RunFolder

ROOT = Path(__file__).parents[2]
RECIPES = sorted(ROOT.glob("recipes/**/*.y*ml"))
CLASSES = {"cifar10": 10, "cifar100": 100, "digits": 10, "folder": 10}
_LARGE = 20_000_000  # parameters; a checkpoint is twice or three times as many floats
_SAVED_ALTHOUGH_LARGE = {"resnet152_cifar10"}  # the mission's own teacher goes the whole way
_TRAIN, _VAL = 4, 2

TINY_TEACHER = """
name: stand_in
role: teacher
data: {name: DATA}
model: {source: teachers, name: tiny}
train: {epochs: 1, batch_size: 4}
"""


def test_every_recipe_is_here() -> None:
    assert len(RECIPES) == 87
    assert len({path.stem for path in RECIPES}) == 87, "recipes are found by name: no two may share one"


# One step


def _few_images(spec: DataSpec, tell: Any = None, **_: object) -> Splits:
    """What ``load_splits`` returns, as random images of the recipe's size in the right number of classes."""
    rng = np.random.default_rng(0)
    classes = CLASSES[spec.name]

    def split(n: int) -> Split:
        images = rng.integers(0, 256, (n, 3, spec.side, spec.side), dtype=np.uint8)
        return Split(images, rng.integers(0, classes, n, dtype=np.int64))

    train, val, test = split(_TRAIN), split(_VAL), split(_VAL)
    names = tuple(f"class {number}" for number in range(classes))
    grey = (0.5, 0.5, 0.5)
    dataset = Dataset(spec.name, names, train, None, test, "random", grey, grey)
    has_val = spec.val_fraction > 0
    return Splits(dataset, train, val if has_val else None, test, f"random {classes}", np.arange(_TRAIN))


@pytest.fixture(scope="module", autouse=True)
def _shrunk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill.pipeline.context.load_splits", _few_images)
        patch.setattr("distill.pipeline.cautions.load_splits", _few_images)  # it draws the teacher's split again
        patch.setattr("distill.pipeline.context.num_classes", lambda spec: CLASSES[spec.name])
        patch.setattr("distill.report.redraw.redraw", lambda *_: [])  # half a second each, tested elsewhere
        yield


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny random teacher for each data set that students are taught on."""
    runs = tmp_path_factory.mktemp("teachers")
    made = {}
    for data in ("cifar10", "cifar100", "digits"):
        recipe = parse_recipe(TINY_TEACHER.replace("DATA", data), source="test")
        made[data] = finetune_teacher(recipe, options=Options(runs_dir=runs / data, device="cpu", threads=1)).run
    return made


def _small(path: Path) -> Recipe:
    """The recipe as it stands, but for one step of random weights; the backbone learns from the first epoch on."""
    recipe = load_recipe(path)
    train = recipe.train.model_copy(update={"epochs": 1, "batch_size": _TRAIN, "freeze_backbone_epochs": 0})
    random = {"weights": "none"} if recipe.model.source == "timm" else {}
    return recipe.model_copy(update={"train": train, "model": recipe.model.model_copy(update=random)})


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_one_step(path: Path, stand_ins: dict[str, Path], tmp_path: Path) -> None:
    recipe, steps = _small(path), []
    options = Options(runs_dir=tmp_path / "runs", device="cpu", threads=1, on_event=steps.append)
    teacher = None if recipe.teacher is None else str(stand_ins[recipe.data.name])
    tried = dry_run(recipe, teacher=teacher, options=replace(options, on_event=None))
    assert tried.steps_per_epoch == 1
    assert tried.input_shape == (_TRAIN, 3, recipe.model.input_size, recipe.model.input_size)
    assert tried.output_shape == (_TRAIN, CLASSES[recipe.data.name])
    if tried.params > _LARGE and recipe.name not in _SAVED_ALTHOUGH_LARGE:
        return
    if recipe.role == "teacher":
        result = finetune_teacher(recipe, options=options)
    else:
        result = train_student(recipe, teacher=teacher, options=options)
    assert sum(type(event).__name__ == "StepDone" for event in steps) == 1
    run = RunFolder(result.run)
    assert (run.status, result.epochs, run.result()["params"]) == ("finished", 1, tried.params)
    (metrics,) = run.metrics()
    assert {"train_loss", "train_top1"} <= set(metrics)
    assert ("val_top1" in metrics) == (recipe.data.val_fraction > 0)
    assert ("train_kd" in metrics) == (recipe.objective.kind == "kd")
    json.dumps(metrics, allow_nan=False)
    shutil.rmtree(run.path)  # pytest would keep half a gigabyte for three sessions


# What a header promises


def _header(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]
    return "\n".join(comments)


def _commands(header: str) -> list[list[str]]:
    """The commands a header quotes: punctuation, a bracket or two spaces end one, a backslash continues it."""
    joined = re.sub(r"\s*\\\n#\s*", " ", header)
    apart = re.sub(r"[,;.](?=\s|$)", "  ", joined)
    names = "quickstart|teacher-finetune|student|sweep|models|compare"
    return [command.split() for command in re.findall(rf"\bdistill ((?:{names})(?: [^\s(]\S*)*)", apart)]


def _parse(args: list[str]) -> dict[str, Any]:
    group = get_command(app)
    context = group.make_context("distill", list(args))
    name, command, rest = group.resolve_command(context, list(args))
    return command.make_context(name, rest, parent=context).params


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_header_has_a_purpose_a_command_and_what_to_expect(path: Path) -> None:
    header = _header(path)
    assert re.match(r"# [A-Z\w].{20,}", header), "the first line says what the recipe is for"
    assert re.search(r"^# Run: +distill ", header, re.MULTILINE)
    assert re.search(r"^# (Expect: +\S|Published: +\S.*Ours: +\S)", header, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_commands_of_a_header_are_right(path: Path) -> None:
    commands = _commands(_header(path))
    assert commands
    for args in commands:
        given = _parse(args)
        name = given.get("recipe") or given.get("name")
        if name is None:
            continue
        load_recipe(name, given.get("changes") or [])
        grids = [entry.split("=", 1) for entry in given.get("grid") or []]
        ranges = [entry.split("=", 1) for entry in given.get("search") or []]
        tried = [f"{key}={value}" for key, values in grids for value in values.split(",")]
        tried += [f"{key}={value}" for key, bounds in ranges for value in bounds.split(":")[:2]]
        for change in tried:
            load_recipe(name, [change])


def test_the_commands_are_found() -> None:
    header = "# Run:    distill quickstart            (all three), or: distill student --recipe a\n"
    header += "# Grid: distill sweep --recipe b \\\n#         --grid x=1,2   (c)\n# Layers: distill models c; again.\n"
    assert _commands(header) == [
        ["quickstart"],
        ["student", "--recipe", "a"],
        ["sweep", "--recipe", "b", "--grid", "x=1,2"],
        ["models", "c"],
    ]
