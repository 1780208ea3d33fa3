"""A student says first whom it learns from, and warns where that is hardly better than guessing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from distill.events import Event, Note, RunStarted
from distill.pipeline import Options, RunResult, train_student
from distill.pipeline.introduce import is_guessing
from distill.runs import RunFolder


@pytest.fixture
def said(student_recipe, tmp_path: Path) -> Callable[..., list[Note]]:
    """What a student of a teacher says before it trains."""

    def train(*overrides: str, teacher: Path | None) -> list[Note]:
        seen: list[Event] = []
        options = Options(runs_dir=tmp_path / "runs", threads=1, on_event=seen.append)
        recipe = student_recipe("train.epochs=1", *overrides)
        train_student(recipe, teacher=None if teacher is None else str(teacher), options=options)
        begun = next(place for place, event in enumerate(seen) if isinstance(event, RunStarted))
        return [event for event in seen[:begun] if isinstance(event, Note)]

    return train


def _copy(teacher: Path, target: Path, *, val_top1: float | None) -> Path:
    shutil.copytree(teacher, target, symlinks=True, ignore=shutil.ignore_patterns("banks"))
    run = RunFolder(target)
    run.write_result(run.result() | {"val_top1": val_top1})
    return target


@pytest.mark.parametrize("logits", ["live", "bank"])
def test_the_first_line_is_the_teacher(said, teacher_run: RunResult, logits: str) -> None:
    run = RunFolder(teacher_run.run)
    notes = said(f"teacher.logits={logits}", "augment.view_seed=41", teacher=run.path)
    top1 = 100 * run.metrics()[run.result()["best_epoch"] - 1]["val_top1"]
    first = notes[0].message
    assert first.startswith(f"teacher: {run.path} (validation top-1 {top1:.2f} %, weights ")
    assert first.endswith(f"{_weights(run)[:12]})")


def _weights(run: RunFolder) -> str:
    import torch

    from distill.fingerprint import state_sha256
    from distill.models.trained import load_trained

    return state_sha256(load_trained(run, device=torch.device("cpu")).module.state_dict())


@pytest.mark.parametrize(("val_top1", "warns"), [(0.07, True), (0.10, True), (0.76, False), (None, False)])
def test_a_teacher_that_guesses_earns_a_warning(
    said, teacher_run: RunResult, tmp_path: Path, val_top1: float | None, warns: bool
) -> None:
    teacher = _copy(teacher_run.run, tmp_path / "poor" / "001", val_top1=val_top1)
    notes = said("teacher.logits=live", teacher=teacher)
    assert val_top1 is not None or "(not validated, weights " in notes[0].message
    warnings = [note.message for note in notes if note.level == "warning"]
    assert warnings == [f"{teacher} is hardly better than guessing: chance is 10.00 %"] * warns


def test_a_bank_tells_what_its_teacher_was_worth(said, teacher_run: RunResult, tmp_path: Path) -> None:
    teacher = _copy(teacher_run.run, tmp_path / "poor" / "001", val_top1=0.11)
    said("teacher.logits=bank", teacher=teacher)
    (bank,) = (teacher / "banks").iterdir()
    notes = said(f"teacher={{bank: '{bank}'}}", teacher=None)
    name = f"tiny_teacher, stored in {bank}"
    assert notes[0].message.startswith(f"teacher: {name} (validation top-1 11.00 %, weights ")
    assert [note.message for note in notes if note.level == "warning"] == [
        f"{name} is hardly better than guessing: chance is 10.00 %"
    ]


@pytest.mark.parametrize(("classes", "images"), [(2, 100), (10, 15), (10, 5000), (1000, 50_000)])
def test_guessing_is_told_from_knowing(classes: int, images: int) -> None:
    """Nearly all who guess are told so; who knows twice what chance gives, of enough images, is not."""
    guesses = np.random.default_rng(0).binomial(images, 1 / classes, 2000) / images
    assert np.mean([is_guessing(each, classes=classes, images=images) for each in guesses]) > 0.985
    assert not is_guessing(1.0, classes=classes, images=images)
    assert not is_guessing(0.5 / classes, classes=classes, images=0)  # of how many images it was, nobody knows
    assert images < 100 or not is_guessing(min(2.0 / classes, 0.9), classes=classes, images=images)
