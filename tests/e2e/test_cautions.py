"""What flatters a run is said in one line: where it starts, and what its teacher has seen."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.comparison import compare
from distill.data import datasets
from distill.data.folder import folder_classes, load_folder
from distill.data.splits import load_splits
from distill.events import Event, Note
from distill.pipeline import Options, build_bank, export, finetune_teacher, train_student
from distill.recipe import Recipe
from distill.runs import RunFolder

SHORT = ("train.epochs=1", "model={source: students, name: tiny}")


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def options(tmp_path: Path, told: list[Event]) -> Options:
    return Options(runs_dir=tmp_path / "runs", threads=1, on_event=told.append)


@pytest.fixture
def teach(teacher_recipe: Callable[..., Recipe], options: Options) -> Callable[..., RunFolder]:
    return lambda *overrides: RunFolder(finetune_teacher(teacher_recipe(*SHORT, *overrides), options=options).run)


@pytest.fixture
def learn(student_recipe: Callable[..., Recipe], options: Options) -> Callable[..., RunFolder]:
    def run(*overrides: str, teacher: RunFolder | None = None) -> RunFolder:
        path = None if teacher is None else str(teacher.path)
        return RunFolder(train_student(student_recipe(*SHORT, *overrides), teacher=path, options=options).run)

    return run


def _began_with(run: RunFolder) -> str:
    return run.info.extra["initial_sha256"]


def _warnings(told: list[Event], about: str) -> list[str]:
    notes = [event for event in told if isinstance(event, Note) and about in event.message]
    assert all(note.level == "warning" for note in notes)
    return [note.message for note in notes]


# Where it starts


def test_a_student_of_its_teachers_network_starts_elsewhere_and_taught_or_not_from_the_same(
    teach, learn, told: list[Event]
) -> None:
    teacher = teach()
    taught, alone = learn(teacher=teacher), learn("objective.kind=supervised", "name=alone")
    baseline = learn("objective.kind=supervised", "name=base", "role=baseline")
    assert _began_with(taught) == _began_with(alone) == _began_with(baseline)
    assert _began_with(taught) != _began_with(teacher)
    assert _warnings(told, "no independent start") == []


def test_a_teacher_of_another_role_that_began_with_the_same_weights_is_told(learn, told: list[Event]) -> None:
    """A student that was born first, and teaches one of its own kind."""
    first = learn("objective.kind=supervised", "name=first")
    again = learn(teacher=first)
    (said,) = _warnings(told, "no independent start")
    assert f"the very weights that its teacher {first.path} began with" in said
    assert again.info.extra["cautions"] == [said]
    assert f"warning: {said}" in (again.path / "run.log").read_text()
    told.clear()
    assert "cautions" not in learn("train.seed=1", teacher=first).info.extra
    assert _warnings(told, "no independent start") == []


# What its teacher has seen


def test_a_teacher_that_saw_the_validation_images_is_told(teach, learn, told: list[Event]) -> None:
    """Counted by hand: which of the student's validation images the other split trains on."""
    teacher = teach("data.split_seed=5")
    run = learn(teacher=teacher)
    (said,) = _warnings(told, "validation flatters")
    ours, theirs = (load_splits(each.recipe().data) for each in (run, teacher))
    pixels = {image.tobytes() for image in theirs.train.take(slice(None))}
    seen = sum(image.tobytes() in pixels for image in ours.val.take(slice(None)))
    assert seen > 0
    assert f"was trained on {seen} of the {len(ours.val)} images that validate it" in said
    assert run.info.extra["cautions"] == [said]
    assert f"tiny_student: {said}" in compare([run.path], latency=False).notes


def test_so_is_a_file_of_such_a_teacher(teach, learn, options, told: list[Event], tmp_path: Path) -> None:
    """It says what its run was trained on; the run with its own split tells nothing."""
    teacher = teach("data.split_seed=5")
    learn(teacher=teacher)
    (of_run,) = _warnings(told, "validation flatters")
    told.clear()
    file = export(teacher, out=tmp_path / "teacher.onnx", options=options).file
    learn(f"teacher={{onnx: {file}}}")
    assert _warnings(told, "validation flatters") == [of_run.replace(str(teacher.path), str(file))]
    told.clear()
    learn(f"teacher={{onnx: {file}}}", "data.split_seed=5")
    assert _warnings(told, "validation flatters") == []


@pytest.mark.parametrize("split", ["data.val_fraction=0.3", "data.val_fraction=0", "data.limit=100"])
def test_whatever_makes_it_another_split(teach, learn, told: list[Event], split: str) -> None:
    """A larger fraction of the same seed, no validation at all, or other images to draw from."""
    learn("data.split_seed=1", teacher=teach(split))
    assert len(_warnings(told, "validation flatters")) == 1


def test_of_a_teacher_with_the_same_split_nothing_is_told(teach, learn, told: list[Event]) -> None:
    learn(teacher=teach("data.test_limit=30"))
    assert _warnings(told, "validation flatters") == []


def test_images_kept_at_another_size_are_the_same_images(teach, learn, told: list[Event]) -> None:
    learn(teacher=teach("data.split_seed=5", "data.image_size=16"))
    assert len(_warnings(told, "validation flatters")) == 1


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two data sets of pictures, ours and theirs; those of Hugging Face read as folders: its library may be absent."""
    as_folder = {"hf": lambda spec, tell: load_folder(spec.model_copy(update={"name": "folder"}), tell)}
    monkeypatch.setattr(datasets, "LOADERS", datasets.LOADERS | as_folder)
    monkeypatch.setattr(datasets, "_COUNTED", {"hf": folder_classes})
    random = np.random.default_rng(0)
    for place, label in itertools.product(("ours", "theirs"), ("ant", "bee")):
        (folder := tmp_path / "pictures" / place / label).mkdir(parents=True)
        for number in range(20):
            pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return tmp_path / "pictures"


@pytest.mark.parametrize("name", ["folder", "hf"])
def test_images_of_another_place_are_others_at_any_size(
    name: str, places: Path, teach, learn, told: list[Event]
) -> None:
    def data(place: str, side: int, seed: int) -> str:
        return f"data={{name: {name}, root: '{places / place}', image_size: {side}, split_seed: {seed}}}"

    other, same = teach(data("theirs", 40, 5)), teach(data("ours", 40, 5), "name=same")
    learn(data("ours", 32, 0), teacher=other)
    assert _warnings(told, "validation flatters") == []
    learn(data("ours", 32, 0), teacher=same)
    assert len(_warnings(told, "validation flatters")) == 1


def test_a_test_image_that_is_trained_on_is_told_and_stays_with_the_run(places: Path, learn, told: list[Event]) -> None:
    root = places / "ours"
    for label in ("ant", "bee"):
        (root / "test" / label).mkdir(parents=True)
        (root / "train").mkdir(exist_ok=True)
        (root / label).rename(root / "train" / label)
        (places / "theirs" / label / "00.png").rename(root / "test" / label / "00.png")
    shutil.copy(root / "train" / "ant" / "07.png", root / "test" / "ant" / "01.png")
    data = f"data={{name: folder, root: '{root}', image_size: 32, val_fraction: 0.0}}"
    run = learn(data, "objective.kind=supervised", "role=baseline")
    (said,) = _warnings(told, "trained on, too")
    assert said.startswith(
        "1 of the 3 test images is trained on, too (test/ant/01.png is the same picture as train/ant/07"
    )
    assert run.info.extra["cautions"] == [said]
    assert any(said in note for note in compare([run]).notes)


def test_a_teacher_far_away_is_known_by_its_bank(teach, student_recipe, options, told: list[Event], tmp_path) -> None:
    teacher = teach("data.split_seed=5")
    bank = build_bank(student_recipe(*SHORT), teacher=str(teacher.path), path=tmp_path / "bank", options=options).path
    train_student(student_recipe(*SHORT, f"teacher={{bank: '{bank}'}}"), options=options)
    (said,) = _warnings(told, "validation flatters")
    assert f"its teacher tiny_teacher of {bank} was trained on" in said
