"""A folder of one's own that changes after a run: what is carved from it now may hold what the run learned from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from distill.certificate import write_kit
from distill.cli import app
from distill.comparison import compare
from distill.errors import DataError
from distill.evaluation.corruptions import measure_corruptions
from distill.evaluation.target import evaluation_target
from distill.models.onnx_open import open_onnx
from distill.pipeline import Options, evaluate_run, export, finetune_teacher, quantize, train_student
from distill.pipeline.prune import prune
from distill.recipe import Recipe
from distill.results.corruptions import CorruptionResult
from distill.runs import RunFolder

CLASSES = ("cat", "dog", "owl")


def _picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three classes of twenty pictures, without folders for the parts."""
    for number in range(60):
        _picture(tmp_path / "photos" / CLASSES[number % 3] / f"{number:03d}.png", number)
    return tmp_path / "photos"


@pytest.fixture
def recipe(teacher_recipe: Callable[..., Recipe], photos: Path) -> Recipe:
    data = f"data={{name: folder, root: '{photos}', image_size: 16, val_fraction: 0.2}}"
    return teacher_recipe("name=mine", "train.epochs=1", "model.input_size=16", data)


@pytest.fixture
def parted(recipe: Recipe, tmp_path: Path) -> Recipe:
    """The recipe of such pictures in ``parted/train`` and ``parted/test``."""
    for number in range(60):
        part = "test" if number % 5 == 0 else "train"
        _picture(tmp_path / "parted" / part / CLASSES[number % 3] / f"{number:03d}.png", number)
    data = recipe.data.model_copy(update={"root": str(tmp_path / "parted")})
    return recipe.model_copy(update={"data": data})


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(runs_dir=tmp_path / "runs", threads=1)


def test_nothing_is_asked_about_images_that_may_have_taught_it(
    recipe: Recipe, photos: Path, options: Options, tmp_path: Path
) -> None:
    run = finetune_teacher(recipe, options=options).run
    file = export(run, out=tmp_path / "mine.onnx", options=options).file
    (photos / "cat" / "000.png").unlink()  # every later one of its class moves up
    for asked in (
        lambda: compare([run], latency=False),
        lambda: evaluate_run(run, options=options),
        lambda: evaluate_run(run, split="val", options=options),
        lambda: compare([file], latency=False),
        lambda: quantize(run, out=tmp_path / "int8.onnx", options=options),
        lambda: prune(run, macs=0.5, train=False, options=options),
        lambda: measure_corruptions(evaluation_target(RunFolder(run)), images=4),
        lambda: measure_corruptions(evaluation_target(open_onnx(file)), images=4),
        lambda: write_kit(file, tmp_path / "kit", images=5, options=options),
    ):
        with pytest.raises(DataError, match="drawn anew from what is there now") as caught:
            asked()
        assert "restore the images" in (caught.value.hint or "")
    assert not (tmp_path / "int8.onnx").exists()
    assert not (tmp_path / "kit").exists()
    _picture(photos / "cat" / "000.png", 0)
    assert compare([run], latency=False).rows[0].test_images == 12


def test_what_was_answered_before_stands_and_is_said(recipe: Recipe, photos: Path, options: Options) -> None:
    run = finetune_teacher(recipe, options=options).run
    before = compare([run], latency=False)
    _picture(photos / "owl" / "0000.png", 99)
    after = compare([run], latency=False)
    assert after.rows[0].test_top1 == before.rows[0].test_top1
    assert [note for note in after.notes if note.startswith(f"{run}: the test images in ") and "changed since" in note]
    assert not [note for note in before.notes if "changed since" in note]
    again = CliRunner().invoke(app, ["evaluate", str(run), "--again", "--quiet"])
    assert again.exit_code == 1
    assert len([line for line in again.stderr.splitlines() if line.startswith("error")]) == 1
    assert compare([run], latency=False).rows[0].test_top1 == before.rows[0].test_top1  # nothing was lost


def test_what_was_found_on_corrupted_images_before_stands(recipe: Recipe, photos: Path, options: Options) -> None:
    run = finetune_teacher(recipe, options=options).run

    def found(again: bool = False) -> CorruptionResult | None:
        asked = {"corruptions": True, "corruption_images": 4, "again": again, "plots": False}
        return evaluate_run(run, options=options, **asked).corruptions

    before = found()
    (photos / "cat" / "000.png").unlink()
    assert found() == before
    with pytest.raises(DataError, match="drawn anew"):
        found(again=True)


def test_other_classes_are_not_packed_or_asked_about(parted: Recipe, tmp_path: Path, options: Options) -> None:
    run = finetune_teacher(parted, options=options).run
    file = export(run, out=tmp_path / "mine.onnx", options=options).file
    for part in ("train", "test"):
        for number in range(2):
            _picture(tmp_path / "parted" / part / "ant" / f"{number}.png", number)  # sorted before all others
    for asked in (
        lambda: write_kit(file, tmp_path / "kit", images=5, options=options),
        lambda: measure_corruptions(evaluation_target(RunFolder(run)), images=4),
    ):
        with pytest.raises(DataError, match=r"the classes are not those that .* was trained on"):
            asked()
    assert not (tmp_path / "kit").exists()


@pytest.mark.parametrize("share", [None, 0.7])
def test_a_student_is_told_of_a_teacher_of_before(
    recipe: Recipe, student_recipe: Callable[..., Recipe], photos: Path, options: Options, share: float | None
) -> None:
    """Whether it learns from pictures without labels, too, or not."""
    teacher = finetune_teacher(recipe, options=options).run
    more = {} if share is None else {"unlabelled": str(photos), "unlabelled_share": share}
    data = recipe.data.model_copy(update=more)
    student = student_recipe("train.epochs=1", "model.input_size=16").model_copy(update={"data": data})
    here = train_student(student, teacher=str(teacher), options=options).run
    assert not [note for note in compare([here], latency=False).notes if "was trained when other images" in note]
    (photos / "dog" / "001.png").unlink()
    there = train_student(student, teacher=str(teacher), options=options).run
    (note,) = [note for note in compare([there], latency=False).notes if "was trained when other images" in note]
    assert "the validation and test images, which are drawn anew" in note


def test_test_images_in_a_folder_of_their_own_may_change(parted: Recipe, tmp_path: Path, options: Options) -> None:
    run = finetune_teacher(parted, options=options).run
    assert compare([run], latency=False).rows[0].test_images == 12
    _picture(tmp_path / "parted" / "test" / "owl" / "0000.png", 99)
    assert compare([run], latency=False).rows[0].test_images == 13
    (tmp_path / "parted" / "train" / "owl" / "002.png").unlink()
    assert compare([run], latency=False).rows[0].test_images == 13
    with pytest.raises(DataError, match="its validation images are drawn anew"):
        evaluate_run(run, split="val", options=options)
