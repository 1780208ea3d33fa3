"""``data.image_size: auto``: what is taken, what is said, and that teacher and student agree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill.events import Event, Note, silent
from distill.pipeline import Options, build_bank, build_banks, dry_run, export, finetune_teacher, train_student
from distill.pipeline.context import prepare
from distill.pipeline.image_size import resolve_image_size
from distill.recipe import Recipe, parse_recipe
from distill.runs import RunFolder
from distill.sweeps import sweep

TEACHER = """
schema_version: 1
name: big
role: teacher
data: {name: folder, root: ROOT, val_fraction: 0.2}
model: {source: teachers, name: tiny, input_size: 16}
optim: {name: sgd, lr: 0.05}
train: {epochs: 1, batch_size: 16}
"""
STUDENT = TEACHER.replace("big", "small").replace("role: teacher", "role: student").replace("teachers", "students") + (
    "teacher: {run: big}\nobjective: {kind: kd, ce_weight: 0.5, kd_weight: 0.5, temperature: 2.0}\n"
)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twenty pictures of 40 x 60 pixels in two class folders."""
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{number}.png")
    return tmp_path / "photos"


def _recipe(text: str, photos: Path, *overrides: str) -> Recipe:
    return parse_recipe(text.replace("ROOT", str(photos)), source="test", overrides=overrides)


def _prepared(recipe: Recipe, **options: object) -> tuple[int, int, list[str]]:
    """The size in the resolved recipe, the size of the images, and what was told."""
    told: list[Event] = []
    context = prepare(recipe, Options(device="cpu", on_event=told.append, **options))
    assert context.splits is not None
    notes = [f"{each.level}: {each.message}" for each in told if isinstance(each, Note)]
    return context.recipe.data.image_size, context.splits.train.image_size, notes


def test_pictures_are_kept_at_what_the_model_takes(photos: Path) -> None:
    resolved, side, notes = _prepared(_recipe(TEACHER, photos))
    assert (resolved, side) == (16, 16)
    (said,) = [note for note in notes if "data.image_size" in note]
    assert "pictures of 40 pixels (the shorter side, median) are kept at 16, what the model takes" in said
    assert "20 images" in said
    assert not [note for note in notes if note.startswith("warning: pictures")]


def test_pictures_smaller_than_what_the_model_takes_are_kept_as_they_are_with_a_warning(photos: Path) -> None:
    resolved, side, notes = _prepared(_recipe(TEACHER, photos, "model.input_size=64"))
    assert (resolved, side) == (40, 40)
    assert "warning: pictures of 40 pixels are enlarged to the 64 that the model takes" in notes


def test_a_stored_size_below_both_is_a_loss_and_said_to_be(photos: Path) -> None:
    resolved, _, notes = _prepared(_recipe(TEACHER, photos, "data.image_size=8"))
    assert resolved == 8
    (said,) = [note for note in notes if "detail is lost" in note]
    assert said.startswith("warning: pictures of 40 pixels are kept at 8 and enlarged to 16")
    assert "--set data.image_size=16" in said


def test_a_stored_size_a_little_below_is_no_loss_to_speak_of(photos: Path) -> None:
    resolved, _, notes = _prepared(_recipe(TEACHER, photos, "data.image_size=34", "model.input_size=64"))
    assert resolved == 34
    assert not [note for note in notes if note.startswith("warning: pictures")]


def test_data_sets_that_come_by_name_keep_their_own_size() -> None:
    text = TEACHER.replace("{name: folder, root: ROOT, val_fraction: 0.2}", "{name: synthetic, limit: 40}")
    resolved, side, notes = _prepared(parse_recipe(text, source="test"))
    assert (resolved, side) == (32, 32)
    assert not [note for note in notes if "image_size" in note]


def test_a_student_keeps_images_as_its_teacher_does(photos: Path, tmp_path: Path) -> None:
    options = Options(runs_dir=tmp_path / "runs", device="cpu", threads=1)
    finetune_teacher(_recipe(TEACHER, photos, "model.input_size=24"), options=options)
    told: list[Event] = []
    options = Options(runs_dir=tmp_path / "runs", device="cpu", threads=1, on_event=told.append)
    result = train_student(_recipe(STUDENT, photos), options=options)
    text = (result.run / "recipe.yaml").read_text()
    assert "image_size: 24" in text
    assert any("kept at 24, as its teacher's" in each.message for each in told if isinstance(each, Note))


def test_several_teachers_are_asked_about_images_of_one_size(photos: Path, tmp_path: Path) -> None:
    """Of the largest of them; a bank that is named by its path has the size that it has."""
    options = Options(runs_dir=tmp_path / "runs", device="cpu", threads=1)
    small, large = (
        finetune_teacher(_recipe(TEACHER, photos, f"model.input_size={side}"), options=options).run for side in (24, 32)
    )
    both = train_student(_recipe(STUDENT, photos), teacher=[str(small), str(large)], options=options)
    assert RunFolder(both.run).recipe().data.image_size == 32
    built = build_banks(_recipe(STUDENT, photos), teacher=[str(small), str(large)], options=options)
    assert [bank.image_size for bank in built] == [32, 32]
    assert [len(list((run / "banks").iterdir())) for run in (small, large)] == [1, 1], "the student's own"
    stored = build_bank(_recipe(STUDENT, photos), teacher=str(small), options=options)
    mixed = f"teacher={{banks: [{{run: {large}}}, {{path: {stored.path}}}]}}"
    assert [bank.image_size for bank in build_banks(_recipe(STUDENT, photos, mixed), options=options)] == [24]
    told: list[Event] = []
    dry_run(_recipe(STUDENT, photos), teacher=[str(small), str(large)], options=replace(options, on_event=told.append))
    assert [event for event in told if isinstance(event, Note) and "are kept at 32" in event.message]
    assert RunFolder(train_student(_recipe(STUDENT, photos, mixed), options=options).run).recipe().data.image_size == 24


def test_a_file_of_distills_own_says_its_size(photos: Path, tmp_path: Path) -> None:
    options = Options(runs_dir=tmp_path / "runs", device="cpu", threads=1)
    teacher = finetune_teacher(_recipe(TEACHER, photos, "model.input_size=24"), options=options)
    file = export(teacher, out=tmp_path / "big.onnx", options=options).file
    recipe = _recipe(STUDENT.replace("{run: big}", f"{{onnx: {file}}}"), photos)
    assert resolve_image_size(recipe, runs_dir=Path("runs"), tell=silent).data.image_size == 24


@pytest.mark.parametrize(("said", "kept"), [("input: {size: 24}", 24), ("classes: [cat, dog]", 16)])
def test_a_file_that_teaches_is_given_images_of_the_size_it_states(photos: Path, said: str, kept: int) -> None:
    """Where the recipe states none, of the size that the student takes."""
    recipe = _recipe(STUDENT.replace("{run: big}", f"{{onnx: other.onnx, {said}}}"), photos)
    settled = resolve_image_size(recipe, runs_dir=Path("runs"), tell=silent)
    assert settled.data.image_size == kept


def test_trials_of_a_sweep_keep_images_at_the_size_that_each_alone_would(photos: Path, tmp_path: Path) -> None:
    """Pictures of 40 pixels: one network takes 16 of them, the other would like 64."""
    recipe = _recipe(TEACHER, photos)
    report = sweep(recipe, grid=["model.input_size=16,64"], options=Options(runs_dir=tmp_path / "runs", threads=1))
    kept = {row.params["model.input_size"]: RunFolder(Path(row.run)).recipe().data.image_size for row in report.trials}
    assert kept == {16: 16, 64: 40}


def test_a_sweep_settles_the_size_once_by_the_teacher_that_teaches(photos: Path, tmp_path: Path) -> None:
    """Named instead of the recipe's own, which nobody trained here, it is asked from the first look on."""
    told: list[str] = []
    options = Options(
        runs_dir=tmp_path / "runs", threads=1, on_event=lambda event: told.append(getattr(event, "message", ""))
    )
    teacher = finetune_teacher(_recipe(TEACHER, photos, "data.image_size=24", "name=other"), options=options)
    told.clear()
    report = sweep(_recipe(STUDENT, photos), grid=["optim.lr=0.05,0.1"], teacher=str(teacher.run), options=options)
    assert [RunFolder(Path(row.run)).recipe().data.image_size for row in report.trials] == [24, 24]
    (said,) = [text for text in told if text.startswith("data.image_size: auto")]
    assert "are kept at 24, as its teacher's" in said
